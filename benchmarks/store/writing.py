"""Writing a shard of a run so that a kill at any moment loses and repeats nothing."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Set
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.core import WHOLE, Shard, UserError
from benchmarks.core.files import atomic_write, parse_json
from benchmarks.core.parquet import give_back_memory
from benchmarks.store.headers import SCHEMA_VERSION, read_header
from benchmarks.store.locking import FolderLock, require_free
from benchmarks.store.reading import OUTCOME, parts, read_outcomes, shard_folders
from benchmarks.store.records import SCHEMA, Record, table_of
from benchmarks.store.stored_run import keys, require_equal


class RunWriter:
    """Appends records to one shard of a model's run; made by `open`, closed as a context manager.

    Attributes:
        folder: The folder of the shard.
        outcomes: The status of every record that is stored, in any shard (in its own, of a writer
            that a driver started), or buffered; by (sample_id, repeat).
        statuses: The number of stored records of each status.
        next_batch_id: Larger than any stored or buffered; a resumed run counts on from here.
    """

    def __init__(
        self,
        folder: Path,
        header: dict[str, Any],
        segment: dict[str, Any],
        lock: FolderLock,
        *,
        stored: Any,
        flush_every: int,
        flush_seconds: float,
    ) -> None:
        self.folder = folder
        statuses = map(sys.intern, stored["status"].to_pylist())
        self.outcomes: dict[tuple[str, int], str] = dict(zip(keys(stored), statuses, strict=True))
        self.statuses: Counter[str] = Counter(self.outcomes.values())
        self.next_batch_id: int = 1 + (pc.max(stored["batch_id"]).as_py() or 0) if self.done else 0
        self._header = header
        self._segment = segment
        self._lock: FolderLock | None = lock
        taken = max((number for number, _ in parts(folder)), default=-1)
        segment["first_part"] = taken + 1
        # One attribute, so that an interrupt cannot come between a new number and an empty
        # buffer: a flush that is cut off and tried again replaces its own part.
        self._part: tuple[int, list[Record]] = (taken + 1, [])
        self._flush_every = flush_every
        self._flush_seconds = flush_seconds
        self._wait = min(1.0, flush_seconds)
        self._flushed_at = time.monotonic()

    @classmethod
    def open(
        cls,
        folder: Path,
        identity: Mapping[str, Any],
        provenance: Mapping[str, Any],
        *,
        shard: Shard = WHOLE,
        driven: bool = False,
        flush_every: int = 500,
        flush_seconds: float = 30.0,
    ) -> RunWriter:
        """Begin a shard of a run, or go on with one; all shards must be of equal identity.

        What a killed process left under temporary names is removed. Nothing is written before the
        first record; then the provenance becomes a new segment of the shard, beside those of the
        processes that wrote to it before. A run of the old layout (parts beside `run.json` in the
        model's folder) is gone on with in a shard beside its parts.

        Args:
            folder: The model's folder, see `model_folder`.
            identity: JSON-able; needs `model`.
            provenance: JSON-able; recorded, not compared.
            shard: The part that this process writes.
            driven: A driver holds the run and tells which samples nobody else computes; only the
                records of this shard are then read.
            flush_every: Write a part when so many records are buffered …
            flush_seconds: … or when the last part is so old [s] at an `append`. The first waits
                1 s and each later one twice as long, up to this, so that a process which is killed
                early has stored something.

        Raises:
            FolderBusyError: Another process writes to the shard, or to one of the same samples: the
                whole and each of its parts exclude each other.
            UserError: The stored identity differs, a stored file is damaged, or the folder cannot
                be written.
        """
        header = _plain({"identity": {"schema_version": SCHEMA_VERSION, **identity}})
        own = folder / shard.folder
        lock = FolderLock(own)
        try:
            for leftover in own.glob(".*.tmp"):
                leftover.unlink()
            if not driven:
                whole = shard == WHOLE
                for other in folder.glob("shard-*") if whole else [folder / WHOLE.folder]:
                    if other != own:
                        require_free(other)
            stored = shard_folders(folder)
            for other in stored:
                old = read_header(other)
                require_equal(
                    old["identity"],
                    header["identity"],
                    f"{other}: cannot resume",
                    version=old["schema_version"],
                )
            for each in {folder, own} - set(stored):
                _require_no_parts(each)
            header["segments"] = read_header(own)["segments"] if own in stored else []
            read = {own} & set(stored) if driven else {folder} if stored else set()
            tables = [SCHEMA.empty_table().select(OUTCOME), *map(read_outcomes, read)]
            give_back_memory()
        except BaseException:
            lock.close()
            _remove_empty(own)
            raise
        return cls(
            own,
            header,
            _plain(provenance),
            lock,
            stored=pa.concat_tables(tables),
            flush_every=flush_every,
            flush_seconds=flush_seconds,
        )

    def note(self, **provenance: Any) -> None:
        """Change facts of this process's segment; they are written with the next records."""
        self._segment |= _plain(provenance)

    def append(self, records: Iterable[Record]) -> None:
        """Buffer records; they are safe after the next flush.

        Raises:
            ValueError: A record is of another model, or is present already.
        """
        for record in records:
            key = (record.sample_id, record.repeat)
            if key in self.outcomes:
                raise ValueError(f"{key} is already recorded in {self.folder.parent}")
            if record.model != self._header["identity"]["model"]:
                raise ValueError(f"a record of {record.model} for {self.folder}")
            self.outcomes[key] = str(record.status)
            self.next_batch_id = max(self.next_batch_id, record.batch_id + 1)
            self._part[1].append(record)
        waited = time.monotonic() - self._flushed_at
        if len(self._part[1]) >= self._flush_every or waited >= self._wait:
            self._wait = min(2 * self._wait, self._flush_seconds)
            self.flush()

    def flush(self) -> None:
        """Write what is buffered as one part; on return it survives a kill or a power cut."""
        self._flushed_at = time.monotonic()
        number, records = self._part
        if not records:
            return
        if not self._has_segment:
            self._write_header()
        table = table_of(records)
        with atomic_write(self.folder / f"part-{number:05d}.parquet") as partial:
            pq.write_table(table, partial, compression="zstd", write_page_checksum=True)
        self._part = (number + 1, [])

    def close(self, **provenance: Any) -> None:
        """Flush, record last facts (`ended`, `aborted`, …) and let go of the shard.

        A run that had nothing left to do stays byte for byte as it was, unless it says something
        else of having been given up.
        """
        if self._lock is None:
            return
        try:
            self.flush()
            self.note(**provenance)
            segments = self._header["segments"]
            said = segments[-1].get("aborted") if segments else None
            if self._has_segment or provenance.get("aborted", said) != said:
                self._write_header()
        finally:
            self._lock.close()
            self._lock = None
            _remove_empty(self.folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def done(self) -> Set[tuple[str, int]]:
        """(sample_id, repeat) of every record in `outcomes`."""
        return self.outcomes.keys()

    @property
    def _has_segment(self) -> bool:
        """True if the segment of this process is in `run.json`."""
        segments = self._header["segments"]
        return bool(segments) and segments[-1] is self._segment

    def _write_header(self) -> None:
        segments = self._header["segments"]
        if not self._has_segment:
            segments = [*segments, self._segment]
        header = self._header | {"segments": segments}
        text = json.dumps(header, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        with atomic_write(self.folder / "run.json") as partial:
            partial.write_text(text, encoding="utf-8")
        self._header = header


def model_folder(out: Path, model: str) -> Path:
    """Give the folder of a model under `out`; characters that file systems dislike become `%XX`."""
    name = quote(model, safe="+=")
    return out / (f"%2E{name[1:]}" if name.startswith(".") else name)


def _require_no_parts(folder: Path) -> None:
    if parts(folder):
        raise UserError(f"{folder}: has parts but no run.json: remove it, or choose another --out")


def _remove_empty(folder: Path) -> None:
    """Remove the folder of a shard, and of its model, if nothing is in it."""
    with suppress(OSError):
        folder.rmdir()
        folder.parent.rmdir()


def _plain(block: Mapping[str, Any]) -> Any:
    """Give the block as JSON gives it back, so that stored and new ones compare equal."""
    return parse_json(json.dumps(block, allow_nan=False))
