"""A file of the Hub that pyarrow reads by byte ranges, each held against the listing."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

from benchmarks.core import UserError
from benchmarks.data.hub.repository import HubFile, ResolvedRevision, reaching, request

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
        self._held = [(start, self._fetch(start, stop)) for start, stop in _merged(extents)]

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Where the next read starts."""
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


def _merged(extents: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Extents in their order, those with at most `_GAP` bytes between them as one."""
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(extents):
        if merged and start - merged[-1][1] <= _GAP:
            start, stop = merged[-1][0], max(stop, merged.pop()[1])
        merged.append((start, stop))
    return merged
