"""Row groups of a data set of the Hub: the trajectories drawn from each, as local parquet files.

The file `3.seed0.first.SHA256.parquet` of the cache holds the trajectories of row group 3 that a
draw takes first.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.core import UserError
from benchmarks.data.hub.remote import RemoteParquet
from benchmarks.data.hub.repository import ResolvedRevision
from benchmarks.data.lemat.ids import keys_of, seeded_hash
from benchmarks.data.lemat.reader import reading

QUOTA = 32
"""From a row group of n trajectories, max(QUOTA, n // QUOTA) are drawn. Fewer would be spread more
evenly over the data set, but would cost more bytes each."""


class RowGroup(NamedTuple):
    """A row group of a file in which trajectories begin; its drawn part, or the rest."""

    file: int
    group: int
    rest: bool = False


class RowGroupReader:
    """The row groups of a pin, fetched when they are needed and kept. Threads may share it."""

    def __init__(self, pin: ResolvedRevision, seed: int) -> None:
        self.files = tuple(RemoteParquet(pin, file) for file in pin.files)
        self._seed = seed

    def count(self, file: int) -> int:
        """The number of row groups of a file.

        Raises:
            UserError: It cannot be had, or has no ids.
        """
        footer = self.files[file].footer()
        if "id" not in footer.schema.to_arrow_schema().names:
            raise UserError(f"{self.files[file]}: lacks id: not in the layout of LeMat-Traj")
        return int(footer.num_row_groups)

    def local(self, place: RowGroup) -> Path:
        """The trajectories of a place, whole, as a parquet file of the cache.

        Raises:
            UserError: They cannot be had, or the rows of a trajectory are not neighbours.
        """
        file = self.files[place.file]
        name = f"{place.group}.seed{self._seed}.{'rest' if place.rest else 'first'}"
        path = file.kept(name)
        if path is not None:
            return path
        with reading(file):
            table = pa.concat_tables(self._trajectories(place))
        return file.keep(name, table)

    def _trajectories(self, place: RowGroup) -> Iterator[Any]:
        table = self._rows(place)
        keys = keys_of(table["id"])
        known = keys.drop_null()
        if len(pc.run_end_encode(known).values) != len(known.unique()):
            raise UserError(
                f"{self.files[place.file]}: the rows of a trajectory are not neighbours in row "
                f"group {place.group}: leave out --limit"
            )
        before = self._beside(place, -1)
        begun = _leading(keys, self._keys(before)[-1]) if before and len(keys) else 0
        table, keys = table.slice(begun), keys.slice(begun)
        names = keys.drop_null().unique().to_pylist()
        names.sort(key=lambda name: seeded_hash(self._seed, name))
        firsts = pa.array(names[: max(QUOTA, len(names) // QUOTA)], pa.string())
        drawn = pc.is_in(keys, firsts)
        chosen = pc.invert(drawn) if place.rest else drawn
        yield table.filter(chosen)
        # The last trajectory may go on in the row groups after this one.
        key = keys[-1] if len(keys) and chosen[-1].as_py() else None
        following = None if key is None else self._beside(place, 1)
        while following:
            keys = self._keys(following)
            more = _leading(keys, key)
            if more:
                yield self._rows(following).slice(0, more)
            following = self._beside(following, 1) if more == len(keys) else None

    def _beside(self, place: RowGroup, step: int) -> RowGroup | None:
        """The row group before (-1) or after (1) that has rows, over the borders of files."""
        file, group, _ = place
        while True:
            group += step
            while not 0 <= group < self.count(file):
                file += step
                if not 0 <= file < len(self.files):
                    return None
                group = 0 if step > 0 else self.count(file) - 1
            if self.files[file].footer().row_group(group).num_rows:
                return RowGroup(file, group)

    def _keys(self, place: RowGroup) -> Any:
        return keys_of(self.files[place.file].fetch(place.group, ["id"])["id"])

    def _rows(self, place: RowGroup) -> Any:
        return self.files[place.file].fetch(place.group)


def _leading(keys: Any, key: Any) -> int:
    """The number of leading `keys` that equal `key`; 0 if `key` is null."""
    same = pc.fill_null(pc.equal(keys, key), fill_value=False)
    other = pc.index(same, value=False).as_py()
    return len(keys) if other < 0 else int(other)
