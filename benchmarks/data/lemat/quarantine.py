"""Trajectories that are not used, each with its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Reason(StrEnum):
    """The reasons for which a trajectory is not used."""

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
    NOT_COMPACT = "cell longer than 1000 Å, or skewed beyond sense"
    END_MISSING = "end missing, and what is left is not relaxed"


@dataclass(frozen=True, slots=True)
class Quarantined:
    """One trajectory (or stray row) that is not used."""

    sample_id: str
    reason: str
    detail: str


def by_reason(quarantined: Iterable[Quarantined]) -> str:
    """The number of trajectories for each reason: `2 single frame, 1 zero sites`."""
    counts = Counter(str(entry.reason) for entry in quarantined)
    return ", ".join(f"{counts[reason]} {reason}" for reason in sorted(counts)) or "no rows"


def first_true(conditions: list[Any]) -> NDArray[np.int64]:
    """Find for each position 1 + the index of the first condition that is true, or 0.

    Args:
        conditions: At least one boolean array, all of shape (n,).
    """
    result = np.zeros(len(conditions[0]), dtype=np.int64)
    for i in range(len(conditions) - 1, -1, -1):
        result[np.asarray(conditions[i], dtype=bool)] = i + 1
    return result
