"""From the sites that a file lists and its symmetry operations to the full cell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product

import gemmi
import numpy as np
from numpy.typing import NDArray

from benchmarks.core import Geometry
from benchmarks.data.structures import StructureError
from benchmarks.data.structures.words import atomic_numbers, check_lattice

SAME_SITE = 0.1
"""Images of a site nearer than this [Å] are one: 0.333 is as near to 1/3 as three digits are."""
STRAIN = 0.02
"""Operations that turn the cell into itself but for this much fit it: parameters are rounded."""
MAX_IMAGES = 20_000
"""Sites times operations; more take minutes."""
NEIGHBOURS = np.array(list(product((-1, 0, 1), repeat=3)))
"""Steps to a bin of space and those around it."""


Operations = tuple[NDArray[np.int64], NDArray[np.float64]]
"""Rotations (n, 3, 3) and translations (n, 3) in [0, 1) on fractional coordinates."""


def operations_of(group: Iterable[gemmi.Op]) -> Operations:
    """The operations of gemmi as arrays."""
    listed = list(group)
    rotations = np.array([op.rot for op in listed], dtype=np.int64) // gemmi.Op.DEN
    translations = np.array([op.tran for op in listed]) / gemmi.Op.DEN
    return rotations, np.mod(translations, 1.0)


def triplet(rotation: NDArray[np.int64], translation: NDArray[np.float64]) -> str:
    """Write an operation as `-x+y,x,z+1/2`, its translation to 1/24."""
    operation = gemmi.Op()
    operation.rot = (rotation * gemmi.Op.DEN).tolist()
    operation.tran = np.rint(translation * gemmi.Op.DEN).astype(int).tolist()
    return str(operation.triplet())


def cell_of(parameters: Iterable[float]) -> gemmi.UnitCell:
    """The cell of lengths a, b, c [Å] and angles alpha, beta, gamma [°].

    Raises:
        StructureError: No cell has these parameters, or they are the lengths of 1 that stand for
            no crystal.
    """
    values = [float(value) for value in parameters]
    cos = np.cos(np.radians(values[3:]))
    flat = 1 - (cos**2).sum() + 2 * cos.prod() < 1e-9
    if min(values) <= 0 or max(values[3:]) >= 180 or flat or max(values[:3]) > 1e5:
        raise StructureError(f"no cell has the parameters {' '.join(f'{v:g}' for v in values)}")
    if values[:3] == [1, 1, 1]:
        raise StructureError("no crystal: the lengths of 1 stand for none")
    return gemmi.UnitCell(*values)


def lattice_of(cell: gemmi.UnitCell) -> NDArray[np.float64]:
    """(3, 3) row vectors [Å], a along x and b in the xy plane."""
    return np.array(cell.orth.mat.tolist(), dtype=np.float64).T


def full_cell(
    cell: gemmi.UnitCell,
    operations: Operations,
    species: Sequence[int],
    coordinates: NDArray[np.float64],
    labels: Sequence[str] = (),
) -> tuple[Geometry, NDArray[np.intp]]:
    """Apply symmetry operations to sites.

    Args:
        cell: The cell.
        operations: All of the group, those of centring too, the identity first.
        species: Atomic numbers of the sites.
        coordinates: (n_sites, 3) fractional.
        labels: Names of the sites for messages; without them they are counted from 1.

    Returns:
        The full cell, whose listed coordinates are as they were and whose images follow their
        site, in [0, 1); and for each of its atoms the site that it comes from.

    Raises:
        StructureError: The operations do not fit the cell; or two sites of different elements, or
            of one element without symmetry, share a position.
    """
    lattice = lattice_of(cell)
    check_lattice(lattice)
    rotations, translations = operations
    for rotation, translation in zip(rotations, translations, strict=True):
        turn = lattice.T @ rotation @ np.linalg.inv(lattice.T)
        if np.abs(turn.T @ turn - np.eye(3)).max() > STRAIN:
            text = triplet(rotation, translation)
            raise StructureError(f"its symmetry ({text}) does not fit its cell")
    if len(coordinates) * len(rotations) > MAX_IMAGES:
        what = f"{len(coordinates)} sites under {len(rotations)} symmetry operations"
        raise StructureError(f"{what} are more than is read: write all atoms in P 1")
    kept: list[NDArray[np.float64]] = []
    owners: list[int] = []
    heights = 1 / np.linalg.norm(np.linalg.inv(lattice), axis=0)
    n_bins = np.maximum(heights // SAME_SITE, 1).astype(np.int64)
    bins: dict[tuple[int, ...], list[int]] = {}
    for i, site in enumerate(coordinates):
        for image in (site, *np.mod(rotations[1:] @ site + translations[1:], 1.0)):
            bin_ = np.floor(np.mod(image, 1.0) * n_bins).astype(np.int64)
            around = {tuple(each) for each in np.mod(bin_ + NEIGHBOURS, n_bins).tolist()}
            beside = sorted(n for each in around for n in bins.get(each, ()))
            apart = np.array([kept[n] for n in beside]).reshape(-1, 3) - image
            distances = np.linalg.norm((apart - apart.round()) @ lattice, axis=1)
            near = [owners[n] for n, d in zip(beside, distances, strict=True) if d < SAME_SITE]
            if not near:
                bins.setdefault(tuple((bin_ % n_bins).tolist()), []).append(len(kept))
                kept.append(image)
                owners.append(i)
            elif len(rotations) == 1 or any(species[x] != species[i] for x in near):
                names = labels or [str(n + 1) for n in range(len(species))]
                raise StructureError(f"sites {names[near[0]]} and {names[i]} share a position")
    numbers = atomic_numbers(species[i] for i in owners)
    return Geometry(lattice, np.array(kept), numbers), np.array(owners, dtype=np.intp)
