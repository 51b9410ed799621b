"""The first pass over the frames: a few numbers of each row, from the light columns only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from benchmarks.data.quarantine import Quarantined, Reason
from benchmarks.data.reader import FrameFiles, array, lengths, numpy, row_sums
from benchmarks.data.species import Memo, atomic_number, is_ordered, site_hashes

_LIGHT = (
    "id",
    "immutable_id",
    "functional",
    "relaxation_step",
    "nsites",
    "nperiodic_dimensions",
    "dimension_types",
    "species",
    "species_at_sites",
)
ROW_FAULTS = (
    Reason.NO_STEP,
    Reason.NOT_PERIODIC,
    Reason.ZERO_SITES,
    Reason.DISORDERED,
    Reason.UNKNOWN_ELEMENT,
    Reason.LENGTHS,
)
"""What can be wrong with a frame alone, in order of precedence."""


@dataclass(frozen=True, slots=True)
class Light:
    """What the first pass keeps of every row that has a well-formed id, (n_rows,) each."""

    row: NDArray[np.int64]
    key: NDArray[np.int64]
    """Index into `Scan.keys`; likewise `material` and `functional`."""
    material: NDArray[np.int64]
    functional: NDArray[np.int64]
    step: NDArray[np.int64]
    step_in_id: NDArray[np.int64]
    composition: NDArray[np.uint64]
    sites: NDArray[np.uint64]
    fault: NDArray[np.int64]
    """0, or 1 + index into `ROW_FAULTS`."""

    def take(self, rows: NDArray[Any]) -> Light:
        """These rows, in this order."""
        return Light(*(getattr(self, name)[rows] for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class Scan:
    """All rows of a data set, and the texts that their codes stand for."""

    light: Light
    keys: list[str]
    """Ids without the step, in order of first appearance."""
    materials: list[str | None]
    functionals: list[str | None]
    notes: dict[int, str]
    """Row number -> what is wrong with it, where there is more to say than the reason."""
    malformed: list[Quarantined]
    """Rows whose id does not end in a step."""


def scan(files: FrameFiles) -> Scan:
    """Read the light columns of all rows, one row group at a time."""
    scanner = _Scanner()
    for start, table in files.tables(_LIGHT):
        scanner.add(start, table)
    return scanner.result()


class _Scanner:
    def __init__(self) -> None:
        self._columns: dict[str, list[Any]] = {name: [] for name in Light.__slots__}
        self._notes: dict[int, str] = {}
        self._malformed: list[Quarantined] = []
        self._numbers = Memo(atomic_number)
        self._ordered = Memo(is_ordered)

    def add(self, start: int, table: Any) -> None:
        table = self._well_formed(start, table)
        species = array(table["species_at_sites"])
        count = lengths(species)
        z = self._numbers.of(pc.list_flatten(species))
        composition, sites = site_hashes(z, count)
        new = {
            "row": numpy(array(table["row"])),
            "key": _encoded(table["key"]),
            "material": _encoded(table["immutable_id"]),
            "functional": _encoded(table["functional"]),
            "step": numpy(pc.fill_null(array(table["relaxation_step"]), -1)),
            "step_in_id": numpy(array(table["step"])),
            "composition": composition,
            "sites": sites,
            "fault": self._faults(table, z, count),
        }
        for name, values in new.items():
            self._columns[name].append(values)

    def _well_formed(self, start: int, table: Any) -> Any:
        """Split off the rows whose id has no step at its end; add key, step and row number."""
        ids = array(table["id"])
        parts = pc.extract_regex(ids, r"^(?P<key>.+)-(?P<step>[0-9]{1,9})$")
        good = parts.is_valid()
        for i in np.flatnonzero(~numpy(good).astype(bool)):
            text = ids[int(i)].as_py()
            self._malformed.append(
                Quarantined(text or f"row {start + i}", Reason.MALFORMED_ID, f"row {start + i}")
            )
        rows = pa.array(np.arange(start, start + len(table)))
        table = table.append_column("row", rows).filter(good)
        parts = parts.filter(good)
        table = table.append_column("key", pc.struct_field(parts, "key"))
        return table.append_column("step", pc.struct_field(parts, "step").cast(pa.int64()))

    def _faults(
        self, table: Any, z: NDArray[np.int64], count: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """The first fault of each row: 0, or 1 + index into `ROW_FAULTS`."""
        n_sites = numpy(pc.fill_null(array(table["nsites"]), -1))
        faults = {
            Reason.NO_STEP: numpy(array(table["relaxation_step"]).is_null()),
            Reason.NOT_PERIODIC: ~_periodic(table),
            Reason.ZERO_SITES: (count == 0) | (n_sites == 0),
            Reason.DISORDERED: self._ordered.of(array(table["species"])) == 0,
            Reason.UNKNOWN_ELEMENT: row_sums((z == 0).astype(np.int64), count) > 0,
            Reason.LENGTHS: n_sites != count,
        }
        fault = first_true([faults[reason] for reason in ROW_FAULTS])
        for i in np.flatnonzero(fault == 1 + ROW_FAULTS.index(Reason.UNKNOWN_ELEMENT)):
            symbols = table["species_at_sites"][int(i)].as_py()
            strange = {str(symbol) for symbol in symbols if not atomic_number(symbol)}
            self._notes[table["row"][int(i)].as_py()] = ", ".join(sorted(strange))
        return fault

    def result(self) -> Scan:
        texts = {name: _codes(self._columns[name]) for name in ("key", "material", "functional")}
        columns: dict[str, Any] = {
            name: texts[name][0] if name in texts else np.concatenate(chunks)
            for name, chunks in self._columns.items()
        }
        return Scan(
            light=Light(**columns),
            keys=texts["key"][1],
            materials=texts["material"][1],
            functionals=texts["functional"][1],
            notes=self._notes,
            malformed=self._malformed,
        )


def first_true(conditions: list[Any]) -> NDArray[np.int64]:
    """For each position, 1 + the index of the first condition that holds, 0 where none does.

    Args:
        conditions: At least one boolean array, all of shape (n,).
    """
    result = np.zeros(len(conditions[0]), dtype=np.int64)
    for i in range(len(conditions) - 1, -1, -1):
        result[np.asarray(conditions[i], dtype=bool)] = i + 1
    return result


def _periodic(table: Any) -> NDArray[np.bool_]:
    types = array(table["dimension_types"])
    count = lengths(types)
    ones = numpy(pc.fill_null(pc.list_flatten(types), 0)) == 1
    listed = (count == 3) & (row_sums(ones.astype(np.int64), count) == 3)
    listed |= numpy(types.is_null()).astype(bool)
    return np.asarray(listed & (numpy(pc.fill_null(array(table["nperiodic_dimensions"]), 3)) == 3))


def _encoded(column: Any) -> Any:
    return pc.dictionary_encode(array(column), null_encoding="encode")


def _codes(chunks: Iterable[Any]) -> tuple[NDArray[np.int64], list[Any]]:
    """Dictionary-encoded chunks -> codes in order of first appearance, and the values."""
    unified = pa.chunked_array(list(chunks)).unify_dictionaries()
    codes = np.concatenate([numpy(chunk.indices) for chunk in unified.chunks])
    return codes.astype(np.int64), unified.chunk(0).dictionary.to_pylist()
