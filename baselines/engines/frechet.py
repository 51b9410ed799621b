"""The Fréchet cell filter with L-BFGS and no line search: one evaluation of the potential a step.

The coordinates are those of ASE's `FrechetCellFilter`: the positions in the frame of the first
cell, and the logarithm of the deformation F (cell = first cell · Fᵀ). Two things differ, and
neither moves a minimum. The logarithm is kept symmetric, so that a cell strains but does not turn.
It is scaled by the square root of the number of atoms, not by the number: the curvature of the
energy against strain grows with the volume, so that cell and atoms are about equally stiff in
cells of any size.

L-BFGS is algorithm 7.4 of Nocedal & Wright, Numerical Optimization (2006). The arithmetic of one
structure does not depend on the structures that are relaxed beside it.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import expm

from baselines.engines.protocol import PotentialResult
from benchmarks.core import Geometry

Floats = NDArray[np.float64]

STIFFNESS = 30.0
"""The curvature that is assumed before the first step has shown any [eV/Å^2]."""
MAX_MOVE = 0.2
"""No atom moves farther in one step [Å]."""
MAX_STRAIN = 0.06
"""No component of the strain changes more in one step."""
MEMORY = 20
"""Number of past steps from which the curvature is estimated."""


class FrechetLBFGS:
    """A `GeometryOptimizer`: a geometry, and the curvature that its past steps have shown.

    Args:
        start: The initial geometry; its arrays are not changed.
    """

    def __init__(self, start: Geometry) -> None:
        self._first = start.lattice
        self._scale = np.sqrt(len(start.numbers))
        self._x = np.concatenate([start.frac_coords @ start.lattice, np.zeros((3, 3))])
        self._pairs: deque[tuple[Floats, Floats, float]] = deque(maxlen=MEMORY)
        self._last: tuple[Floats, Floats] | None = None
        self._place()

    def _place(self) -> None:
        """Set cell and positions from the coordinates."""
        self._log = self._x[-3:] / self._scale
        self._strain: Floats = expm(self._log)
        self.cell: Floats = self._first @ self._strain.T
        self.positions: Floats = self._x[:-3] @ self._strain.T

    def step(self, answer: PotentialResult) -> None:
        """Move by one limited quasi-Newton step; see `GeometryOptimizer`."""
        gradient = self._gradient(answer)
        if self._last is not None:
            moved, changed = self._x - self._last[0], gradient - self._last[1]
            curvature = float((moved * changed).sum())
            # only a step along which the energy is convex shows a curvature that can be used
            if curvature > 1e-3 * float((moved * moved).sum()):
                self._pairs.append((moved, changed, curvature))
        self._last = self._x, gradient
        move = -self._newton(gradient)
        farthest = float(np.linalg.norm(move[:-3], axis=1).max()) / MAX_MOVE
        most = float(np.abs(move[-3:]).max()) / self._scale / MAX_STRAIN
        self._x = self._x + move / max(farthest, most, 1.0)
        self._place()

    def _gradient(self, answer: PotentialResult) -> Floats:
        """Return the gradient of the energy by the coordinates, (n_sites + 3, 3) [eV/Å]."""
        of_atoms = -answer.forces @ self._strain
        volume = abs(np.linalg.det(self.cell))
        by_strain = volume * np.linalg.solve(self._strain, answer.stress).T
        # the derivative of the exponential stands in the corner of a larger one (Higham, Functions
        # of Matrices (2008), eq. 3.16); transposed, it takes a gradient by F to one by log F
        block = np.zeros((6, 6))
        block[:3, :3] = block[3:, 3:] = self._log.T
        block[:3, 3:] = by_strain
        by_log = expm(block)[:3, 3:]
        return np.concatenate([of_atoms, (by_log + by_log.T) / 2 / self._scale])

    def _newton(self, gradient: Floats) -> Floats:
        """Return the estimated inverse Hessian times the gradient."""
        direction, shares = gradient.copy(), []
        for moved, changed, curvature in reversed(self._pairs):
            shares.append((moved * direction).sum() / curvature)
            direction -= shares[-1] * changed
        stiffness = STIFFNESS
        if self._pairs:
            _, changed, curvature = self._pairs[-1]
            stiffness = float((changed * changed).sum()) / curvature
        direction /= stiffness
        for (moved, changed, curvature), share in zip(self._pairs, reversed(shares), strict=True):
            direction += moved * (share - (changed * direction).sum() / curvature)
        return direction
