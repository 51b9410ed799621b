"""Row groups of a data set of the Hub, each with its trajectories whole, as local parquet files.

A file `NUMBER-of-COUNT.SHA256.parquet` holds the rows of the trajectories that begin in row group
NUMBER of COUNT, and its name says what its content must hash to: what a killed process left is
never taken for whole, and what the disk damaged is fetched again.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.core import UserError
from benchmarks.data.hub import Pin, write_whole
from benchmarks.data.ranges import RemoteFile
from benchmarks.data.reader import array, reading
from benchmarks.data.sources import file_sha256


class Groups:
    """The row groups of a pin, fetched on demand and kept. Threads may share it."""

    def __init__(self, pin: Pin) -> None:
        self.pin = pin
        self._footers: dict[int, Any] = {}

    def count(self, file: int) -> int:
        """How many row groups a file has.

        Raises:
            UserError: It cannot be had.
        """
        for path in self._folder(file).glob("*-of-*.*.parquet"):
            return int(path.name.split(".")[0].split("-of-")[1])
        return int(self._footer(file).num_row_groups)

    def local(self, file: int, group: int) -> Path:
        """The trajectories that begin in a row group, whole, as a parquet file of the cache.

        Raises:
            UserError: They cannot be had, or the rows of a trajectory are not neighbours.
        """
        for path in self._folder(file).glob(f"{group}-of-*.*.parquet"):
            if file_sha256(path) == path.name.split(".")[1]:
                return path
            if self.pin.offline:
                raise UserError(f"{path}: damaged; run once without --offline")
            path.unlink()
        sink = pa.BufferOutputStream()
        with reading(self._where(file)):
            pq.write_table(self._trajectories(file, group), sink, compression="zstd")
        content = sink.getvalue().to_pybytes()
        name = f"{group}-of-{self._footer(file).num_row_groups}"
        path = self._folder(file) / f"{name}.{hashlib.sha256(content).hexdigest()}.parquet"
        write_whole(path, content)
        return path

    def _trajectories(self, file: int, group: int) -> Any:
        table = self._rows(file, group)
        keys = keys_of(table["id"])
        self._check_neighbours(file, group, keys)
        before = self._beside(file, group, -1)
        begun = _leading(keys, self._keys(*before)[-1]) if before and len(keys) else 0
        pieces = [table.slice(begun)]
        last, place = (keys[-1] if begun < len(keys) else None), (file, group)
        while last is not None and (following := self._beside(*place, 1)):
            keys, place = self._keys(*following), following
            more = _leading(keys, last)
            if more:
                pieces.append(self._rows(*place).slice(0, more))
            if more < len(keys):
                break
        return pa.concat_tables(pieces)

    def _check_neighbours(self, file: int, group: int, keys: Any) -> None:
        known = keys.drop_null()
        if len(pc.run_end_encode(known).values) != len(known.unique()):
            raise UserError(
                f"{self._where(file)}: the rows of a trajectory are not neighbours in row group "
                f"{group}: leave out --limit"
            )

    def _beside(self, file: int, group: int, step: int) -> tuple[int, int] | None:
        """The row group before (-1) or after (1) that has rows, over the borders of files."""
        while True:
            group += step
            while not 0 <= group < self._footer(file).num_row_groups:
                file += step
                if not 0 <= file < len(self.pin.files):
                    return None
                group = 0 if step > 0 else self._footer(file).num_row_groups - 1
            if self._footer(file).row_group(group).num_rows:
                return file, group

    def _keys(self, file: int, group: int) -> Any:
        with reading(self._where(file)):
            parquet = pq.ParquetFile(self._open(file), metadata=self._footer(file))
            return keys_of(parquet.read_row_group(group, columns=["id"])["id"])

    def _rows(self, file: int, group: int) -> Any:
        """All columns of a row group, which lie beside each other: one request."""
        remote = self._open(file)
        remote.hold(*_extent(self._footer(file).row_group(group)))
        with reading(self._where(file)):
            return pq.ParquetFile(remote, metadata=self._footer(file)).read_row_group(group)

    def _footer(self, file: int) -> Any:
        if file not in self._footers:
            remote = self._open(file)
            with reading(self._where(file)):
                self._footers[file] = pq.ParquetFile(remote).metadata
            if "id" not in self._footers[file].schema.to_arrow_schema().names:
                raise UserError(f"{self._where(file)}: lacks id: not in the layout of LeMat-Traj")
        return self._footers[file]

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


def keys_of(ids: Any) -> Any:
    """Ids without the step at their end: what names a trajectory. A null stays null."""
    return pc.replace_substring_regex(array(ids).cast(pa.string()), r"-[0-9]{1,9}$", "")


def _leading(keys: Any, key: Any) -> int:
    """How many of the first `keys` are `key`; none are null."""
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
