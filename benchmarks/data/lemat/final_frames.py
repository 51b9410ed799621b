"""Trajectories whose last frame is missing: which of them may be used."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.core import MissingFinalFrame
from benchmarks.data.lemat.calculation_order import ENDS, End
from benchmarks.data.lemat.reader import FrameFiles
from benchmarks.data.lemat.residual import MAX_STRESS, is_relaxed, residual_forces
from benchmarks.data.lemat.trajectories import Trajectories


def certainly_rejected(trajectories: Trajectories, policy: MissingFinalFrame) -> NDArray[np.bool_]:
    """Which trajectories `unfit_ends` will turn down for what the first pass knows; (n,)."""
    missing: NDArray[np.bool_] = trajectories.order.end == ENDS.index(End.MISSING)
    if policy is MissingFinalFrame.IF_RELAXED:
        return np.asarray(missing & ~(trajectories.stress <= MAX_STRESS))
    return missing if policy is MissingFinalFrame.DROP else np.zeros_like(missing)


def rejected_final_frames(
    files: FrameFiles,
    trajectories: Trajectories,
    chosen: NDArray[np.int64],
    policy: MissingFinalFrame,
) -> dict[int, str]:
    """Which trajectories lack their end and are not used for it.

    Args:
        files: Where the frames are.
        trajectories: What the first pass found.
        chosen: (n,) indices into them.
        policy: Which may be used.

    Returns:
        Place in `chosen` -> how far from relaxed the most relaxed frame left is.
    """
    if policy is MissingFinalFrame.KEEP:
        return {}
    at = np.flatnonzero(trajectories.order.end[chosen] == ENDS.index(End.MISSING))
    stress = trajectories.stress[chosen[at]]
    force = residual_forces(files, trajectories.last[chosen[at]])
    used = is_relaxed(force, stress) & (policy is MissingFinalFrame.IF_RELAXED)
    return {
        int(at[i]): f"residual {force[i]:.3f} eV/Å, {stress[i]:.2f} kB"
        for i in np.flatnonzero(~used)
    }
