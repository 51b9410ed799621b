"""Trajectories whose last frame is missing from the file: whether what is left is relaxed.

The last frame that is left serves in its place if its residual force and stress are small enough
for a relaxed structure.
"""

from __future__ import annotations

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from benchmarks.core import MissingFinalFrame
from benchmarks.data.lemat.arrow import array, lengths, vectors
from benchmarks.data.lemat.reader import FrameFiles

MAX_FORCE = 0.05
"""Largest norm of a force [eV/Å]. The relaxers of the board stop there (`--fmax`). At a force
constant of 5 eV/Å^2 such a site is 0.01 Å from the minimum, the first threshold of `adwt`."""
MAX_STRESS = 1.0
"""Largest component of the stress [kB]. At a bulk modulus of 60 GPa a pressure of 1 kB is a strain
of 0.001, the first threshold of `strain_awt`."""
UPHILL = 0.003
"""A relaxation ends at its lowest energy; so much above it is noise [eV/atom]. More is the end of a
scan, of dynamics, or of another relaxation."""


def is_relaxed(force: NDArray[np.float64], stress: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Tell whether residual forces [eV/Å] and stresses [kB] are known and small; (n,) each."""
    return np.asarray((force <= MAX_FORCE) & (stress <= MAX_STRESS))


def residual_forces(files: FrameFiles, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """The largest norm of a force in each of some frames.

    Forces are the heaviest column next to positions: only the row groups of `rows` are read, one
    at a time, and of them only this column.

    Args:
        files: The files that hold the frames.
        rows: (n,) row numbers.

    Returns:
        (n,) [eV/Å], NaN where there are no forces or one is not finite.
    """
    result = np.full(len(rows), np.nan)
    for which, table in files.pick(rows, ("forces",)):
        lists = array(table["forces"])
        count = lengths(lists)
        some = np.flatnonzero(count)
        if len(some):
            of_lists = array(pc.take(lists, some))
            forces = vectors(of_lists, count[some])[0]
            norms = np.linalg.norm(forces, axis=1)
            result[which[some]] = np.maximum.reduceat(norms, np.cumsum(count[some]) - count[some])
    result[np.isinf(result)] = np.nan
    return result


def certainly_rejected(
    missing: NDArray[np.bool_], stress: NDArray[np.float32], policy: MissingFinalFrame
) -> NDArray[np.bool_]:
    """Find the trajectories that `rejected_final_frames` will reject whatever their forces are.

    Args:
        missing: (n,) true where the last frame is missing.
        stress: (n,) largest component in the last frame that is left [kB].
        policy: The trajectories that may be used.

    Returns:
        (n,) booleans.
    """
    if policy is MissingFinalFrame.IF_RELAXED:
        return np.asarray(missing & ~(stress <= MAX_STRESS))
    return missing if policy is MissingFinalFrame.DROP else np.zeros_like(missing)


def rejected_final_frames(
    files: FrameFiles,
    rows: NDArray[np.int64],
    missing: NDArray[np.bool_],
    stress: NDArray[np.float32],
    policy: MissingFinalFrame,
) -> dict[int, str]:
    """Find the trajectories that are not used because their last frame is missing.

    Args:
        files: The files that hold the frames.
        rows: (n,) row of the last frame that is left of each trajectory.
        missing: (n,) true where the last frame is missing.
        stress: (n,) largest component in the frame that is left [kB].
        policy: The trajectories that may be used.

    Returns:
        Place in `rows` -> residual force and stress of the frame that is left, as text.
    """
    if policy is MissingFinalFrame.KEEP:
        return {}
    at = np.flatnonzero(missing)
    force = residual_forces(files, rows[at])
    used = is_relaxed(force, stress[at]) & (policy is MissingFinalFrame.IF_RELAXED)
    return {
        int(at[i]): f"residual {force[i]:.3f} eV/Å, {stress[at][i]:.2f} kB"
        for i in np.flatnonzero(~used)
    }
