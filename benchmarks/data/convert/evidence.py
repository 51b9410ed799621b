"""Evidence that steps are no finished free relaxation: what was held, left open, or is no minimum.

A file rarely says what it is: a scan of volumes, molecular dynamics and two relaxations in one file
are lists of frames as a relaxation is. The cells, energies and forces tell them apart. The bounds
were set on 700 finished relaxations (92 of VASP, 567 of hydrides, the embedded set): none of them
is taken for several relaxations or for a scan, and none of VASP ends above its lowest energy by
more than `UPHILL`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.data.convert.relaxation import (
    ConversionError,
    Relaxation,
    check_steps,
    largest_force,
)
from benchmarks.data.lemat.missing_final_frames import MAX_FORCE, MAX_STRESS, UPHILL

_SAME_CELL = 1e-6
"""Largest change that a unit conversion makes in a cell that was held fixed [Å]."""
_SAME_VOLUME = 1e-6
"""Largest relative change of a volume that was held fixed, cells being written with 8 digits."""
_SETTLED = (0.01, 0.1, 0.01)
"""A step is the last of its relaxation if strain, displacement [Å] and change of the energy
[eV/atom] are smaller. Trial steps of an optimiser are large only before it has settled."""
_JUMP = (0.05, 0.5, 0.03)
"""A step leads to another relaxation if strain or displacement [Å], and the rise of the energy
[eV/atom], are larger."""
_JUMP_OF_CELL = 0.15
"""The strain that does, if the energies are not known."""
_OUTLIER = (0.05, 0.1, 4.0)
"""So does a step whose strain and change of the energy [eV/atom] are larger, and so many times
larger than those of every other step, if some steps stand before and behind it."""
_WANDERING = 0.1
"""Sum of the rises of the energy over the second half of the frames [eV/atom]; a relaxation's
trial steps have become small by then, molecular dynamics goes on."""


@dataclass(frozen=True, slots=True)
class _Course:
    """How cell, sites and energy change from frame to frame; (n,) or (n - 1,) each."""

    lattices: NDArray[np.float64]
    frac_coords: NDArray[np.float64]
    energies: NDArray[np.float64]
    """[eV/atom], NaN where one is not known."""
    calculation: NDArray[np.int64]
    strain: NDArray[np.float64]
    """Largest component of the change of the cell, relative."""
    displacement: NDArray[np.float64]
    """Largest displacement of a site relative to the cell [Å]."""
    rise: NDArray[np.float64]
    """Change of the energy [eV/atom]; NaN between two calculations, whose zeros may differ."""

    @classmethod
    def of(cls, relaxation: Relaxation) -> _Course:
        steps = relaxation.steps
        lattices = np.array([step.lattice for step in steps])
        frac = np.array([step.positions for step in steps]) @ np.linalg.inv(lattices)
        energies = np.array([np.nan if step.energy is None else step.energy for step in steps])
        energies /= len(steps[0].symbols)
        calculation = np.array([step.calculation for step in steps])
        moved = np.diff(frac, axis=0)
        moved = (moved - np.round(moved)) @ lattices[:-1]
        strain = np.linalg.inv(lattices[:-1]) @ lattices[1:] - np.eye(3)
        return cls(
            lattices=lattices,
            frac_coords=frac,
            energies=energies,
            calculation=calculation,
            strain=np.abs(strain).max(axis=(1, 2)),
            displacement=np.linalg.norm(moved, axis=2).max(axis=1),
            rise=np.where(np.diff(calculation) == 0, np.diff(energies), np.nan),
        )


def check(relaxation: Relaxation, keep: Collection[str] = ()) -> None:
    """Check that the steps are a finished free relaxation of a crystal.

    Args:
        relaxation: The relaxation, as it was read.
        keep: The kinds of `KEEP` that pass.

    Raises:
        ConversionError: They are not; the text is the reason.
    """
    if "unfinished" in keep:
        keep = {*keep, "unrelaxed"}
    elif relaxation.unfinished:
        raise ConversionError(f"unfinished: {relaxation.unfinished} (--keep unfinished)")
    check_steps(relaxation.steps)
    with np.errstate(over="ignore", invalid="ignore"):  # what a damaged file may hold
        course = _Course.of(relaxation)
        for kind, find in _FINDERS.items():
            found = None if kind in keep else next(find(relaxation, course), None)
            if found:
                raise ConversionError(f"{found} (--keep {kind})")


def _constrained(relaxation: Relaxation, course: _Course) -> Iterator[str]:
    if relaxation.constraint:
        yield relaxation.constraint
    change = np.abs(course.lattices - course.lattices[0]).max()
    if change < _SAME_CELL:
        yield "the cell was held fixed"
    volumes = np.abs(np.linalg.det(course.lattices))
    spread = np.ptp(volumes) / volumes[0]
    if spread < _SAME_VOLUME and change / np.cbrt(volumes[0]) > 100 * _SAME_VOLUME:
        yield "the volume was held fixed: it is the same in all frames"


def _joined(_: Relaxation, course: _Course) -> Iterator[str]:
    strain, displacement, rise = course.strain, course.displacement, course.rise
    steps = (strain, displacement, np.abs(rise))
    settled = np.all([~(each > most) for each, most in zip(steps, _SETTLED, strict=True)], axis=0)
    far = ((strain > _JUMP[0]) | (displacement > _JUMP[1])) & (rise > _JUMP[2])
    far |= np.isnan(rise) & (strain > _JUMP_OF_CELL) & (np.diff(course.calculation) == 0)
    far[1:] &= settled[:-1]
    far[:1] = False
    far |= _outlying(strain, np.abs(rise))
    for i in np.flatnonzero(far):
        energy = "" if np.isnan(rise[i]) else f" and the energy by {rise[i]:+.2f} eV/atom"
        if strain[i] > _JUMP[0]:
            what = f"the cell jumps by {100 * strain[i]:.0f} %"
        else:
            what = f"sites jump by {displacement[i]:.1f} Å"
        yield _several(int(i) + 1, what + energy)
    same = np.abs(course.lattices - course.lattices[0]).max(axis=(1, 2)) < _SAME_CELL
    same &= np.abs(course.frac_coords - course.frac_coords[0]).max(axis=(1, 2)) < _SAME_CELL
    for i in np.flatnonzero(same[2:] & ~same[1:-1]) + 2:
        if course.calculation[i] == course.calculation[0]:
            yield _several(int(i), "the first frame stands there again")


def _outlying(strain: NDArray[np.float64], change: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(n - 1,) true for a single step in the middle that is far larger than all others."""
    result = np.zeros(len(strain), dtype=bool)
    i = int(strain.argmax())
    if not (2 <= i < len(strain) - 1 and strain[i] > _OUTLIER[0] and change[i] > _OUTLIER[1]):
        return result
    others = np.delete(strain, i).max(), np.nanmax(np.delete(change, i), initial=0.0)
    result[i] = strain[i] > _OUTLIER[2] * others[0] and change[i] > _OUTLIER[2] * others[1]
    return result


