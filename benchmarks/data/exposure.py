"""Whether a model may have seen a sample in its training, as far as source and id tell.

What is asked is whether the sample's DFT relaxation can be in a training set. The ids of the
published sets are not at hand, so the answer for a database that a set was drawn from is "possibly"
(MPtrj is the Materials Project of September 2022: later materials cannot be told apart), and so it
is for a source that is none of the `DATABASES`, of which nothing is known.

"No" does not say that the compound is new to a model: a database that was not trained on holds many
compounds, in the same prototype, of one that was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from benchmarks.data.composition import elements
from benchmarks.data.splits import split_of


class Seen(StrEnum):
    """Whether a sample was seen in training. A sure yes would need the ids that were used."""

    NO = "no"
    POSSIBLY = "possibly"


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """What a model was trained on."""

    sources: frozenset[str]
    """Prefixes of the material ids of the databases that it was drawn from."""
    models: tuple[str, ...] = ()
    """Labels of published models that were trained on it."""
    ours: bool = False
    """Made by the rule of `benchmarks.data.splits`: only its chemical systems are in it."""


_MP: Final = frozenset({"mp", "mvc"})
_AGM: Final = frozenset({"agm"})
DATABASES: Final = _MP | _AGM | {"oqmd", "wbm", "gpaw"}
"""Prefixes of ids that tell where a relaxation is from: Materials Project, Alexandria, OQMD, WBM
and this project's own."""
TRAINING_SETS: Final[Mapping[str, TrainingSet]] = {
    "MPtrj (Materials Project)": TrainingSet(
        _MP,
        (
            "CHGNet 0.3.0",
            "CHGNet 0.2.0",
            "CHGNet r2SCAN",
            "MACE-MP-0",
            "MACE-MP-0 small",
            "MACE-MP-0 large",
            "SevenNet-0",
            "MACE-MPA-0",
        ),
    ),
    "MP-r2SCAN (Materials Project)": TrainingSet(_MP, ("CHGNet r2SCAN",)),
    "sAlex (Alexandria)": TrainingSet(_AGM, ("MACE-MPA-0",)),
    "OMat24": TrainingSet(_AGM, ("MACE-OMAT-0",)),
    "MPF.2021.2.8 (Materials Project)": TrainingSet(_MP, ("M3GNet",)),
    "MatPES (Materials Project)": TrainingSet(
        _MP,
        (
            "M3GNet MatPES-PBE",
            "TensorNet MatPES-PBE",
            "M3GNet MatPES-r2SCAN",
            "TensorNet MatPES-r2SCAN",
        ),
    ),
    "Materials Project bond lengths": TrainingSet(_MP),
    "substitution/train": TrainingSet(_MP | _AGM | {"oqmd", "wbm"}, ours=True),
    "embedded/train": TrainingSet(frozenset({"gpaw"}), ours=True),
}
"""By the names that `training_data` of `benchmarks.registry` uses. The structures of OMat24 are
Alexandria's, rattled or heated."""


def seen(training_data: Iterable[str], source: str, composition: str) -> Seen:
    """Whether a sample was seen by a model.

    Args:
        training_data: Names of what it was trained on; one that is not in `TRAINING_SETS` may hold
            anything.
        source: Prefix of the sample's material id.
        composition: Its reduced composition.
    """
    possibly = any(_may_hold(name, source, composition) for name in training_data)
    return Seen.POSSIBLY if possibly else Seen.NO


def _may_hold(name: str, source: str, composition: str) -> bool:
    if name not in TRAINING_SETS:
        return True
    known = TRAINING_SETS[name]
    if known.ours and split_of(elements(composition)) != "train":
        return False
    return source in known.sources or source not in DATABASES


def drawn_from(training_data: Iterable[str], source: str) -> bool:
    """Whether one of these training sets was drawn from a source."""
    return any(source in TRAINING_SETS[x].sources for x in training_data if x in TRAINING_SETS)
