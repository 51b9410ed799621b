"""Row groups of a data set of the Hub: the trajectories drawn from each, as local parquet files.

A file `3.seed0.first.SHA256.parquet` holds what a draw takes first of row group 3, one named
`footer.SHA256.parquet` where the row groups lie. The name says what the content must hash to: what
a killed process left is never taken for whole, and what the disk damaged is fetched again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.core import UserError
from benchmarks.data.choice import seeded_hash
from benchmarks.data.hub import Pin, write_cached
from benchmarks.data.ids import keys_of
from benchmarks.data.ranges import RemoteFile
from benchmarks.data.reader import reading
from benchmarks.data.sources import file_sha256

QUOTA = 32
"""Of n trajectories of a row group max(QUOTA, n // QUOTA) are drawn: fewer would be more spread
over the data set, and cost more bytes each."""
_FOOTERS = 8
"""Kept in memory; one of 750 row groups takes 15 MB."""


class Place(NamedTuple):
    """Where trajectories begin: in a row group of a file, in its drawn part or in the rest."""

    file: int
    group: int
    rest: bool = False


class Groups:
    """The row groups of a pin, fetched on demand and kept. Threads may share it."""

    def __init__(self, pin: Pin, seed: int) -> None:
        self.pin = pin
        self._seed = seed
        self._footer = lru_cache(_FOOTERS)(self._read_footer)

    def count(self, file: int) -> int:
        """How many row groups a file has.

        Raises:
            UserError: It cannot be had.
        """
        return int(self._footer(file).num_row_groups)

    def local(self, place: Place) -> Path:
        """The trajectories of a place, whole, as a parquet file of the cache.

        Raises:
            UserError: They cannot be had, or the rows of a trajectory are not neighbours.
        """
        name = f"{place.group}.seed{self._seed}.{'rest' if place.rest else 'first'}"
        path = self._kept(place.file, name)
        if path is None:
            sink = pa.BufferOutputStream()
            with reading(self._where(place.file)):
                table = pa.concat_tables(self._trajectories(place))
                pq.write_table(table, sink, compression="zstd")
            path = self._keep(place.file, name, sink)
        return path

    def _kept(self, file: int, name: str) -> Path | None:
        for path in self._folder(file).glob(f"{name}.*.parquet"):
            if file_sha256(path) == path.name.split(".")[-2]:
                return path
            if self.pin.offline:
                raise UserError(f"{path}: damaged; run once without --offline")
            path.unlink(missing_ok=True)
        return None

    def _keep(self, file: int, name: str, sink: Any) -> Path:
        content = sink.getvalue().to_pybytes()
        path = self._folder(file) / f"{name}.{hashlib.sha256(content).hexdigest()}.parquet"
        write_cached(path, content)
        return path

    def _trajectories(self, place: Place) -> Iterator[Any]:
        table = self._rows(place)
        keys = keys_of(table["id"])
        self._check_neighbours(place, keys)
        before = self._beside(place, -1)
        begun = _leading(keys, self._keys(before)[-1]) if before and len(keys) else 0
        table, keys = table.slice(begun), keys.slice(begun)
        drawn = pc.is_in(keys, self._drawn(keys))
        chosen = pc.invert(drawn) if place.rest else drawn
        yield table.filter(chosen)
        if len(keys) and chosen[-1].as_py():
            yield from self._continued(place, keys[-1])

    def _drawn(self, keys: Any) -> Any:
        """The keys that a draw takes first."""
        names = keys.drop_null().unique().to_pylist()
        names.sort(key=lambda name: seeded_hash(self._seed, name))
        return pa.array(names[: max(QUOTA, len(names) // QUOTA)], pa.string())

    def _continued(self, place: Place, key: Any) -> Iterator[Any]:
        """The rows of a trajectory in the row groups after the one where it begins."""
        following = self._beside(place, 1)
        while following:
            keys = self._keys(following)
            more = _leading(keys, key)
            if more:
                yield self._rows(following).slice(0, more)
            following = self._beside(following, 1) if more == len(keys) else None

    def _check_neighbours(self, place: Place, keys: Any) -> None:
        known = keys.drop_null()
        if len(pc.run_end_encode(known).values) != len(known.unique()):
            raise UserError(
                f"{self._where(place.file)}: the rows of a trajectory are not neighbours in row "
                f"group {place.group}: leave out --limit"
            )

    def _beside(self, place: Place, step: int) -> Place | None:
        """The row group before (-1) or after (1) that has rows, over the borders of files."""
        file, group, _ = place
        while True:
            group += step
            while not 0 <= group < self._footer(file).num_row_groups:
                file += step
                if not 0 <= file < len(self.pin.files):
                    return None
                group = 0 if step > 0 else self._footer(file).num_row_groups - 1
            if self._footer(file).row_group(group).num_rows:
                return Place(file, group)

    def _keys(self, place: Place) -> Any:
        table = self._parquet(place.file).read_row_group(place.group, columns=["id"])
        return keys_of(table["id"])

    def _rows(self, place: Place) -> Any:
        """All columns of a row group, which lie beside each other: one request."""
        extent = _extent(self._footer(place.file).row_group(place.group))
        return self._parquet(place.file, extent).read_row_group(place.group)

    def _parquet(self, file: int, extent: tuple[int, int] | None = None) -> Any:
        remote = self._open(file)
        if extent is not None:
            remote.hold(*extent)
        return pq.ParquetFile(remote, metadata=self._footer(file), page_checksum_verification=True)

    def _read_footer(self, file: int) -> Any:
        path = self._kept(file, "footer")
        if path is not None:
            return pq.read_metadata(path)
        remote = self._open(file)
        with reading(self._where(file)):
            footer = pq.ParquetFile(remote).metadata
        if "id" not in footer.schema.to_arrow_schema().names:
            raise UserError(f"{self._where(file)}: lacks id: not in the layout of LeMat-Traj")
        sink = pa.BufferOutputStream()
        footer.write_metadata_file(sink)
        self._keep(file, "footer", sink)
        return footer

    def _open(self, file: int) -> RemoteFile:
        if self.pin.offline:
            raise UserError(
                f"{self._where(file)}: offline, and a row group of it that this --limit needs is "
                f"not in the cache ({self._folder(file)}): run once without --offline"
            )
        return RemoteFile(self.pin, self.pin.files[file])

    def _where(self, file: int) -> Path:
        return Path(self.pin.repo) / self.pin.files[file].path

    def _folder(self, file: int) -> Path:
        return self.pin.folder / self.pin.files[file].path.removesuffix(".parquet")


def _leading(keys: Any, key: Any) -> int:
    """How many of the first `keys` are `key`; none where it is null."""
    same = pc.fill_null(pc.equal(keys, key), fill_value=False)
    other = pc.index(same, value=False).as_py()
    return len(keys) if other < 0 else int(other)


def _extent(group: Any) -> tuple[int, int]:
    """First byte of a row group, and the first one after it."""
    chunks = [group.column(i) for i in range(group.num_columns)]
    starts = [
        c.data_page_offset
        if c.dictionary_page_offset is None
        else min(c.dictionary_page_offset, c.data_page_offset)
        for c in chunks
    ]
    stops = [at + c.total_compressed_size for at, c in zip(starts, chunks, strict=True)]
    return min(starts), max(stops)
