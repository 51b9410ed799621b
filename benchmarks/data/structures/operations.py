"""The symmetry that a CIF states: its list of operations, or the group that it names.

A statement is obeyed or refused, never passed over. gemmi and spglib know the space groups; only
the texts of the operations are read here, because gemmi knows no fifths.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import gemmi
import numpy as np
import spglib
from numpy.typing import NDArray

from benchmarks.data.structures import StructureError
from benchmarks.data.structures.asymmetric_unit import Operations, lattice_of, operations_of

os.environ.setdefault("SPGLIB_WARNING", "OFF")  # it prints about groups that it does not find
LISTS = ("_space_group_symop_operation_xyz", "_symmetry_equiv_pos_as_xyz")
"""Tags of lists of operations."""
NAMES = (
    "_space_group_name_h-m_alt",
    "_symmetry_space_group_name_h-m",
    "_space_group_name_h-m",
    "_space_group_name_h-m_full",
    "_symmetry_full_space_group_name_h-m",
    "_space_group_name_h-m_ref",
)
"""Tags of a Hermann-Mauguin symbol; the first that the file has counts."""
HALL = ("_space_group_name_hall", "_symmetry_space_group_name_hall")
NUMBERS = ("_space_group_it_number", "_symmetry_int_tables_number")
CODE = "_space_group_it_coordinate_system_code"
SETTINGS = ("_symmetry_cell_setting", "_space_group_crystal_system")
"""Tags of the crystal system, which says that there is symmetry and not which."""
_BESIDE = re.compile(
    r"_(space_group_symop_(id|sg_id|sgid|operation_description|generator_xyz|r|t|rt)"
    r"|symmetry_equiv_pos_(site_)?id|symmetry_equiv_id)"
)
"""Tags that may stand beside a list of operations and say nothing more."""
_FOREIGN = re.compile(r"_(space_?group|symmetry|magnetic|superspace).*")
SCHOENFLIES = "_space_group_name_schoenflies"
_SILENT = re.compile(r".*(id|comment|details|creation_method)")
"""Tags that state no symmetry."""
_NO_SYMMETRY = ("", "1", "p", "p1", "p 1", "c1", "ap", "x,y,z")
MAX_OPERATIONS = 1000
"""A list of more takes long to check; 192 are the most of a conventional cell."""
_LATTICE_POINTS = {"P": (1,), **dict.fromkeys("ABCI", (2,)), "F": (4,), "R": (1, 3), "H": (3,)}
"""Lattice points in a cell by the first letter of a symbol."""
_SPELLINGS = (
    (r"^(['\"])(.*)\1$", r"\2"),
    (r"[{}]|</?sub>|~", ""),
    (r"\s*\((no\.?|nr\.?|#)?\s*\d{2,3}\s*\)$", ""),
    (r"\\bar\s*(\d)", r"-\1"),
    (r"(\d)\s*bar", r"-\1"),
    (r"(?<=\d)\((\d)\)", r"\1"),
    (r"\s*/\s*", "/"),
    (r"^(?!._)(.*?\d)_(\d)(?:(.*?\d)_(\d))?(?:(.*?\d)_(\d))?", r"\1\2\3\4\5\6"),
    (r"\s*:?\s*(S|O1)$", ":1"),
    (r"\s*:?\s*(Z|O2)$", ":2"),
)
"""Ways to write a Hermann-Mauguin symbol: `P 2~1~/c`, `P2(1)/c`, `F d -3 m Z`, `Fm-3m (225)`."""
_TERM = re.compile(r"([+-]?)(?:([xyz])|(\d*\.\d+|\d+\.|\d+(?:/\d+)?))")
_SNAP = 0.004
"""A translation as a decimal is the fraction that is this near: 0.333 is 1/3."""


@dataclass(frozen=True, slots=True)
class StatedSymmetry:
    """The operations to apply, and the groups that the file names beside them."""

    rotations: NDArray[np.int64]
    """(n, 3, 3), the identity first."""
    translations: NDArray[np.float64]
    """(n, 3) in [0, 1)."""
    listed: bool
    """True if the file lists its operations; False if they are those of the group that it names."""
    disputed: str = ""
    """The symbol or number of a named group that is not the group of the listed operations."""
    named: int | None = None
    """Number of the disputed group."""
    warnings: tuple[str, ...] = ()


def stated_symmetry(fields: Mapping[str, Sequence[str]], cell: gemmi.UnitCell) -> StatedSymmetry:
    """The symmetry operations of a block.

    Args:
        fields: Values by tag, in lower case and with underscores for dots; nulls are left out.
        cell: The cell, which tells the two settings of rhombohedral groups apart.

    Raises:
        StructureError: The block states a symmetry that is not understood (magnetic, modulated,
            misspelt, unknown), that is no group, or that contradicts itself.
    """
    _refuse_foreign(fields)
    named = _named_groups(fields, cell)
    lists = [[text for text in fields.get(tag, ()) if text.strip()] for tag in LISTS]
    lists = [texts for texts in lists if texts]
    if not lists:
        return _from_names(named, fields)
    if max(map(len, lists)) > MAX_OPERATIONS:
        raise StructureError(f"it lists {max(map(len, lists))} symmetry operations: too many")
    parsed = [_parse_all(texts) for texts in lists]
    if len(parsed) > 1 and _keys(*parsed[0]) != _keys(*parsed[1]):
        raise StructureError(f"its lists {LISTS[0]} and {LISTS[1]} differ: take one out")
    rotations, translations = parsed[0]
    _require_group(rotations, translations)
    number = _group_number(rotations, translations, cell)
    name = _one(fields, NAMES)
    points = int((rotations == np.eye(3, dtype=np.int64)).all(axis=(1, 2)).sum())
    fits = points in _LATTICE_POINTS.get(name[:1].upper(), (points,))
    if [n for _, n, _ in named] == [0] and len(rotations) > 1 and fits:
        warnings: tuple[str, ...] = (f"{named[0][0]} is unknown, so it was not compared",)
        return StatedSymmetry(rotations, translations, True, warnings=warnings)
    others = [(name, n) for name, n, _ in named if n != number]
    if others and len(others) == len(named):  # one name that is right is enough
        return StatedSymmetry(rotations, translations, True, *others[0])
    warnings = tuple(f"it names {name}, which its operations are not" for name, _ in others)
    settings = [(name, ops) for name, n, ops in named if n == number and "number" not in name]
    for name, ops in settings:
        if not isinstance(ops, str) and _keys(*ops) != _keys(rotations, translations):
            warnings += (f"its operations are another setting or origin of {name}",)
    return StatedSymmetry(rotations, translations, True, warnings=warnings)


def _refuse_foreign(fields: Mapping[str, Sequence[str]]) -> None:
    """Refuse statements about symmetry beside the ones that are read."""
    dimension = fields.get("_cell_modulation_dimension", ("0",))[0]
    modulated = dimension.strip("'\" ") != "0" or any(
        "ssg" in tag or "superspace" in tag or tag.startswith("_cell_wave_vector") for tag in fields
    )
    if modulated:
        raise StructureError("a modulated crystal (superspace group), which has no unit cell")
    for tag in fields:
        if not _FOREIGN.fullmatch(tag):
            continue
        if "magn" in tag:
            raise StructureError("a magnetic CIF, whose symmetry operations are not read")
        operations = tag.startswith(("_space_group_symop", "_symmetry_equiv"))
        if operations and tag not in LISTS and not _BESIDE.fullmatch(tag):
            raise StructureError(f"the symmetry under {tag} is not understood: use {LISTS[0]}")
    lists = [tag for tag in fields if tag in LISTS]
    for tag in ("_space_group_symop_generator_xyz", "_space_group_symop_r"):
        if tag in fields and not lists:
            raise StructureError(f"{tag} alone is not read: list all operations in {LISTS[0]}")


_Group = tuple[str, int, Operations | str]
"""A named group: how the file names it, its number, its operations or why they are unknown."""


def _named_groups(fields: Mapping[str, Sequence[str]], cell: gemmi.UnitCell) -> list[_Group]:
    """The groups that the Hall symbol, the Hermann-Mauguin symbol and the number name.

    A name that is not known counts only where no other is.
    """
    code = _one(fields, (CODE,)).lower()
    hall = _one(fields, HALL)
    name = " ".join(_one(fields, NAMES).split())
    written = _one(fields, NUMBERS)
    number = _number(written)
    schoenflies = _one(fields, (SCHOENFLIES,))
    found: list[_Group | None] = []
    unknown = []
    if hall:
        found.append(_by_hall(hall, cell))
        unknown.append(f"the Hall symbol {hall!r}")
    if name:
        found.append(_by_name(_spelled(name), cell, code))
        unknown.append(f"space group {name!r}")
    if number:
        found.append(_by_number(number, cell, code))
        unknown.append(f"space group {number} with the setting {code!r}")
    elif written and not name:
        unknown.append(f"space group number {written!r}")
    if schoenflies and not unknown and schoenflies.upper() not in ("C1", "C1^1", "C_1^1"):
        unknown.append(f"the Schoenflies symbol {schoenflies!r}")
    known = [group for group in found if group]
    if unknown and not known:
        return [(unknown[0], 0, f"{unknown[0]} is unknown: the CIF must list its operations")]
    return known


def _spelled(name: str) -> str:
    """A Hermann-Mauguin symbol as gemmi spells it."""
    for pattern, plain in _SPELLINGS:
        name = re.sub(pattern, plain, name, flags=re.IGNORECASE if "no" in pattern else 0)
    return name.strip()


def _by_hall(hall: str, cell: gemmi.UnitCell) -> _Group | None:
    """The group of a Hall symbol, which says the origin."""
    try:
        operations = operations_of(gemmi.symops_from_hall(hall))
    except (RuntimeError, ValueError):
        return None
    return f"{hall!r}", _group_number(*operations, cell), operations


def _by_name(name: str, cell: gemmi.UnitCell, code: str) -> _Group | None:
    """The group of a Hermann-Mauguin symbol, short or full; the origin is never guessed."""
    group: gemmi.SpaceGroup | None
    group = gemmi.find_spacegroup_by_name(name, alpha=cell.alpha, gamma=cell.gamma, prefer="2")
    origin = name.rpartition(":")[2] if ":" in name else ""
    if not group:
        bare = re.sub(r"[\s_]|:.*", "", name).lower()
        entries = [
            e for e in _tables() if bare == re.sub(r"[\s_]", "", e.international_full).lower()
        ]
        group = gemmi.find_spacegroup_by_number(entries[0].number) if entries else None
        if entries and group and group.ext not in ("1", "2", "H", "R"):
            ops = _from_database(entries[0].hall_number)
            return f"{name!r}", entries[0].number, ops
        if group:
            short = f"{group.hm}:{origin}" if origin else group.hm
            group = gemmi.find_spacegroup_by_name(
                short, alpha=cell.alpha, gamma=cell.gamma, prefer="2"
            )
    if not group:
        return None
    if group.ext in ("1", "2") and not origin:
        if code not in ("1", "2"):
            return f"{name!r}", group.number, _origins(group)
        group = gemmi.find_spacegroup_by_name(f"{group.hm}:{code}") or group
    if group.ext in ("H", "R") and code in ("h", "r"):
        group = gemmi.find_spacegroup_by_name(f"{group.hm}:{code.upper()}") or group
    return f"{name!r}", group.number, operations_of(group.operations())


def _by_number(number: int, cell: gemmi.UnitCell, code: str) -> _Group | None:
    """The group of a number, in the setting of the code or in the standard one."""
    if code:
        entries = [e for e in _tables() if e.number == number and e.choice.lower() == code]
        if entries:
            return f"number {number}", number, _from_database(entries[0].hall_number)
        if code not in ("1", "2", "h", "r", "b1", "abc"):
            return None
    group = gemmi.find_spacegroup_by_number(number)
    if group.ext in ("1", "2"):
        return f"number {number}", number, _origins(group)
    group = gemmi.find_spacegroup_by_name(group.hm, alpha=cell.alpha, gamma=cell.gamma, prefer="2")
    return f"number {number}", number, operations_of(group.operations())


def _origins(group: gemmi.SpaceGroup) -> str:
    return f"space group {group.hm!r} has several origins: the CIF must list its operations"


def _from_names(named: Sequence[_Group], fields: Mapping[str, Sequence[str]]) -> StatedSymmetry:
    """The operations of the group that is named, the Hall symbol before the others."""
    numbers = {number for _, number, _ in named if number}
    if len(numbers) > 1:
        names = " and ".join(name for name, _, _ in named)
        raise StructureError(f"it names two space groups, {names}: correct one of them")
    warnings: tuple[str, ...] = ()
    if not named:
        _refuse_unread(fields)
        system = _one(fields, SETTINGS).lower()
        if system not in ("", "triclinic", "anorthic"):
            warnings = (f"it says {system} and states no symmetry: read as P 1",)
        return StatedSymmetry(
            np.eye(3, dtype=np.int64)[None], np.zeros((1, 3)), False, "", None, warnings
        )
    known = [(name, ops) for name, _, ops in named if not isinstance(ops, str)]
    if not known:
        raise StructureError(str(named[0][2]))
    first, operations = known[0]
    for name, others in known[1:]:
        if not name.startswith("number") and _keys(*others) != _keys(*operations):
            raise StructureError(f"it names two settings, {first} and {name}: correct one of them")
    number = named[0][1]
    choices = {e.choice for e in _tables() if e.number == number} - {"H", "R", "1", "2"}
    if first.startswith("number") and len(choices) > 1 and not _one(fields, (CODE,)):
        warnings = (f"only the {first} of its space group is given: read in the standard setting",)
    return StatedSymmetry(*operations, listed=False, warnings=warnings)


def _refuse_unread(fields: Mapping[str, Sequence[str]]) -> None:
    """Refuse a block whose only statements of symmetry are under tags that are not read."""
    read = {*LISTS, *NAMES, *HALL, *NUMBERS, *SETTINGS, CODE, SCHOENFLIES}
    for tag, values in fields.items():
        if not _FOREIGN.fullmatch(tag) or tag in read or _BESIDE.fullmatch(tag):
            continue
        if not _SILENT.fullmatch(tag) and values[0].strip().lower() not in _NO_SYMMETRY:
            raise StructureError(
                f"the symmetry under {tag} is not understood: use _space_group_name_H-M_alt"
            )


def _one(fields: Mapping[str, Sequence[str]], tags: Sequence[str]) -> str:
    return next((fields[tag][0].strip() for tag in tags if fields.get(tag)), "")


def _number(text: str) -> int | None:
    """The number of a space group however it is written: 225, 225.0, 'no. 225'."""
    found = re.findall(r"\d+(?:\.0*)?", text)
    number = int(float(found[0])) if len(found) == 1 and len(found[0]) < 20 else 0
    return number if 1 <= number <= 230 else None


def _parse_all(texts: Sequence[str]) -> Operations:
    """The operations of a list, each once, the identity first."""
    operations = {}
    for text in ("x,y,z", *texts):
        rotation, translation = _parse(text)
        operations[_key(rotation, translation)] = (rotation, translation)
    rotations, translations = zip(*operations.values(), strict=True)
    return np.array(rotations), np.array(translations)


@lru_cache(maxsize=4096)
def _parse(text: str) -> Operations:
    """Rotation and translation of `-x+y, x, z+1/2`.

    Raises:
        StructureError: The text is no operation of a crystal.
    """
    rotation, translation = np.zeros((3, 3), dtype=np.int64), np.zeros(3)
    parts = text.lower().split(",")
    misspelt = StructureError(f"its symmetry operations are misspelt: {text!r}")
    if len(parts) != 3 or len(text) > 200:
        raise misspelt
    for row, part in enumerate(parts):
        part = "".join(part.split())
        terms = list(_TERM.finditer(part))
        signs = [term[1] for term in terms[1:]]
        if not part or "".join(term[0] for term in terms) != part or not all(signs):
            raise misspelt
        shift = Fraction(0)
        for term in terms:
            sign = -1 if term[1] == "-" else 1
            if term[2]:
                rotation[row, "xyz".index(term[2])] += sign
            elif "/" in term[3] and not int(term[3].partition("/")[2]):
                raise misspelt
            else:
                shift += sign * Fraction(term[3])
        near = shift.limit_denominator(24) if "." in part else shift
        translation[row] = float(near if abs(near - shift) < _SNAP else shift) % 1.0
    if abs(round(float(np.linalg.det(rotation)))) != 1 or np.abs(rotation).max() > 1:
        raise misspelt
    return rotation, translation


def _key(rotation: NDArray[np.int64], translation: NDArray[np.float64]) -> tuple[bytes, ...]:
    """Equal for operations that are equal but for lattice translations and rounding."""
    return rotation.tobytes(), (np.rint(translation * 720).astype(np.int64) % 720).tobytes()


def _keys(
    rotations: NDArray[np.int64], translations: NDArray[np.float64]
) -> set[tuple[bytes, ...]]:
    return {_key(r, t) for r, t in zip(rotations, translations, strict=True)}


def _require_group(rotations: NDArray[np.int64], translations: NDArray[np.float64]) -> None:
    """Refuse a list in which the product of two operations is missing."""
    keys = _keys(rotations, translations)
    for rotation, translation in zip(rotations, translations, strict=True):
        products = rotation @ rotations
        shifts = np.mod(translations @ rotation.T + translation, 1.0)
        if any(_key(r, t) not in keys for r, t in zip(products, shifts, strict=True)):
            raise StructureError(
                f"its {len(rotations)} symmetry operations are no group: one is missing or wrong"
            )


def _group_number(
    rotations: NDArray[np.int64], translations: NDArray[np.float64], cell: gemmi.UnitCell
) -> int:
    """Number of the type of a group in any setting; 0 where spglib finds none."""
    found = spglib.get_spacegroup_type_from_symmetry(
        rotations, translations, lattice_of(cell), 1e-3
    )
    return int(found.number) if found else 0


@lru_cache(maxsize=1)
def _tables() -> list[spglib.SpaceGroupType]:
    """The 530 settings of the space groups."""
    return [spglib.get_spacegroup_type(number) for number in range(1, 531)]


def _from_database(hall_number: int) -> Operations:
    found = spglib.get_symmetry_from_database(hall_number)
    return found["rotations"].astype(np.int64), np.mod(found["translations"], 1.0)
