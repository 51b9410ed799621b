"""The conventions of LeMat-Traj: units, the sign of the stress, the names of functionals.

Lattices and positions are in Å, energies in eV (total), forces in eV/Å, stress in kB with VASP's
sign (positive where the crystal wants to expand), the opposite of ASE's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks.core import KBAR
from benchmarks.data.convert.relaxation import ConversionError

JOULE = 1 / 1.602176634e-19
"""One joule in eV (exact since 2019)."""
METRE = 1e10
"""One metre in Å."""
NEWTON = JOULE / METRE
"""One newton in eV/Å."""
PASCAL = 1e-8
"""One pascal in kB."""
ASE_STRESS = -1 / KBAR
"""ASE's stress of 1 eV/Å^3 in kB with VASP's sign; the reader's inverse."""

FUNCTIONALS = ("pbe", "pbesol", "scan", "r2scan")
"""The values of the column `functional`; it does not tell +U apart."""
_RELAXING = (None, -1, 1, 2, 3)
"""Values of IBRION in a relaxation; -1 belongs to a single step, which `check` then rejects."""
_AS_ASKED = ("GGA", "METAGGA", "IVDW")
_GGA = {"PE": "pbe", "PS": "pbesol"}
_METAGGA = {"SCAN": "scan", "R2SCAN": "r2scan"}
_UNSET = ("", "--", "NONE")
_OFF = ("", "0", "F", "FALSE", ".FALSE.", "NONE")
_LIBXC = {
    "pbe": {"GGA_X_PBE", "GGA_C_PBE"},
    "pbesol": {"GGA_X_PBE_SOL", "GGA_C_PBE_SOL"},
    "scan": {"MGGA_X_SCAN", "MGGA_C_SCAN"},
    "r2scan": {"MGGA_X_R2SCAN", "MGGA_C_R2SCAN"},
}


def vasp_tags(asked: Mapping[str, Any], used: Mapping[str, Any]) -> dict[str, Any]:
    """VASP's tags as it used them; the functional as it was asked for.

    Not all versions repeat METAGGA and IVDW among the parameters.

    Args:
        asked: The INCAR.
        used: The parameters of the run, defaults included.
    """
    return {**asked, **used, **{key: asked[key] for key in _AS_ASKED if key in asked}}


def check_tags(tags: Mapping[str, Any]) -> None:
    """Check that VASP's tags are those of a relaxation without external pressure.

    Raises:
        ConversionError: They belong to another calculation.
    """
    ibrion, pressure = _last(tags, "IBRION"), _last(tags, "PSTRESS")
    if ibrion not in _RELAXING:
        raise ConversionError(f"not a relaxation: IBRION = {ibrion}")
    if pressure:
        raise ConversionError(f"relaxed under pressure: PSTRESS = {pressure}")


def functional_of_tags(tags: Mapping[str, Any]) -> str | None:
    """The functional that VASP's INCAR tags name; None where the POTCARs decide.

    Raises:
        ConversionError: It is none of `FUNCTIONALS`.
    """
    for key in ("LHFCALC", "LUSE_VDW", "IVDW"):
        if _text(tags, key) not in _OFF:
            raise ConversionError(_other(f"{key} = {_last(tags, key)}"))
    for key, known in (("METAGGA", _METAGGA), ("GGA", _GGA)):
        tag = _text(tags, key)
        if tag in known:
            return known[tag]
        if tag not in _UNSET:
            raise ConversionError(_other(f"{key} = {tag}"))
    return None


def functional_of_libxc(names: Iterable[str]) -> str | None:
    """The functional that a set of libxc names stands for; None for an empty set.

    Exchange alone is enough (that of SCAN is SCAN's), correlation alone is not.

    Raises:
        ConversionError: It is none of `FUNCTIONALS`.
    """
    found = set(names)
    if not found:
        return None
    for functional, parts in _LIBXC.items():
        if found <= parts and any("_X_" in name for name in found):
            return functional
    raise ConversionError(_other("+".join(sorted(found))))


def _last(tags: Mapping[str, Any], key: str) -> Any:
    """The value of a tag; of a tag that stands twice, NOMAD makes a list, and the last counts."""
    value = tags.get(key)
    return value[-1] if isinstance(value, list) and value else value


def _text(tags: Mapping[str, Any], key: str) -> str:
    return str(_last(tags, key) or "").strip().upper()


def _other(what: str) -> str:
    return f"functional that LeMat-Traj has not: {what}"
