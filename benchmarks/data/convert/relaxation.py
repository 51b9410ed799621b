"""One relaxation as any code wrote it, in the units of LeMat-Traj, and the check of its steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.data.lemat.arrow import atomic_number
from benchmarks.data.lemat.coordinates import SMALLEST_VOLUME_PER_ATOM
from benchmarks.data.lemat.quarantine import Reason

KEEP = ("constrained", "unfinished")
"""Kinds of relaxations that are left out by default: cell or sites held fixed; file breaks off."""
_SAME_CELL = 1e-6
"""Largest change that a unit conversion makes in a cell that was held fixed [Å]."""


class ConversionError(Exception):
    """An input cannot become a trajectory of the table; the text is the reason."""


class Step(NamedTuple):
    """One ionic step; a quantity that the code did not keep is None."""

    symbols: tuple[str, ...]
    lattice: NDArray[np.float64]
    """(3, 3) row vectors [Å]."""
    positions: NDArray[np.float64]
    """(n_sites, 3) Cartesian [Å]."""
    energy: float | None
    """Total [eV]."""
    forces: NDArray[np.float64] | None
    """(n_sites, 3) [eV/Å]."""
    stress: NDArray[np.float64] | None
    """(3, 3) [kB], VASP's sign."""
    calculation: int = 0
    """Number of the calculation that the step belongs to, in order of time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Relaxation:
    """Ionic steps in order of time, and the settings that the file names."""

    steps: Sequence[Step]
    functional: str | None = None
    """One of `conventions.FUNCTIONALS`; None if the file names none."""
    material: str | None = None
    """Name of the material where the file has one."""
    program: str | None = None
    cutoff: float | None = None
    """Cutoff of the plane waves [eV]."""
    hubbard_u: dict[str, float] = field(default_factory=dict)
    """Effective U (U - J) by element [eV]; those that are zero are left out."""
    held_sites: bool = False
    """True if some sites were not allowed to move."""
    unfinished: bool = False
    """True if the file breaks off; `steps` are then the complete ones."""


def numbers(value: Any, shape: tuple[int, ...], unit: float = 1.0) -> NDArray[np.float64] | None:
    """`value` times `unit` as an array of that shape; None where absent or not finite.

    Raises:
        ConversionError: It has another shape.
    """
    if value is None:
        return None
    array = np.asarray(value, dtype=np.float64) * unit
    if array.shape != shape:
        raise ConversionError(f"{Reason.LENGTHS}: {array.shape} instead of {shape}")
    return array if np.isfinite(array).all() else None


def most_common(kinds: Sequence[str], found: Sequence[Collection[str]]) -> str:
    """The kind of energy that most steps have; among equals, the first of `kinds`.

    All steps of a trajectory use one kind, because different kinds have different zeros.
    """
    count = Counter(kind for each in found for kind in each)
    return max(kinds, key=lambda kind: count[kind])


def check(relaxation: Relaxation, keep: Collection[str] = ()) -> None:
    """Check that the steps are the relaxation of a crystal with known start and end.

    Args:
        relaxation: The relaxation, as it was read.
        keep: The kinds of `KEEP` that pass.

    Raises:
        ConversionError: They are not; the text is the reason.
    """
    steps = relaxation.steps
    if relaxation.unfinished and "unfinished" not in keep:
        raise ConversionError(
            f"unfinished: breaks off after {len(steps)} ionic steps (--keep unfinished)"
        )
    if len(steps) < 2:
        raise ConversionError(Reason.SINGLE_FRAME if steps else "no ionic step")
    for i, step in enumerate(steps):
        reason = _fault(step, steps[0])
        if reason:
            raise ConversionError(f"{reason}: step {i}")
    if "constrained" in keep:
        return
    if relaxation.held_sites:
        raise ConversionError("some sites were held fixed (--keep constrained)")
    cells = np.array([step.lattice for step in steps])
    if np.abs(cells - cells[0]).max() < _SAME_CELL:
        raise ConversionError("the cell was held fixed (--keep constrained)")


def _fault(step: Step, first: Step) -> str | None:
    n_sites = len(step.symbols)
    unknown = sorted({symbol for symbol in step.symbols if not atomic_number(symbol)})
    faults = {
        Reason.ZERO_SITES: n_sites == 0,
        Reason.UNKNOWN_ELEMENT: bool(unknown),
        Reason.COMPOSITION: Counter(step.symbols) != Counter(first.symbols),
        Reason.SITE_ORDER: step.symbols != first.symbols,
        Reason.LENGTHS: step.positions.shape != (n_sites, 3),
        Reason.NO_LATTICE: step.lattice.shape != (3, 3),
    }
    reason = next((str(reason) for reason, found in faults.items() if found), None)
    if reason:
        return reason
    if not (np.isfinite(step.lattice).all() and np.isfinite(step.positions).all()):
        return str(Reason.NOT_FINITE)
    collapsed = abs(np.linalg.det(step.lattice)) <= SMALLEST_VOLUME_PER_ATOM * n_sites
    return str(Reason.COLLAPSED) if collapsed else None
