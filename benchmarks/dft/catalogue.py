"""The starting structures of the embedded set's version 2: none of them is in version 1.

Compounds are known ones (some as a high-pressure phase or a neighbour of a known one), without
magnetic elements, in chemical systems that `benchmarks.data.splits.manifest` does not reserve.
Their splits follow from that rule, so that no system of version 1's test set can be in version 2's
training set. Changes of size and shape are seeded from the name: the list is the same on every
machine.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from functools import cache
from typing import Final

import numpy as np

from benchmarks.core import Geometry
from benchmarks.dft.prototype_crystals import PROTOTYPES
from benchmarks.dft.results import InitialStructure

SHIFT: Final = 0.10
"""Distance by which `shifted` moves the second element along the Cartesian z axis [Å]."""
RATTLE: Final = 0.05
"""Standard deviation of each component of the displacements of `rattled` [Å]."""
SPREAD: Final = 0.02
"""Standard deviation of the change of size, and of the strains of `strained`."""


class Distortion(StrEnum):
    """The distortion of a prototype, after a random change of its size."""

    SCALED = "scaled"
    STRAINED = "strained"
    """Cartesian axes are stretched by three random factors: cubic becomes orthorhombic."""
    SHIFTED = "shifted"
    """An element leaves its place: a start with less symmetry than its end."""
    RATTLED = "rattled"
    """Every atom leaves its place: a start without symmetry."""


_SCALED, _STRAINED = Distortion.SCALED, Distortion.STRAINED
_SHIFTED, _RATTLED = Distortion.SHIFTED, Distortion.RATTLED
CATALOGUE: Final[tuple[tuple[str, Distortion, str], ...]] = (
    ("A1", _STRAINED, "Cu Au Pb"),
    ("A2", _STRAINED, "W V Li"),
    ("A3", _SCALED, "Re Os Zn Y"),
    ("A4", _RATTLED, "Si"),
    ("A7", _SCALED, "As Bi"),
    ("A8", _SCALED, "Se Te"),
    ("A11", _SCALED, "Ga"),
    ("B1", _SCALED, "Mg-O Li-F Na-F Hf-N"),
    ("B1", _STRAINED, "K-Cl Ca-S Sc-N"),
    ("B1", _SHIFTED, "Pb-S Ba-Se Na-Cl"),
    ("B1c", _SCALED, "Ta-C"),
    ("B1c", _STRAINED, "Zr-C"),
    ("B2", _SHIFTED, "Tl-Br"),
    ("B2m", _SCALED, "Li-Hg Sc-Pd Al-Os"),
    ("B2m", _STRAINED, "Ti-Re Li-Ag"),
    ("B3", _SCALED, "Hg-Te Be-Se Al-As"),
    ("B3", _SHIFTED, "Ga-Sb In-P Cu-I"),
    ("B3", _RATTLED, "Si-C Al-P"),
    ("B4", _SCALED, "Zn-O Cd-S Ga-N Ga-P Cu-I Be-O"),
    ("B8", _SCALED, "Pt-Sn Pt-Bi Ti-S Zr-Te Au-Sn"),
    ("B11", _SCALED, "Cu-Ti Au-Hf"),
    ("B33", _SCALED, "Nb-B"),
    ("Bh", _SCALED, "W-C Os-C Mo-C Zr-Te"),
    ("C1", _SCALED, "Sr-F Zr-O Hg-F"),
    ("C1", _SHIFTED, "Ba-F"),
    ("C1b", _SCALED, "Li-Al-Si Zr-Pt-Sn Sc-Pt-Bi Sc-Pd-Sb"),
    ("C6", _SCALED, "Ti-Te Pt-Te Ti-S Sn-S"),
    ("C11b", _SCALED, "W-Si Mo-Ge"),
    ("C15", _SCALED, "Y-Al Ca-Pd Bi-Au"),
    ("C32", _SCALED, "Ti-B Sr-Ga Nb-B"),
    ("D09", _SCALED, "Al-F Re-O Sc-F"),
    ("D52", _SCALED, "Mg-Mg-Sb Mg-Mg-Bi Ca-Al-Si"),
    ("E21", _SCALED, "Sr-Hf-O Cs-Sn-I"),
    ("E21", _SHIFTED, "Pb-Ti-O K-Nb-O Cs-Pb-Br"),
    ("GeTe", _SCALED, "Ge-Te Ge-S Sn-Te"),
    ("L10", _SCALED, "Pt-Cd Zr-Hg Ti-Al"),
    ("L12", _SCALED, "Al-Zr Ir-Ti Pt-Pb Rh-Zr"),
    ("L21", _SCALED, "Li-Pd-In Au-In-Mg Cu-Al-Ti"),
)
"""Prototype, start, compounds with their elements in the order of the prototype."""


def starts() -> list[InitialStructure]:
    """All starting structures, in the order of the table."""
    return [
        InitialStructure(f"{prototype}-{compound}-{kind}", start(prototype, kind, compound))
        for prototype, kind, compounds in CATALOGUE
        for compound in compounds.split()
    ]


def start(prototype: str, kind: Distortion, compound: str) -> Geometry:
    """One of them: the prototype, changed by numbers that depend on the names alone."""
    from ase.data import atomic_numbers

    lattice, frac_coords, numbers = ideal(prototype, compound)
    name = f"{prototype}-{compound}-{kind}"
    rng = np.random.default_rng(int(hashlib.sha256(name.encode()).hexdigest(), 16))
    lattice = lattice * (1 + rng.normal(0, SPREAD))
    moved = np.zeros((len(numbers), 3))
    if kind is Distortion.STRAINED:
        lattice = lattice * (1 + rng.normal(0, SPREAD, 3))
    elif kind is Distortion.SHIFTED:
        moved[numbers == atomic_numbers[compound.split("-")[1]], 2] = SHIFT
    elif kind is Distortion.RATTLED:
        moved = rng.normal(0, RATTLE, (len(numbers), 3))
    frac_coords = frac_coords + moved @ np.linalg.inv(lattice)
    return Geometry(lattice.round(8), frac_coords.round(8), numbers)


@cache
def ideal(prototype: str, compound: str) -> Geometry:
    """A compound in the undistorted prototype; every call returns the same arrays."""
    return PROTOTYPES[prototype].crystal(compound.split("-"))
