"""The cost of relaxations, by which lists are sorted: cheap structures come first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from benchmarks.dft.results import InitialStructure
from benchmarks.dft.settings import DFTSettings

_SYMPREC = 1e-4
"""Tolerance of the symmetry that a calculation of the initial structure can use [Å]."""


def sort_by_cost(
    starts: Sequence[InitialStructure], settings: DFTSettings | None = None
) -> list[InitialStructure]:
    """The structures sorted by cost, and by name where the costs are equal.

    Args:
        starts: The structures.
        settings: Settings with which they are to be computed; default: those of versions 1 and 2.
    """
    known = settings or DFTSettings()
    return sorted(starts, key=lambda start: (cost(start, known), start.name))


def cost(start: InitialStructure, settings: DFTSettings) -> float:
    """The cost of one step of a relaxation, up to a factor.

    It is the number of irreducible k-points times the number of bands times the number of plane
    waves (volume times the cutoff to the power of 3/2).
    """
    from spglib import get_ir_reciprocal_mesh

    volume = abs(np.linalg.det(start.geometry.lattice))
    bands = sum(map(_valence, start.symbols)) / 2 + 4  # some are empty
    waves = volume * settings.cutoff(start.symbols) ** 1.5
    grid = kpoint_grid(start.geometry.lattice, settings.density(start.symbols))
    irreducible, _ = get_ir_reciprocal_mesh(grid, start.geometry, symprec=_SYMPREC)
    return float(len(np.unique(irreducible)) * bands * waves)


def kpoint_grid(lattice: ArrayLike, density: float) -> tuple[int, ...]:
    """Number of k-points along each reciprocal vector, as GPAW chooses it.

    Args:
        lattice: (3, 3) rows [Å].
        density: k-points per Å^-1.
    """
    from ase import Atoms
    from ase.calculators.calculator import kpts2sizeandoffsets

    size, _ = kpts2sizeandoffsets(density=density, gamma=True, atoms=Atoms(cell=lattice, pbc=True))
    return tuple(int(n) for n in size)


def _valence(symbol: str) -> int:
    """Number of electrons outside the core, about as in PAW setups."""
    from pymatgen.core import Element

    element = Element(symbol)
    semicore = element.group <= 8
    return sum(
        electrons
        for n, orbital, electrons in element.full_electronic_structure
        if orbital != "f" and n >= element.row - (semicore or orbital == "d")
    )
