"""The validity ladder: what decides that a predicted structure is invalid.

Each rung requires all rungs before it. A prediction that fails one is not scored, whatever its
status says. Every user of the bounds, also a relaxer that looks at its own answer, takes them here.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from benchmarks.core import Geometry
from benchmarks.core.geometry import MIN_DISTANCE, is_compact, shortest_distance

LADDER: Final = (
    "valid_parsed",
    "valid_n_sites",
    "valid_composition",
    "valid_species_order",
    "valid_cell",
    "valid_distance",
)
"""The columns of the rungs, in order."""
VOLUME_BOUNDS: Final = (0.25, 4.0)
"""The volume of a valid prediction, relative to the initial cell, lies between these."""


def validity(initial: Geometry, prediction: Geometry | None) -> dict[str, float]:
    """Climb the validity ladder.

    A valid prediction was parsed; has as many sites as the initial structure, the same composition
    and the same species in the same order; has a finite cell of the same handedness whose volume
    is within `VOLUME_BOUNDS` and which is neither endless nor skewed beyond sense (`is_compact`);
    and has no two atoms within `MIN_DISTANCE`, images included.

    Args:
        initial: The structure that the relaxer was given.
        prediction: The structure that it returned; None if none could be parsed.

    Returns:
        1 or 0 for each rung of `LADDER`.
    """
    n_rungs = 0 if prediction is None else _count_rungs(initial, prediction)
    return {name: float(position < n_rungs) for position, name in enumerate(LADDER)}


def _count_rungs(initial: Geometry, prediction: Geometry) -> int:
    """Count the rungs that a parsed prediction climbs; a later check assumes the earlier ones."""
    if not len(prediction.numbers) == len(initial.numbers) == len(prediction.frac_coords):
        return 1
    if not np.array_equal(np.sort(prediction.numbers), np.sort(initial.numbers)):
        return 2
    if not np.array_equal(prediction.numbers, initial.numbers):
        return 3
    if not np.isfinite(prediction.lattice).all():
        return 4
    ratio = float(np.linalg.det(prediction.lattice) / np.linalg.det(initial.lattice))
    compact = bool(is_compact(prediction.lattice))
    if not (VOLUME_BOUNDS[0] < ratio < VOLUME_BOUNDS[1] and compact):
        return 4
    if not np.isfinite(prediction.frac_coords).all():
        return 5
    return 6 if shortest_distance(prediction) > MIN_DISTANCE else 5
