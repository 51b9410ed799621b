"""Cheap structures first, so that a part of a list is soon of use."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from benchmarks.core import Geometry
from benchmarks.core.symmetry import symmetry_dataset
from benchmarks.dft.results import InitialStructure
from benchmarks.dft.settings import DFTSettings

_SYMPREC = 1e-4
"""Å; what a calculation of the start can make use of."""


def sort_by_cost(starts: Sequence[InitialStructure]) -> list[InitialStructure]:
    """By cost, equal ones by name."""
    return sorted(starts, key=lambda start: (cost(start), start.name))


def cost(start: InitialStructure) -> float:
    """What one step of a relaxation costs, up to a factor.

    The k-points that the symmetry leaves, times the bands, times the plane waves (volume times the
    cutoff to the power of 3/2).
    """
    volume = abs(np.linalg.det(start.geometry.lattice))
    bands = sum(map(_valence, start.symbols)) / 2 + 4  # some are empty
    waves = volume * DFTSettings().cutoff(start.symbols) ** 1.5
    return float(_n_kpoints(start.geometry) * bands * waves)


def kpoint_grid(lattice: ArrayLike, density: float) -> tuple[int, ...]:
    """Points along each reciprocal vector, as GPAW chooses them.

    Args:
        lattice: (3, 3) rows [Å].
        density: Points per Å^-1.
    """
    from ase import Atoms
    from ase.calculators.calculator import kpts2sizeandoffsets

    size, _ = kpts2sizeandoffsets(density=density, gamma=True, atoms=Atoms(cell=lattice, pbc=True))
    return tuple(int(n) for n in size)


def _n_kpoints(geometry: Geometry) -> int:
    from spglib import get_ir_reciprocal_mesh

    grid = kpoint_grid(geometry.lattice, DFTSettings().kpt_density)
    irreducible, _ = get_ir_reciprocal_mesh(grid, geometry, symprec=_SYMPREC)
    return len(np.unique(irreducible))


def _valence(symbol: str) -> int:
    """Electrons outside the core, about as PAW setups have it."""
    from pymatgen.core import Element

    element = Element(symbol)
    semicore = element.group <= 8
    return sum(
        electrons
        for n, orbital, electrons in element.full_electronic_structure
        if orbital != "f" and n >= element.row - (semicore or orbital == "d")
    )


def internal_freedom(geometry: Geometry) -> int:
    """How many coordinates of the sites the symmetry leaves free, translations apart.

    The number of displacements that every operation maps onto themselves: the mean over the
    operations of (sites that stay - 1) times the trace of the rotation.
    """
    found = symmetry_dataset(geometry, _SYMPREC)
    if found is None:
        return 3 * len(geometry.numbers) - 3
    turned = np.array(found.operations.rotations)
    moved = np.array(found.operations.translations)
    images = np.einsum("oij,sj->osi", turned, geometry.frac_coords) + moved[:, None]
    apart = images - geometry.frac_coords
    distances = np.linalg.norm((apart - apart.round()) @ geometry.lattice, axis=2)
    stay = (distances < 10 * _SYMPREC).sum(axis=1)
    return int(np.rint(np.mean((stay - 1) * np.trace(turned, axis1=1, axis2=2))))
