"""Which samples `--limit` takes: those whose seeded hash is smallest, of a draw in its order."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.data.lemat.reader import FrameFiles
from benchmarks.data.lemat.trajectories import Trajectories
from benchmarks.data.sources import Source


def seeded_hash(seed: int, text: str) -> str:
    """What samples, files and row groups are sorted by."""
    return hashlib.sha256(f"{seed}{text}".encode()).hexdigest()


def rule(source: Source) -> str:
    """By what `order` sorts, in words, for the record."""
    if not any(part.draw for part in source.each):
        return "smallest hash"
    turns = "; several sources turn by turn" if source.parts else ""
    return (
        "row groups by hash, max(32, n // 32) trajectories of each by hash "
        f"(benchmarks.data.hub.draw){turns}"
    )


def wanted(source: Source, files: FrameFiles, trajectories: Trajectories) -> NDArray[np.bool_]:
    """Which trajectories are in the part that a held-out split names, if one is read; (n,).

    Args:
        source: What `files` are of.
        files: Where the frames are.
        trajectories: What the first pass found.
    """
    if all(part.ids is None for part in source.each):
        return np.ones(len(trajectories), dtype=bool)
    parts = np.repeat(np.arange(len(source.each)), [len(part.paths) for part in source.each])
    of = parts[files.file_of(trajectories.first)]
    known = [source.each[i].ids for i in range(len(source.each))]
    named = zip(trajectories.ids, of, strict=True)
    return np.array([(ids := known[i]) is None or name in ids for name, i in named], dtype=bool)


def order(
    source: Source, files: FrameFiles, trajectories: Trajectories, seed: int
) -> NDArray[np.int64]:
    """Indices of trajectories, the most wanted first.

    By hash; those of a draw row group by row group (see `benchmarks.data.hub.draw`). Of a draw no
    ids but its own are known: several sources with one among them take turns, each in its order.

    Args:
        source: What `files` are of.
        files: Where the frames are.
        trajectories: What the first pass found.
        seed: Goes into the hash.
    """
    hashed = _by_hash(trajectories.ids, seed)
    if not any(part.draw for part in source.each):
        return hashed
    parts = np.repeat(np.arange(len(source.each)), [len(part.paths) for part in source.each])
    file = files.file_of(trajectories.first[hashed])
    by_part = np.argsort(files.sets[file], kind="stable")  # of a draw each file is a set
    part = parts[file[by_part]]
    turn = np.arange(len(part)) - np.searchsorted(part, part)
    return hashed[by_part][np.lexsort((part, turn))]


def _by_hash(ids: Sequence[str], seed: int) -> NDArray[np.int64]:
    keys = [seeded_hash(seed, sample_id) for sample_id in ids]
    return np.array(sorted(range(len(ids)), key=keys.__getitem__), dtype=np.int64)
