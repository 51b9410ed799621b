"""The symmetry search and the operations found, as metrics, splits and the relaxers share them."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.core import Geometry

Floats = NDArray[np.float64]


def symmetry_dataset(geometry: Geometry, symprec: float) -> Any:
    """Search the symmetry: a `MoyoDataset` in the basis of the cell itself, or None for no group.

    Args:
        geometry: A valid structure.
        symprec: Tolerance [Å].
    """
    from moyopy import Cell, MoyoDataset

    remarks = logging.getLogger("moyo")
    if not remarks.handlers:  # They are not printed unless the user configures logging.
        remarks.addHandler(logging.NullHandler())
    cell = Cell(geometry.lattice.tolist(), geometry.frac_coords.tolist(), geometry.numbers.tolist())
    try:
        return MoyoDataset(cell, symprec=symprec)
    except ValueError:  # "primitive symmetry search failed": distorted beyond the tolerance's sense
        return None
    except BaseException as error:
        if type(error).__name__ == "PanicException":  # Rust gave up, which is no Exception
            return None
        raise


class SpaceGroup(NamedTuple):
    """The operations of a crystal, on columns of fractional coordinates of its own cell."""

    rotations: Floats
    """(n_operations, 3, 3)."""
    translations: Floats
    """(n_operations, 3)."""
    images: NDArray[np.intp]
    """(n_operations, n_sites) the site onto which each site is carried."""

    def averaged(self, frac_coords: Floats) -> Floats:
        """Fractional coordinates (n_sites, 3) that the operations leave as they are.

        Each site moves to the mean of the places to which the operations carry it back from its
        images, of which the nearest periodic copy is taken.
        """
        back = frac_coords[self.images] - self.translations[:, None]
        back = np.einsum("gij,gnj->gni", np.linalg.inv(self.rotations), back)
        apart = back - frac_coords
        mean: Floats = frac_coords + (apart - apart.round()).mean(axis=0)
        return mean


def space_group(geometry: Geometry, symprec: float) -> SpaceGroup | None:
    """Find all operations within a tolerance; None where there is no consistent group.

    Args:
        geometry: The crystal.
        symprec: Tolerance [Å].
    """
    dataset = symmetry_dataset(geometry, symprec)
    if dataset is None:
        return None
    rotations = np.array(dataset.operations.rotations, dtype=np.float64)
    carried = np.einsum("gij,nj->gni", rotations, geometry.frac_coords)
    translations = np.array(dataset.operations.translations, dtype=np.float64)
    images = _nearest_sites(geometry, carried + translations[:, None])
    if not (np.sort(images) == np.arange(len(geometry.numbers))).all():
        return None  # at a tolerance so loose that two sites have one image
    return SpaceGroup(rotations, translations, images)


def _nearest_sites(geometry: Geometry, carried: Floats) -> NDArray[np.intp]:
    """Find the site of the same species nearest to each point.

    A tree is used because a supercell has thousands of operations. Distances are taken along the
    edges of the cell, in Å. This is wrong in a skewed cell, but not by so much that an atom 0.5 Å
    away is taken for one that is within the tolerance.
    """
    from scipy.spatial import cKDTree

    edges = np.linalg.norm(geometry.lattice, axis=1)
    species = np.broadcast_to(geometry.numbers * edges.max(), carried.shape[:-1])

    def points(frac_coords: Floats, last: Floats) -> Floats:
        wrapped = frac_coords % 1.0 % 1.0  # the first makes 1 of -1e-17
        return np.concatenate([wrapped * edges, last[..., None]], axis=-1)

    sites = cKDTree(points(geometry.frac_coords, species[0]), boxsize=[*edges, 0.0])
    found: NDArray[np.intp] = sites.query(points(carried, species))[1]
    return found
