"""The rule of `--limit` for a data set of the Hub, and the row groups that it needs.

The rule of local data (smallest hash of the id) would need all ids, a few GB of LeMat-Traj. Here
row groups are drawn, and trajectories in them:

1. Files are in the order of sha256(seed + path), the row groups of a file in the order of
   sha256(seed + path + "#" + number). Turn after turn each file gives its next row group.
2. A trajectory belongs to the row group in which its first row lies, and is read whole: rows are
   ordered by id as text, so one that a border cuts goes on in the row group (or file) after it.
3. Of each row group the `PER_GROUP` usable trajectories with the smallest sha256(seed + id) are
   taken, in that order, then the row groups' next `PER_GROUP`, and so on; `--limit N` takes the
   first N. A smaller limit is thus contained in a larger one, and no length is favoured.

Neighbours in a row group are alike (ids sort by source and number): these are samples in clusters
of at most `PER_GROUP`, and an interval that takes them as independent is somewhat too narrow.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.data.groups import Groups, keys_of
from benchmarks.data.hub import Pin

RULE = "row groups by hash, 32 trajectories of each by hash (benchmarks.data.draw)"
PER_GROUP = 32
"""Trajectories of a row group per turn: fewer are more spread and cost more bytes each."""
_THREADS = 4
"""Row groups fetched at once; each may be a hundred megabytes when decoded."""


@dataclass(frozen=True, slots=True)
class Draw:
    """Row groups that were drawn, each with its trajectories as a local parquet file."""

    paths: tuple[Path, ...]
    """In the order of the rule."""
    n_rows: tuple[int, ...]
    complete: bool
    """Whether these are all row groups of the data set."""


def draw(pin: Pin, limit: int, seed: int) -> Draw:
    """Fetch as many row groups as `limit` trajectories need, or all there are.

    Raises:
        UserError: One cannot be had, or the rows of a trajectory are not neighbours.
    """
    groups = Groups(pin)
    order = _order(groups, seed)
    paths: list[Path] = []
    missing = limit
    with (
        ThreadPoolExecutor(_THREADS) as pool,
        tqdm(total=limit, desc=pin.name, unit="trajectory", disable=None) as bar,
    ):
        while missing > 0 and (wanted := list(islice(order, -(-missing // PER_GROUP)))):
            for path in pool.map(lambda place: groups.local(*place), wanted):
                paths.append(path)
                found = min(_n_trajectories(path), PER_GROUP)
                bar.update(min(found, max(missing, 0)))
                missing -= found
    n_rows = tuple(pq.read_metadata(path).num_rows for path in paths)
    return Draw(tuple(paths), n_rows, complete=missing > 0)


def drawn_order(
    drawn: Draw, ids: Sequence[str], rows: NDArray[np.int64], seed: int
) -> NDArray[np.int64]:
    """The trajectories in the order of the rule; of an incomplete draw only the first turn.

    Args:
        drawn: Where they were read from, in this order.
        ids: Of n usable trajectories.
        rows: (n,) number of one row of each, counted through the files.
        seed: Of the draw.

    Returns:
        Indices, the most wanted first.
    """
    group = np.searchsorted(np.cumsum(drawn.n_rows), rows, side="right")
    by_hash = np.array(sorted(range(len(ids)), key=lambda i: _hash(seed, ids[i])), dtype=np.int64)
    within = by_hash[np.argsort(group[by_hash], kind="stable")]
    first = np.searchsorted(group[within], group[within], side="left")
    turn = (np.arange(len(within)) - first) // PER_GROUP
    ordered = np.argsort(turn, kind="stable")
    return within[ordered if drawn.complete else ordered[turn[ordered] == 0]]


def _order(groups: Groups, seed: int) -> Iterator[tuple[int, int]]:
    """Row groups as (file, number) in the order of the rule; a file is opened on its first turn."""
    paths = [file.path for file in groups.pin.files]
    files = sorted(range(len(paths)), key=lambda i: _hash(seed, paths[i]))
    turns: dict[int, list[int]] = {}
    while files:
        for file in files:
            if file not in turns:
                names = {_hash(seed, f"{paths[file]}#{g}"): g for g in range(groups.count(file))}
                turns[file] = [names[key] for key in sorted(names, reverse=True)]
            if turns[file]:
                yield file, turns[file].pop()
        files = [file for file in files if turns[file]]


def _n_trajectories(path: Path) -> int:
    return len(keys_of(pq.read_table(path, columns=["id"])["id"]).unique())


def _hash(seed: int, text: str) -> str:
    return hashlib.sha256(f"{seed}{text}".encode()).hexdigest()
