"""Projection of forces and stress on the initial space group: `benchmarks.run --keep-symmetry`.

A potential that is exactly symmetric keeps the symmetry of the initial structure except for
rounding. One that is not (trained without it, or in single precision over many steps) leaves the
saddle points to which symmetry holds a structure. DFT codes keep the symmetry, so that a comparison
with them may need it.

ASE's `FixSymmetry` does the same, but only for ASE's atoms. Here the results of the potential are
projected before the optimiser of an engine sees them, so that both engines keep the symmetry.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from ase.stress import voigt_6_to_full_3x3_stress
from numpy.typing import NDArray
from scipy.linalg import sqrtm

from benchmarks.core import Geometry
from benchmarks.core.geometry import invariant
from benchmarks.core.symmetry import space_group

Floats = NDArray[np.float64]

SYMPREC = 0.01
"""Tolerance of the symmetry search [Å], as for the metrics. A smaller asymmetry is not removed."""


class KeptSymmetry(NamedTuple):
    """The symmetry operations of the initial structure.

    They stay those of every later geometry, because a strain that the operations leave unchanged
    commutes with them.
    """

    rotations: Floats
    """(n_operations, 3, 3) orthogonal, on columns of Cartesian coordinates."""
    images: NDArray[np.intp]
    """(n_operations, n_sites) index of the site onto which each site is mapped."""

    @classmethod
    def of(cls, start: Geometry) -> KeptSymmetry | None:
        """Return the operations of `start`; None if no consistent space group is found."""
        group = space_group(start, SYMPREC)
        if group is None:
            return None
        # strain the cell by as little as makes it exactly as symmetric as it nearly is
        metric = invariant(start.lattice @ start.lattice.T, group.rotations)
        inverse = np.linalg.inv(start.lattice)
        cell = start.lattice @ np.real(sqrtm(inverse @ metric @ inverse.T))
        return cls(cell.T @ group.rotations @ np.linalg.inv(cell).T, group.images)

    def forces(self, forces: Floats) -> Floats:
        """Return the part of the forces, (n_sites, 3), that is invariant under all operations."""
        carried_back = np.einsum("gba,gnb->gna", self.rotations, forces[self.images])
        mean: Floats = carried_back.mean(axis=0)
        return mean

    def stress(self, stress: Floats) -> Floats:
        """Return the invariant part, (3, 3), of a stress, (3, 3) or six Voigt components."""
        full = stress if stress.shape == (3, 3) else voigt_6_to_full_3x3_stress(stress)
        mean: Floats = (self.rotations.transpose(0, 2, 1) @ full @ self.rotations).mean(axis=0)
        return mean
