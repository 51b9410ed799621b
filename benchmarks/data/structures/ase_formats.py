"""Read the formats that ASE reads in full: those of `BY_ASE`, whose text is checked beforehand.

A format that is not there is refused, so that none runs code, opens an address of a database or
other files, or leaves out what the file states.
"""

from __future__ import annotations

import io
import lzma
import re
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Final

import ase.data
import numpy as np
from ase import Atoms
from ase.calculators.calculator import BadConfiguration
from ase.io import ParseError, read
from ase.io.aims import AimsParseError
from ase.io.formats import UnknownFileTypeError, get_compression, ioformats
from ase.io.trajectory import VersionTooOldError
from ase.io.vasp_parsers.vasp_outcar_parsers import NoNonEmptyLines, UnableToLocateDelimiter
from ase.spacegroup.spacegroup import SpacegroupError

from benchmarks.core import Geometry
from benchmarks.core.files import READ_ERRORS
from benchmarks.data.structures import StructureError
from benchmarks.data.structures.extended_xyz import NO_CRYSTAL
from benchmarks.data.structures.words import (
    atomic_numbers,
    check_lattice,
    check_occupancies,
    text_of,
)

BY_ASE: Final[dict[str, str]] = {
    "abinit-gsr": "",
    "abinit-in": r"\b(spgroup|natrd|angdeg|scalecart|[ju]dtset|ndtset|include)\b|xcart[^a-z]+ang",
    "abinit-out": "",
    "aims": "",
    "aims-output": "",
    "castep-castep": "",
    "castep-cell": r"\bmixture\b"
    r"|^\s*%BLOCK +(LATTICE|POSITIONS)\w*\s*\n\s*(?!(ang|bohr|m|cm|nm|pm)\s)[a-z]\w*\s*\n",
    "castep-geom": "",
    "castep-md": "",
    "castep-phonon": "",
    "cfg": r"^\s*A\s*=(?!\s*1(\.0*)?\b)",
    "crystal": "",
    "db": "",
    "dftb": "",
    "dmol-arc": r"^PBC\s[^(\n]*\((?!\s*P\s*1\s*\))|^PBC=2D",
    "dmol-car": r"^PBC\s[^(\n]*\((?!\s*P\s*1\s*\))|^PBC=2D",
    "dmol-incoor": "",
    "elk": "",
    "eon": "",
    "espresso-in": r"\bspace_group\b|\bcrystal_sg\b",
    "espresso-out": "",
    "gen": "",
    "gpaw-out": "",
    "gpumd": "",
    "gpw": "",
    "json": "",
    "lammps-dump-text": r"^ITEM: ATOMS(?!.*\belement\b)",
    "magres": "",
    "mustem": "",
    "onetep-out": "",
    "prismatic": "",
    "rmc6f": "",
    "siesta-xv": "",
    "struct": r"^(?!P\s)\w+\s+LATTICE",
    "struct_out": "",
    "traj": "",
    "v-sim": "",
    "vasp-out": "",
    "vasp-xdatcar": "",
    "vasp-xml": "",
    "wout": "",
    "xsd": r"\bITNumber=\"(?!1\")\d+",
    "xsf": "",
}
"""Formats that ASE reads in full, unless their text matches this: symmetry, mixed sites, units."""
NO_ELEMENTS: Final = (
    "cp2k-dcd",
    "dlp4",
    "dlp-history",
    "gromacs",
    "gromos",
    "lammps-dump-binary",
    "netcdftrajectory",
)
"""Formats that number or label atoms by what a force field calls them."""
MOLECULES: Final = (
    *("acemolecule-input", "acemolecule-out", "cjson", "cube", "gamess-us-out", "gamess-us-punch"),
    *("gaussian-in", "gaussian-out", "mol", "nwchem-in", "nwchem-out", "orca-output", "sdf"),
    *("turbomole", "turbomole-gradient"),
)
"""Formats that say nothing of a crystal's periods, or whose periods ASE does not read in full."""
_ROWS: Final = {
    "espresso-in": (r"\bnat\s*=\s*(\d+)", r"^\s*ATOMIC_POSITIONS.*\n"),
    "xsf": (r"^\s*PRIMCOORD.*\n\s*(\d+)", r"^\s*PRIMCOORD.*\n.*\n"),
}
"""Where a text counts its atoms and what stands before their lines; ASE leaves out further ones."""
READER_ERRORS: Final = (
    *(*READ_ERRORS, AimsParseError, BadConfiguration, MemoryError, NoNonEmptyLines, ParseError),
    *(SpacegroupError, UnableToLocateDelimiter, UnknownFileTypeError, VersionTooOldError),
    *(lzma.LZMAError, NameError, sqlite3.Error),
)
"""What ASE's readers raise for a file that is not as they expect."""
_INTERNALS: Final = re.compile(
    r"\b(NoneType|aligned|argument|array|attribute|broadcast|codec|dimension|generator|index|iterable"
    r"|length|list|module|numpy|object|sequence|shape|string|syntax|token|type|unpack|variable)"
)
"""Words of Python, which tell a person nothing."""


