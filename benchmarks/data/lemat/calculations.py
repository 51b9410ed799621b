"""The calculations of trajectories as the first pass keeps them, and how parts of them are joined.

A frame is the smallest part of a calculation, the frames of one row group a larger one. Because
parts join into parts of the same form, memory follows the number of calculations and not that of
frames, and rows may come in any order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.data.lemat.arrow import row_sums

NONE = np.int64(np.iinfo(np.int64).max)
"""Stands for "no such step" and "no fault", so that the minimum finds the first."""
LAST_STEP = np.iinfo(np.int32).max
FAULT_BITS = 32
"""A fault is its code, shifted by this, plus the step of the frame."""


@dataclass(frozen=True, slots=True)
class Calculations:
    """Frames of a trajectory that share a `relaxation_number`, or some of them; (n,) each."""

    key: NDArray[np.int64]
    """Number of the trajectory."""
    number: NDArray[np.int32]
    """`relaxation_number`; -1 where it is null."""
    material: NDArray[np.int64]
    functional: NDArray[np.int64]
    n_frames: NDArray[np.int32]
    n_sites: NDArray[np.int32]
    first_step: NDArray[np.int32]
    """The lowest `relaxation_step`; -1 where it is null."""
    last_step: NDArray[np.int32]
    first_row: NDArray[np.int64]
    last_row: NDArray[np.int64]
    first_energy: NDArray[np.float64]
    """Total [eV], NaN where it is null; likewise below."""
    last_energy: NDArray[np.float64]
    lowest_energy: NDArray[np.float64]
    first_cell: NDArray[np.float32]
    """(n, 6) [Å^2], the metric tensor of the lattice, which does not depend on its orientation."""
    last_cell: NDArray[np.float32]
    last_stress: NDArray[np.float32]
    """Largest component in the last frame [kB]."""
    composition: NDArray[np.uint64]
    """Hash of the first frame's sites that does not depend on their order; `sites` does."""
    sites: NDArray[np.uint64]
    other_composition: NDArray[np.int64]
    """First step whose hash differs from that of the first frame, or `NONE`."""
    other_sites: NDArray[np.int64]
    fault: NDArray[np.int64]
    """The gravest fault that a single frame has (see `FAULT_BITS`), or `NONE`."""

    def __len__(self) -> int:
        return len(self.key)

    def take(self, rows: NDArray[Any]) -> Calculations:
        """These rows, in this order."""
        return Calculations(*(getattr(self, name)[rows] for name in self.__slots__))


_OF_LAST = ("last_step", "last_row", "last_energy", "last_cell", "last_stress")


def merge_segments(parts: Calculations) -> tuple[Calculations, NDArray[np.int64]]:
    """Join the parts that have the same key and number.

    Args:
        parts: In any order.

    Returns:
        One part for each key and number, sorted by both, and the order in which the given parts
        went into it (by key, number and first step).
    """
    order = np.lexsort((parts.first_step, parts.number, parts.key))
    key, number = parts.key[order], parts.number[order]
    starts = np.flatnonzero((np.diff(key, prepend=-1) != 0) | (np.diff(number, prepend=-2) != 0))
    if len(starts) == len(order):
        return parts.take(order), order
    by_last = np.lexsort((parts.last_step, parts.number, parts.key))
    first, last = order[starts], by_last[np.append(starts[1:], len(order)) - 1]
    columns: dict[str, Any] = {  # one at a time, for memory
        name: getattr(parts, name)[last if name in _OF_LAST else first] for name in parts.__slots__
    }
    columns["n_frames"] = np.add.reduceat(parts.n_frames[order], starts)
    columns["lowest_energy"] = np.fmin.reduceat(parts.lowest_energy[order], starts)
    columns["fault"] = np.minimum.reduceat(parts.fault[order], starts)
    head = np.repeat(first, np.diff(starts, append=len(order)))
    for name, hashes in (("other_composition", parts.composition), ("other_sites", parts.sites)):
        same = hashes[order] == hashes[head]
        other = np.where(same, getattr(parts, name)[order], parts.first_step[order])
        columns[name] = np.minimum.reduceat(other, starts)
    return Calculations(**columns), order


