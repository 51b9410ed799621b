"""One outcome as a row: the schema, `Record`, and tables of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from benchmarks.core import Geometry, Status

_VECTOR = pa.list_(pa.float64(), 3)
SCHEMA = pa.schema(
    [
        ("model", pa.string()),
        ("sample_id", pa.string()),
        ("repeat", pa.int32()),
        ("status", pa.string()),
        ("lattice", pa.list_(_VECTOR)),
        ("frac_coords", pa.list_(_VECTOR)),
        ("numbers", pa.list_(pa.int16())),
        ("energy", pa.float64()),
        ("max_force", pa.float64()),
        ("max_stress", pa.float64()),
        ("n_force_evals", pa.int64()),
        ("n_tokens", pa.int64()),
        ("batch_id", pa.int64()),
        ("batch_size", pa.int32()),
        ("batch_seconds", pa.float64()),
        ("detail", pa.string()),
        ("expected_error", pa.float64()),
    ]
)
"""The columns of a record; the units are Å, eV, eV/Å, eV/Å^3 and s."""
ADDED_LATER = ("expected_error",)
"""Columns that files of older programs lack; they are read as null."""
GEOMETRY = ("lattice", "frac_coords", "numbers")
CHANGES = ("strain", "displacements")
ARCHIVE_SCHEMA = pa.schema(
    [*SCHEMA, ("strain", pa.list_(pa.float64())), ("displacements", pa.list_(_VECTOR))]
)
"""The columns of an archive, whose answers are changes of their initial structures (`Change`)."""


_NEVER_NULL = (
    *("model", "sample_id", "repeat", "status"),
    *("batch_id", "batch_size", "batch_seconds"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The outcome of one sample. `batch_seconds` is the measured time of the whole batch."""

    model: str
    sample_id: str
    repeat: int
    status: Status
    geometry: Geometry | None = None
    energy: float | None = None
    """The total energy [eV]."""
    max_force: float | None = None
    """The largest norm of a force [eV/Å]."""
    max_stress: float | None = None
    """The largest absolute component of the stress [eV/Å^3]."""
    n_force_evals: int | None = None
    n_tokens: int | None = None
    batch_id: int
    batch_size: int
    batch_seconds: float
    detail: str | None = None
    expected_error: float | None = None
    """What the model expects of its answer [Å]; see `benchmarks.core.Relaxed`."""


class Records(Sequence[Record]):
    """The rows of a record table as `Record` objects, built on access.

    Args:
        table: Arrow table in `SCHEMA`.
    """

    def __init__(self, table: Any) -> None:
        self._table = table.combine_chunks()
        self._lattice = _flat(self._table["lattice"])
        self._frac = _flat(self._table["frac_coords"])
        self._numbers = _flat(self._table["numbers"])
        self._has_geometry = np.asarray(self._table["numbers"].is_valid().to_numpy())

    def __len__(self) -> int:
        return int(self._table.num_rows)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = range(len(self))[index]
        return next(self._slab(i, 1))

    def __iter__(self) -> Iterator[Record]:
        for start in range(0, len(self), 1000):
            yield from self._slab(start, 1000)

    def _slab(self, start: int, length: int) -> Iterator[Record]:
        rows = self._table.drop_columns(list(GEOMETRY)).slice(start, length).to_pylist()
        for i, row in enumerate(rows, start):
            row["status"] = Status(row["status"])
            yield Record(**row, geometry=self.geometry(i))

    def geometry(self, index: int) -> Geometry | None:
        """Give the geometry of one row, as views into the columns."""
        if not self._has_geometry[index]:
            return None
        lattice, frac, numbers = (
            values[starts[index] : starts[index + 1]]
            for starts, values in (self._lattice, self._frac, self._numbers)
        )
        return Geometry(lattice, frac, numbers)


def table_of(records: Sequence[Record]) -> Any:
    """Write records into an Arrow table in `SCHEMA`."""
    columns: dict[str, Any] = {
        field.name: pa.array([getattr(record, field.name) for record in records], field.type)
        for field in SCHEMA
        if field.name not in (*GEOMETRY, "status")
    }
    columns["status"] = pa.array([str(record.status) for record in records])
    columns |= geometry_columns([record.geometry for record in records])
    return pa.table([columns[field.name] for field in SCHEMA], schema=SCHEMA)


