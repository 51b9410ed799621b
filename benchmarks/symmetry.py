"""The symmetry search, as metrics, splits and the relaxers share it."""

from __future__ import annotations

import logging
from typing import Any

from benchmarks.core import Geometry


def symmetry_dataset(geometry: Geometry, symprec: float) -> Any:
    """What moyopy finds, a `MoyoDataset` in the basis of the cell itself; None for no group.

    Args:
        geometry: A valid structure.
        symprec: Tolerance [Å].
    """
    from moyopy import Cell, MoyoDataset

    remarks = logging.getLogger("moyo")
    if not remarks.handlers:  # heard where logging is configured, and not printed otherwise
        remarks.addHandler(logging.NullHandler())
    cell = Cell(geometry.lattice.tolist(), geometry.frac_coords.tolist(), geometry.numbers.tolist())
    try:
        return MoyoDataset(cell, symprec=symprec)
    except ValueError:  # "primitive symmetry search failed": distorted beyond the tolerance's sense
        return None
