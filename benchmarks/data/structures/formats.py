"""Read a person's structure in any format but CIF: `read_images(path, format_of(path))`.

POSCAR, extended XYZ, SHELX, PDB, LAMMPS data and CSSR have readers of their own here, because ASE's
ignore symmetry, guess elements or lose frames there. ASE reads the others, those that it reads in
full: a format that is not in `BY_ASE` is refused, so that none runs code, opens an address of a
database or other files, or leaves out what the file states.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import sqlite3
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Final

import ase.data
import numpy as np
from ase import Atoms
from ase.calculators.calculator import BadConfiguration
from ase.io import ParseError, read
from ase.io.aims import AimsParseError
from ase.io.formats import UnknownFileTypeError, filetype, get_compression, ioformats
from ase.io.trajectory import VersionTooOldError
from ase.io.vasp_parsers.vasp_outcar_parsers import NoNonEmptyLines, UnableToLocateDelimiter
from ase.spacegroup.spacegroup import SpacegroupError

from benchmarks.core import Geometry
from benchmarks.core.files import READ_ERRORS
from benchmarks.data.structures import StructureError
from benchmarks.data.structures.cssr import read_cssr
from benchmarks.data.structures.extended_xyz import NO_CRYSTAL, read_extended_xyz
from benchmarks.data.structures.lammps_data import read_lammps_atoms
from benchmarks.data.structures.poscar import read_poscar
from benchmarks.data.structures.protein_data_bank import read_protein_data_bank
from benchmarks.data.structures.shelx import read_shelx
from benchmarks.data.structures.words import atomic_numbers, check_lattice, check_occupancies

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
READERS: Final[dict[str, Callable[[str], list[Geometry | StructureError]]]] = {
    "extxyz": read_extended_xyz,
    "vasp": lambda text: [read_poscar(text)],
    "xyz": read_extended_xyz,
    "res": read_shelx,
    "proteindatabank": read_protein_data_bank,
    "lammps-data": lambda text: [_checked(read_lammps_atoms(text))],
    "cssr": lambda text: [read_cssr(text)],
}
"""Readers of our own, which take the text of a file."""
_ROWS: Final = {
    "espresso-in": (r"\bnat\s*=\s*(\d+)", r"^\s*ATOMIC_POSITIONS.*\n"),
    "xsf": (r"^\s*PRIMCOORD.*\n\s*(\d+)", r"^\s*PRIMCOORD.*\n.*\n"),
}
"""Where a text counts its atoms and what stands before their lines; ASE leaves out further ones."""
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
_LATER: Final = re.compile(r"(\.(relax\d*|static\d*|orig|start|bak|old))+$", re.IGNORECASE)
"""What custodian and people put after a file's name."""
_ERRORS: Final = (
    *(*READ_ERRORS, AimsParseError, BadConfiguration, MemoryError, NoNonEmptyLines, ParseError),
    *(SpacegroupError, UnableToLocateDelimiter, UnknownFileTypeError, VersionTooOldError),
    *(lzma.LZMAError, NameError, sqlite3.Error),
)
"""What ASE's readers raise for a file that is not as they expect."""


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
    text = _text(path, 4000)
    if not text.strip():
        raise StructureError("the file is empty")
    by_content = next((f for f, p in _CONTENTS.items() if re.search(p, text, re.M)), "")
    if by_content and suffix in ("data", "dat", "txt", "in", "inp", name.lower()):
        return by_content
    try:
        form = str(filetype(str(path.resolve())))
    except _ERRORS:
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
    if form in READERS:
        with _quiet():
            return READERS[form](_text(path))
    what = ioformats[form].description if form in ioformats else form
    _refuse_format(form, what)
    if BY_ASE[form] or form in _ROWS:
        _refuse_content(form, _text(path))
    if get_compression(path.name)[1] and not ioformats[form].acceptsfd:
        raise StructureError("this format is read uncompressed only: decompress the file")
    try:
        with _quiet():
            images = read(str(path.resolve()), index=":", format=form, do_not_split_by_at_sign=True)
    except _ERRORS as error:
        raise StructureError(_reason(error, what)) from error
    if not images or images[0] is None:
        raise StructureError("no structure is in it")
    if form == "eon":  # whose cells are periodic and whose reader does not say so
        for atoms in images:
            atoms.pbc = True
    return [_checked(atoms) for atoms in images]


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
    found = re.search(BY_ASE[form], text, re.IGNORECASE | re.MULTILINE) if BY_ASE[form] else None
    if found and form == "lammps-dump-text":
        raise StructureError("the file names no elements: dump the column `element`")
    if found:
        stated = " ".join(found[0].split())
        raise StructureError(f"it states {stated!r}, which is not read from this format: use a CIF")
    if form not in _ROWS:
        return
    counted, before = _ROWS[form]
    row = r"((?:[ \t]*\w+(?:[ \t]+[-+.\d]\S*){3,}.*\n|[ \t]*[#!].*\n|[ \t]*\n)*)"
    counts = re.findall(counted, text, re.MULTILINE | re.IGNORECASE)
    blocks = re.findall(before + row, text + "\n", re.MULTILINE | re.IGNORECASE)
    if len(counts) < len(blocks):
        raise StructureError("it does not say how many atoms it has")
    for count, block in zip(counts, blocks, strict=False):
        listed = len(re.findall(r"^[ \t]*\w", block, re.MULTILINE))
        if int(count) != listed:
            raise StructureError(f"it counts {count} atoms, {listed} lines of atoms follow")


def _text(path: Path, size: int = -1) -> str:
    """The text of a file, which may be compressed, or of its first `size` bytes."""
    openers = {"gz": gzip.open, "bz2": bz2.open, "xz": lzma.open}
    if path.is_dir():
        raise StructureError("a folder, not a file")
    opened: Callable[[Path], io.BufferedIOBase] = openers.get(  # type: ignore[assignment]
        str(get_compression(path.name)[1]), lambda file: file.open("rb")
    )
    try:
        with opened(path) as file:
            data = file.read(size)
    except FileNotFoundError as error:
        raise StructureError("no such file") from error
    except (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile) as error:
        raise StructureError("its compression is damaged or cut short") from error
    except OSError as error:
        raise StructureError(f"cannot be opened: {error.strerror or 'damaged'}") from error
    return data.decode("utf-8-sig", "replace")


@contextmanager
def _quiet() -> Iterator[None]:
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


def _reason(error: BaseException, what: str) -> str:
    """One line for a person about an exception of a library, without its internals."""
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return f"cannot be read as {what}: it asks for more memory than there is"
    if isinstance(error, KeyError) and re.fullmatch(r"'[A-Z][a-z]?'", text):
        return f"{text} is no element" + (": write H" if text in ("'D'", "'T'") else "")
    number = re.search(r"could not convert string to float: (.+)|base 10: (.+)", text)
    if number:
        return f"cannot be read as {what}: {number[1] or number[2]} stands where a number has to be"
    hint = "use CIF, POSCAR or extended XYZ if it is sound"
    return f"cannot be read as {what}: damaged, cut short, or of another format; {hint}"


def _checked(atoms: Atoms) -> Geometry | StructureError:
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