def duplicated_steps(parts: Calculations, steps: NDArray[np.int32]) -> dict[int, list[int]]:
    """Key -> steps that were met more than once, for the keys that have some.

    Args:
        parts: (n,) as they came from the row groups.
        steps: (sum(parts.n_frames),) the steps of each part in turn, ascending within it.
    """
    steps = np.maximum(steps, 0)  # null is -1; such a trajectory has a fault anyway
    of = np.repeat(np.arange(len(parts), dtype=np.int32), parts.n_frames)
    again = np.flatnonzero((steps[1:] == steps[:-1]) & (of[1:] == of[:-1]))
    order = np.lexsort((parts.first_step, parts.key))
    key, first = parts.key[order], parts.first_step[order].astype(np.int64)
    reached = np.maximum.accumulate((key << FAULT_BITS) + parts.last_step[order])
    overlap = ((key[1:] << FAULT_BITS) + first[1:] <= reached[:-1]) & (key[1:] == key[:-1])
    suspects = np.union1d(key[1:][overlap], parts.key[of[again]])
    frames = np.flatnonzero(np.isin(parts.key, suspects)[of])
    at = np.sort((parts.key[of[frames]] << FAULT_BITS) + steps[frames])
    found: dict[int, list[int]] = {}
    for twice in np.unique(at[1:][at[1:] == at[:-1]]):
        found.setdefault(int(twice >> FAULT_BITS), []).append(int(twice % (1 << FAULT_BITS)))
    return found


def empty() -> Calculations:
    """No calculation."""
    cells = ("first_cell", "last_cell")
    names = Calculations.__slots__
    columns: list[Any] = [np.zeros((0, 6) if name in cells else 0, np.int64) for name in names]
    return Calculations(*columns)


def concatenated(pieces: dict[str, list[NDArray[Any]]]) -> Calculations:
    """Calculations from the pieces of each column, which are used up on the way, for memory."""
    return Calculations(*(np.concatenate(pieces.pop(name)) for name in Calculations.__slots__))


def metric_tensor(lattices: NDArray[np.float64]) -> NDArray[np.float32]:
    """Metric tensors of lattices: (n, 3, 3) [Å] -> (n, 6) [Å^2], aa, bb, cc, bc, ac, ab."""
    with np.errstate(over="ignore", invalid="ignore"):
        full = np.einsum("nik,njk->nij", lattices, lattices)
        return np.asarray(full[:, (0, 1, 2, 1, 0, 0), (0, 1, 2, 2, 2, 1)], dtype=np.float32)


def cell_jump(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float64]:
    """The difference of cells, about twice the strain; NaN where one is missing.

    The norm of the difference of their metric tensors, relative to the norm of the first.

    Args:
        one: (n, 6) [Å^2], as `metric_tensor` gives them.
        other: (n, 6) [Å^2]
    """
    weight = np.array([1, 1, 1, 2, 2, 2])
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        a, b = one.astype(np.float64), other.astype(np.float64)
        return np.asarray(np.sqrt(((b - a) ** 2) @ weight / (a**2 @ weight)))


def site_hashes(
    numbers: NDArray[np.int64], count: NDArray[np.int64]
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Two hashes of each frame's sites: the first does not depend on their order, the second does.

    Args:
        numbers: (sum(count),) atomic numbers, frame after frame.
        count: (n_frames,) number of sites of each frame.

    Returns:
        (n_frames,) hashes of the composition; (n_frames,) hashes of the sequence of elements.
    """
    place = np.arange(len(numbers)) - np.repeat(np.cumsum(count) - count, count)
    composition = row_sums(_mix(numbers.astype(np.uint64)), count)
    return composition, row_sums(_mix(((numbers << 32) + place).astype(np.uint64)), count)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scatter 64-bit integers (the finaliser of splitmix64)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
