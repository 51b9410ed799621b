"""Tell by source and id whether a model can have seen a sample in its training.

The question is whether the sample's DFT relaxation can be in a training set. The ids of the
published sets are not at hand. The answer is therefore "possibly" for every sample of a database
that a set was drawn from (MPtrj is the Materials Project of September 2022, and later materials
cannot be told apart). It is also "possibly" for a source that is none of the `DATABASES`, because
nothing is known about it.

"No" does not say that the compound is new to a model. A database that the model was not trained on
shares many compounds, in the same prototype, with one that it was trained on.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from benchmarks.core.geometry import elements
from benchmarks.core.training_data import TRAINING_SETS
from benchmarks.data.splits.manifest import split_of

DATABASES: Final = frozenset({"mp", "mvc", "agm", "oqmd", "wbm", "gpaw"})
"""Prefixes of ids that name the database of a relaxation: Materials Project, Alexandria, OQMD, WBM
and this project's own."""


class Seen(StrEnum):
    """The answer to whether a model has seen a sample in training.

    A certain "yes" would need the ids that the model was trained on.
    """

    NO = "no"
    POSSIBLY = "possibly"


def seen(training_data: Iterable[str], source: str, composition: str) -> Seen:
    """Tell whether a model can have seen a sample.

    Args:
        training_data: Names of the sets that the model was trained on, or looks values up in. A
            set that is not in `TRAINING_SETS` may hold any sample.
        source: Prefix of the sample's material id.
        composition: Its reduced composition.
    """
    for name in training_data:
        if name not in TRAINING_SETS:
            return Seen.POSSIBLY
        known = TRAINING_SETS[name]
        if known.split_by_our_rule and split_of(elements(composition)) != "train":
            continue
        if source in known.sources or source not in DATABASES:
            return Seen.POSSIBLY
    return Seen.NO


def drawn_from(training_data: Iterable[str], source: str) -> bool:
    """Tell whether one of these training sets was drawn from a source."""
    return any(source in TRAINING_SETS[x].sources for x in training_data if x in TRAINING_SETS)
