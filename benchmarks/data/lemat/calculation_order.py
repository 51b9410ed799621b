"""Find the order in which the calculations of a trajectory were run, by the evidence of its frames.

A relaxation is often several calculations, each starting where the one before ended. Files number
them (`relaxation_number`) forwards, as they were run, or backwards, as LeMat-Traj does for the
Materials Project; nothing in a file says which. Both readings are compared:

- cell: a calculation begins with the cell that the one before ended with;
- energy: the same holds for the energy per atom, apart from a change of settings;
- stress: the last calculation ends closer to zero stress than the first;
- force: the same holds for the forces; they are expensive to read and are used only where the
  others do not decide.

Each piece of evidence is the logarithm of a ratio, positive for backwards; their sum decides. If it
does not decide, the trajectory is read as most trajectories of its source are (in its set of files,
see `FrameFiles`), and if these do not decide either, by step. On the 41 trajectories with several
calculations whose order is known by construction, written both ways, the sum is between 2.7 and 16
with the right sign (`tests/test_pairing.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.data.lemat.calculations import Calculations, cell_jump
from benchmarks.data.lemat.missing_final_frames import residual_forces
from benchmarks.data.lemat.reader import FrameFiles

DECISIVE = float(np.log(4.0))
"""The smallest sum of evidence that decides: one reading is four times better."""
CELL_FLOOR, ENERGY_FLOOR, STRESS_FLOOR, FORCE_FLOOR = 1e-5, 1e-4, 0.1, 0.01
"""Noise of cell (relative), energy [eV/atom], stress [kB] and force [eV/Å]; smaller values count as
this much."""
SAME_CELL = 1e-6
"""Largest relative difference between the cell with which a calculation ends and the cell with
which its continuation starts (cells are compared in single precision)."""


class Basis(StrEnum):
    """The basis on which the order of a trajectory's calculations was decided."""

    SINGLE = "single calculation"
    EVIDENCE = "evidence"
    SOURCE = "source"
    STEP = "step"


class End(StrEnum):
    """The answer to whether the last frame of the relaxation is in the file."""

    PRESENT = "present"
    MISSING = "missing"
    UNKNOWN = "unknown"


BASES, ENDS = tuple(Basis), tuple(End)
"""`Order.basis` and `Order.end` are indices into these."""


