"""The rule of `--limit` for a data set of the Hub, and the row groups that it needs.

The rule of local data (smallest hash of the id) needs all ids, which are gigabytes of LeMat-Traj.
Here row groups are drawn, and trajectories in them:

1. Files are in the order of sha256(seed + path), the row groups of a file in the order of
   sha256(seed + path + "#" + number). Turn after turn each file gives its next row group.
2. A trajectory belongs to the row group in which its first row lies, and is read whole: rows are
   ordered by id as text, so one that a border cuts goes on in the row group (or file) after it.
   To leave such ones out would favour short trajectories.
3. Of a row group of n trajectories the max(32, n // 32) with the smallest sha256(seed + id) are
   taken, in that order. What is left of the row groups comes after all of them, in the same order.

`--limit N` takes the first N usable ones, so that a smaller limit is contained in a larger one.
For the same reason, what the trajectories of a source show together (see `order`) is asked of those
drawn with it from its row group, and of no others.
Of T trajectories this reads about N / T * 32 of the bytes, or less, and the footers of the files.

Neighbours in a row group are alike (ids sort by source and number): this is a sample in clusters,
and an interval that takes its members as independent is somewhat too narrow.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow.parquet as pq
from tqdm import tqdm

from benchmarks.data.hub.repository import ResolvedRevision
from benchmarks.data.hub.row_groups import QUOTA, RowGroup, RowGroupReader
from benchmarks.data.lemat.ids import keys_of, seeded_hash

_THREADS = 4
"""Row groups fetched at once; each may be a few hundred megabytes when decoded."""


@dataclass(frozen=True, slots=True)
class Draw:
    """What was drawn, as local parquet files in the order of the rule."""

    paths: tuple[Path, ...]
    complete: bool
    """Whether this is the whole data set."""


def sample_row_groups(pin: ResolvedRevision, limit: int, seed: int) -> Draw:
    """Fetch as many row groups as `limit` trajectories need, or all there are.

    Raises:
        UserError: One cannot be had, or the rows of a trajectory are not neighbours.
    """
    groups = RowGroupReader(pin, seed)
    order = _order(groups, seed)
    paths: list[Path] = []
    missing = limit
    with (
        ThreadPoolExecutor(_THREADS) as pool,
        tqdm(total=limit, desc=pin.name, unit="trajectory", disable=None) as bar,
    ):
        # As many at once as are needed at least: one more may not be needed.
        while missing > 0 and (wanted := list(islice(order, -(-missing // QUOTA)))):
            for path in pool.map(groups.local, wanted):
                paths.append(path)
                found = _n_trajectories(path)
                bar.update(min(found, max(missing, 0)))
                missing -= found
    return Draw(tuple(paths), complete=missing > 0)


def _order(groups: RowGroupReader, seed: int) -> Iterator[RowGroup]:
    """What `--limit` takes of each row group, in order; then what that leaves."""
    firsts = []
    for place in _turns(groups, seed):
        firsts.append(place)
        yield place
    yield from (place._replace(rest=True) for place in firsts)


def _turns(groups: RowGroupReader, seed: int) -> Iterator[RowGroup]:
    """Row groups in the order of the rule; a file is opened when its first turn comes."""
    paths = [each.file.path for each in groups.files]
    files = sorted(range(len(paths)), key=lambda i: seeded_hash(seed, paths[i]))
    turns: dict[int, list[int]] = {}
    while files:
        for file in files:
            if file not in turns:
                numbers = range(groups.count(file))
                names = {seeded_hash(seed, f"{paths[file]}#{g}"): g for g in numbers}
                turns[file] = [names[key] for key in sorted(names, reverse=True)]
            if turns[file]:
                yield RowGroup(file, turns[file].pop())
        files = [file for file in files if turns[file]]


def _n_trajectories(path: Path) -> int:
    return len(keys_of(pq.read_table(path, columns=["id"])["id"]).unique())