def read_by_ase(path: Path, form: str) -> list[Geometry | StructureError]:
    """Read all structures of a file by ASE, or the reason why one is none.

    Args:
        path: A file, which may be compressed.
        form: ASE's name of its format.

    Raises:
        StructureError: The format is none that ASE reads in full, or the file cannot be read.
    """
    what = ioformats[form].description if form in ioformats else form
    _refuse_format(form, what)
    if BY_ASE[form] or form in _ROWS:
        _refuse_content(form, text_of(path))
    if get_compression(path.name)[1] and not ioformats[form].acceptsfd:
        raise StructureError("this format is read uncompressed only: decompress the file")
    try:
        with quiet():
            images = read(str(path.resolve()), index=":", format=form, do_not_split_by_at_sign=True)
    except READER_ERRORS as error:
        raise StructureError(reason(error, what)) from error
    if not images or images[0] is None:
        raise StructureError("no structure is in it")
    if form == "eon":  # whose cells are periodic and whose reader does not say so
        for atoms in images:
            atoms.pbc = True
    return [checked(atoms) for atoms in images]


def _refuse_format(form: str, what: str) -> None:
    """Refuse what ASE does not read in full, or not at all."""
    if form in NO_ELEMENTS:
        raise StructureError(f"the file names no elements ({what})")
    if form in MOLECULES:
        raise StructureError(f"{NO_CRYSTAL} ({what})")
    if form not in BY_ASE:
        raise StructureError(f"{what} is not read here: convert it to CIF, POSCAR or extended XYZ")


def _refuse_content(form: str, text: str) -> None:
    """Refuse what ASE would leave out without a word: symmetry, elements, atoms."""
    said = text if form == "xsd" else re.sub("[#!].*", "", text)
    found = re.search(BY_ASE[form], said, re.IGNORECASE | re.MULTILINE) if BY_ASE[form] else None
    if found and form == "lammps-dump-text":
        raise StructureError("the file names no elements: dump the column `element`")
    if found:
        stated = " ".join(found[0].split())
        raise StructureError(f"it states {stated!r}, which is not read from this format: use a CIF")
    if form not in _ROWS:
        return
    counted, before = _ROWS[form]
    row = r"((?:[ \t]*\w+(?:[ \t]+\S+){3,}.*\n|[ \t]*[#!].*\n|[ \t]*\n)*)"
    counts = re.findall(counted, text, re.MULTILINE | re.IGNORECASE)
    blocks = re.findall(before + row, text + "\n", re.MULTILINE | re.IGNORECASE)
    if len(counts) < len(blocks):
        raise StructureError("it does not say how many atoms it has")
    for count, block in zip(counts, blocks, strict=False):
        listed = len(re.findall(r"^[ \t]*\w", block, re.MULTILINE))
        if int(count) != listed:
            raise StructureError(f"it counts {count} atoms, {listed} lines of atoms follow")


@contextmanager
def quiet() -> Iterator[None]:
    """Let a reader of ASE print and warn nothing, and take D and T for hydrogen."""
    ase.data.atomic_numbers.update(D=1, T=1)
    try:
        printed = io.StringIO()
        with warnings.catch_warnings(), redirect_stdout(printed), redirect_stderr(printed):
            warnings.simplefilter("ignore")
            yield
    finally:
        for symbol in ("D", "T"):
            ase.data.atomic_numbers.pop(symbol, None)


def reason(error: BaseException, what: str) -> str:
    """One line for a person about an exception of a library, without its internals."""
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return f"cannot be read as {what}: it asks for more memory than there is"
    if isinstance(error, ImportError):
        return f"{what} needs the package {error.name} to be read: convert it to CIF"
    if isinstance(error, KeyError) and re.fullmatch(r"'[A-Z][a-z]?'", text):
        return f"{text} is no element" + (": write H" if text in ("'D'", "'T'") else "")
    number = re.search(r"could not convert string to float: (.+)|base 10: (.+)", text)
    if number:
        return f"cannot be read as {what}: {number[1] or number[2]} stands where a number has to be"
    sentence = len(text.split()) > 3 and re.fullmatch(r"[A-Z][^\[\]{}<>]+", text)
    if sentence and not _INTERNALS.search(text):
        return f"cannot be read as {what}: {text[:200]}"
    hint = "use CIF, POSCAR or extended XYZ if it is sound"
    return f"cannot be read as {what}: damaged, cut short, or of another format; {hint}"


def checked(atoms: Atoms) -> Geometry | StructureError:
    """The crystal of ASE's atoms, or why it is none."""
    if atoms.cell.rank < 3 or not atoms.pbc.all():
        return StructureError(NO_CRYSTAL)
    if not len(atoms):
        return StructureError("no atoms are in it")
    unknown = np.flatnonzero((atoms.numbers < 1) | (atoms.numbers > 118))
    if len(unknown):
        return StructureError(f"site {unknown[0] + 1} has no element")
    if not np.isfinite(atoms.positions).all():
        return StructureError("a coordinate is no number")
    lattice = np.array(atoms.cell.array, dtype=np.float64)
    try:
        check_lattice(lattice)
        check_occupancies(atoms.info.get("occupancy"))
        for name in ("occupancy", "occupancies"):
            check_occupancies(atoms.arrays.get(name))
    except StructureError as error:
        return error
    scaled = np.linalg.solve(lattice.T, atoms.positions.T).T
    return Geometry(lattice, scaled, atomic_numbers(atoms.numbers))
