"""The symmetry search and the operations found, as metrics, splits and the relaxers share them."""

from __future__ import annotations

import logging
from typing import Any, Final, NamedTuple

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


TOGETHER: Final = 0.15
"""Width [Å] of the half-normal distribution of the mean displacements that
`drawn_symmetric_displacements` draws."""
FARTHEST: Final = 0.3
"""The largest of these means [Å]."""


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

    def turns(self, lattice: Floats) -> Floats:
        """(n_operations, 3, 3) rotations, on rows of Cartesian vectors, in a lattice (3, 3)."""
        inverse = np.linalg.inv(lattice)
        return np.array([inverse @ each.T @ lattice for each in self.rotations])

    def symmetric_part(self, moves: Floats, turns: Floats, kept: NDArray[np.intp]) -> Floats:
        """The part of displacements that some of the operations leave as they are.

        Args:
            moves: (n_sites, 3) [Å].
            turns: What the method of this name gives.
            kept: The places of the operations, which are a group.

        Returns:
            Their mean over these operations (n_sites, 3) [Å].
        """
        total = np.zeros_like(moves)
        for i in kept:
            total[self.images[i]] += moves @ turns[i]
        return np.asarray(total / len(kept))


def drawn_symmetric_displacements(
    rng: np.random.Generator, geometry: Geometry, symprec: float = 0.1
) -> Floats:
    """Draw displacements of a crystal's sites that keep symmetries, without a common translation.

    One time in three they keep all symmetries, as far as these leave anything free. Otherwise, and
    where they leave nothing free, they keep those that leave a direction as it is, which is drawn:
    sublattices move against each other, as in a ferroelectric. The mean displacement is drawn from
    a half-normal distribution of width `TOGETHER`, at most `FARTHEST`.

    Args:
        rng: The source of randomness.
        geometry: The crystal.
        symprec: Tolerance of its symmetries [Å].

    Returns:
        (n_sites, 3) [Å]; 0 where the symmetries leave nothing free.
    """
    group, n_sites = space_group(geometry, symprec), len(geometry.numbers)
    moves = rng.normal(0, 1, (n_sites, 3))
    way = rng.integers(-1, 2, 3) @ geometry.lattice
    size = min(TOGETHER * abs(rng.normal()), FARTHEST)
    whole = rng.random() < 1 / 3
    if group is None:
        return np.zeros((n_sites, 3))
    turns = group.turns(geometry.lattice)
    about = np.flatnonzero(np.abs(way @ turns - way).max(axis=1) < 1e-3)
    for kept in [np.arange(len(turns)), about] if whole else [about]:
        part = group.symmetric_part(moves, turns, kept)
        part -= part.mean(axis=0)
        mean = float(np.linalg.norm(part, axis=1).mean())
        if mean > 1e-3:
            return np.asarray(part * size / mean)
    return np.zeros((n_sites, 3))


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
