"""Whether a model may have seen a sample in its training, as far as source and id tell.

What is asked is whether the sample's DFT relaxation can be in a training set. The ids of the
published sets are not at hand, so the answer for a database that a set was drawn from is "possibly"
(MPtrj is the Materials Project of September 2022: later materials cannot be told apart), and so it
is for a source that is none of the `DATABASES`, of which nothing is known.

"No" does not say that the compound is new to a model: a database that was not trained on holds many
compounds, in the same prototype, of one that was.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from benchmarks.core.geometry import elements
from benchmarks.core.training_data import TRAINING_SETS
from benchmarks.data.splits.manifest import split_of

DATABASES: Final = frozenset({"mp", "mvc", "agm", "oqmd", "wbm", "gpaw"})
"""Prefixes of ids that tell where a relaxation is from: Materials Project, Alexandria, OQMD, WBM
and this project's own."""


class Seen(StrEnum):
    """Whether a sample was seen in training. A sure yes would need the ids that were used."""

    NO = "no"
    POSSIBLY = "possibly"


def seen(training_data: Iterable[str], source: str, composition: str) -> Seen:
    """Whether a sample was seen by a model.

    Args:
        training_data: Names of what it was trained on, or looks up; one that is not in
            `TRAINING_SETS` may hold anything.
        source: Prefix of the sample's material id.
        composition: Its reduced composition.
    """
    possibly = any(_may_hold(name, source, composition) for name in training_data)
    return Seen.POSSIBLY if possibly else Seen.NO


def _may_hold(name: str, source: str, composition: str) -> bool:
    if name not in TRAINING_SETS:
        return True
    known = TRAINING_SETS[name]
    if known.split_by_our_rule and split_of(elements(composition)) != "train":
        return False
    return source in known.sources or source not in DATABASES


def drawn_from(training_data: Iterable[str], source: str) -> bool:
    """Whether one of these training sets was drawn from a source."""
    return any(source in TRAINING_SETS[x].sources for x in training_data if x in TRAINING_SETS)
