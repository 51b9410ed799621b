"""An answer as the change of its initial structure, and back."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.core import Geometry
from benchmarks.core.geometry import strained

_TOLERANCE: Final = 2e-13
"""Largest error of an answer that was stored as a change; the metric of the cell is relative."""
_VOIGT: Final = ([0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1])


class Change(NamedTuple):
    """The difference between an initial structure and an answer with as many sites."""

    strain: NDArray[np.float64]
    """(6,) logarithmic strain: xx, yy, zz, yz, xz, xy of the symmetric matrix."""
    displacements: NDArray[np.float64]
    """(n_sites, 3) in fractional coordinates, not wrapped."""
    numbers: NDArray[np.int16] | None
    """(n_sites,) atomic numbers; None where they are those of the initial structure."""

    def applied(self, initial: Geometry) -> Geometry:
        """Give the answer, whose cell has the orientation of a pure strain of the initial cell."""
        strain = np.empty((3, 3))
        strain[_VOIGT] = strain[_VOIGT[::-1]] = self.strain
        lattice = strained(initial.lattice, strain) if strain.any() else initial.lattice
        numbers = initial.numbers if self.numbers is None else self.numbers
        return Geometry(lattice, initial.frac_coords + self.displacements, numbers)


def change(initial: Geometry, answer: Geometry) -> Change | None:
    """Find the change from the initial structure to an answer; a rotation of the cell is not kept.

    Args:
        initial: The initial structure.
        answer: The answer of a model for it, which may be nonsense.

    Returns:
        None where `applied` would not give lengths (relative), cosines of the angles and fractional
        coordinates back to 1e-12: another number of sites, a cell that is singular, of the other
        handedness or not finite, or numbers so large that their rounding errors are larger.
    """
    if answer.frac_coords.shape != initial.frac_coords.shape:
        return None
    if not (np.isfinite(answer.lattice).all() and np.isfinite(answer.frac_coords).all()):
        return None
    with np.errstate(all="ignore"):
        gradient = np.linalg.solve(initial.lattice, answer.lattice)
        strain = np.zeros((3, 3))
        if not np.array_equal(initial.lattice, answer.lattice):
            if not (np.isfinite(gradient).all() and np.linalg.det(gradient) > 0):
                return None
            # Row vectors: L = L_initial V R, where the stretch V is A S Aᵀ of the svd A S Bᵀ.
            axes, stretches, _ = np.linalg.svd(gradient)
            strain = (axes * np.log(stretches)) @ axes.T
        same = np.array_equal(initial.numbers, answer.numbers)
        found = Change(
            strain[_VOIGT],
            answer.frac_coords - initial.frac_coords,
            None if same else answer.numbers,
        )
        if not np.isfinite(found.strain).all():
            return None
        again = found.applied(initial)
        metric = answer.lattice @ answer.lattice.T
        lengths = np.sqrt(np.diagonal(metric))
        errors = (again.lattice @ again.lattice.T - metric) / lengths / lengths[:, None]
        # NaN and infinity are no small errors.
        close = np.abs(errors).max() <= _TOLERANCE
        moved = np.abs(again.frac_coords - answer.frac_coords).max(initial=0.0)
        return found if close and moved <= _TOLERANCE else None
