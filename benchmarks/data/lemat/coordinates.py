"""The second pass reads and checks the coordinates of the chosen frames, as flat arrays.

`relaxed_frame` chose the frames in the first pass; here their cells and sites are read.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.core import MissingFinalFrame
from benchmarks.core.geometry import is_compact
from benchmarks.core.parquet import give_back_memory
from benchmarks.data.lemat.arrow import array, atomic_numbers, lengths, row_sums, vectors
from benchmarks.data.lemat.missing_final_frames import certainly_rejected, rejected_final_frames
from benchmarks.data.lemat.quarantine import Quarantined, Reason, first_true
from benchmarks.data.lemat.reader import FrameFiles
from benchmarks.data.lemat.trajectories import Trajectories

_HEAVY = ("species_at_sites", "lattice_vectors", "cartesian_site_positions")
CHUNK = 20_000
"""Number of trajectories whose coordinates are read at a time, some hundred megabytes."""
SMALLEST_VOLUME_PER_ATOM = 0.5
"""Å^3; hydrogen at the pressure of the Earth's centre still has more than 1."""
_FAULTS = (
    Reason.NO_LATTICE,
    Reason.LENGTHS,
    Reason.NOT_FINITE,
    Reason.COLLAPSED,
    Reason.NOT_COMPACT,
    Reason.END_MISSING,
)


@dataclass(frozen=True, slots=True)
class FramePairs:
    """Initial and relaxed frames as arrays; the sites of pair i are `offsets[i]:offsets[i + 1]`."""

    trajectory: NDArray[np.int64]
    """(n,) index into the trajectories that the pairs were read from, in file order."""
    offsets: NDArray[np.int64]
    """(n + 1,)"""
    numbers: NDArray[np.int16]
    """(n_sites_total,)"""
    lattices: NDArray[np.float64]
    """(n, 2, 3, 3) [Å], initial and relaxed."""
    frac_coords: NDArray[np.float64]
    """(2, n_sites_total, 3), initial and relaxed, not wrapped."""

    def take(self, kept: NDArray[np.bool_]) -> FramePairs:
        """The pairs for which `kept`, (n,), is true."""
        if kept.all():
            return self
        count = np.diff(self.offsets)
        sites = np.repeat(kept, count)
        return FramePairs(
            trajectory=self.trajectory[kept],
            offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(count[kept])]),
            numbers=self.numbers[sites],
            lattices=self.lattices[kept],
            frac_coords=self.frac_coords[:, sites],
        )


