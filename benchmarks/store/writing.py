"""Writing a run folder so that a kill at any moment loses and repeats nothing."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self
from urllib.parse import quote

import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.core import UserError
from benchmarks.store.reading import parts, read_run
from benchmarks.store.records import SCHEMA, Record, table_of
from benchmarks.store.stored_run import SCHEMA_VERSION, keys, read_header, require_equal


class RunWriter:
    """Appends records to one run folder; made by `RunWriter.open`, closed as a context manager.

    Attributes:
        done: (sample_id, repeat) of every record that is stored or buffered.
        next_batch_id: Larger than any stored or buffered; a resumed run counts on from here.
    """

    def __init__(
        self,
        folder: Path,
        header: dict[str, dict[str, Any]],
        lock: int,
        *,
        stored: Any,
        header_is_stale: bool,
        flush_every: int,
        flush_seconds: float,
    ) -> None:
        self.folder = folder
        self.done: set[tuple[str, int]] = set(keys(stored))
        self.next_batch_id: int = 1 + (pc.max(stored["batch_id"]).as_py() or 0) if self.done else 0
        self._header = header
        self._header_is_stale = header_is_stale
        self._lock: int | None = lock
        taken = max((number for number, _ in parts(folder)), default=-1)
        # One attribute, so that an interrupt cannot come between a new number and an empty
        # buffer: a flush that is cut off and tried again replaces its own part.
        self._part: tuple[int, list[Record]] = (taken + 1, [])
        self._flush_every = flush_every
        self._flush_seconds = flush_seconds
        self._flushed_at = time.monotonic()

    @classmethod
    def open(
        cls,
        folder: Path,
        identity: Mapping[str, Any],
        provenance: Mapping[str, Any],
        *,
        flush_every: int = 500,
        flush_seconds: float = 30.0,
    ) -> RunWriter:
        """Create a run folder, or go on with one of equal identity.

        What a killed run left under temporary names is removed. A resumed run keeps the stored
        provenance until the first new record is written; then the new one is laid over it, except
        for `started`.

        Args:
            folder: The model's folder, see `model_folder`.
            identity: JSON-able; needs `model`.
            provenance: JSON-able; recorded, not compared.
            flush_every: Write a part when so many records are buffered …
            flush_seconds: … or when the last part is so old [s] at an `append`.

        Raises:
            UserError: The stored identity differs, a stored file is damaged, the folder cannot be
                written, or another process is writing to it.
        """
        header = _plain(
            {
                "identity": {"schema_version": SCHEMA_VERSION, **identity},
                "provenance": dict(provenance),
            }
        )
        lock = locked(folder)
        try:
            for leftover in folder.glob(".*.tmp"):
                leftover.unlink()
            stored, stale = SCHEMA.empty_table(), False
            if (folder / "run.json").exists():
                header = _resumed(folder, header)
                stored, stale = read_run(folder).table, True
            else:
                _require_no_parts(folder)
                _write_header(folder, header)
        except BaseException:
            os.close(lock)
            raise
        return cls(
            folder,
            header,
            lock,
            stored=stored,
            header_is_stale=stale,
            flush_every=flush_every,
            flush_seconds=flush_seconds,
        )

    def append(self, records: Iterable[Record]) -> None:
        """Buffer records; they are safe after the next flush.

        Raises:
            ValueError: A record is of another model, or is present already.
        """
        for record in records:
            key = (record.sample_id, record.repeat)
            if key in self.done:
                raise ValueError(f"{key} is already recorded in {self.folder}")
            if record.model != self._header["identity"]["model"]:
                raise ValueError(f"a record of {record.model} for {self.folder}")
            self.done.add(key)
            self.next_batch_id = max(self.next_batch_id, record.batch_id + 1)
            self._part[1].append(record)
        waited = time.monotonic() - self._flushed_at
        if len(self._part[1]) >= self._flush_every or waited >= self._flush_seconds:
            self.flush()

    def flush(self) -> None:
        """Write what is buffered as one part; on return it survives a kill or a power cut."""
        self._flushed_at = time.monotonic()
        number, records = self._part
        if not records:
            return
        if self._header_is_stale:
            self._write_header()
        table = table_of(records)
        _write_atomically(
            self.folder / f"part-{number:05d}.parquet",
            lambda file: pq.write_table(table, file, compression="zstd", write_page_checksum=True),
        )
        self._part = (number + 1, [])

    def close(self, **provenance: Any) -> None:
        """Flush, record last facts (`ended`, `aborted`, …) and let go of the folder.

        A resumed run that had nothing left to do stays byte for byte as it was, unless it was
        given up.
        """
        if self._lock is None:
            return
        try:
            self.flush()
            if provenance and (provenance.get("aborted") or not self._header_is_stale):
                self._header["provenance"] |= _plain(provenance)
                self._write_header()
        finally:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _write_header(self) -> None:
        _write_header(self.folder, self._header)
        self._header_is_stale = False


def model_folder(out: Path, model: str) -> Path:
    """The folder of a model under `out`: its name with what file systems dislike as `%XX`."""
    name = quote(model, safe="+=")
    return out / (f"%2E{name[1:]}" if name.startswith(".") else name)


def _require_no_parts(folder: Path) -> None:
    if parts(folder):
        raise UserError(f"{folder}: has parts but no run.json: remove it, or choose another --out")


def _resumed(folder: Path, header: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    old = read_header(folder)
    require_equal(old["identity"], header["identity"], f"{folder}: cannot resume")
    provenance = old["provenance"] | header["provenance"]
    if "started" in old["provenance"]:
        provenance["started"] = old["provenance"]["started"]
    return {"identity": header["identity"], "provenance": provenance}


def _plain(header: Mapping[str, Any]) -> Any:
    """What JSON makes of it, so that stored and new headers compare equal."""
    return json.loads(json.dumps(header, allow_nan=False))


def _write_header(folder: Path, header: Mapping[str, Any]) -> None:
    text = json.dumps(header, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    _write_atomically(folder / "run.json", lambda file: file.write(text.encode()))


def _write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write under a temporary name, sync, rename, sync the folder."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def locked(folder: Path) -> int:
    """Create the folder and lock it; the system lets go of the lock when the process dies."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror})") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise UserError(f"{folder}: another process is writing to it") from error
    return handle
