"""Read extended XYZ: all frames of a file, each by itself."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from ase.io.extxyz import key_val_str_to_dict
from numpy.typing import NDArray

from benchmarks.core import Geometry
from benchmarks.core.files import READ_ERRORS
from benchmarks.data.structures import StructureError
from benchmarks.data.structures.words import check_occupancies, crystal, element, numbers

NO_CRYSTAL = "no crystal: it needs a cell, periodic in three directions"


def read_extended_xyz(text: str) -> list[Geometry | StructureError]:
    """Read each frame, or the reason why it is none; blank lines between frames are allowed.

    Where a frame has not as many lines as it counts, the rest of the file cannot be cut into
    frames, and the last error says so.
    """
    lines = text.splitlines()
    images: list[Geometry | StructureError] = []
    at = 0
    while at < len(lines):
        if not lines[at].strip():
            at += 1
            continue
        if not re.fullmatch(r"\s*\d{1,9}\s*", lines[at]):
            what = f"line {at + 1}: a number of atoms is needed, not {lines[at].strip()[:30]!r}"
            images.append(StructureError(f"{what}; what follows is not read"))
            break
        count = int(lines[at])
        end = at + 2 + count
        while end < len(lines) and lines[end].lstrip().startswith("VEC"):
            end += 1
        try:
            images.append(_frame(lines[at:end], count, at + 1))
        except StructureError as error:
            images.append(error)
        at = end
    if not images:
        raise StructureError("the file is empty")
    return images


def _frame(lines: Sequence[str], count: int, first: int) -> Geometry:
    """The crystal of a frame whose line of the count is line `first` of the file."""
    if len(lines) < count + 2:
        what = f"line {first} counts {count} atoms, {max(len(lines) - 2, 0)} lines follow"
        raise StructureError(f"{what}: the file is cut short")
    if not count:
        raise StructureError(f"line {first} counts no atoms")
    try:
        info = key_val_str_to_dict(lines[1])
    except READ_ERRORS as error:
        nine = f"line {first + 1}: its Lattice is not nine numbers"
        pairs = f"line {first + 1} is not made of KEY=VALUE pairs"
        raise StructureError(nine if "3x3" in str(error) else pairs) from error
    lattice = _lattice(info, lines, count, first)
    columns = _columns(info.get("Properties", "species:S:1:pos:R:3"), first + 1)
    width = max(column.stop for column in columns.values())
    exact = "Properties" in info
    rows = [line.split() for line in lines[2 : count + 2]]
    for i, row in enumerate(rows):
        if len(row) < width or (exact and len(row) > width):
            what = f"line {first + 2 + i} has {len(row)} columns, {width} are declared"
            raise StructureError(f"{what} in line {first + 1}")
    species = _species(columns, rows, first + 2)
    check_occupancies(info.get("occupancy"))
    for name in ("occupancy", "occupancies", "occ"):
        if name in columns:
            where = f"line {first + 2} and after, the occupancies"
            check_occupancies(numbers([row[columns[name].start] for row in rows], count, where))
    if "pos" not in columns or columns["pos"].stop - columns["pos"].start != 3:
        raise StructureError(f"line {first + 1}: the Properties have no positions (pos:R:3)")
    where = "line {}, a position"
    positions = [
        numbers(row[columns["pos"]], 3, where.format(first + 2 + i)) for i, row in enumerate(rows)
    ]
    return crystal(lattice, np.array(positions), species)


def _lattice(
    info: dict[str, object], lines: Sequence[str], count: int, first: int
) -> NDArray[np.float64]:
    """(3, 3) row vectors [Å] by `Lattice`, or by three `VEC` lines after the atoms."""
    if len(re.findall(r"(?<!\w)Lattice\s*=", lines[1])) > 1:
        raise StructureError(f"line {first + 1} has several Lattices")
    periodic = np.atleast_1d(np.array(info.get("pbc", True), dtype=object)).tolist()
    words = {True: True, False: False, "T": True, "F": False}  # 1 and 0 are equal to them
    if len(periodic) not in (1, 3) or any(word not in words for word in periodic):
        raise StructureError(f'line {first + 1}: pbc is not like "T T T"')
    vectors = [line.split()[1:] for line in lines[count + 2 :]]
    stated = info.get("Lattice")
    if not all(words[word] for word in periodic) or (stated is None and len(vectors) != 3):
        raise StructureError(NO_CRYSTAL)
    if stated is None:
        where = f"line {first + count + 2}, a cell vector"
        return np.array([numbers(vector, 3, where) for vector in vectors])
    lattice = np.array(stated, dtype=np.float64).T
    if not np.isfinite(lattice).all():
        raise StructureError(f"line {first + 1}: its Lattice is not nine numbers")
    return lattice


def _columns(properties: object, line: int) -> dict[str, slice]:
    """The columns of each property, by `NAME:TYPE:COLUMNS` triples."""
    fields = str(properties).split(":")
    columns: dict[str, slice] = {}
    start = 0
    for name, kind, width in zip(fields[::3], fields[1::3], fields[2::3], strict=False):
        if kind not in ("R", "I", "S", "L") or not re.fullmatch(r"[1-9]\d{0,3}", width):
            raise StructureError(f"line {line}: {name}:{kind}:{width} is no property")
        if name in columns:
            raise StructureError(f"line {line} declares {name} twice")
        columns[name] = slice(start, start + int(width))
        start += int(width)
    if len(fields) % 3 or not columns:
        raise StructureError(f"line {line}: Properties are not NAME:TYPE:COLUMNS")
    return columns


def _species(columns: dict[str, slice], rows: Sequence[Sequence[str]], first: int) -> list[int]:
    """Atomic numbers by the columns `species` (symbols, in any case) and `Z`, which must agree."""
    found: list[list[int]] = []
    for name in ("species", "Z"):
        if name in columns:
            words = [row[columns[name].start] for row in rows]
            found.append(
                [element(w.capitalize()) for w in words]
                if name == "species"
                else [
                    int(w) if re.fullmatch(r"\d{1,3}", w) and 0 < int(w) < 119 else 0 for w in words
                ]
            )
            for i, (word, number) in enumerate(zip(words, found[-1], strict=True)):
                if not number:
                    raise StructureError(f"line {first + i}: {word!r} is no element")
    if not found:
        raise StructureError("the file names no elements (species:S:1)")
    if found[0] != found[-1]:
        raise StructureError("the columns species and Z name different elements")
    return found[0]
