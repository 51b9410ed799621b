"""A stored run, and the checks that all layouts share: tables, strict comparison."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.core import Geometry, UserError
from benchmarks.core.parquet import refuse_bomb
from benchmarks.store.changes import Change
from benchmarks.store.headers import SCHEMA_VERSION
from benchmarks.store.records import (
    ADDED_LATER,
    CHANGES,
    SCHEMA,
    Records,
    geometry_columns,
    list_rows,
    unsound,
)

_OF_ONE = ("first_part", "n_records", "shard")
"""Facts of a segment that say nothing about the run as a whole."""
_IF_HONOURED = frozenset({"seed", "settings.fmax", "settings.max_steps"})
"""Fields that an identity has only where the model honours them. Version 1 recorded them for every
model, so that a field which one of two identities lacks changed no answer."""


@dataclass(frozen=True)
class StoredRun:
    """One model's stored run: a folder of its own, or its part of an archive."""

    name: str
    """The model."""
    folders: tuple[Path, ...]
    """The folders of the run; several where runs that continue one another were merged."""
    identity: dict[str, Any]
    segments: tuple[dict[str, Any], ...]
    """The provenance of each process that wrote to the run, in order within its shard. `shard`
    names the folder and `n_records` counts the records that the process wrote."""
    table: Any
    """The records as an Arrow table in `SCHEMA`; empty where they were not kept."""
    changes: Any = None
    """Columns `CHANGES` of the same rows, for a run of an archive that has not yet been given its
    initial structures; None where `table` has all geometries."""
    schema_version: int = SCHEMA_VERSION
    """The lowest version among the headers that the run was read from."""

    @property
    def folder(self) -> Path:
        """The model's (first) folder, or the archive: `scores.parquet` lies in it."""
        return self.folders[0]

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """The segments as one: the first, changed to what is true for the run as a whole.

        `started` and `ended` are the first and the last time, `peak_memory_mb` and `batch_size`
        are the largest, `spent` is the sum over the shards (each process counts all replies of its
        shard), and `aborted` is the reason of the first shard whose last process gave up.
        """
        merged = {key: value for key, value in self.segments[0].items() if key not in _OF_ONE}
        for name, choose in (
            ("started", min),
            ("ended", max),
            ("peak_memory_mb", max),
            ("batch_size", max),
        ):
            values = [segment[name] for segment in self.segments if segment.get(name) is not None]
            if values:
                merged[name] = choose(values)
        last = {segment.get("shard"): segment for segment in self.segments}
        shards = {each.get("shard"): each["spent"] for each in self.segments if "spent" in each}
        spent: dict[str, Counter[str]] = {}
        for part, counts in (item for shard in shards.values() for item in shard.items()):
            spent.setdefault(part, Counter()).update(counts)
        if spent:
            merged["spent"] = {part: dict(counts) for part, counts in spent.items()}
        reasons = [segment.get("aborted") for segment in last.values()]
        if any("aborted" in segment for segment in self.segments):
            merged["aborted"] = next(filter(None, reasons), None)
        return merged

    @property
    def computing_segments(self) -> tuple[dict[str, Any], ...]:
        """The segments whose processes computed records; all where the records were not kept.

        Times and memory can be compared only between runs of the same machine.
        """
        computing = tuple(s for s in self.segments if s.get("n_records", 1))
        return computing or self.segments

    @cached_property
    def records(self) -> Records:
        """The rows as `Record` objects, built on access.

        Raises:
            UserError: The answers are stored as changes; see `with_initial`.
        """
        if self.changes is not None:
            raise UserError(
                f"{self.folder}: the answers of '{self.name}' are stored as changes of their "
                "initial structures: name the data with --data"
            )
        return Records(self.table)

    def with_initial(self, initial_geometries: Mapping[str, Geometry]) -> StoredRun:
        """Give the run with the geometry of every answer.

        Args:
            initial_geometries: The initial structure of each sample. Rows of samples that are not
                in it (of a data set read with a smaller `--limit`) are left out of a run that is
                stored as changes.

        Returns:
            A run whose `records` can be read; itself if it has all geometries already.

        Raises:
            UserError: A change is of another number of sites than its initial structure.
        """
        if self.changes is None:
            return self
        sample_ids = self.table["sample_id"].to_pylist()
        known = pa.array([sample_id in initial_geometries for sample_id in sample_ids], pa.bool_())
        table, changes = self.table.filter(known), self.changes.filter(known)
        given = Records(table)
        numbers = list_rows(table["numbers"])
        strains, displacements = (list_rows(changes[name]) for name in CHANGES)
        geometries: list[Geometry | None] = []
        for row, sample_id in enumerate(table["sample_id"].to_pylist()):
            strain, moved = strains[row], displacements[row]
            if strain is None or moved is None:
                geometries.append(given.geometry(row))
            else:
                initial = initial_geometries[sample_id]
                if len(moved) != len(initial.numbers):
                    raise UserError(
                        f"{self.folder}: the answer of '{self.name}' for {sample_id} is no change "
                        "of its initial structure: other data, or damaged"
                    )
                change = Change(strain, moved, numbers[row])
                geometries.append(change.applied(initial))
        for name, column in geometry_columns(geometries).items():
            table = table.set_column(table.schema.get_field_index(name), name, column)
        return replace(self, table=table.cast(SCHEMA), changes=None)


