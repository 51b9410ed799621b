"""Read VASP's POSCAR and CONTCAR; the rules are those of vasp.at/wiki/index.php/POSCAR."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.core import Geometry
from benchmarks.data.structures import StructureError
from benchmarks.data.structures.words import (
    atomic_numbers,
    check_lattice,
    crystal,
    element,
    numbers,
)

_COORDINATE_LINE = re.compile(r"\s*[+-]?[\d.]\S*(\s+[+-]?[\d.]\S*){2}")


def read_poscar(text: str) -> Geometry:
    """Read the crystal of a POSCAR; selective dynamics and velocities are dropped.

    Elements stand in line 6 (VASP 5), or for VASP 4 in line 1, which then has nothing else, or at
    the end of each coordinate line.

    Raises:
        StructureError: The file is damaged, contradicts itself, or names no elements.
    """
    lines = text.splitlines()
    words = [re.split("[!#]", line)[0].split() for line in lines]
    if len(lines) < 8:
        raise StructureError(
            f"a POSCAR has 8 lines at least, this file {len(lines)}: it is cut short"
        )
    lattice, scale = _lattice(words)
    vasp5 = bool(words[5]) and not re.fullmatch(r"[+-]?[\d.]+", words[5][0])
    at = 6 if vasp5 else 5
    counts = _counts(words[at], at + 1)
    selective = words[at + 1][:1] and words[at + 1][0][0] in "sS"
    at += 2 if selective else 1
    mode = words[at][0].lower() if at < len(words) and words[at] else ""
    if not re.fullmatch(r"[ck](ar\w*)?|d(ir\w*)?|f(rac\w*)?", mode):
        raise StructureError(f"line {at + 1} has to be Direct or Cartesian")
    rows = words[at + 1 : at + 1 + sum(counts)]
    present = next((i for i, row in enumerate(rows) if not row), len(rows))
    if present < sum(counts):
        what = (
            f"line {7 if vasp5 else 6} counts {sum(counts)} atoms, but {present} coordinate lines"
        )
        raise StructureError(f"{what} follow: line {at + 2 + present} is missing")
    after = at + 1 + len(rows)
    if after < len(lines) and _COORDINATE_LINE.match(lines[after]):
        what = f"line {7 if vasp5 else 6} counts {sum(counts)} atoms"
        raise StructureError(f"{what}, but line {after + 1} is one more coordinate line")
    species = _species(lines[0], words[5] if vasp5 else [], counts, rows)
    coordinates = np.array(
        [numbers(row, 3, f"line {at + 2 + i}, a coordinate") for i, row in enumerate(rows)]
    )
    if mode[0] in "ck":
        return crystal(lattice, coordinates * scale, species)
    return Geometry(lattice, coordinates, atomic_numbers(species))


def _lattice(words: Sequence[Sequence[str]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(3, 3) row vectors [Å] of lines 3 to 5 and the scale of line 2, one factor or three."""
    lattice = np.array([numbers(words[i], 3, f"line {i + 1}, a cell vector") for i in (2, 3, 4)])
    three = len(words[1]) >= 3 and all(re.match(r"[+-]?[.\d]", word) for word in words[1][:3])
    scale = numbers(words[1], 3 if three else 1, "line 2, the scale")
    if len(words[1]) == 2 and re.match(r"[+-]?[.\d]", words[1][1]):
        raise StructureError("line 2: the scale is one number or three")
    if not three and scale[0] < 0:
        check_lattice(lattice / max(np.abs(lattice).max(), 1e-9))
        scale = np.cbrt(-scale / abs(np.linalg.det(lattice)))
    if not (scale > 0).all():
        raise StructureError("line 2: a scale of 0, or one of three that is negative")
    check_lattice(lattice * scale)
    return lattice * scale, scale


def _counts(words: Sequence[str], line: int) -> list[int]:
    """How many atoms each species has."""
    wrong = [word for word in words if not re.fullmatch(r"\d{1,7}", word)]
    if not words or wrong:
        what = f"{wrong[0]!r} is none" if wrong else "it is empty"
        raise StructureError(f"line {line} has to list the numbers of atoms: {what}")
    if not sum(map(int, words)):
        raise StructureError(f"line {line} counts no atoms")
    return [int(word) for word in words]


def _species(
    comment: str, symbols: Sequence[str], counts: Sequence[int], rows: Sequence[Sequence[str]]
) -> list[int]:
    """Atomic numbers of all sites by line 6, line 1, or the ends of the coordinate lines."""
    ends = [element(row[-1]) if len(row) in (4, 7) else 0 for row in rows]
    species = (_symbols(symbols, counts) if symbols else _vasp4(comment, counts)) or ends
    if not all(species):
        raise StructureError("names no elements: write them in line 6 (VASP 5)")
    if all(ends) and ends != species:
        where = "line 6" if symbols else "line 1"
        raise StructureError(f"{where} and the ends of the coordinate lines name other elements")
    return species


def _symbols(words: Sequence[str], counts: Sequence[int]) -> list[int]:
    """Atomic numbers of all sites by line 6, where VASP may write `Na_pv/6a2f546d` for Na."""
    if len(words) != len(counts):
        raise StructureError(f"line 6 names {len(words)} species, line 7 has {len(counts)} numbers")
    species = [element(re.split("[_/]", word)[0]) for word in words]
    for word, number in zip(words, species, strict=True):
        if not number:
            raise StructureError(f"line 6: {word!r} is no element")
    return [z for z, count in zip(species, counts, strict=True) for _ in range(count)]


def _vasp4(comment: str, counts: Sequence[int]) -> list[int]:
    """Atomic numbers of all sites by line 1 (`Na Cl`, `Na4Cl4`); empty where it has other words."""
    parts = re.findall(r"([A-Z][a-z]?)(\d*)", comment)
    whole = "".join(symbol + count for symbol, count in parts) == "".join(comment.split())
    named = [element(symbol) for symbol, _ in parts] if whole else []
    if len(named) != len(counts) or not all(named):
        return []
    return [z for z, count in zip(named, counts, strict=True) for _ in range(count)]