def read_coordinates(
    files: FrameFiles,
    trajectories: Trajectories,
    order: NDArray[np.int64],
    limit: int | None,
    missing_final_frame: MissingFinalFrame = MissingFinalFrame.IF_RELAXED,
) -> tuple[FramePairs, list[Quarantined]]:
    """Read the initial and the relaxed frame of the first `limit` sound trajectories of `order`.

    Args:
        files: The files that hold the frames.
        trajectories: The trajectories that the first pass found.
        order: (n,) indices into `trajectories`, the most wanted first.
        limit: Number of pairs that are wanted; None for all.
        missing_final_frame: The policy for trajectories whose last frame is missing.

    Returns:
        The pairs, in the order of being read, and the trajectories that turned out unusable.
    """
    wanted = len(order) if limit is None else min(limit, len(order))
    pieces: list[FramePairs] = []
    quarantined: dict[int, Quarantined] = {}
    missing, stress = trajectories.order.missing_final_frame, trajectories.chosen.stress
    lost = certainly_rejected(missing, stress, missing_final_frame)
    sound = 0
    rest = order
    while sound < wanted and len(rest):
        n = CHUNK
        if limit is not None:  # a quarter more than needed, so that one reading mostly does
            still = wanted - sound
            n = int(np.searchsorted(np.cumsum(~lost[rest]), still + still // 4)) + 1
        chosen, rest = np.sort(rest[:n]), rest[n:]
        unfit = rejected_final_frames(
            files,
            trajectories.chosen.relaxed_row[chosen],
            missing[chosen],
            stress[chosen],
            missing_final_frame,
        )
        piece, fault = _read(files, trajectories, chosen, unfit)
        for i in map(int, np.flatnonzero(fault)):
            reason = _FAULTS[fault[i] - 1]
            ended = reason is Reason.END_MISSING
            detail = unfit[i] if ended else "in the initial or relaxed frame"
            found = Quarantined(trajectories.ids[chosen[i]], reason, detail)
            quarantined[int(chosen[i])] = found
        pieces.append(piece)
        sound += len(piece.trajectory)
    # Pairs and faults are those up to the last wanted one, as if they were read one by one.
    pairs = _concatenated(pieces)
    rank = np.empty(order.max(initial=-1) + 1, dtype=np.int64)
    rank[order] = np.arange(len(order))
    of = rank[pairs.trajectory]
    last = np.sort(of)[wanted - 1] if len(of) >= wanted > 0 else len(order)
    faults = [found for i, found in sorted(quarantined.items()) if rank[i] <= last]
    return pairs.take(of <= last), faults


def _read(
    files: FrameFiles,
    trajectories: Trajectories,
    chosen: NDArray[np.int64],
    unfit: Collection[int],
) -> tuple[FramePairs, NDArray[np.int64]]:
    """The sound pairs among `chosen`, and for each of `chosen` 0 or 1 + index into `_FAULTS`."""
    frames = trajectories.chosen.take(chosen)
    rows = np.concatenate([frames.initial_row, frames.relaxed_row])
    table = files.take(rows, _HEAVY)
    species = array(table["species_at_sites"])
    count = lengths(species)
    cells, has_cell = vectors(table["lattice_vectors"], np.full(len(rows), 3))
    positions, has_positions = vectors(table["cartesian_site_positions"], count)
    lattices = cells.reshape(-1, 3, 3)
    finite = np.isfinite(lattices).all(axis=(1, 2))
    finite &= row_sums((~np.isfinite(positions)).sum(axis=1), count) == 0
    with np.errstate(invalid="ignore", over="ignore"):
        volume = np.abs(np.linalg.det(lattices))
    spacious = (volume > SMALLEST_VOLUME_PER_ATOM * count) & np.isfinite(volume)
    n = len(chosen)
    checks = (has_cell, has_positions, finite, spacious, is_compact(lattices))
    faults = [~(sound[:n] & sound[n:]) for sound in checks]
    fault = first_true([*faults, np.isin(np.arange(n), list(unfit))])
    good = np.tile(fault == 0, 2)
    sites = np.repeat(good, count)
    lattices, count = lattices[good], count[good]
    inverse = np.repeat(np.linalg.inv(lattices), count, axis=0)
    frac = np.einsum("ni,nij->nj", positions[sites], inverse)
    m, half = len(lattices) // 2, len(frac) // 2
    columns = FramePairs(
        trajectory=chosen[fault == 0],
        offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(count[:m])]),
        numbers=atomic_numbers(species.flatten())[sites][:half],
        lattices=np.stack([lattices[:m], lattices[m:]], axis=1),
        frac_coords=frac.reshape(2, half, 3),
    )
    return columns, fault


def _concatenated(pieces: list[FramePairs]) -> FramePairs:
    """All pieces as one; the list is empty afterwards, so that nothing is held twice."""
    count = np.concatenate([np.zeros(0, np.int64), *(np.diff(piece.offsets) for piece in pieces)])
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(count)])
    n, n_sites = len(count), int(offsets[-1])
    whole = FramePairs(
        trajectory=np.empty(n, np.int64),
        offsets=offsets,
        numbers=np.empty(n_sites, np.int16),
        lattices=np.empty((n, 2, 3, 3)),
        frac_coords=np.empty((2, n_sites, 3)),
    )
    start = 0
    while pieces:
        piece = pieces.pop(0)
        end = start + len(piece.trajectory)
        sites = slice(offsets[start], offsets[end])
        whole.trajectory[start:end] = piece.trajectory
        whole.numbers[sites] = piece.numbers
        whole.lattices[start:end] = piece.lattices
        whole.frac_coords[:, sites] = piece.frac_coords
        start = end
        del piece
        give_back_memory()
    return whole
