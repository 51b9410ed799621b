"""Frames -> trajectories: group, order, choose the first and the relaxed frame, quarantine.

Order is by `relaxation_step`, as a number, and the last frame counts as the relaxed one. The
public LeMat-Traj numbers the calculations of one trajectory in reverse (`relaxation_number`);
that is not undone here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.data.quarantine import Quarantined, Reason
from benchmarks.data.reader import FrameFiles
from benchmarks.data.scan import ROW_FAULTS, Light, Scan, first_true, scan


@dataclass(frozen=True, slots=True)
class Trajectories:
    """Usable trajectories after the first pass, in file order, as columns."""

    ids: list[str]
    materials: list[str]
    functionals: list[str]
    first: NDArray[np.int64]
    """(n,) row number of the initial frame."""
    last: NDArray[np.int64]
    """(n,) row number of the relaxed frame."""
    n_frames: NDArray[np.int64]

    def take(self, indices: NDArray[np.int64]) -> Trajectories:
        """These trajectories, in this order."""
        return Trajectories(
            ids=[self.ids[i] for i in indices],
            materials=[self.materials[i] for i in indices],
            functionals=[self.functionals[i] for i in indices],
            first=self.first[indices],
            last=self.last[indices],
            n_frames=self.n_frames[indices],
        )


def find(files: FrameFiles) -> tuple[Trajectories, list[Quarantined]]:
    """Group the frames of `files` into trajectories and choose two frames of each.

    Args:
        files: Frames in the layout of LeMat-Traj, rows in any order.

    Returns:
        The usable trajectories, in the order in which they first appear, and those that are not.
    """
    found = scan(files)
    light = found.light.take(np.lexsort((found.light.row, found.light.step, found.light.key)))
    starts = np.flatnonzero(np.diff(light.key, prepend=-1))
    count = np.diff(starts, append=len(light.key))
    bad = _frame_faults(light, starts, count)
    bad[Reason.ID_MISMATCH] |= np.repeat(~_ids_agree(found, light, starts), count)
    verdict = _first_per_group(bad, starts)
    good = verdict == 0
    quarantined = [
        _explain(found, light, starts[g], count[g], tuple(bad.items())[verdict[g] - 1])
        for g in np.flatnonzero(~good)
    ]
    trajectories = _chosen(found, light, starts[good], count[good])
    return trajectories, found.malformed + quarantined


def _chosen(
    found: Scan, light: Light, begin: NDArray[np.int64], count: NDArray[np.int64]
) -> Trajectories:
    return Trajectories(
        ids=[found.keys[i] for i in light.key[begin]],
        materials=[found.materials[i] or "" for i in light.material[begin]],
        functionals=[found.functionals[i] or "" for i in light.functional[begin]],
        first=light.row[begin],
        last=light.row[begin + count - 1],
        n_frames=count,
    )


def _explain(
    found: Scan,
    light: Light,
    start: int,
    count: int,
    fault: tuple[Reason, NDArray[np.bool_]],
) -> Quarantined:
    reason, frames = fault
    at = start + int(np.argmax(frames[start : start + count]))
    note = found.notes.get(int(light.row[at]))
    detail = f"step {light.step_in_id[at]}" + (f": {note}" if note else "")
    return Quarantined(found.keys[light.key[start]], reason, detail)


def _frame_faults(
    light: Light, starts: NDArray[np.int64], count: NDArray[np.int64]
) -> dict[Reason, NDArray[np.bool_]]:
    """For each reason, in order of precedence, which frames (sorted into groups) have it."""
    head = np.repeat(starts, count)
    step = light.step
    repeated = np.zeros(len(step), dtype=bool)
    repeated[1:] = (step[1:] == step[:-1]) & (light.key[1:] == light.key[:-1])
    bad = {reason: light.fault == 1 + i for i, reason in enumerate(ROW_FAULTS)}
    bad[Reason.ID_MISMATCH] = (
        (light.material != light.material[head])
        | (light.functional != light.functional[head])
        | (light.step_in_id != step)
    )
    bad[Reason.SINGLE_FRAME] = np.repeat(count == 1, count)
    bad[Reason.DUPLICATED_STEP] = repeated
    bad[Reason.COMPOSITION] = light.composition != light.composition[head]
    bad[Reason.SITE_ORDER] = light.sites != light.sites[head]
    return bad


def _ids_agree(found: Scan, light: Light, starts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether key = `{material}-{trajectory}-{functional}`, for each group.

    The trajectory's index stands in ids of the Materials Project only.
    """

    def agree(key: str, material: str | None, functional: str | None) -> bool:
        if not material or not functional:
            return False
        index = key.removeprefix(f"{material}-").removesuffix(functional).removesuffix("-")
        known = (f"{material}-{functional}", f"{material}-{index}-{functional}")
        return key in known and (index == "" or index.isdecimal())

    groups = zip(light.key[starts], light.material[starts], light.functional[starts], strict=True)
    return np.array(
        [agree(found.keys[k], found.materials[m], found.functionals[f]) for k, m, f in groups],
        dtype=bool,
    )


def _first_per_group(
    bad: dict[Reason, NDArray[np.bool_]], starts: NDArray[np.int64]
) -> NDArray[np.int64]:
    """For each group, 0 or 1 + the index of the first reason that one of its frames has."""
    if not len(starts):
        return np.zeros(0, dtype=np.int64)
    return first_true([np.logical_or.reduceat(frames, starts) for frames in bad.values()])