def geometry_columns(geometries: Sequence[Geometry | None]) -> dict[str, Any]:
    """Write geometries into the Arrow columns `GEOMETRY`.

    Raises:
        ValueError: A geometry has not as many atomic numbers as positions.
    """
    for geometry in geometries:
        if geometry is not None and len(geometry.numbers) != len(geometry.frac_coords):
            raise ValueError("as many atomic numbers as positions are needed")
    return {
        name: list_column(
            [None if g is None else np.asarray(getattr(g, name)) for g in geometries],
            SCHEMA.field(name).type,
        )
        for name in GEOMETRY
    }


def list_column(rows: Sequence[NDArray[Any] | None], kind: Any) -> Any:
    """Write arrays of shape (n,) or (n, 3), or None, into one Arrow list column."""
    counts = [0 if row is None else len(row) for row in rows]
    flat = [row.ravel() for row in rows if row is not None]
    vectors = kind.value_type == _VECTOR
    scalar = pa.float64() if vectors else kind.value_type
    values = pa.array(np.concatenate(flat) if flat else [], scalar)
    return pa.ListArray.from_arrays(
        pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32()),
        pa.FixedSizeListArray.from_arrays(values, 3) if vectors else values,
        type=kind,
        mask=pa.array([row is None for row in rows], pa.bool_()),
    )


def unsound(table: Any) -> str | None:
    """Say what a table in `SCHEMA` or `ARCHIVE_SCHEMA` holds that no record can; None if nothing.

    The form of its rows is checked, not whether their numbers make sense.
    """
    for name in _NEVER_NULL:
        if table[name].null_count:
            return f"{name} is null"
    lists = {name: table[name] for name in (*GEOMETRY, *CHANGES) if name in table.column_names}
    for name, column in lists.items():
        entries = pc.list_flatten(column)
        vectors = pa.types.is_fixed_size_list(entries.type)
        if entries.null_count or (vectors and pc.list_flatten(entries).null_count):
            return f"null within {name}"
    absent = np.full(len(table), -1)
    lattice, sites, numbers, strain, moved = (
        np.asarray(pc.fill_null(pc.list_value_length(lists[name]), -1)) if name in lists else absent
        for name in (*GEOMETRY, *CHANGES)
    )
    given, changed, named = lattice >= 0, strain >= 0, numbers >= 0
    seconds = np.asarray(table["batch_seconds"], dtype=np.float64)
    statuses = pa.array([str(status) for status in Status])
    faults = {
        "unknown status": ~np.asarray(pc.is_in(table["status"], value_set=statuses)),
        "batch_size is not positive": np.asarray(table["batch_size"]) < 1,
        "batch_seconds is negative": seconds < 0,  # NaN where nobody took the time
        "a lattice without three vectors": given & (lattice != 3),
        "a lattice without positions, or the reverse": given != (sites >= 0),
        "not as many atomic numbers as positions": given & (numbers != sites),
        "a strain without six components": changed & (strain != 6),
        "a strain without displacements, or the reverse": changed != (moved >= 0),
        "not as many atomic numbers as displacements": changed & named & (numbers != moved),
        "an answer that is no structure": (changed & given) | (named & ~given & ~changed),
    }
    return next((fault for fault, rows in faults.items() if rows.any()), None)


def _flat(column: Any) -> tuple[NDArray[np.int32], NDArray[Any]]:
    """Give the start of each row of a list column, and all entries as (n,) or (n, 3)."""
    lists = column.combine_chunks()
    values = lists.values
    if pa.types.is_fixed_size_list(values.type):
        return lists.offsets.to_numpy(), values.flatten().to_numpy().reshape(-1, 3)
    return lists.offsets.to_numpy(), values.to_numpy()


def list_rows(column: Any) -> list[NDArray[Any] | None]:
    """Read an Arrow list column as arrays of shape (n,) or (n, 3): `list_column` undone."""
    starts, values = _flat(column)
    valid = column.is_valid().to_pylist()
    return [
        values[starts[row] : starts[row + 1]] if there else None for row, there in enumerate(valid)
    ]
