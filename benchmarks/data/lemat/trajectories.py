"""Calculations become trajectories: two frames of each are chosen, or it is quarantined.

`calculation_order` finds the order of the calculations, `relaxed_frame` chooses the frames, and the
faults that quarantine a trajectory are found here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.data.lemat.calculation_order import Order, decide_order
from benchmarks.data.lemat.calculations import FAULT_BITS, NONE, Calculations, merge_segments
from benchmarks.data.lemat.ids import source_of
from benchmarks.data.lemat.quarantine import Quarantined, Reason, first_true
from benchmarks.data.lemat.reader import FrameFiles
from benchmarks.data.lemat.relaxed_frame import ChosenFrames, choose_relaxed_frame
from benchmarks.data.lemat.scan import ROW_FAULTS, Scan, scan


@dataclass(frozen=True, slots=True)
class Trajectories:
    """Trajectories after the first pass, in file order, as columns of (n,)."""

    ids: list[str]
    materials: list[str]
    functionals: list[str]
    n_frames: NDArray[np.int32]
    n_calculations: NDArray[np.int64]
    n_sites: NDArray[np.int32]
    missing_steps: NDArray[np.int64]
    """Number of missing steps among the steps 0 to the highest."""
    start_missing: NDArray[np.bool_]
    """True if the step before the initial frame is missing."""
    duplicated_steps: NDArray[np.int64]
    """Number of steps that occur in more than one row."""
    chosen: ChosenFrames
    order: Order

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, indices: NDArray[np.int64]) -> Trajectories:
        """The trajectories of these indices, in this order."""
        if np.array_equal(indices, np.arange(len(self))):
            return self
        taken: dict[str, Any] = {}
        for name in (field.name for field in fields(self)):
            values = getattr(self, name)
            if isinstance(values, list):
                taken[name] = [values[i] for i in indices]
            elif isinstance(values, np.ndarray):
                taken[name] = values[indices]
            else:
                taken[name] = values.take(indices)
        return Trajectories(**taken)


@dataclass(frozen=True, slots=True)
class Survey:
    """All trajectories and rows that the first pass found."""

    trajectories: Trajectories
    """All trajectories, also the unusable ones."""
    faults: dict[int, Quarantined]
    """Index into `trajectories` -> the reason why it cannot be used."""
    malformed: list[Quarantined]
    """Rows that belong to no trajectory."""


def find_trajectories(
    files: FrameFiles, wanted: Callable[[Trajectories], NDArray[np.bool_]] | None = None
) -> tuple[Trajectories, list[Quarantined]]:
    """Group the frames of `files` into trajectories and choose two frames of each.

    Args:
        files: Frames in the layout of LeMat-Traj, rows in any order.
        wanted: Gives (n,) booleans, the trajectories that are looked for; None for all.

    Returns:
        The usable trajectories, in the order in which they first appear, and those that are not.
    """
    found = survey(files)
    good = np.ones(len(found.trajectories), dtype=bool)
    if wanted is not None:
        good = wanted(found.trajectories)
    faults = {i: fault for i, fault in found.faults.items() if good[i]}
    good[list(faults)] = False
    return found.trajectories.take(np.flatnonzero(good)), found.malformed + list(faults.values())


def survey(files: FrameFiles) -> Survey:
    """Group the frames of `files` into trajectories; unusable ones are among the others."""
    found = scan(files)
    calculations = found.calculations
    starts = np.flatnonzero(np.diff(calculations.key, prepend=-1))
    count = np.diff(starts, append=len(calculations))
    whole = merge_segments(replace(calculations, number=np.zeros_like(calculations.number)))[0]
    # Trajectories of one set of files and of one database vote together on the order.
    names = [source_of(material or "") for material in found.materials]
    code = {name: i for i, name in enumerate(dict.fromkeys(names))}
    of_material = np.array([code[name] for name in names], dtype=np.int64)[whole.material]
    of_file = files.sets[files.file_of(whole.first_row)]
    source = np.unique(of_file * len(code) + of_material, return_inverse=True)[1]
    order = decide_order(files, calculations, starts, np.asarray(source))
    chosen = choose_relaxed_frame(calculations, starts, order.backwards)
    # The highest step of a calculation that ends before the initial frame; -1 if there is none.
    last = calculations.last_step
    before = np.where(last < np.repeat(chosen.initial_step, count), last, -1).astype(np.int64)
    if len(starts):
        before = np.maximum.reduceat(before, starts)
    trajectories = Trajectories(
        ids=[found.keys[i] for i in whole.key],
        materials=[found.materials[i] or "" for i in whole.material],
        functionals=[found.functionals[i] or "" for i in whole.functional],
        n_frames=whole.n_frames,
        n_calculations=count,
        n_sites=whole.n_sites,
        missing_steps=np.maximum(whole.last_step.astype(np.int64) + 1 - whole.n_frames, 0),
        start_missing=chosen.initial_step > before + 1,
        duplicated_steps=np.array([len(found.duplicates.get(k, ())) for k in whole.key], np.int64),
        chosen=chosen,
        order=order,
    )
    return Survey(trajectories, _faults(found, whole, starts), found.malformed)


def _faults(found: Scan, whole: Calculations, starts: NDArray[np.int64]) -> dict[int, Quarantined]:
    """Index -> reason, for each trajectory that has a fault; the first of these faults counts."""
    row_fault, row_step = whole.fault >> FAULT_BITS, whole.fault % (1 << FAULT_BITS)
    duplicated = np.array([found.duplicates.get(k, [NONE])[0] for k in whole.key], dtype=np.int64)
    single = np.where(whole.n_frames == 1, whole.first_step.astype(np.int64), NONE)
    where = {
        **{
            reason: np.where(row_fault == code, row_step, NONE)
            for code, reason in enumerate(ROW_FAULTS, start=1)
        },
        Reason.SINGLE_FRAME: single,
        Reason.DUPLICATED_STEP: duplicated,
        Reason.ORDER: _entangled(found.calculations, starts),
        Reason.COMPOSITION: whole.other_composition,
        Reason.SITE_ORDER: whole.other_sites,
    }
    verdict = first_true([step != NONE for step in where.values()])
    reasons = tuple(where.items())
    faults = {}
    for i in np.flatnonzero(verdict):
        reason, steps = reasons[verdict[i] - 1]
        key = found.keys[whole.key[i]]
        note = found.notes.get((key, int(steps[i])))
        detail = f"step {steps[i]}" + (f": {note}" if note else "")
        faults[int(i)] = Quarantined(key, reason, detail)
    return faults


def _entangled(c: Calculations, starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first step of a calculation that overlaps with another or that has no number."""
    order = np.lexsort((c.first_step, c.key))
    key, first, last = c.key[order], c.first_step[order], c.last_step[order]
    inside = np.zeros(len(c), dtype=bool)
    inside[1:] = (key[1:] == key[:-1]) & (first[1:] <= last[:-1])
    inside |= (c.number[order] < 0) & np.repeat(
        np.diff(starts, append=len(c)) > 1, np.diff(starts, append=len(c))
    )
    return np.minimum.reduceat(np.where(inside, first.astype(np.int64), NONE), starts)