def _several(frame: int, what: str) -> str:
    return f"several relaxations in one file: {what} at frame {frame}, counted from 0: cut it there"


def _uphill(_: Relaxation, course: _Course) -> Iterator[str]:
    last = course.energies[course.calculation == course.calculation[-1]]
    above = last[-1] - np.nanmin(last) if np.isfinite(last[-1]) else 0.0
    if above > UPHILL:
        where = "the start" if last[0] <= np.nanmin(last) else "the lowest"
        yield f"no minimum: the last frame is {_two_digits(above)} eV/atom above {where}"
    rise = course.rise[len(course.rise) // 2 :]
    up = rise[rise > 0]
    if len(up) > 1 and up.sum() > _WANDERING:
        yield f"no relaxation: the energy rises by {up.sum():.2f} eV/atom in all in the second half"
    moved = course.displacement.max() > 100 * _SAME_CELL
    volumes = np.abs(np.linalg.det(course.lattices))
    scales = np.cbrt(volumes / volumes[0])[:, None, None]
    scaled = np.abs(course.lattices - scales * course.lattices[0]).max() < 100 * _SAME_CELL
    even = _even(course.lattices) or (scaled and _even(volumes))
    if even and not moved:
        yield "a scan: the cell changes by the same in every frame, and the sites only with it"


def _even(values: NDArray[np.float64]) -> bool:
    """Whether values, (n, …), change by the same from each to the next, at least three times."""
    steps = np.diff(values, axis=0)
    mean = steps.mean(axis=0)
    largest = np.abs(mean).max()
    return len(steps) >= 3 and bool(
        largest > 100 * _SAME_CELL and np.abs(steps - mean).max() < 0.02 * largest
    )


def _two_digits(energy: float) -> str:
    return f"{energy:.2f}" if energy >= 0.0095 else f"{energy:.3f}"


def _unrelaxed(relaxation: Relaxation, _: _Course) -> Iterator[str]:
    last = relaxation.steps[-1]
    force = largest_force(last)
    if force is not None and force > MAX_FORCE:
        yield f"not relaxed: forces up to {force:.3g} eV/Å at the end, more than {MAX_FORCE}"
    stress = 0.0 if last.stress is None else np.abs(last.stress).max()
    if stress > MAX_STRESS:
        yield f"not relaxed: a stress of {stress:.3g} kB at the end, more than {MAX_STRESS:g}"


_FINDERS: Mapping[str, Callable[[Relaxation, _Course], Iterator[str]]] = {
    "constrained": _constrained,
    "joined": _joined,
    "uphill": _uphill,
    "unrelaxed": _unrelaxed,
}
KEEP = ("unfinished", *_FINDERS)
"""Kinds of inputs that are left out by default: those that break off or did not converge; those
whose cell or sites were held; several relaxations in one file; those that do not end at their
lowest energy, scans and molecular dynamics among them; those with large residual forces or stress,
by the bounds of the audit. With `unfinished` the last kind passes, too."""
