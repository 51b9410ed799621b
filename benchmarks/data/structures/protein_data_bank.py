"""Read PDB files, which materials programs write too, with the space group of CRYST1.

Format: wwpdb.org/documentation/file-format-content/format33/v3.3.html
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import gemmi
import numpy as np

from benchmarks.core import Geometry
from benchmarks.data.structures import StructureError
from benchmarks.data.structures.asymmetric_unit import cell_of, full_cell, operations_of
from benchmarks.data.structures.extended_xyz import NO_CRYSTAL
from benchmarks.data.structures.words import FULL, element, numbers

_HEADER = ("CRYST1", "ORIGX", "SCALE", "MTRIX")


def read_protein_data_bank(text: str) -> list[Geometry | StructureError]:
    """Read the full cell of each model; records before it hold for it and for those after it.

    Raises:
        StructureError: No atoms are in it.
    """
    header: dict[str, str] = {}
    atoms: list[tuple[int, str]] = []
    images: list[Geometry | StructureError] = []
    ascii_text = text.encode("ascii", "replace").decode()  # which gemmi takes
    for number, line in enumerate([*ascii_text.splitlines(), "END"], start=1):
        if line.startswith(_HEADER):
            header[line[:6]] = line
        elif line.startswith(("ATOM", "HETATM")):
            atoms.append((number, line))
        elif line.startswith("END") and atoms:
            try:
                images.append(_model(header, atoms))
            except StructureError as error:
                images.append(error)
            atoms = []
    if not images:
        raise StructureError("no atoms are in it")
    return images


def _model(header: dict[str, str], atoms: Sequence[tuple[int, str]]) -> Geometry:
    """The full cell of a model."""
    cryst1 = header.get("CRYST1", "")
    if not cryst1:
        raise StructureError(f"{NO_CRYSTAL} (CRYST1)")
    parameters = [cryst1[6:15], cryst1[15:24], cryst1[24:33], cryst1[33:40], cryst1[40:47]]
    values = numbers([*map(str.strip, parameters), cryst1[47:54].strip()], 6, "CRYST1")
    cell_of(values)
    stated = gemmi.read_pdb_string("".join(f"{line}\n" for line in header.values()))
    if any(not operation.given for operation in stated.ncs):
        raise StructureError("it states operations (MTRIX) that are not read: write all atoms")
    name = stated.spacegroup_hm.strip()
    group = stated.find_spacegroup() if name else gemmi.SpaceGroup("P 1")
    if not group:
        raise StructureError(f"space group {name!r} of CRYST1 is unknown: write all atoms in P 1")
    if group.ext in ("1", "2") and ":" not in name:
        what = f"space group {name!r} of CRYST1 has several origins"
        raise StructureError(f"{what}: write all atoms in P 1, or use a CIF")
    species, coordinates = [], []
    for number, line in atoms:
        where = f"line {number}, a coordinate"
        position = numbers([line[i : i + 8].strip() for i in (30, 38, 46)], 3, where)
        fractional = stated.cell.fractionalize(gemmi.Position(*position))
        coordinates.append(fractional.tolist())
        occupancy = line[54:60].strip()
        if occupancy:
            value = numbers([occupancy], 1, f"line {number}, the occupancy")[0]
            if abs(value - 1) > FULL:
                what = f"line {number}: an occupancy of {value:g}"
                raise StructureError(f"{what}: only ordered crystals can be read")
        species.append(_element(line, number))
    return full_cell(
        stated.cell, operations_of(group.operations()), species, np.array(coordinates)
    )[0]


def _element(line: str, number: int) -> int:
    """Atomic number by columns 77-78, or by a name that leaves no doubt."""
    symbol = line[76:78].strip()
    if symbol:
        found = element(symbol.capitalize())
        if not found:
            raise StructureError(f"line {number}: {symbol!r} in columns 77-78 is no element")
        return found
    letters = re.match(r"\d*([A-Za-z]*)", line[12:16].strip())
    name = letters[1] if letters else ""
    names = {name} if name[1:].islower() else {name[:1], name[:2].capitalize()}
    elements = {element(each) for each in names} - {0}
    if len(elements) != 1:
        what = f"line {number}: the atom {line[12:16].strip()!r}"
        raise StructureError(f"{what} needs its element in columns 77-78")
    return elements.pop()
