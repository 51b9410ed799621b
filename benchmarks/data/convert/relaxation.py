"""One relaxation as any code wrote it, in the units of LeMat-Traj, and the check of its steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from benchmarks.core import Geometry
from benchmarks.core.geometry import is_compact
from benchmarks.data.lemat.arrow import atomic_number
from benchmarks.data.lemat.coordinates import SMALLEST_VOLUME_PER_ATOM
from benchmarks.data.lemat.quarantine import Reason

HYDROGEN = {"D": "H", "T": "H"}
"""Isotopes that have a symbol of their own; a relaxation does not tell them from hydrogen."""


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

    @classmethod
    def of(cls, geometry: Geometry) -> Self:
        """The step of a structure of which nothing else is known."""
        lattice, fracs, numbers = geometry
        symbols = tuple(chemical_symbols[z] for z in numbers)
        return cls(symbols, lattice, fracs @ lattice, None, None, None)


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
    constraint: str = ""
    """What the file says was held fixed, in words; empty if it says nothing of the kind."""
    unfinished: str = ""
    """What shows that the relaxation did not reach its end, in words; empty if nothing does.
    `steps` are the complete ones."""


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


def largest_force(step: Step) -> float | None:
    """The largest norm of a force [eV/Å]; None where the forces are not known."""
    if step.forces is None or not len(step.forces):
        return None
    return float(np.linalg.norm(step.forces, axis=1).max())


def most_common(kinds: Sequence[str], found: Sequence[Collection[str]]) -> str:
    """The kind of energy that most steps have; among equals, the first of `kinds`.

    All steps of a trajectory use one kind, because different kinds have different zeros.
    """
    count = Counter(kind for each in found for kind in each)
    return max(kinds, key=lambda kind: count[kind])


def check_steps(steps: Sequence[Step]) -> None:
    """Check that the steps are at least two states of one ordered crystal.

    Raises:
        ConversionError: They are not; the text is the reason.
    """
    if len(steps) < 2:
        raise ConversionError(Reason.SINGLE_FRAME if steps else "no ionic step")
    for i, step in enumerate(steps):
        for site, symbol in enumerate(step.symbols):
            if not atomic_number(symbol):
                reason = f"{Reason.UNKNOWN_ELEMENT}: step {i}: {symbol!r} at site {site}"
                raise ConversionError(reason)
        fault = _fault(step, steps[0])
        if fault:
            raise ConversionError(f"{fault}: step {i}")


def _fault(step: Step, first: Step) -> str | None:
    n_sites = len(step.symbols)
    faults = {
        Reason.ZERO_SITES: n_sites == 0,
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
    if collapsed:
        return str(Reason.COLLAPSED)
    return None if is_compact(step.lattice) else str(Reason.NOT_COMPACT)
