"""The choice of two frames of each trajectory: its initial frame and its relaxed frame.

`choose_relaxed_frame` makes the choice. Its rule: a relaxation is often several calculations. The
relaxed frame is the last frame of the calculation that was run last, and the initial frame is the
first frame of the calculation that was run first. Within a calculation the `relaxation_step` gives
the order of the frames, read as a number and not as text. `calculation_order` finds the order in
which the calculations were run. A trajectory whose last frame is missing from the file has a
relaxed frame by the same rule; `missing_final_frames` decides whether it is used.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.data.lemat.calculations import Calculations


@dataclass(frozen=True, slots=True)
class ChosenFrames:
    """The initial and the relaxed frame of each trajectory; (n,) each."""

    initial_row: NDArray[np.int64]
    """Row number of the initial frame in the files."""
    relaxed_row: NDArray[np.int64]
    """Row number of the relaxed frame in the files."""
    initial_step: NDArray[np.int32]
    """`relaxation_step` of the initial frame."""
    relaxed_step: NDArray[np.int32]
    """`relaxation_step` of the relaxed frame."""
    energies: NDArray[np.float64]
    """(n, 3) [eV]: the total energy of the initial frame, of the relaxed frame, and the lowest one
    of the calculation that was run last."""
    stress: NDArray[np.float32]
    """Largest component of the relaxed frame's stress [kB]."""

    def take(self, indices: NDArray[np.int64]) -> ChosenFrames:
        """The frames of the trajectories of these indices, in this order."""
        return ChosenFrames(*(getattr(self, name)[indices] for name in self.__slots__))


def choose_relaxed_frame(
    calculations: Calculations, starts: NDArray[np.int64], backwards: NDArray[np.bool_]
) -> ChosenFrames:
    """Choose the relaxed frame of each trajectory, and its initial frame.

    Args:
        calculations: All calculations, sorted by trajectory and then by `relaxation_number`.
        starts: (n,) index of the first calculation of each trajectory.
        backwards: (n,) whether the calculation with the lowest number was run last
            (`calculation_order.Order.backwards`).
    """
    lowest_number = starts
    highest_number = starts + np.diff(starts, append=len(calculations)) - 1
    run_first = np.where(backwards, highest_number, lowest_number)
    run_last = np.where(backwards, lowest_number, highest_number)
    energies = (
        calculations.first_energy[run_first],
        calculations.last_energy[run_last],
        calculations.lowest_energy[run_last],
    )
    return ChosenFrames(
        initial_row=calculations.first_row[run_first],
        relaxed_row=calculations.last_row[run_last],
        initial_step=calculations.first_step[run_first],
        relaxed_step=calculations.last_step[run_last],
        energies=np.stack(energies, axis=1),
        stress=calculations.last_stress[run_last],
    )
