"""Predicted changes projected on the space group of the input.

A DFT relaxation that keeps symmetry can only change what the space group leaves free. The
projection is the average of a change over all operations of the group: of the metric tensor for the
cell, of the vectors that the operations carry into each other for the sites.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.core import Geometry
from benchmarks.metrics.geometry import cell_parameters, invariant
from benchmarks.symmetry import symmetry_dataset
from t2relax.codec import Delta, standard_lattice

Floats = NDArray[np.float64]


class SpaceGroup(NamedTuple):
    """The operations of a crystal, on columns of fractional coordinates of its own cell."""

    rotations: Floats
    """(n_operations, 3, 3)."""
    images: NDArray[np.intp]
    """(n_operations, n_sites) the site onto which each site is carried."""


def space_group(geometry: Geometry, symprec: float) -> SpaceGroup | None:
    """All operations within a tolerance, or None where moyopy finds no consistent group.

    Args:
        geometry: the crystal.
        symprec: tolerance [Å].
    """
    dataset = symmetry_dataset(geometry, symprec)
    if dataset is None:
        return None
    operations = dataset.operations
    rotations = np.array(operations.rotations, dtype=np.float64)
    carried = np.einsum("gij,nj->gni", rotations, geometry.frac_coords)
    carried += np.array(operations.translations)[:, None]
    off = carried[:, :, None] - geometry.frac_coords
    distances = np.linalg.norm((off - np.round(off)) @ geometry.lattice, axis=-1)
    distances[:, (geometry.numbers[:, None] != geometry.numbers)] = np.inf
    return SpaceGroup(rotations, distances.argmin(axis=2))


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
