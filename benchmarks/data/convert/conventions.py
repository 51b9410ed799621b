"""The conventions of LeMat-Traj: units, the sign of the stress, the names of functionals.

Lattices and positions are in Å, energies in eV (total), forces in eV/Å, stress in kB with VASP's
sign (positive where the crystal wants to expand), the opposite of ASE's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.core import KBAR
from benchmarks.data.convert.relaxation import ConversionError
from benchmarks.data.lemat.missing_final_frames import MAX_FORCE

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
_AS_ASKED = ("GGA", "METAGGA", "IVDW", "IVDW_NL", "LVDW")
_OTHER_PHYSICS = {
    "PSTRESS": "relaxed under pressure",
    "EFIELD": "relaxed in an electric field",
    "LSOL": "relaxed in a solvent",
    "ML_LMLFF": "forces that were machine-learned",
    "ML_MODE": "forces that were machine-learned",
    "IMAGES": "not a relaxation: a path between states",
}
"""Tags that stand for another calculation than a relaxation in vacuum, if they are set."""
_HELD = {
    0: "the cell was held fixed",
    1: "the cell was held fixed",
    2: "the cell was held fixed",
    4: "the volume was held fixed",
    5: "volume and positions were held fixed",
    6: "the positions were held fixed",
    7: "positions and shape of the cell were held fixed",
    8: "the shape of the cell was held fixed",
}
"""Value of ISIF -> what it holds fixed; 3 holds nothing."""
_GGA = {"PE": "pbe", "PS": "pbesol"}
_METAGGA = {"SCAN": "scan", "R2SCAN": "r2scan"}
_UNSET = ("", "--", "NONE")
_OFF = ("", "0", "0.0", "F", ".F.", "FALSE", ".FALSE.", "NONE")
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
    """Check that VASP's tags are those of a relaxation in vacuum with forces of DFT.

    Raises:
        ConversionError: They belong to another calculation.
    """
    ibrion = _last(tags, "IBRION")
    if ibrion not in _RELAXING:
        raise ConversionError(f"not a relaxation: IBRION = {ibrion}")
    for key, what in _OTHER_PHYSICS.items():
        if key == "ML_MODE" and "ML_LMLFF" in tags and _is_off(tags, "ML_LMLFF"):
            continue
        if not _is_off(tags, key):
            raise ConversionError(f"{what}: {key} = {_last(tags, key)}")
    field = tags.get("EFIELD_PEAD")
    if isinstance(field, list) and any(field):
        raise ConversionError(f"relaxed in an electric field: EFIELD_PEAD = {field}")


def constraint_of_tags(tags: Mapping[str, Any]) -> str:
    """What VASP's tags hold fixed, in words; empty where they hold nothing or do not say it."""
    isif = _last(tags, "ISIF")
    lattice = tags.get("LATTICE_CONSTRAINTS")
    if isinstance(lattice, list) and not all(lattice):
        return "the cell was held fixed along a vector: LATTICE_CONSTRAINTS"
    if isif is None or isif == 3:
        return ""
    return f"{_HELD.get(isif, 'cell or sites were held fixed')}: ISIF = {isif}"


def unfinished_of_tags(
    tags: Mapping[str, Any],
    n_steps: int,
    force: float | None,
    energies: Sequence[float | None],
) -> str:
    """What shows that VASP stopped before its own criterion was met; empty if nothing does.

    Args:
        tags: VASP's tags.
        n_steps: Number of ionic steps.
        force: The largest norm of a force in the last step [eV/Å]; None if it is not known.
        energies: Energies of all steps [eV].
    """
    most, criterion = _last(tags, "NSW"), _last(tags, "EDIFFG")
    if not isinstance(most, int) or not 0 < most <= n_steps:
        return ""
    reached = f"NSW = {most} ionic steps were reached"
    if isinstance(criterion, float | int) and criterion > 0:
        known = [energy for energy in energies[-2:] if energy is not None]
        met = len(known) == 2 and abs(known[1] - known[0]) <= criterion
        return "" if met else f"{reached} before the energy changed by less than EDIFFG"
    if isinstance(criterion, float | int) and criterion < 0:
        met = force is not None and force <= -criterion
        return "" if met else f"{reached} before the forces were within EDIFFG = {criterion} eV/Å"
    if force is None:
        return reached
    return f"{reached} with forces of {force:.3g} eV/Å" if force > MAX_FORCE else ""


def functional_of_tags(tags: Mapping[str, Any]) -> str | None:
    """The functional that VASP's INCAR tags name; None where the POTCARs decide.

    Raises:
        ConversionError: It is none of `FUNCTIONALS`.
    """
    for key in ("LHFCALC", "LUSE_VDW", "IVDW", "IVDW_NL", "LVDW"):
        if not _is_off(tags, key):
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


def _is_off(tags: Mapping[str, Any], key: str) -> bool:
    value = _last(tags, key)
    return not value or str(value).strip().upper() in _OFF


def _text(tags: Mapping[str, Any], key: str) -> str:
    return str(_last(tags, key) or "").strip().upper()


def _other(what: str) -> str:
    return f"functional that LeMat-Traj has not: {what}"
