"""Predicted changes projected on the space group of the input.

A DFT relaxation that keeps symmetry can only change what the space group leaves free. The
projection is the average of a change over all operations of the group: of the metric tensor for the
cell, of the vectors that the operations carry into each other for the sites.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.core import Geometry
from benchmarks.core.geometry import cell_parameters, invariant
from benchmarks.core.symmetry import SpaceGroup
from t2relax.text.codec import Delta, standard_lattice

Floats = NDArray[np.float64]


def project(initial: Geometry, delta: Delta, group: SpaceGroup) -> Delta:
    """The part of a change that the group allows.

    Args:
        initial: the crystal that changes.
        delta: the change.
        group: of `initial`.

    Raises:
        CodecError: no cell has the changed parameters.
    """
    parameters = cell_parameters(initial.lattice)
    before, after = map(standard_lattice, (parameters, parameters + delta.cellpar))
    change = after @ after.T - before @ before.T
    metric = before @ before.T + invariant(change, group.rotations)
    moved = np.einsum("gij,nj->gni", group.rotations, delta.frac_coords)
    fracs = np.zeros_like(delta.frac_coords)
    np.add.at(fracs, group.images, moved)
    projected = cell_parameters(np.asarray(np.linalg.cholesky(metric), np.float64)) - parameters
    return Delta(projected, fracs / len(group.rotations))
