"""Read CSSR (Cambridge structure search and retrieval) files, which zeolite programs write."""

from __future__ import annotations

import re

import numpy as np

from benchmarks.core import Geometry
from benchmarks.data.structures import StructureError
from benchmarks.data.structures.asymmetric_unit import cell_of, lattice_of
from benchmarks.data.structures.words import atomic_numbers, crystal, element, numbers


def read_cssr(text: str) -> Geometry:
    """Read the crystal of a CSSR file: lengths, angles, the number of atoms, a title, the atoms.

    Raises:
        StructureError: The file is damaged, or its space group is not P 1.
    """
    lines = text.splitlines()
    if len(lines) < 5:
        raise StructureError(f"a CSSR file has 5 lines at least, this file {len(lines)}")
    lengths = numbers(lines[0].rpartition("=")[2].split()[-3:], 3, "line 1, the lengths")
    angles = numbers(
        lines[1].partition("SPGR")[0].rpartition("=")[2].split(), 3, "line 2, the angles"
    )
    group = re.search(r"SPGR\s*=?\s*(\d+)\s*([^\s=]\s?[^=]*?)(?:\s{2,}|OPT|$)", lines[1])
    if group and (group[1] != "1" or group[2].replace(" ", "") not in ("P1", "")):
        what = f"space group {group[2].strip() or group[1]!r}"
        raise StructureError(f"{what} is not read from this format: write all atoms in P 1")
    words = lines[2].split()
    if len(words) < 1 or not re.fullmatch(r"\d{1,7}", words[0]):
        raise StructureError("line 3 has to begin with the number of atoms")
    cartesian = len(words) > 1 and words[1] == "1"
    rows = [line.split() for line in lines[4:] if line.strip()]
    if len(rows) != int(words[0]) or not rows:
        raise StructureError(f"line 3 counts {words[0]} atoms, {len(rows)} lines follow")
    species, coordinates = [], []
    for i, row in enumerate(rows):
        letters = re.match(r"([A-Za-z]{1,2})\d*$", row[1]) if len(row) > 1 else None
        species.append(element(letters[1].capitalize()) if letters else 0)
        if not species[-1]:
            raise StructureError(f"atom {i + 1}: {' '.join(row[1:2])!r} is no element")
        coordinates.append(numbers(row[2:], 3, f"atom {i + 1}, a coordinate"))
    lattice = lattice_of(cell_of([*lengths, *angles]))
    if cartesian:
        return crystal(lattice, np.array(coordinates), species)
    return Geometry(lattice, np.array(coordinates), atomic_numbers(species))
