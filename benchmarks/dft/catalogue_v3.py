"""The starting structures of the embedded set's version 3.

    nice -n 19 python -m benchmarks.dft --list embedded-v3 --out runs/embedded-v3
    python -m benchmarks.dft --list embedded-v3 --out runs/embedded-v3 --export

The first command relaxes the structures that have no record yet, cheap ones first. The second one
writes the records that are there as a data set; while the first one runs, `--out` has to name a
copy of the folder.

In most starts the atoms are away from the places to which symmetry or DFT brings them. Compounds
are known ones or chemical neighbours of known ones in the same prototype; those with Cr, Fe, Co or
Ni are taken to be non-magnetic, as FeS2, NiAl or Cr3Si are. No composition is in a prototype that
it has in version 1 or 2, but for the test crystals of these, which are relaxed again from their
ends. Random numbers are seeded from the name: the list is the same on every machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.core import Geometry
from benchmarks.core.symmetry import space_group
from benchmarks.data import load
from benchmarks.data.splits.manifest import split_of
from benchmarks.dft.cost_order import sort_by_cost
from benchmarks.dft.prototypes_v3 import ALL
from benchmarks.dft.results import InitialStructure
from benchmarks.dft.settings import DFTSettings

AGAIN: Final = "again-"
"""Prefix of the names of the test crystals of versions 1 and 2."""
SPREAD: Final = 0.02
"""Standard deviation of the change of lengths."""
STRAIN: Final = (0.01, 0.05)
"""Range from which the largest strain of `rattled` is drawn."""
MOVED: Final = (0.08, 0.25)
"""Range from which the mean displacement is drawn [Å]."""
SHARE: Final = 0.07
"""Largest mean displacement as a share of the shortest distance of two atoms."""
STAND_INS: Final = {"H": "F"}
"""Elements whose anion gives the size where the table of radii has none for the element."""
_SYMPREC: Final = 1e-4
_AXES: Final = ((0, 0, 1), (1, 0, 0), (0, 1, 0), (1, 1, 1), (1, 1, 0))
"""Directions along which a crystal can become polar, Cartesian."""


class Displacement(StrEnum):
    """The symmetries of the prototype that the displacements keep, after a change of its size."""

    OPENED = "opened"
    """All symmetries are kept; free coordinates differ from those of the naming compound."""
    POLAR = "polar"
    """Symmetries about one axis are kept; along it the sublattices move against each other."""
    RATTLED = "rattled"
    """No symmetry is kept, and the cell is strained."""


class Defect(StrEnum):
    """The defect of a supercell, whose atoms are then displaced as in `polar`."""

    VACANT = "vacant"
    """The first atom of the last element is taken out."""
    MIXED = "mixed"
    """The first atom of the first element is replaced."""


_OPENED, _POLAR, _RATTLED = Displacement
CATALOGUE: Final[tuple[tuple[str, Displacement, str], ...]] = (
    ("A14", _POLAR, "Cl"),
    ("A15", _POLAR, "Cr-Si"),
    ("A17", _POLAR, "P"),
    ("A4", _POLAR, "C"),
    ("A7", _POLAR, "P"),
    ("A8", _RATTLED, "S"),
    ("B1", _POLAR, "Cs-F Hg-O Li-Cl Li-I Na-Br Na-I Rb-F Rb-H Sr-O Sr-S"),
    ("B1", _RATTLED, "Hg-O"),
    ("B10", _OPENED, "Ge-O Pb-S Sn-O Sn-S"),
    ("B10", _POLAR, "Pb-O"),
    ("B11", _OPENED, "Ti-Au Zr-Ag"),
    ("B11", _POLAR, "Ti-Ag Zr-Ag"),
    ("B16", _OPENED, "Ge-S"),
    ("B16", _POLAR, "Ge-S"),
    ("B17", _POLAR, "Pd-O Pd-S Pt-S"),
    ("B19", _OPENED, "Hf-Pd Zr-Pd"),
    ("B19", _POLAR, "Hf-Pd Zr-Pd"),
    ("B1v", _POLAR, "Sn-As Y-As Y-P Y-Sb"),
    ("B2", _POLAR, "Cs-Cl Cs-I K-I Rb-Cl"),
    ("B2", _RATTLED, "Cs-I"),
    ("B20", _OPENED, "Al-Pt Co-Si Ga-Pd Rh-Si Ru-Si"),
    ("B20", _POLAR, "Ga-Pd Rh-Si"),
    ("B2m", _POLAR, "Be-Cu Co-Al Co-Ga Ga-Ir Hf-Rh Mg-Ag Mg-Tl Ni-Al Sr-Cd Sr-Hg Y-Ag"),
    ("B2m", _RATTLED, "Ga-Ir Sr-Hg"),
    ("B3", _POLAR, "B-N Cd-Se Cu-Br Cu-Cl Ga-N Mg-O Mg-S Zn-O Zn-S Zn-Te"),
    ("B3", _RATTLED, "Mg-S"),
    ("B31", _OPENED, "Rh-Sb Ru-As V-As"),
    ("B31", _POLAR, "Rh-Sb Ru-As V-As"),
    ("B32", _POLAR, "Li-Al Li-Cd Li-Ga Li-In Li-Zn Mg-Li Na-In"),
    ("B33", _OPENED, "Ba-Sn Ta-B Zr-Al"),
    ("B33", _POLAR, "Ba-Sn Ta-B Zr-Al"),
    ("B33t", _OPENED, "Tl-I"),
    ("B33t", _POLAR, "In-Br Tl-I"),
    ("B4", _OPENED, "Li-Br Mg-O Zn-S"),
    ("B4", _POLAR, "Al-P B-N Cu-Cl Li-Cl Li-I Na-F"),
    ("B8", _POLAR, "Ir-Te Li-B Nb-N Pt-Te Rh-Te Sc-S Ti-Se Ti-Te V-P"),
    ("B9", _OPENED, "Hg-O Hg-S"),
    ("B9", _POLAR, "Hg-O"),
    ("Bh", _POLAR, "Li-Ir Li-Pd Mo-P Nb-N Nb-P Ta-N Ta-S W-N Zr-S"),
    ("Bi2Te3", _OPENED, "Sb-Se"),
    ("Bi2Te3", _POLAR, "Sb-Se"),
    ("Bk", _POLAR, "B-N"),
    ("C1", _POLAR, "Hf-H Hf-O O-K Pb-F S-Li Sc-H Te-Li Ti-H Y-H"),
    ("C11a", _OPENED, "Ba-O Sr-N"),
    ("C11a", _POLAR, "K-O Rb-O Sr-O"),
    ("C11b", _OPENED, "Ag-Zr Au-Hf Pd-Hf Pd-Zr Zn-Zr"),
    ("C11b", _POLAR, "Ag-Zr Au-Hf Pd-Hf Pd-Zr Zn-Zr"),
    ("C14", _OPENED, "Zr-Al"),
    ("C14", _POLAR, "Zr-Al"),
    ("C15", _POLAR, "Ca-Al Pb-Au Sc-Al Zr-Zn"),
    ("C15", _RATTLED, "Pb-Au Zr-Zn"),
    ("C16", _OPENED, "Al-Cu Pb-Au Ta-B Zr-Al"),
    ("C16", _POLAR, "Pb-Au Ta-B Zr-Al"),
    ("C18", _OPENED, "Ru-As"),
    ("C18", _POLAR, "Fe-P Fe-S Os-P Ru-As"),
    ("C19", _OPENED, "Cd-Cl Cd-I K-O Mg-Cl Ta-S Zn-Cl Zn-I"),
    ("C19", _POLAR, "Nb-S"),
    ("C1b", _POLAR, "Al-Li-Ge Ca-Li-N Mg-Li-As Mg-Li-N Zn-Li-As Zn-Li-N Zn-Li-P Zn-Li-Sb"),
    ("C1b", _RATTLED, "Zn-Li-Sb"),
    ("C1m", _POLAR, "Au-Al Au-In Co-Si Ir-P Pt-Al Pt-Ga Pt-Sn Rh-P Si-Be Si-Mg Sn-Mg"),
    ("C1m", _RATTLED, "Au-In Sn-Mg"),
    ("C2", _OPENED, "Cd-S Fe-S Os-S Pt-Sb Ru-S Ru-Se Si-P"),
    ("C2", _POLAR, "Pt-Sb Ru-Se"),
    ("C23", _OPENED, "Ca-H-H"),
    ("C3", _POLAR, "Ag-O Au-S Cu-S"),
    ("C32", _RATTLED, "Sr-Hg"),
    ("C36", _OPENED, "Mg-Zn"),
    ("C38", _OPENED, "As-Mg-Li P-Mg-K P-Zn-Na"),
    ("C38", _POLAR, "As-Cu-Cu P-Mg-K P-Mg-Na P-Zn-Li"),
    ("C4", _OPENED, "Os-O Pd-F Re-O"),
    ("C4", _POLAR, "Ge-O Ir-O Nb-O Pd-F Si-O Sn-O Ti-O V-O"),
    ("C49", _OPENED, "Ba-Sn-Sn"),
    ("C49", _POLAR, "Ba-Sn-Sn"),
    ("C5", _POLAR, "Ti-O"),
    ("C6", _OPENED, "Ca-Br Ge-I Hf-S Nb-Se Pt-S Zr-S"),
    ("C6", _POLAR, "Cd-Br Mg-I Nb-Se Ti-Se Zn-I"),
    ("C7", _OPENED, "Mo-S Nb-Se W-S Zr-Cl"),
    ("C7", _POLAR, "Mo-S Nb-Se"),
    ("C8", _OPENED, "Be-F Si-O"),
    ("CaB6", _OPENED, "Ba-B K-B Sr-B"),
    ("CaB6", _POLAR, "Ca-B"),
    ("D012", _OPENED, "Ga-F Mo-F Sc-F Y-F"),
    ("D012", _POLAR, "Al-F Ga-F Nb-F Ta-F Ti-F V-F"),
    ("D018", _OPENED, "Li-As"),
    ("D019", _OPENED, "Zr-Al"),
    ("D019", _POLAR, "Zr-Al"),
    ("D022", _POLAR, "Al-Nb Al-Zr"),
    ("D022", _RATTLED, "Al-Nb Al-Zr"),
    ("D03", _POLAR, "Li-Ag Li-Bi Li-Ga Li-In Li-Sb Li-Tl"),
    ("D03", _RATTLED, "Li-Ga Li-Tl"),
    ("D05", _OPENED, "Al-Cl Y-Cl"),
    ("D05", _POLAR, "Al-Cl Sc-Cl"),
    ("D09", _POLAR, "Ga-F N-Na Nb-F Re-F Ta-F Ti-F V-F W-O Y-F"),
    ("D09", _RATTLED, "Ga-F"),
    ("D13", _OPENED, "Ba-Ni-As Sr-Pd-Ge Sr-Ru-P Y-Cu-Si"),
    ("D13", _POLAR, "Ba-Ni-As Sr-Pd-Ge Sr-Ru-P Y-Cu-Si"),
    ("D51", _OPENED, "Al-O Sc-O Ti-O"),
    ("D52", _OPENED, "Ca-Be-P Ca-Cd-As Ca-Cd-P Ca-Zn-As Ca-Zn-P Mg-Be-N Sr-Zn-As Sr-Zn-P"),
    ("D52", _POLAR, "Ca-Be-As Ca-Zn-As Mg-Mg-As Sr-Zn-P"),
    ("D52o", _OPENED, "Al-Se-Se Sc-S-S Y-O-S"),
    ("D52o", _POLAR, "Al-S-S Al-Se-Se Bi-O-O In-O-O Sc-O-O Sc-O-S Y-N-O Y-O-O"),
    ("E01", _OPENED, "Ba-F-Cl Ba-F-I Ba-H-Cl Bi-O-Cl Bi-O-I Pb-F-Cl Sc-O-Cl Sr-F-Cl Sr-H-Cl"),
    ("E01", _OPENED, "Y-O-Cl Y-O-F"),
    ("E01", _POLAR, "Ba-F-Br Ba-F-I Bi-O-I Ca-F-Cl Ca-H-Br Pb-F-Cl Sc-O-Cl Sr-F-Cl"),
    ("E11", _OPENED, "Ag-Al-Se Be-Si-N Cu-Ga-S Mg-Si-N Zn-Ge-As"),
    ("E11", _POLAR, "Ag-Al-Se Be-Si-N Cu-Ga-S Mg-Si-N Zn-Ge-As"),
    ("E21", _POLAR, "Ba-Ti-O Ba-Zr-O Ca-Si-O Cs-Ca-F Cs-Ca-H Cs-Ge-Br Cs-Pb-Cl Cs-Sn-Br"),
    ("E21", _POLAR, "Cs-Sn-Cl K-Ta-O Na-Nb-O Pb-Sn-O Rb-Ge-Cl Sr-Li-H Sr-Ti-O"),
    ("E21", _RATTLED, "Ba-Ti-O Ca-Si-O Cs-Ca-H K-Ta-O Rb-Ge-Cl Sr-Li-H"),
    ("E21m", _POLAR, "Al-N-Ti As-N-Mg Bi-N-Ca Br-O-Li Cl-O-Li Ge-O-Ca P-N-Ca Pb-O-Ca Sb-N-Ca"),
    ("E21m", _POLAR, "Sb-N-Mg Sn-O-Ca Sn-O-Sr Tl-C-Sc"),
    ("E21m", _RATTLED, "Al-N-Ti As-N-Mg Pb-O-Ca Tl-C-Sc"),
    ("F51", _OPENED, "K-Bi-S K-Y-O Li-Sc-O Li-Y-S Na-In-S Na-In-Se Na-Tl-O Na-Y-O Rb-Sc-O"),
    ("F51", _POLAR, "K-Bi-S Li-Al-O Li-In-O Li-Y-S Na-Al-O Na-In-O Na-In-Se Na-Sc-O Na-Tl-O"),
    ("F51", _POLAR, "Rb-Sc-O"),
    ("F51d", _OPENED, "Ag-Al-O Cu-B-O Cu-Ga-O Cu-Sc-O Cu-Y-O Pd-Co-O Pd-Rh-O"),
    ("F51d", _POLAR, "Ag-Al-O Ag-Rh-O Cu-Rh-O Pt-Co-O"),
    ("H11", _OPENED, "Mg-Al-O Zn-Al-O"),
    ("I4mcm", _OPENED, "Ba-Pb-O"),
    ("J11", _OPENED, "Cs-Ge-F Cs-Hf-Cl Cs-Pd-Cl Cs-Si-F Cs-Zr-Cl K-Pt-Br K-Pt-Cl K-Si-F"),
    ("J11", _OPENED, "Rb-Si-F Rb-Ti-F"),
    ("J11", _POLAR, "K-Pt-Br"),
    ("K2NaAlF6", _OPENED, "Cs-Na-Bi-Cl Cs-Na-Sc-Cl Cs-Na-Y-Cl K-Na-Al-F K-Na-Ga-F K-Na-Sc-F"),
    ("K2NaAlF6", _OPENED, "Rb-K-Al-F Rb-Na-Al-F"),
    ("K2NaAlF6", _POLAR, "K-Na-Ga-F K-Na-Sc-F Rb-K-Al-F"),
    ("K2NiF4", _OPENED, "Ba-Pb-O"),
    ("L10", _POLAR, "Al-Ga Al-Pt Bi-Li In-Mg Pd-Cd Pd-Zn Pt-Zn Ti-Rh"),
    ("L12", _POLAR, "Al-Ni Al-Sc Ge-Ni Hg-Zr Pt-Ti Rh-Nb Rh-Ti Zn-Zr"),
    ("L12", _RATTLED, "Zn-Zr"),
    ("L21", _POLAR, "Li-Ca-Pb Li-Ca-Sn Li-Mg-Pb Li-Mg-Si Li-Mg-Sn Ni-Hf-Sn Ni-Nb-Al Ni-Ta-Al"),
    ("L21", _POLAR, "Ni-Ti-Al Ni-Zr-Al Ni-Zr-Sn Rh-Zr-Sn"),
    ("L21", _RATTLED, "Li-Ca-Pb Li-Mg-Sn Ni-Nb-Al Rh-Zr-Sn"),
    ("Li3N", _POLAR, "Na-N"),
    ("LiGaGe", _POLAR, "Li-Ga-Ge"),
    ("LiNbO3", _OPENED, "Li-Nb-O Li-Ta-O Zn-Sn-O"),
    ("LiTiS2", _OPENED, "Li-Sn-S Li-Ti-S Li-V-S Li-V-Se Li-Zr-S Mg-Ti-S"),
    ("LiTiS2", _POLAR, "Li-Hf-Se Li-Nb-S Li-Ta-S Li-Ti-Se Li-V-Se"),
    ("MgSrSi", _OPENED, "Mg-Sr-Si"),
    ("P4mbm", _POLAR, "Na-Ta-O"),
    ("Pna", _OPENED, "Ba-Ti-O Bi-Sc-O K-Ta-O Na-Nb-O Sn-Ti-O"),
    ("Pna", _POLAR, "Ba-Ti-O Bi-Al-O Cd-Ti-O K-Ta-O"),
    ("Pnma", _OPENED, "Ca-Si-O"),
    ("R3c", _OPENED, "Li-Ta-O Na-Mg-F Na-Ta-O Sr-Zr-O"),
    ("Si2Zr2", _POLAR, "Si-Hf-S Si-Zr-S Si-Zr-Se"),
    ("YPdSi", _POLAR, "Ba-Cu-P Ca-Cu-P K-Be-As Na-Be-As Sr-Ag-As Sr-Au-P Sr-Cu-As Sr-Cu-P"),
    ("YPdSi", _POLAR, "Zr-Be-Si"),
)
"""Prototype, change, compounds with their elements in the order of the prototype."""

DefectRow = tuple[str, tuple[int, int, int], Defect, str, str]
DEFECTS: Final[tuple[DefectRow, ...]] = (
    ("A1", (2, 2, 1), Defect.VACANT, "", "Al Cu Ag Sr"),
    ("A1", (2, 2, 1), Defect.MIXED, "Zn", "Al"),
    ("A1", (2, 2, 1), Defect.MIXED, "Mg", "Al Ag Ca"),
    ("A2", (2, 2, 1), Defect.VACANT, "", "Li Na V"),
    ("A2", (2, 2, 1), Defect.MIXED, "Ti", "V Nb Mo"),
    ("A3", (2, 1, 1), Defect.VACANT, "", "Mg Be Zn"),
    ("A3", (2, 1, 1), Defect.MIXED, "Al", "Mg Ti Zn"),
    ("A4", (2, 1, 1), Defect.VACANT, "", "Si Ge"),
    ("A4", (2, 1, 1), Defect.MIXED, "Ge", "Si C"),
    ("B1", (2, 1, 1), Defect.MIXED, "K", "Na-F Na-Cl Li-Cl Na-Br"),
    ("B1", (2, 1, 1), Defect.MIXED, "Ca", "Mg-O Sr-O Mg-S Sr-S"),
    ("B1", (2, 1, 1), Defect.MIXED, "Na", "Li-F Ag-Cl"),
    ("B1", (2, 1, 1), Defect.VACANT, "", "Mg-O Sr-S"),
    ("B1c", (2, 1, 1), Defect.VACANT, "", "Ti-C Zr-C Ti-N"),
    ("B1", (2, 2, 1), Defect.VACANT, "", "Li-F Na-Cl Mg-O Ca-S"),
    ("B2", (2, 1, 1), Defect.MIXED, "Rb", "Cs-Br"),
    ("B3", (2, 1, 1), Defect.MIXED, "In", "Ga-P Ga-As"),
    ("B3", (2, 1, 1), Defect.MIXED, "Be", "Zn-S Zn-Se Mg-Te"),
    ("B3", (2, 1, 1), Defect.VACANT, "", "Be-S B-P"),
    ("B4", (1, 1, 1), Defect.MIXED, "Mg", "Zn-O Be-O Zn-S"),
    ("C1", (2, 1, 1), Defect.VACANT, "", "Sr-F Zr-O S-Li"),
    ("C1", (2, 1, 1), Defect.MIXED, "Ba", "Sr-F"),
    ("L12", (1, 1, 1), Defect.VACANT, "", "Al-Ni"),
)
"""Prototype, supercell, defect, the foreign element, compounds."""


def starts() -> list[InitialStructure]:
    """All starting structures: the new ones, and those that are relaxed again."""
    new = (
        InitialStructure(f"{prototype}-{compound}-{change}", start(prototype, change, compound))
        for prototype, change, compounds in CATALOGUE
        for compound in compounds.split()
    )
    defects = (
        InitialStructure(_defect_name(row, compound), defect(row, compound))
        for row in DEFECTS
        for compound in row[-1].split()
    )
    return [*new, *defects, *again()]


def again() -> Iterator[InitialStructure]:
    """Yield the relaxed test crystals of versions 1 and 2."""
    for source in ("embedded", "embedded-v2"):
        found = load(source, split="test")
        for i, name in enumerate(found.ids):
            short = name.removeprefix("gpaw-").removesuffix("-0-pbe")
            yield InitialStructure(AGAIN + short, found.geometries(i)[1])


def start(prototype: str, change: Displacement, compound: str) -> Geometry:
    """A compound in a prototype, changed by numbers that depend on the names alone."""
    rng = _rng(f"{prototype}-{compound}-{change}")
    ideal = undistorted(prototype, compound)
    lattice = ideal.lattice * (1 + rng.normal(0, SPREAD))
    if change is Displacement.RATTLED:
        strain = rng.normal(0, 1, (3, 3))
        strain = strain + strain.T
        strain = strain * rng.uniform(*STRAIN) / np.abs(strain).max()
        lattice = lattice @ (np.eye(3) + strain)
    return displaced(Geometry(lattice, ideal.frac_coords, ideal.numbers), ideal, change, rng)


def undistorted(prototype: str, compound: str) -> Geometry:
    """A compound in a prototype, as large as one of `STAND_INS` where the tables lack a radius."""
    from ase.data import atomic_numbers

    symbols = compound.split("-")
    crystal = ALL[prototype].crystal([STAND_INS.get(symbol, symbol) for symbol in symbols])
    numbers = crystal.numbers.copy()
    for symbol in STAND_INS.keys() & {*symbols}:
        numbers[crystal.numbers == atomic_numbers[STAND_INS[symbol]]] = atomic_numbers[symbol]
    return Geometry(crystal.lattice, crystal.frac_coords, numbers)


def defect(row: DefectRow, compound: str) -> Geometry:
    """A supercell with a vacancy or a foreign atom, whose atoms are displaced."""
    prototype, times, kind, foreign, _ = row
    rng = _rng(_defect_name(row, compound))
    crystal = undistorted(prototype, compound).structure()
    crystal.make_supercell(times)
    symbols = [site.specie.symbol for site in crystal]
    if kind is Defect.VACANT:
        crystal.remove_sites([symbols.index(compound.split("-")[-1])])
    else:
        crystal.replace(symbols.index(compound.split("-")[0]), foreign)
    numbers = np.array([site.specie.Z for site in crystal], dtype=np.int16)
    ideal = Geometry(crystal.lattice.matrix.copy(), crystal.frac_coords.copy(), numbers)
    lattice = ideal.lattice * (1 + rng.normal(0, SPREAD))
    scaled = Geometry(lattice, ideal.frac_coords, numbers)
    return displaced(scaled, ideal, Displacement.POLAR, rng)


def displaced(
    crystal: Geometry, ideal: Geometry, change: Displacement, rng: np.random.Generator
) -> Geometry:
    """The crystal with its atoms moved as far as drawn, in a way that keeps symmetries of `ideal`.

    Raises:
        ValueError: These symmetries leave no atom free to move.
    """
    lattice, frac_coords, numbers = crystal
    moves = symmetric(rng.normal(0, 1, (len(numbers), 3)), ideal, change, rng)
    moves -= moves.mean(axis=0)
    mean = float(np.linalg.norm(moves, axis=1).mean())
    if mean < 1e-3:
        raise ValueError(f"nothing is free to be {change}")
    distances = crystal.structure().distance_matrix
    shortest = min(distances[distances > 0].min(), np.linalg.norm(lattice, axis=1).min())
    moves *= min(rng.uniform(*MOVED), SHARE * shortest) / mean
    frac_coords = frac_coords + moves @ np.linalg.inv(lattice)
    return Geometry(lattice.round(8), frac_coords.round(8), numbers)


def symmetric(
    moves: NDArray[np.float64], ideal: Geometry, change: Displacement, rng: np.random.Generator
) -> NDArray[np.float64]:
    """The part of displacements that keeps the symmetries which the change keeps.

    Args:
        moves: (n_sites, 3) [Å].
        ideal: The crystal with all its symmetries.
        change: Says which of them are kept.
        rng: Of the polar axes that keep most symmetries one is drawn.

    Returns:
        Their mean over all symmetries that are kept (n_sites, 3) [Å].
    """
    group = space_group(ideal, _SYMPREC)
    if change is Displacement.RATTLED or group is None:
        return moves
    turns = group.turns(ideal.lattice)
    kept = np.arange(len(turns))
    if change is Displacement.POLAR:
        ways = [np.flatnonzero(np.abs(axis @ turns - axis).max(axis=1) < 1e-3) for axis in _AXES]
        most = max(map(len, ways))
        good = [way for way in ways if 2 * len(way) > most]
        kept = good[rng.integers(len(good))]
    return group.symmetric_part(moves, turns, kept)


def in_turn(listed: Sequence[InitialStructure], settings: DFTSettings) -> list[InitialStructure]:
    """Sort the structures by cost, with some of each kind at any time.

    Two of five are new test crystals as long as there are any, and one is relaxed again.
    """
    ordered = sort_by_cost(listed, settings)
    before = [each for each in ordered if each.name.startswith(AGAIN)]
    new = [each for each in ordered if not each.name.startswith(AGAIN)]
    test = [each for each in new if split_of(each.symbols) == "test"]
    other = [each for each in new if split_of(each.symbols) != "test"]
    kinds, turn = (test, other, test, other, before), list[InitialStructure]()
    queues = {id(kind): iter(kind) for kind in kinds}
    while len(turn) < len(listed):
        turn += [each for kind in kinds if (each := next(queues[id(kind)], None)) is not None]
    return turn


def _defect_name(row: DefectRow, compound: str) -> str:
    prototype, times, kind, foreign, _ = row
    parts = (prototype, "x".join(map(str, times)), compound, str(kind), foreign)
    return "-".join(filter(None, parts))


def _rng(name: str) -> np.random.Generator:
    return np.random.default_rng(int(hashlib.sha256(name.encode()).hexdigest(), 16))