def read_table(path: Path, schema: Any, remedy: str) -> Any:
    """Read one Parquet file, checksums and columns checked.

    Raises:
        UserError: The file is missing or damaged, or has other columns; it ends with `remedy`.
    """
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
        refuse_bomb(file.metadata)
        table = file.read()
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: damaged ({first}): {remedy}") from error
    for name in ADDED_LATER:
        if name not in table.column_names:
            field = schema.field(name)
            absent = pa.nulls(len(table), field.type)
            table = table.add_column(schema.get_field_index(name), field, absent)
    if not table.schema.equals(schema):
        raise UserError(f"{path}: its columns are not those of a record: {remedy}")
    if fault := unsound(table):
        raise UserError(f"{path}: damaged ({fault}): {remedy}")
    return table


def require_equal(
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    where: str,
    *,
    resumed: bool = True,
    version: int = SCHEMA_VERSION,
) -> None:
    """Raise a `UserError` that begins with `where` and names the first field that differs.

    Args:
        old: A stored identity.
        new: The identity of the present command, or with `resumed=False` another stored one.
        where: The beginning of the message: the folder, and what cannot be done.
        resumed: Whether `new` is of the present command; the message then says what to do.
        version: The lower schema version of the two headers.
    """
    a, b = _flattened(old), _flattened(new)
    for name in sorted(a.keys() | b.keys()):
        one_has_none = name not in a or name not in b
        if a.get(name) == b.get(name) or (version == 1 and one_has_none and name in _IF_HONOURED):
            continue
        if not resumed:
            raise UserError(f"{where}: {name} differs ({a.get(name)!r} and {b.get(name)!r})")
        if version == 1 and name.startswith("decoding.") and name not in a:
            raise UserError(
                f"{where}: an older version wrote it without {name}, so that nobody knows whether "
                "it is now the same: use another folder"
            )
        raise UserError(
            f"{where}: {name} differs ({a.get(name)!r} stored, now {b.get(name)!r}): "
            "use another folder, or the same settings"
        )


def _flattened(block: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in block.items():
        if isinstance(value, Mapping):
            flat |= _flattened(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def require_unique(table: Any, folders: Sequence[Path]) -> None:
    """Raise a `UserError` that names `folders` if a (sample_id, repeat) occurs twice."""
    counted = table.group_by(["sample_id", "repeat"]).aggregate([([], "count_all")])
    if len(counted) == len(table):
        return
    twice = counted.filter(pc.greater(counted["count_all"], 1))
    (sample_id, repeat), *_ = keys(twice)
    names = ", ".join(map(str, folders))
    raise UserError(f"{names}: sample {sample_id}, repeat {repeat} is there twice")


def keys(table: Any) -> Iterator[tuple[str, int]]:
    """(sample_id, repeat) of each row."""
    return zip(table["sample_id"].to_pylist(), table["repeat"].to_pylist(), strict=True)
