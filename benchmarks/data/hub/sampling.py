"""The rule of `--limit` for a data set of the Hub, and the row groups that it needs.

The rule for local data (smallest hash of the id) needs all ids, which are gigabytes for LeMat-Traj.
Here row groups are drawn, and then trajectories in them:

1. Files are in the order of sha256(seed + path), the row groups of a file in the order of
   sha256(seed + path + "#" + number). Turn after turn each file gives its next row group.
2. A trajectory belongs to the row group in which its first row lies, and is read whole: rows are
   ordered by id as text, so one that a border cuts goes on in the row group (or file) after it.
   Leaving such trajectories out would favour short ones.
3. From a row group of n trajectories, the max(32, n // 32) with the smallest sha256(seed + id) are
   taken, in that order. The rest of each row group comes after all of these, in the same order.

`--limit N` takes the first N usable ones, so that a smaller limit is contained in a larger one. For
the same reason, the vote of a source's trajectories on the order of calculations (see
`lemat.calculation_order`) counts only trajectories that were drawn from the same row group. With T
trajectories in all, this reads at most about N / T * 32 of the bytes, and the footers of the files.

Neighbours in a row group are alike, because ids sort by source and number. The result is a sample
in clusters, and an interval that takes its members as independent is somewhat too narrow.
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
"""Number of row groups fetched at once; a decoded one may be a few hundred megabytes."""


@dataclass(frozen=True, slots=True)
class Draw:
    """The drawn trajectories, as local parquet files in the order of the rule."""

    paths: tuple[Path, ...]
    complete: bool
    """True if this is the whole data set."""


def sample_row_groups(pin: ResolvedRevision, limit: int, seed: int) -> Draw:
    """Fetch as many row groups as `limit` trajectories need, or all of them.

    Raises:
        UserError: A row group cannot be fetched, or the rows of a trajectory are not neighbours.
    """
    groups = RowGroupReader(pin, seed)
    order = _in_order(groups, seed)
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
                found = len(keys_of(pq.read_table(path, columns=["id"])["id"]).unique())
                bar.update(min(found, max(missing, 0)))
                missing -= found
    return Draw(tuple(paths), complete=missing > 0)


def _in_order(groups: RowGroupReader, seed: int) -> Iterator[RowGroup]:
    """The drawn part of each row group in the order of the rule; then the rest of each.

    A file is opened when its first turn comes.
    """
    firsts: list[RowGroup] = []
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
                firsts.append(RowGroup(file, turns[file].pop()))
                yield firsts[-1]
        files = [file for file in files if turns[file]]
    yield from (place._replace(rest=True) for place in firsts)
