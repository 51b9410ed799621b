"""A parquet file of the Hub, read by footer, row group and column over byte ranges, and kept.

Everything that was read becomes a parquet file of the cache, such as `footer.SHA256.parquet`, or
`3.columns-1a2b3c4d.SHA256.parquet` for some columns of row group 3. The name has the hash of the
content. A file that a killed process left unfinished is therefore never used, and a file that the
disk damaged is fetched again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.core import UserError
from benchmarks.core.files import file_sha256
from benchmarks.data.hub.byte_ranges import RemoteFile
from benchmarks.data.hub.repository import HubFile, ResolvedRevision, write_cached
from benchmarks.data.lemat.reader import reading

MOST_BYTES = 8 * 10**9
"""Largest size of a data set that is read without a limit. 8 GB of LeMat-Traj are 12 million
frames, a million pairs; the memory that is needed grows with their number."""
_FOOTERS = 8
"""Number of footers kept in memory; a footer with 750 row groups takes 15 MB."""


@dataclass(frozen=True, eq=False)
class RemoteParquet:
    """One file of a pin, fetched on demand. Threads may share it."""

    pin: ResolvedRevision
    file: HubFile

    def __str__(self) -> str:
        return f"{self.pin.repo}/{self.file.path}"

    def footer(self) -> Any:
        """The footer of the file, which pyarrow calls its metadata.

        Raises:
            UserError: It cannot be had.
        """
        return _footer(self)

    def read(self, group: int, columns: Sequence[str]) -> Any:
        """Some columns of a row group as an Arrow table, kept.

        Raises:
            UserError: They cannot be had.
        """
        name = f"{group}.columns-{hashlib.sha256(','.join(columns).encode()).hexdigest()[:8]}"
        path = self.kept(name)
        if path is None:
            path = self.keep(name, self.fetch(group, columns))
        return pq.read_table(path, partitioning=None)

    def fetch(self, group: int, columns: Sequence[str] | None = None) -> Any:
        """A row group as an Arrow table, all columns without `columns`; not kept.

        Raises:
            UserError: It cannot be had.
        """
        footer = self.footer()
        remote = self._open()
        # pre_buffer would read more than the columns
        options = {"pre_buffer": False, "page_checksum_verification": True}
        with reading(self):
            remote.hold(*_extents(footer.row_group(group), columns))
            file = pq.ParquetFile(remote, metadata=footer, **options)
            return file.read_row_group(group, columns=columns and list(columns))

    def kept(self, name: str) -> Path | None:
        """The file of the cache of this name, if it is there and sound.

        Raises:
            UserError: It is damaged, and only the cache is used.
        """
        for path in self.folder.glob(f"{name}.*.parquet"):
            if file_sha256(path) == path.name.split(".")[-2]:
                return path
            if self.pin.offline:
                raise UserError(f"{path}: damaged; run once without --offline")
            path.unlink(missing_ok=True)
        return None

    def keep(self, name: str, table: Any) -> Path:
        """Write a table into the cache under this name."""
        sink = pa.BufferOutputStream()
        with reading(self):
            pq.write_table(table, sink, compression="zstd")
        return self._write(name, sink)

    @property
    def folder(self) -> Path:
        """The folder of the cache for this file."""
        return self.pin.folder / self.file.path.removesuffix(".parquet")

    def read_footer(self) -> Any:
        """The footer, from the cache or else from the server."""
        path = self.kept("footer")
        if path is not None:
            return pq.read_metadata(path)
        remote = self._open()
        with reading(self):
            footer = pq.ParquetFile(remote).metadata
        sink = pa.BufferOutputStream()
        footer.write_metadata_file(sink)
        self._write("footer", sink)
        return footer

    def _write(self, name: str, sink: Any) -> Path:
        content = sink.getvalue().to_pybytes()
        path = self.folder / f"{name}.{hashlib.sha256(content).hexdigest()}.parquet"
        write_cached(path, content)
        return path

    def _open(self) -> RemoteFile:
        if self.pin.offline:
            raise UserError(
                f"{self}: offline, and a row group of it that is needed is not in the cache "
                f"({self.folder}): run once without --offline"
            )
        return RemoteFile(self.pin, self.file)


def everything(pin: ResolvedRevision) -> tuple[RemoteParquet, ...]:
    """All files of a pin; nothing of them is fetched yet.

    Raises:
        UserError: They are more than `MOST_BYTES`.
    """
    size = sum(file.size for file in pin.files)
    if size > MOST_BYTES:
        raise UserError(
            f"{pin.name}: {size / 1e9:.1f} GB are too many to read all of ({MOST_BYTES / 1e9:g} GB "
            "at most, for memory): say --limit N"
        )
    return tuple(RemoteParquet(pin, file) for file in pin.files)


@lru_cache(_FOOTERS)
def _footer(file: RemoteParquet) -> Any:
    return file.read_footer()


def _extents(group: Any, columns: Sequence[str] | None) -> Iterator[tuple[int, int]]:
    """First byte of each column chunk of a row group, and the first one after it."""
    for chunk in map(group.column, range(group.num_columns)):
        if columns is None or chunk.path_in_schema.split(".")[0] in columns:
            starts = (chunk.dictionary_page_offset, chunk.data_page_offset)
            start = min(offset for offset in starts if offset is not None)
            yield start, start + chunk.total_compressed_size
