"""Read SHELX .res and .ins files, and the .res of AIRSS and CASTEP, with their symmetry.

Format: Sheldrick, Acta Cryst. C71, 3 (2015), and the manual of SHELXL. A lattice type above 0 adds
an inversion; SYMM lists the operations that neither it nor the centring gives.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import gemmi
import numpy as np
from numpy.typing import NDArray

from benchmarks.core import Geometry
from benchmarks.data.structures import StructureError
from benchmarks.data.structures.asymmetric_unit import cell_of, full_cell, operations_of
from benchmarks.data.structures.words import FULL, element, numbers

CENTRINGS = (
    "x,y,z",
    "x+1/2,y+1/2,z+1/2",
    "x+2/3,y+1/3,z+1/3;x+1/3,y+2/3,z+2/3",
    "x,y+1/2,z+1/2;x+1/2,y,z+1/2;x+1/2,y+1/2,z",
    "x,y+1/2,z+1/2",
    "x+1/2,y,z+1/2",
    "x+1/2,y+1/2,z",
)
"""Translations of LATT 1 to 7: P, I, R (obverse), F, A, B, C."""
_INSTRUCTIONS = re.compile(
    "ABIN|ACTA|AFIX|ANIS|ANSC|ANSR|BASF|BEDE|BIND|BLOC|BOND|BUMP|CGLS|CHIV|CONF|CONN|DAMP|DANG|DEFS"
    "|DELU|DFIX|DISP|EADP|EGEN|EQIV|EXTI|EXYZ|FEND|FLAT|FMAP|FREE|GRID|HFIX|HOPE|HTAB|ILSF|ISOR"
    "|LAUE|LIST|L.S.|LONE|MERG|MORE|MPLA|NCSY|NEUT|OMIT|PART|PLAN|PRIG|REM|RESI|RIGU|RLXS|RSPL"
    "|RTAB|SADI|SAME|SHEL|SIMU|SIZE|SPEC|STIR|SUMP|SWAT|TEMP|TIME|TITL|TREF|TWIN|TWST|WGHT|WIGL"
    r"|WPDB|XNPD|ZERR|Q\d+"
)
"""Instructions that say nothing of where atoms are, and peaks of the electron density."""


@dataclass(slots=True)
class _Model:
    """What a file has said so far."""

    cell: gemmi.UnitCell | None = None
    latt: int | None = None
    symm: list[gemmi.Op] = field(default_factory=list)
    elements: list[int] = field(default_factory=list)
    unit: list[float] = field(default_factory=list)
    variables: list[float] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    species: list[int] = field(default_factory=list)
    coordinates: list[list[float]] = field(default_factory=list)
    sofs: list[float] = field(default_factory=list)
    """Site occupation factors, which a special position has in part."""
    coded: bool = False
    """An occupation is written as SHELX does, 11.0 for 1."""


def read_shelx(text: str) -> list[Geometry | StructureError]:
    """Read the full cell of each model, the images of an atom after it; Q peaks are left out.

    AIRSS puts several models in one file, each with its END.

    Raises:
        StructureError: No model is in it.
    """
    models: list[list[tuple[int, list[str]]]] = [[]]
    for line, words in _instructions(text):
        if words[0].upper() in ("END", "HKLF"):
            models.append([])
        else:
            models[-1].append((line, words))
    images: list[Geometry | StructureError] = []
    for instructions in models:
        if any(words[0].upper() == "CELL" for _, words in instructions):
            try:
                images.append(_crystal(instructions))
            except StructureError as error:
                images.append(error)
    if not images:
        raise StructureError("no line CELL: not a SHELX file")
    return images


def _crystal(instructions: Sequence[tuple[int, list[str]]]) -> Geometry:
    """The full cell of a model."""
    model = _Model()
    for line, words in instructions:
        try:
            _instruct(model, words)
        except (IndexError, RuntimeError) as error:
            raise StructureError(f"line {line}: {' '.join(words[:8])!r} is misspelt") from error
        except StructureError as error:
            raise StructureError(f"line {line}: {error}") from error
    assert model.cell
    if not model.species:
        raise StructureError("no atoms are in it")
    operations = _operations(model)
    coordinates = np.array(model.coordinates)
    geometry, owners = full_cell(
        model.cell, operations_of(operations), model.species, coordinates, model.labels
    )
    _require_whole(model, len(operations), geometry, owners)
    return geometry


def _require_whole(
    model: _Model, n_operations: int, geometry: Geometry, owners: NDArray[np.intp]
) -> None:
    """Refuse partial occupancies, and a UNIT that counts other atoms than symmetry gives."""
    counts = {z: int((geometry.numbers == z).sum()) for z in dict.fromkeys(model.elements)}
    stated: dict[int, float] = {}
    for z, count in zip(model.elements, model.unit, strict=False):
        stated[z] = stated.get(z, 0) + count
    agrees = all(abs(stated.get(z, 0) - n) <= FULL * max(n, 1) for z, n in counts.items())
    for i, sof in enumerate(model.sofs):
        order = n_operations / max(int((owners == i).sum()), 1)
        full = abs(sof - 1) <= FULL or abs(sof * order - 1) <= FULL
        # An atom of a special place has a part of 1 there; UNIT tells which where it is in doubt.
        if not full and (order == 1 or not model.unit or not agrees or sof > 1):
            what = f"{model.labels[i]} has an occupancy of {sof * order:.3g}"
            raise StructureError(f"{what}: only ordered crystals can be read")
    if any(count not in (0, 1) for count in model.unit) and not agrees:
        unit = " ".join(f"{gemmi.Element(z).name}{n:g}" for z, n in stated.items())
        read = " ".join(f"{gemmi.Element(z).name}{n}" for z, n in counts.items())
        raise StructureError(f"UNIT says {unit} in the cell, its atoms and symmetry give {read}")


def _instructions(text: str) -> Iterator[tuple[int, list[str]]]:
    """The lines as words, without comments; lines that end in `=` go on in the next."""
    carried: list[str] = []
    fragment = False
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.partition("!")[0]
        joined, _, rest = line.partition("=")
        if line[:4].upper() in ("TITL", "REM ") or line.strip().upper() == "REM":
            continue
        carried += joined.split()
        if rest == "" and "=" in line:
            continue
        words, carried = carried, []
        fragment = (fragment or words[:1] == ["FRAG"]) and words[:1] != ["FEND"]
        if words and not fragment:
            yield number, words


def _instruct(model: _Model, words: Sequence[str]) -> None:
    """Take one instruction or atom."""
    name = words[0].upper().partition("_")[0][:4]
    lists = {"UNIT": model.unit, "FVAR": model.variables}
    if name == "CELL":
        if model.cell:
            raise StructureError("a second CELL")
        model.cell = cell_of(numbers(words[2:], 6, "CELL, lengths and angles"))
    elif name == "LATT":
        model.latt = int(words[1]) if re.fullmatch("-?[1-7]", words[1]) else None
        if model.latt is None:
            raise StructureError(f"LATT {words[1]} is no lattice type: 1 to 7, or -1 to -7")
    elif name == "SYMM":
        triplet = "".join(words[1:]).lower()
        if not re.fullmatch(r"[xyz\d.+/,-]+", triplet):
            raise StructureError(f"{triplet!r} is no symmetry operation")
        model.symm.append(gemmi.Op(triplet))
    elif name == "SFAC":
        numeric = len(words) > 2 and re.fullmatch(r"[+-]?[\d.]+.*", words[2])
        model.elements += [_element(word) for word in (words[1:2] if numeric else words[1:])]
    elif name in lists:
        lists[name] += numbers(words[1:], len(words) - 1, name).tolist()
    elif not _INSTRUCTIONS.fullmatch(name):
        _atom(model, words)


def _element(word: str) -> int:
    number = element(word.lstrip("$").capitalize())
    if not number:
        raise StructureError(f"{word!r} is no element")
    return number


def _atom(model: _Model, words: Sequence[str]) -> None:
    """Take an atom: label, number in SFAC, coordinates, occupation."""
    if words[0].upper() == "MOVE" or words[0].startswith("+"):
        raise StructureError(f"the instruction {words[0]} is not read")
    if len(words) < 5 or not re.fullmatch(r"\d+", words[1]):
        raise StructureError(f"{' '.join(words[:8])!r} is neither an instruction nor an atom")
    if not 1 <= int(words[1]) <= len(model.elements):
        raise StructureError(f"{words[0]} has number {words[1]}, SFAC lists {len(model.elements)}")
    number = model.elements[int(words[1]) - 1]
    symbol = gemmi.Element(number).name
    letters = re.match("[A-Za-z]*", words[0])
    named = element(letters[0].capitalize()) if letters else 0
    if named and named != number and not words[0].upper().startswith(symbol.upper()):
        raise StructureError(f"{words[0]} is {symbol} by its number in SFAC: correct one of them")
    coded = numbers(words[2:], min(len(words) - 2, 4), f"{words[0]}, coordinates")
    values = [_decoded(value, model.variables) for value in coded]
    model.labels.append(words[0])
    model.species.append(number)
    model.coordinates.append(values[:3])
    model.sofs.append(values[3] if len(values) > 3 else 1.0)
    model.coded |= len(values) > 3 and abs(coded[3]) > 5


def _decoded(value: float, variables: Sequence[float]) -> float:
    """A parameter as SHELX codes it: 10 + p is a fixed p, 10 m + p is p times a free variable."""
    which = round(abs(value) / 10)
    rest = value - np.sign(value) * 10 * which
    if which < 2:
        return float(rest)
    if which > len(variables):
        raise StructureError(f"{value:g} refers to free variable {which}, which FVAR lacks")
    factor = variables[which - 1]
    return float(rest * factor if value > 0 else rest * (factor - 1))


def _operations(model: _Model) -> list[gemmi.Op]:
    """All operations of the group: centring, inversion, SYMM and their products."""
    latt = model.latt
    if latt is None:
        # SHELX means LATT 1, programs that write occupancies of 1.0 mean P 1
        if model.symm or model.coded:
            raise StructureError("no line LATT: add LATT 1 (centrosymmetric) or LATT -1")
        latt = -1
    triplets = ["x,y,z", *CENTRINGS[abs(latt) - 1].split(";"), *(["-x,-y,-z"] if latt > 0 else [])]
    stated = {op.wrap().triplet(): op for op in (*map(gemmi.Op, triplets), *model.symm)}
    try:
        group = gemmi.GroupOps(list(stated.values()))
        group.add_missing_elements()
    except RuntimeError as error:
        raise StructureError("LATT and SYMM are no space group") from error
    return list({operation.wrap().triplet(): operation for operation in group}.values())
