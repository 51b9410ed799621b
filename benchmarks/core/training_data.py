"""What models were trained on: sets by name, and which models can be compared on equal terms."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """What a model was trained on."""

    sources: frozenset[str]
    """Prefixes of the material ids of the databases that it was drawn from."""
    other_models: tuple[str, ...] = ()
    """Labels of models that were trained on it and that the registry does not have; those that it
    has say so themselves (`benchmarks.core.published_weights`)."""
    split_by_our_rule: bool = False
    """Whether it was made by the rule of `data.splits.manifest`, so that it holds only chemical
    systems that the rule puts into the training part."""
    lookup_table: bool = False
    """Whether it is a table of bond lengths or radii. A model that only looks values up in such a
    table has not been trained."""


_MP: Final = frozenset({"mp", "mvc"})
_AGM: Final = frozenset({"agm"})
TRAINING_SETS: Final[Mapping[str, TrainingSet]] = {
    "MPtrj (Materials Project)": TrainingSet(_MP),
    "MP-r2SCAN (Materials Project)": TrainingSet(_MP),
    "sAlex (Alexandria)": TrainingSet(_AGM),
    "OMat24": TrainingSet(_AGM),
    "MPF.2021.2.8 (Materials Project)": TrainingSet(_MP, ("M3GNet",)),
    "MatPES (Materials Project)": TrainingSet(_MP),
    "Materials Project bond lengths": TrainingSet(_MP, lookup_table=True),
    "substitution/train": TrainingSet(_MP | _AGM | {"oqmd", "wbm"}, split_by_our_rule=True),
    "embedded/train": TrainingSet(frozenset({"gpaw"}), split_by_our_rule=True),
    "embedded-v2/train": TrainingSet(frozenset({"gpaw"}), split_by_our_rule=True),
}
"""By the names that `training_data` of `ModelSpec` uses. The structures of OMat24 are
Alexandria's, rattled or heated."""


class Track(StrEnum):
    """What a comparison of two models says: of the models, or also of what they were trained on."""

    TRIVIAL = "trivial"
    """Not trained, or a table of radii or bond lengths."""
    EQUAL_DATA = "equal data"
    """Trained on relaxations that every model of this track could have had, and on nothing else."""
    FOUNDATION = "foundation"
    """Trained on more, by others."""
    UNKNOWN = "not stated"


def track(training_data: Collection[str]) -> Track:
    """Where a model belongs.

    Args:
        training_data: Names of what it was trained on; empty for nothing.
    """
    if any(name not in TRAINING_SETS for name in training_data):
        return Track.UNKNOWN
    learned = [known for name in training_data if not (known := TRAINING_SETS[name]).lookup_table]
    if not learned:
        return Track.TRIVIAL
    return (
        Track.EQUAL_DATA if all(known.split_by_our_rule for known in learned) else Track.FOUNDATION
    )
