"""Forces and stress projected on the space group of the start: `benchmarks.run --keep-symmetry`.

A potential that is exactly symmetric keeps the symmetry of its start anyway, but for rounding; one
that is not (trained without it, or in single precision over many steps) falls off the saddle points
that symmetry holds a structure to. DFT codes keep it, so a comparison with them may want that.

ASE's `FixSymmetry` does the same for ASE's atoms alone, through steps as well as forces. Projected
before an engine's optimiser sees them, answers give steps that keep the symmetry in both engines.
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
"""Within which a start is symmetric [Å], as for the metrics. What is off by less stays off."""


class KeptSymmetry(NamedTuple):
    """The operations of a start, which those of every later geometry are, if it strains likewise.

    A strain that they leave alone commutes with them: they do not change on the way.
    """

    rotations: Floats
    """(n_operations, 3, 3) orthogonal, on columns of Cartesian coordinates."""
    images: NDArray[np.intp]
    """(n_operations, n_sites) the site onto which each site is carried."""

    @classmethod
    def of(cls, start: Geometry) -> KeptSymmetry | None:
        """That of a start; None where it has no consistent one."""
        group = space_group(start, SYMPREC)
        if group is None:
            return None
        cell = _symmetric(start.lattice, group.rotations)
        return cls(cell.T @ group.rotations @ np.linalg.inv(cell).T, group.images)

    def forces(self, said: Floats) -> Floats:
        """The part of the forces, (n_sites, 3), that all operations carry into itself."""
        carried_back = np.einsum("gba,gnb->gna", self.rotations, said[self.images])
        mean: Floats = carried_back.mean(axis=0)
        return mean

    def stress(self, said: Floats) -> Floats:
        """That of the stress, (3, 3) or the six components of Voigt; (3, 3)."""
        full = said if said.shape == (3, 3) else voigt_6_to_full_3x3_stress(said)
        mean: Floats = (self.rotations.transpose(0, 2, 1) @ full @ self.rotations).mean(axis=0)
        return mean


def _symmetric(lattice: Floats, rotations: Floats) -> Floats:
    """The cell, strained as little as makes it exactly as symmetric as it nearly is."""
    metric = invariant(lattice @ lattice.T, rotations)
    inverse = np.linalg.inv(lattice)
    strained: Floats = lattice @ np.real(sqrtm(inverse @ metric @ inverse.T))
    return strained
