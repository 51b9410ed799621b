"""Calculations become trajectories, with their order, initial and relaxed frame, and quarantine.

The relaxed frame is the last frame of the calculation that was run last (see `calculation_order`),
and the initial frame is the first frame of the calculation that was run first. Within a
calculation, frames are sorted by `relaxation_step` as a number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.data.lemat.calculation_order import Order, decide
from benchmarks.data.lemat.calculations import FAULT_BITS, NONE, Calculations, merge_segments
from benchmarks.data.lemat.ids import source_of
from benchmarks.data.lemat.quarantine import Quarantined, Reason, first_true
from benchmarks.data.lemat.reader import FrameFiles
from benchmarks.data.lemat.scan import ROW_FAULTS, Scan, scan


@dataclass(frozen=True, slots=True)
class Trajectories:
    """Trajectories after the first pass, in file order, as columns of (n,)."""

    ids: list[str]
    materials: list[str]
    functionals: list[str]
    first: NDArray[np.int64]
    """Row number of the initial frame."""
    last: NDArray[np.int64]
    """Row number of the relaxed frame."""
    first_step: NDArray[np.int32]
    last_step: NDArray[np.int32]
    n_frames: NDArray[np.int32]
    n_calculations: NDArray[np.int64]
    n_sites: NDArray[np.int32]
    energies: NDArray[np.float64]
    """(n, 3) [eV/atom]: initial, relaxed, and the lowest of the calculation that was run last."""
    stress: NDArray[np.float32]
    """Largest component of the relaxed frame's [kB]."""
    missing_steps: NDArray[np.int64]
    """Number of the steps 0 … the highest that are missing."""
    start_missing: NDArray[np.bool_]
    """Whether the step before the initial frame is one of them."""
    duplicated_steps: NDArray[np.int64]
    """Number of steps that occur in more than one row."""
    order: Order

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, indices: NDArray[np.int64]) -> Trajectories:
        """These trajectories, in this order."""
        columns: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        order = columns.pop("order").take(indices)
        taken: dict[str, Any] = {
            name: [values[i] for i in indices] if isinstance(values, list) else values[indices]
            for name, values in columns.items()
        }
        return Trajectories(**taken, order=order)


@dataclass(frozen=True, slots=True)
class Survey:
    """All trajectories and rows that the first pass found."""

    trajectories: Trajectories
    """All trajectories, also the unusable ones."""
    faults: dict[int, Quarantined]
    """Index into `trajectories` -> the reason why it cannot be used."""
    malformed: list[Quarantined]
    """Rows that belong to no trajectory."""


def find(
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
    whole = merge_segments(replace(calculations, number=np.zeros_like(calculations.number)))[0]
    order = decide(files, calculations, starts, _sources(files, found, whole))
    return Survey(
        trajectories=_trajectories(found, whole, starts, order),
        faults=_faults(found, whole, starts),
        malformed=found.malformed,
    )


def _sources(files: FrameFiles, found: Scan, whole: Calculations) -> NDArray[np.int64]:
    """(n,) a code of each trajectory's source, by its material and its set of files."""
    names = [source_of(material or "") for material in found.materials]
    code = {name: i for i, name in enumerate(dict.fromkeys(names))}
    of_material = np.array([code[name] for name in names], dtype=np.int64)[whole.material]
    of_file = files.sets[files.file_of(whole.first_row)]
    return np.asarray(np.unique(of_file * len(code) + of_material, return_inverse=True)[1])


def _trajectories(
    found: Scan, whole: Calculations, starts: NDArray[np.int64], order: Order
) -> Trajectories:
    count = np.diff(starts, append=len(found.calculations))
    ends = starts + count - 1
    c = found.calculations
    initial = np.where(order.backwards, ends, starts)
    final = np.where(order.backwards, starts, ends)
    energies = [c.first_energy[initial], c.last_energy[final], c.lowest_energy[final]]
    missing = whole.last_step.astype(np.int64) + 1 - whole.n_frames
    before = _highest_step_before(c.first_step[initial], c, count)
    return Trajectories(
        ids=[found.keys[i] for i in whole.key],
        materials=[found.materials[i] or "" for i in whole.material],
        functionals=[found.functionals[i] or "" for i in whole.functional],
        first=c.first_row[initial],
        last=c.last_row[final],
        first_step=c.first_step[initial],
        last_step=c.last_step[final],
        n_frames=whole.n_frames,
        n_calculations=count,
        n_sites=whole.n_sites,
        energies=np.stack(energies, axis=1) / np.maximum(whole.n_sites, 1)[:, None],
        stress=c.last_stress[final],
        missing_steps=np.maximum(missing, 0),
        start_missing=c.first_step[initial] > before + 1,
        duplicated_steps=np.array([len(found.duplicates.get(k, ())) for k in whole.key], np.int64),
        order=order,
    )


def _highest_step_before(
    step: NDArray[np.int32], calculations: Calculations, count: NDArray[np.int64]
) -> NDArray[np.int64]:
    """For each trajectory the last step of a calculation that ends before `step`, or -1."""
    last = calculations.last_step
    before = np.where(last < np.repeat(step, count), last, -1).astype(np.int64)
    return np.maximum.reduceat(before, np.cumsum(count) - count) if len(step) else before


def _faults(found: Scan, whole: Calculations, starts: NDArray[np.int64]) -> dict[int, Quarantined]:
    """Place -> reason, for each trajectory that has one; the first of these counts."""
    duplicated = np.array([found.duplicates.get(k, [NONE])[0] for k in whole.key], dtype=np.int64)
    single = np.where(whole.n_frames == 1, whole.first_step.astype(np.int64), NONE)
    where = {
        **{reason: _at(whole.fault, 1 + i) for i, reason in enumerate(ROW_FAULTS)},
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


def _at(fault: NDArray[np.int64], code: int) -> NDArray[np.int64]:
    """The step of the fault where it is the one of this code, or `NONE`."""
    return np.where(fault >> FAULT_BITS == code, fault % (1 << FAULT_BITS), NONE)


def _entangled(c: Calculations, starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first step of a calculation that another reaches into or that has no number."""
    order = np.lexsort((c.first_step, c.key))
    key, first, last = c.key[order], c.first_step[order], c.last_step[order]
    inside = np.zeros(len(c), dtype=bool)
    inside[1:] = (key[1:] == key[:-1]) & (first[1:] <= last[:-1])
    inside |= (c.number[order] < 0) & np.repeat(
        np.diff(starts, append=len(c)) > 1, np.diff(starts, append=len(c))
    )
    return np.minimum.reduceat(np.where(inside, first.astype(np.int64), NONE), starts)