@dataclass(frozen=True, slots=True)
class Order:
    """The decisions about the trajectories; (n,) each."""

    backwards: NDArray[np.bool_]
    """True if the calculation with the lowest `relaxation_number` was run last."""
    basis: NDArray[np.int64]
    evidence: NDArray[np.float64]
    """(n, 4) of cell, energy, stress, force; positive for backwards, 0 where there is none."""
    cell_jump: NDArray[np.float64]
    """Sum of the jumps between consecutive calculations, as ordered: about twice the strain."""
    end: NDArray[np.int64]

    @property
    def missing_final_frame(self) -> NDArray[np.bool_]:
        """(n,) true where the last frame of the relaxation is missing."""
        return np.asarray(self.end == ENDS.index(End.MISSING))

    def take(self, indices: NDArray[np.int64]) -> Order:
        """The decisions about the trajectories of these indices, in this order."""
        return Order(*(getattr(self, name)[indices] for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class _Seams:
    """Pairs of calculations of a trajectory with consecutive numbers; (m,) each."""

    of: NDArray[np.int64]
    """Index of the trajectory."""
    forwards: NDArray[np.float64]
    """Jump of the cell if the lower number was run first; NaN where it is not known."""
    backwards: NDArray[np.float64]
    energy_forwards: NDArray[np.float64]
    """Jump of the energy [eV/atom]."""
    energy_backwards: NDArray[np.float64]


def decide_order(
    files: FrameFiles,
    calculations: Calculations,
    starts: NDArray[np.int64],
    source: NDArray[np.int64],
) -> Order:
    """Decide the order of the calculations of each trajectory, and whether its end is there.

    Args:
        files: The files that hold the frames, for the forces.
        calculations: Sorted by trajectory and number.
        starts: (n,) index of the first calculation of each trajectory.
        source: (n,) codes of the trajectories' sources.
    """
    ends = starts + np.diff(starts, append=len(calculations)) - 1
    several = ends > starts
    seams = _seams(calculations, starts)
    evidence = _evidence(files, calculations, seams, starts, ends)
    total = evidence.sum(axis=1)
    clear = several & (np.abs(total) >= DECISIVE)
    votes = np.bincount(source, weights=clear * np.sign(total))[source]
    against_step = calculations.first_step[starts] > calculations.first_step[ends]
    backwards = np.select([clear, votes != 0], [total > 0, votes > 0], against_step)
    basis = np.select(
        [~several, clear, votes != 0],
        _codes(Basis.SINGLE, Basis.EVIDENCE, Basis.SOURCE),
        *_codes(Basis.STEP),
    )
    jump = np.where(
        backwards,
        *(_summed(seams, jump, len(starts)) for jump in (seams.backwards, seams.forwards)),
    )
    return Order(
        backwards=backwards & several,
        basis=basis,
        evidence=evidence,
        cell_jump=jump,
        end=_ends(calculations, starts, ends, seams, backwards, source),
    )


def _codes(*members: Basis) -> list[int]:
    return [BASES.index(member) for member in members]


def _seams(c: Calculations, starts: NDArray[np.int64]) -> _Seams:
    low = np.flatnonzero(np.diff(c.key) == 0)
    high = low + 1
    sites = np.maximum(c.n_sites, 1)
    first, last = c.first_energy / sites, c.last_energy / sites
    return _Seams(
        of=np.searchsorted(starts, low, side="right") - 1,
        forwards=cell_jump(c.last_cell[low], c.first_cell[high]),
        backwards=cell_jump(c.last_cell[high], c.first_cell[low]),
        energy_forwards=np.abs(last[low] - first[high]),
        energy_backwards=np.abs(last[high] - first[low]),
    )


def _summed(seams: _Seams, values: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    return np.bincount(seams.of, weights=values, minlength=n).astype(np.float64)


def _evidence(
    files: FrameFiles,
    c: Calculations,
    seams: _Seams,
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
) -> NDArray[np.float64]:
    """(n, 4) of cell, energy, stress and, only where those do not decide, force."""
    n = len(starts)
    pairs = (
        (seams.forwards, seams.backwards, CELL_FLOOR),
        (seams.energy_forwards, seams.energy_backwards, ENERGY_FLOOR),
    )
    evidence = np.zeros((n, 4))
    for i, (forwards, backwards, floor) in enumerate(pairs):
        evidence[:, i] = _log_ratio(
            _summed(seams, forwards, n), _summed(seams, backwards, n), floor
        )
    evidence[:, 2] = _log_ratio(c.last_stress[ends], c.last_stress[starts], STRESS_FLOOR)
    unclear = (ends > starts) & (np.abs(evidence.sum(axis=1)) < DECISIVE)
    at = np.flatnonzero(unclear)
    rows = np.concatenate([c.last_row[ends[at]], c.last_row[starts[at]]])
    force = residual_forces(files, rows).reshape(2, -1)
    evidence[at, 3] = _log_ratio(force[0], force[1], FORCE_FLOOR)
    return evidence


def _log_ratio(one: NDArray[Any], other: NDArray[Any], floor: float) -> NDArray[np.float64]:
    """Logarithm of the ratio, values being at least the floor; 0 where one is not finite."""
    with np.errstate(invalid="ignore"):
        ratio = np.log(np.maximum(one, floor)) - np.log(np.maximum(other, floor))
    return np.where(np.isfinite(one) & np.isfinite(other), ratio, 0.0)


def _ends(
    c: Calculations,
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    seams: _Seams,
    backwards: NDArray[np.bool_],
    source: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Tell whether the frame that the relaxation ended with is in the file, as indices into `ENDS`.

    LeMat-Traj's fetcher drops the last frame of each trajectory's list, the one with the highest
    step. Where calculations are listed backwards that frame is the end of the *first* one, and its
    absence shows: the next calculation does not start from the cell that is left. If most
    trajectories of a source that can show this absence do show it, then the trajectories of that
    source with a single calculation lack their end too. Trajectories that are listed backwards and
    have no calculation with the number 0 also lack it.
    """
    highest_listed_last = c.first_step[ends] >= c.first_step[starts]
    followed = (ends > starts) & (backwards == highest_listed_last)
    shown = np.zeros(len(starts))
    top = np.diff(seams.of, append=-1) != 0  # between the two highest numbers
    at = seams.of[top]
    telling = (backwards & highest_listed_last)[at] & np.isfinite(seams.backwards[top])
    shown[at] = np.where(telling, np.sign(seams.backwards[top] - SAME_CELL), 0)
    drops = np.bincount(source, weights=shown)[source] > 0
    lacks_last = backwards & (c.number[starts] > 0)
    missing = (drops & ~followed) | lacks_last
    codes = [ENDS.index(end) for end in (End.MISSING, End.PRESENT, End.UNKNOWN)]
    return np.select([missing, followed], codes[:2], codes[2])
