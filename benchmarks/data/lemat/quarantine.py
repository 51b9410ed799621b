"""Why a trajectory is not used."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Why a trajectory is not used."""

    MALFORMED_ID = "malformed id"
    ID_MISMATCH = "id does not match material, functional and step"
    NO_STEP = "no relaxation step"
    NOT_PERIODIC = "not periodic in three dimensions"
    ZERO_SITES = "zero sites"
    DISORDERED = "disordered species or vacancies"
    UNKNOWN_ELEMENT = "unknown element"
    LENGTHS = "species, positions and nsites differ in length"
    SINGLE_FRAME = "single frame"
    DUPLICATED_STEP = "duplicated step"
    ORDER = "calculations overlap or lack a number"
    COMPOSITION = "frames of different composition"
    SITE_ORDER = "frames of different site order"
    NO_LATTICE = "no 3x3 lattice"
    NOT_FINITE = "lattice or positions not finite"
    COLLAPSED = "singular, collapsed or endless cell"
    END_MISSING = "end missing, and what is left is not relaxed"


@dataclass(frozen=True, slots=True)
class Quarantined:
    """One trajectory (or stray row) that is not used."""

    sample_id: str
    reason: str
    detail: str
