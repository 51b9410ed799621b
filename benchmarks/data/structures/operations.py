"""The symmetry that a CIF states: its list of operations, or the group that it names.

A statement is obeyed or refused, never passed over. gemmi and spglib know the space groups; only
the texts of the operations are read here, because gemmi knows no fifths.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import gemmi
import numpy as np
from numpy.typing import NDArray

from benchmarks.data.structures import StructureError
from benchmarks.data.structures.asymmetric_unit import Operations
from benchmarks.data.structures.space_groups import (
    CODE,
    HALL,
    NAMES,
    NUMBERS,
    SCHOENFLIES,
    NamedGroup,
    first_value,
    group_number,
    named_groups,
    settings_of_groups,
)

LISTS = ("_space_group_symop_operation_xyz", "_symmetry_equiv_pos_as_xyz")
"""Tags of lists of operations."""
SETTINGS = ("_symmetry_cell_setting", "_space_group_crystal_system")
"""Tags of the crystal system, which says that there is symmetry and not which."""
_BESIDE = re.compile(
    r"_(space_group_symop_(id|sg_id|sgid|operation_description|generator_xyz|r|t|rt)"
    r"|symmetry_equiv_pos_(site_)?id|symmetry_equiv_id)"
)
"""Tags that may stand beside a list of operations and say nothing more."""
_FOREIGN = re.compile(r"_(space_?group|symmetry|magnetic|superspace).*")
_SILENT = re.compile(r".*(id|comment|details|creation_method)")
"""Tags that state no symmetry."""
_NO_SYMMETRY = ("", "1", "p", "p1", "p 1", "c1", "ap", "x,y,z")
MAX_OPERATIONS = 1000
"""A list of more takes long to check; 192 are the most of a conventional cell."""
_LATTICE_POINTS = {"P": (1,), **dict.fromkeys("ABCI", (2,)), "F": (4,), "R": (1, 3), "H": (3,)}
"""Lattice points in a cell by the first letter of a symbol."""
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
    named = named_groups(fields, cell)
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
    number = group_number(rotations, translations, cell)
    name = first_value(fields, NAMES)
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


def _from_names(named: Sequence[NamedGroup], fields: Mapping[str, Sequence[str]]) -> StatedSymmetry:
    """The operations of the group that is named, the Hall symbol before the others."""
    numbers = {number for _, number, _ in named if number}
    if len(numbers) > 1:
        names = " and ".join(name for name, _, _ in named)
        raise StructureError(f"it names two space groups, {names}: correct one of them")
    warnings: tuple[str, ...] = ()
    if not named:
        _refuse_unread(fields)
        system = first_value(fields, SETTINGS).lower()
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
    choices = {e.choice for e in settings_of_groups() if e.number == number} - {"H", "R", "1", "2"}
    if first.startswith("number") and len(choices) > 1 and not first_value(fields, (CODE,)):
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
