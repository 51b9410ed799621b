"""The training sets by name, and the tracks in which models are compared on equal terms."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """A set of structures that models are trained on."""

    sources: frozenset[str]
    """The databases that it was drawn from, as prefixes of material ids."""
    other_models: tuple[str, ...] = ()
    """Labels of models that were trained on it and that the registry does not have; those that it
    has say so themselves (`benchmarks.core.published_weights`)."""
    split_by_our_rule: bool = False
    """True if the rule of `data.splits.manifest` made it, so that it holds only chemical systems
    that the rule puts into the training part."""
    lookup_table: bool = False
    """True for a table of bond lengths or radii. A model that only looks values up in such a table
    has not been trained."""


_MP: Final = frozenset({"mp", "mvc"})
_AGM: Final = frozenset({"agm"})
TRAINING_SETS: Final[Mapping[str, TrainingSet]] = {
    "MPtrj (Materials Project)": TrainingSet(_MP),
    "MP-r2SCAN (Materials Project)": TrainingSet(_MP),
    "sAlex (Alexandria)": TrainingSet(_AGM),
    "OMat24": TrainingSet(_AGM),
    "MPF.2021.2.8 (Materials Project)": TrainingSet(_MP),
    "MatPES (Materials Project)": TrainingSet(_MP),
    "Materials Project bond lengths": TrainingSet(_MP, lookup_table=True),
    "substitution/train": TrainingSet(_MP | _AGM | {"oqmd", "wbm"}, split_by_our_rule=True),
    "embedded/train": TrainingSet(frozenset({"gpaw"}), split_by_our_rule=True),
    "embedded-v2/train": TrainingSet(frozenset({"gpaw"}), split_by_our_rule=True),
    "embedded-v3/train": TrainingSet(frozenset({"gpaw"}), split_by_our_rule=True),
}
"""The training sets, by the names that `training_data` of `ModelSpec` uses. OMat24 has structures
of Alexandria, rattled or heated."""


class Track(StrEnum):
    """A class of models by the data that they were trained on.

    Within `EQUAL_DATA` a comparison tells about the models alone; across tracks it also tells
    about their data.
    """

    TRIVIAL = "trivial"
    """The model was not trained, or it is a table of radii or bond lengths."""
    EQUAL_DATA = "equal data"
    """The model was trained only on relaxations that every model of this track could use."""
    FOUNDATION = "foundation"
    """Others trained the model, on more data."""
    UNKNOWN = "not stated"


def track(training_data: Collection[str]) -> Track:
    """Find the track of a model.

    Args:
        training_data: The names of its training sets; none for a model that was not trained.
    """
    if any(name not in TRAINING_SETS for name in training_data):
        return Track.UNKNOWN
    learned = [known for name in training_data if not (known := TRAINING_SETS[name]).lookup_table]
    if not learned:
        return Track.TRIVIAL
    return (
        Track.EQUAL_DATA if all(known.split_by_our_rule for known in learned) else Track.FOUNDATION
    )
