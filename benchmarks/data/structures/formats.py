"""Read a person's structure in any format but CIF: `read_images(path, format_of(path))`.

POSCAR, extended XYZ, SHELX, PDB, LAMMPS data and CSSR have readers of their own here, because ASE's
ignore symmetry, guess elements or lose frames there. ASE reads the others.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ase.io.formats import filetype, get_compression, ioformats

from benchmarks.core import Geometry
from benchmarks.data.structures import StructureError
from benchmarks.data.structures.ase_formats import (
    READER_ERRORS,
    checked,
    quiet,
    read_by_ase,
    reason,
)
from benchmarks.data.structures.cssr import read_cssr
from benchmarks.data.structures.extended_xyz import read_extended_xyz
from benchmarks.data.structures.lammps_data import read_lammps_atoms
from benchmarks.data.structures.poscar import read_poscar
from benchmarks.data.structures.protein_data_bank import read_protein_data_bank
from benchmarks.data.structures.shelx import read_shelx
from benchmarks.data.structures.words import text_of

READERS: Final[dict[str, Callable[[str], list[Geometry | StructureError]]]] = {
    "extxyz": read_extended_xyz,
    "vasp": lambda text: [read_poscar(text)],
    "xyz": read_extended_xyz,
    "res": read_shelx,
    "proteindatabank": read_protein_data_bank,
    "lammps-data": lambda text: [checked(read_lammps_atoms(text))],
    "cssr": lambda text: [read_cssr(text)],
}
"""Readers of our own, which take the text of a file."""
_SUFFIXES: Final = {
    **dict.fromkeys(("cif", "mcif"), "cif"),
    **dict.fromkeys(("vasp", "poscar", "contcar"), "vasp"),
    **dict.fromkeys(("xyz", "extxyz"), "extxyz"),
    **dict.fromkeys(("res", "ins", "shelx"), "res"),
    **dict.fromkeys(("pdb", "ent"), "proteindatabank"),
    **dict.fromkeys(("lmp", "lammps", "lammps-data"), "lammps-data"),
    "cssr": "cssr",
}
_NAMES: Final = {"POSCAR|CONTCAR|CENTCAR": "vasp", r"vasprun.*\.xml$": "vasp-xml"}
_CONTENTS: Final = {
    "cif": r"\A(\s*(#.*)?\n)*\s*data_\S*\s",
    "extxyz": r"\A\s*\d+[ \t]*\n.*\bLattice\s*=",
    "lammps-data": r"^\s*\S+\s+\S+\s+xlo\s+xhi",
    "proteindatabank": r"^CRYST1\s",
    "res": r"^CELL(\s+[\d.]+){7}",
    "vasp": r"\A.*\n\s*[\d.+-]+\s*\n(\s*[\d.+-]\S*){3}.*\n(\s*[\d.+-]\S*){3}.*\n",
}
"""What the text of a format looks like, for files whose names tell nothing."""
_LATER: Final = re.compile(
    r"(\.(relax\d*|static\d*|orig|start|bak|old|error|\d+))+$", re.IGNORECASE
)
"""What custodian and people put after a file's name."""


def format_of(path: Path) -> str:
    """ASE's name of a file's format, also `cif` or `cssr`, by the file's name, then its content.

    Raises:
        StructureError: It cannot be opened, it is empty, or its format is unknown.
    """
    name = _LATER.sub("", get_compression(path.name)[0])
    suffix = name.rpartition(".")[2].lower()
    if suffix in _SUFFIXES:
        return _SUFFIXES[suffix]
    for pattern, form in _NAMES.items():
        if re.search(pattern, name, re.IGNORECASE):
            return form
    text = text_of(path, 4000)
    if not text.strip():
        raise StructureError("the file is empty")
    by_content = next((f for f, p in _CONTENTS.items() if re.search(p, text, re.M)), "")
    if by_content and suffix in ("data", "dat", "txt", "in", "inp", name.lower()):
        return by_content
    try:
        form = str(filetype(str(path.resolve())))
    except READER_ERRORS:
        form = ""
    if form in ioformats or by_content:
        return form if form in ioformats else by_content
    what = "no format that ASE knows: name the file by its format"
    raise StructureError(f"{what}, .cif, .vasp, .extxyz, .res, …")


def read_images(path: Path, form: str) -> list[Geometry | StructureError]:
    """Read all structures of a file, each in its own setting, or the reason why it is none.

    Args:
        path: A file, which may be compressed (.gz, .bz2, .xz).
        form: The format as `format_of` calls it, but not `cif`.

    Raises:
        StructureError: The file as a whole cannot be read.
    """
    what = ioformats[form].description if form in ioformats else form
    if form in READERS:
        text = text_of(path)
        try:
            with quiet():
                return READERS[form](text)
        except StructureError:
            raise
        except READER_ERRORS as error:
            raise StructureError(reason(error, what)) from error
    return read_by_ase(path, form)
