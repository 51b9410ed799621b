"""A parquet file of the Hub, read by footer, row group and column over byte ranges, and kept.

Everything that was read becomes a parquet file of the cache, such as `footer.SHA256.parquet`, or
`3.columns-1a2b3c4d.SHA256.parquet` for some columns of row group 3. The name has the hash of the
content. A file that a killed process left unfinished is therefore never used, and a file that the
disk damaged is fetched again.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.core import UserError
from benchmarks.core.files import file_sha256
from benchmarks.data.hub.repository import (
    HubFile,
    ResolvedRevision,
    reaching,
    request,
    write_cached,
)
from benchmarks.data.lemat.reader import reading

_PIECE = 8 * 2**20
"""Largest number of bytes of one request; this is lost when the connection is cut off."""
_GAP = 16 * 2**10
"""Largest gap between two extents that is read along, to save a request."""


class RemoteFile(io.RawIOBase):
    """Reads ask the server for exactly the bytes wanted, except inside what `hold` fetched.

    A range has no checksum of its own on the Hub. So each answer must be of the pinned commit, of
    the file with the sha256 of the listing and of the length of the listing, and of exactly the
    range asked for.
    """

    def __init__(self, pin: ResolvedRevision, file: HubFile) -> None:
        self._pin = pin
        self._file = file
        self._at = 0
        self._held: list[tuple[int, bytes]] = []

    def hold(self, *extents: tuple[int, int]) -> None:
        """Fetch bytes, each from a first to before a last one, for the reads that follow."""
        merged: list[tuple[int, int]] = []  # at most `_GAP` bytes between two are read along
        for start, stop in sorted(extents):
            if merged and start - merged[-1][1] <= _GAP:
                start, stop = merged[-1][0], max(stop, merged.pop()[1])
            merged.append((start, stop))
        self._held = [(start, self._fetch(start, stop)) for start, stop in merged]

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """The position of the next read."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move; nothing is fetched."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.size}[whence]
        self._at = base + offset
        return self._at

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as from any binary file.

        Raises:
            UserError: The server cannot be reached or sent something else.
        """
        left = self._file.size - self._at
        size = left if size is None or size < 0 else min(size, left)
        start, self._at = self._at, self._at + max(size, 0)
        for first, held in self._held:
            if first <= start and self._at <= first + len(held):
                return held[start - first : self._at - first]
        return self._fetch(start, self._at)

    def _fetch(self, start: int, stop: int) -> bytes:
        starts = range(start, stop, _PIECE)
        return b"".join(self._piece(at, min(at + _PIECE, stop)) for at in starts)

    def _piece(self, start: int, stop: int) -> bytes:
        from huggingface_hub import constants, hf_hub_url

        url = hf_hub_url(
            self._pin.repo,
            self._file.path,
            repo_type="dataset",
            revision=self._pin.commit,
            endpoint=constants.ENDPOINT,
        )
        wanted = {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
        with reaching(f"{self._pin.repo}/{self._file.path} at {self._pin.commit}"):
            response = request(url, constants.HF_HUB_DOWNLOAD_TIMEOUT, wanted)
        self._check(response, start, stop)
        return bytes(response.content)

    def _check(self, response: Any, start: int, stop: int) -> None:
        where = f"{self._pin.repo}/{self._file.path}"
        for hop in (*response.history, response):
            etag = hop.headers.get("X-Linked-ETag")
            if etag is not None and etag.strip('"') != self._file.sha256:
                raise UserError(f"{where}: its sha256 is not that of the listing: {etag}")
            commit = hop.headers.get("X-Repo-Commit", self._pin.commit)
            if commit != self._pin.commit:
                raise UserError(f"{where}: answered from {commit}, not {self._pin.commit}")
        wanted = f"bytes {start}-{stop - 1}/{self._file.size}"
        got = response.headers.get("Content-Range", "no range")
        if got != wanted or len(response.content) != stop - start:
            raise UserError(
                f"{where}: wrong length: {len(response.content)} bytes ({got}) for {wanted}"
            )


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
        meta, extents = footer.row_group(group), []
        for chunk in map(meta.column, range(meta.num_columns)):
            if columns is None or chunk.path_in_schema.split(".")[0] in columns:
                starts = (chunk.dictionary_page_offset, chunk.data_page_offset)
                start = min(offset for offset in starts if offset is not None)
                extents.append((start, start + chunk.total_compressed_size))
        # pre_buffer would read more than the columns
        options = {"pre_buffer": False, "page_checksum_verification": True}
        with reading(self):
            remote.hold(*extents)
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
