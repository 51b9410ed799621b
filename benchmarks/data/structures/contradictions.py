"""What a CIF says twice: formula, Z, multiplicities, group, volume and density against its sites.

Where atoms are missing or extra the file is refused; what is only odd is said.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import gemmi
import numpy as np
from gemmi.cif import as_number, as_string
from numpy.typing import NDArray

from benchmarks.core import Geometry
from benchmarks.core.symmetry import symmetry_dataset
from benchmarks.data.structures import StructureError
from benchmarks.data.structures.operations import StatedSymmetry

ODD_VOLUME = 0.02
"""A stated volume that is off by more than this share is odd."""
ODD_DENSITY = 0.2
"""So is a density, in which deuterium may count as hydrogen."""
DALTON = 1.66053907
"""Daltons per Å^3 in g/cm^3."""

Fields = dict[str, list[str]]
"""Raw values of a block by tag, in lower case and with underscores for dots."""


def number_of(value: str) -> float:
    """A number with or without quotes and standard uncertainty; NaN for anything else."""
    return float(as_number(as_string(value).strip()))


def stated_formula(fields: Fields) -> tuple[dict[int, float], list[str]]:
    """Atoms per formula unit by atomic number; empty where no formula is stated."""
    text = " ".join(fields.get("_chemical_formula_sum", [""])[0].split())
    counts: dict[int, float] = {}
    if text in ("?", "."):  # in quotes, where it should be without
        return {}, []
    element = r"([A-Z][a-z]?|\S)"
    if re.fullmatch(r"[A-Za-z]{1,2}[\d.]*( [A-Za-z]{1,2}[\d.]*)+", text):
        element = r"([A-Za-z]+)"  # `CA1 O1`: each word is an element, however it is written
    for match in re.finditer(element + r"([\d.]*)(?:\(\d+\))?\s*", text):
        symbol = match[1]
        z = 1 if symbol in ("D", "T") else gemmi.Element(symbol).atomic_number
        try:
            n = float(match[2] or 1)
        except ValueError:
            n = 0.0
        if not z or not n > 0:
            return {}, [f"its formula {text!r} cannot be read, so it was not compared"]
        counts[z] = counts.get(z, 0.0) + n
    return counts, []


def compare_formula(
    formula: Mapping[int, float], fields: Fields, numbers: NDArray[np.int16]
) -> tuple[bool, list[str]]:
    """Compare the stated formula with the sites.

    Returns:
        True if formula and Z together give the atoms that were read; what is odd.

    Raises:
        StructureError: Atoms are missing, or there are more than the formula has.
    """
    if not formula:
        return False, []
    read = Counter(numbers.tolist())
    z = number_of(fields.get("_cell_formula_units_z", ["?"])[0])
    ratios = [read[e] / n for e, n in formula.items() if read[e]]
    units = z if np.isfinite(z) and z > 0 else float(np.median(ratios or [1.0]))
    stated = {e: n * units for e, n in formula.items()}
    off = {e: read[e] - stated.get(e, 0.0) for e in {*read, *stated}}
    worst = max(abs(x) / max(stated.get(e, 0.0), 1e-9) for e, x in off.items())
    if worst < 0.01:
        return units == z, []
    whole = all(float(n).is_integer() for n in formula.values())
    if whole and read == formula and z == np.gcd.reduce([int(n) for n in formula.values()]):
        return False, []  # pymatgen writes the whole cell as the formula, and Z beside it
    if worst < 0.1 and not whole:
        said = _text(formula)
        return False, [f"its formula {said} is not quite what its sites give ({_text(read)})"]
    says = f" and Z = {z:g} say" if units == z else " says"
    raise StructureError(
        f"its formula{says} {_text(stated)}, its sites and symmetry give {_text(read)}: "
        "atoms are missing or extra"
    )


def _text(counts: Mapping[int, float]) -> str:
    return "".join(f"{gemmi.Element(z).name}{n:g}" for z, n in sorted(counts.items()) if n)


def compare_multiplicities(
    fields: Fields, numbers: Sequence[int], labels: Sequence[str], read: NDArray[np.intp]
) -> list[str]:
    """Say that each site stands for more atoms than its symmetry gives.

    Args:
        fields: Of the block.
        numbers: (n_sites,) atomic numbers of the listed sites.
        labels: (n_sites,) their names.
        read: (n_sites,) how many atoms came of each.

    Raises:
        StructureError: There is no symmetry, and the sites are not all listed either.
    """
    for tag in ("_atom_site_symmetry_multiplicity", "_atom_site_site_symmetry_multiplicity"):
        stated = [number_of(value) for value in fields.get(tag, [])]
        kinds = Counter(zip(numbers, stated, strict=False))
        for label, kind in zip(labels, zip(numbers, stated, strict=False), strict=False):
            if read.max() == 1 and kind[1] > 1 and kinds[kind] % kind[1]:
                raise StructureError(
                    f"site {label} has a multiplicity of {kind[1]:g}, and no symmetry gives the "
                    "other atoms: name the space group or list the operations"
                )
        times = {share / n for share, n in zip(stated, read.tolist(), strict=False) if n}
        if read.max() > 1 and len(times) == 1 and min(times) > 1:
            return [f"its multiplicities are {min(times):g} times what its symmetry gives"]
    return []


def judge_dispute(symmetry: StatedSymmetry, geometry: Geometry, *, counted: bool) -> None:
    """Refuse a list of operations that is not the named group, unless no atom can be missing.

    None is missing if formula and Z say so, or if the crystal that was read has the symmetry of
    the named group: the file then lists its cell in full.
    """
    if counted:
        return
    found = symmetry_dataset(geometry, 0.02)
    if not found or found.number != symmetry.named:
        n = len(symmetry.rotations)
        raise StructureError(
            f"it names {symmetry.disputed}, and its {n} listed operation{'s' * (n > 1)} are "
            "another group: correct one of them"
        )


def odd_volume_or_density(fields: Fields, geometry: Geometry) -> list[str]:
    """Say where the stated volume [Å^3] or density [g/cm^3] is not that of the crystal."""
    found = []
    volume = abs(float(np.linalg.det(geometry.lattice)))
    stated = number_of(fields.get("_cell_volume", ["?"])[0])
    if np.isfinite(stated) and abs(stated / volume - 1) > ODD_VOLUME:
        found.append(f"it says a volume of {stated:g} Å^3, its cell has {volume:.1f}")
    mass = sum(gemmi.Element(z).weight for z in geometry.numbers.tolist())
    density = mass * DALTON / volume
    stated = number_of(fields.get("_exptl_crystal_density_diffrn", ["?"])[0])
    if stated > 0 and abs(stated / density - 1) > ODD_DENSITY:
        found.append(f"it says a density of {stated:g} g/cm^3, its atoms give {density:.2f}")
    return found
