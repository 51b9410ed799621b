"""The space groups that a CIF names: by Hall symbol, Hermann-Mauguin symbol, or number.

gemmi and spglib know the groups; the many ways to write a symbol are read here. An origin that a
name leaves open is never guessed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

import gemmi
import numpy as np
import spglib
from numpy.typing import NDArray

from benchmarks.data.structures.asymmetric_unit import Operations, lattice_of, operations_of

os.environ.setdefault("SPGLIB_WARNING", "OFF")  # it prints about groups that it does not find
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
SCHOENFLIES = "_space_group_name_schoenflies"
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

NamedGroup = tuple[str, int, Operations | str]
"""A named group: how the file names it, its number, its operations or why they are unknown."""


def named_groups(fields: Mapping[str, Sequence[str]], cell: gemmi.UnitCell) -> list[NamedGroup]:
    """The groups that the Hall symbol, the Hermann-Mauguin symbol and the number name.

    A name that is not known counts only where no other is.
    """
    code = first_value(fields, (CODE,)).lower()
    hall = first_value(fields, HALL)
    name = " ".join(first_value(fields, NAMES).split())
    written = first_value(fields, NUMBERS)
    number = _number(written)
    schoenflies = first_value(fields, (SCHOENFLIES,))
    found: list[NamedGroup | None] = []
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


def _by_hall(hall: str, cell: gemmi.UnitCell) -> NamedGroup | None:
    """The group of a Hall symbol, which says the origin."""
    try:
        operations = operations_of(gemmi.symops_from_hall(hall))
    except (RuntimeError, ValueError):
        return None
    return f"{hall!r}", group_number(*operations, cell), operations


def _by_name(name: str, cell: gemmi.UnitCell, code: str) -> NamedGroup | None:
    """The group of a Hermann-Mauguin symbol, short or full; the origin is never guessed."""
    group: gemmi.SpaceGroup | None
    group = gemmi.find_spacegroup_by_name(name, alpha=cell.alpha, gamma=cell.gamma, prefer="2")
    origin = name.rpartition(":")[2] if ":" in name else ""
    if not group:
        bare = re.sub(r"[\s_]|:.*", "", name).lower()
        entries = [
            e
            for e in settings_of_groups()
            if bare == re.sub(r"[\s_]", "", e.international_full).lower()
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


def _by_number(number: int, cell: gemmi.UnitCell, code: str) -> NamedGroup | None:
    """The group of a number, in the setting of the code or in the standard one."""
    if code:
        entries = [
            e for e in settings_of_groups() if e.number == number and e.choice.lower() == code
        ]
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


def first_value(fields: Mapping[str, Sequence[str]], tags: Sequence[str]) -> str:
    """The first value of the first of the tags that a block has; empty if it has none."""
    return next((fields[tag][0].strip() for tag in tags if fields.get(tag)), "")


def _number(text: str) -> int | None:
    """The number of a space group however it is written: 225, 225.0, 'no. 225'."""
    found = re.findall(r"\d+(?:\.0*)?", text)
    number = int(float(found[0])) if len(found) == 1 and len(found[0]) < 20 else 0
    return number if 1 <= number <= 230 else None


def group_number(
    rotations: NDArray[np.int64], translations: NDArray[np.float64], cell: gemmi.UnitCell
) -> int:
    """Number of the type of a group in any setting; 0 where spglib finds none."""
    found = spglib.get_spacegroup_type_from_symmetry(
        rotations, translations, lattice_of(cell), 1e-3
    )
    return int(found.number) if found else 0


@lru_cache(maxsize=1)
def settings_of_groups() -> list[spglib.SpaceGroupType]:
    """The 530 settings of the space groups."""
    return [spglib.get_spacegroup_type(number) for number in range(1, 531)]


def _from_database(hall_number: int) -> Operations:
    found = spglib.get_symmetry_from_database(hall_number)
    return found["rotations"].astype(np.int64), np.mod(found["translations"], 1.0)
