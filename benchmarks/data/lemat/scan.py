"""The first pass over the frames: calculations, from the light columns only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from benchmarks.data.lemat.arrow import (
    Memo,
    array,
    atomic_number,
    is_ordered,
    lengths,
    numpy,
    row_sums,
    vectors,
)
from benchmarks.data.lemat.calculations import (
    FAULT_BITS,
    LAST_STEP,
    NONE,
    Calculations,
    concatenated,
    duplicated_steps,
    empty,
    merge_segments,
    metric_tensor,
    site_hashes,
)
from benchmarks.data.lemat.ids import FRAME_ID, ids_agree
from benchmarks.data.lemat.quarantine import Quarantined, Reason, first_true
from benchmarks.data.lemat.reader import FrameFiles

_LIGHT = (
    "id",
    "immutable_id",
    "functional",
    "relaxation_step",
    "relaxation_number",
    "nsites",
    "nperiodic_dimensions",
    "dimension_types",
    "species",
    "species_at_sites",
    "energy",
    "stress_tensor",
    "lattice_vectors",
)
ROW_FAULTS = (
    Reason.NO_STEP,
    Reason.NOT_PERIODIC,
    Reason.ZERO_SITES,
    Reason.DISORDERED,
    Reason.UNKNOWN_ELEMENT,
    Reason.LENGTHS,
    Reason.ID_MISMATCH,
)
"""The faults that a single frame can have, in order of precedence."""

_MAY_BE_NULL = (
    ("nsites", Reason.LENGTHS),
    ("immutable_id", Reason.ID_MISMATCH),
    ("functional", Reason.ID_MISMATCH),
)
"""Columns whose null is one of these faults; the detail then says so."""


@dataclass(frozen=True, slots=True)
class Scan:
    """The calculations of a data set, and the texts that their codes stand for."""

    calculations: Calculations
    """Sorted by key and number."""
    keys: list[str]
    """Ids without the step, in order of first appearance."""
    materials: list[str | None]
    functionals: list[str | None]
    duplicates: dict[int, list[int]]
    """Key -> steps that occur in more than one row."""
    notes: dict[tuple[str, int], str]
    """Key and step -> details of the fault of that frame, where there are any."""
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
        self._parts: dict[str, list[Any]] = {name: [] for name in Calculations.__slots__}
        self._steps: list[NDArray[np.int32]] = []
        self._texts: dict[str, list[Any]] = {"key": [], "material": [], "functional": []}
        self._notes: dict[tuple[str, int], str] = {}
        self._malformed: list[Quarantined] = []
        self._numbers = Memo(atomic_number)
        self._ordered = Memo(is_ordered)

    def add(self, start: int, table: Any) -> None:
        table = self._well_formed(start, table)
        if not len(table):
            return
        texts = {
            "key": _encoded(table["key"]),
            "material": _encoded(table["immutable_id"]),
            "functional": _encoded(table["functional"]),
        }
        species = array(table["species_at_sites"])
        count = lengths(species)
        z = self._numbers.of(pc.list_flatten(species))
        fault = self._faults(table, z, count, ids_agree(texts))
        rows = _frames(table, texts, site_hashes(z, count), count, fault)
        part, order = merge_segments(rows)
        for name, pieces in self._parts.items():
            pieces.append(getattr(part, name))
        self._steps.append(rows.first_step[order])
        for name, codes in texts.items():
            self._texts[name].append((getattr(part, name), codes.dictionary))

    def _well_formed(self, start: int, table: Any) -> Any:
        """Split off the rows whose id has no step at its end; add key, step and row number."""
        ids = array(table["id"])
        parts = pc.extract_regex(ids, FRAME_ID)
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
        self,
        table: Any,
        z: NDArray[np.int64],
        count: NDArray[np.int64],
        ids_agree: NDArray[np.bool_],
    ) -> NDArray[np.int64]:
        """The first fault of each row with its step, or `NONE`."""
        n_sites = numpy(pc.fill_null(array(table["nsites"]), -1))
        step = numpy(array(table["step"]))
        types = array(table["dimension_types"])
        n_types = lengths(types)
        ones = numpy(pc.fill_null(pc.list_flatten(types), 0)) == 1
        periodic = (n_types == 3) & (row_sums(ones.astype(np.int64), n_types) == 3)
        periodic |= numpy(types.is_null()).astype(bool)
        periodic &= numpy(pc.fill_null(array(table["nperiodic_dimensions"]), 3)) == 3
        faults = {
            Reason.NO_STEP: numpy(array(table["relaxation_step"]).is_null()),
            Reason.NOT_PERIODIC: ~periodic,
            Reason.ZERO_SITES: (count == 0) | (n_sites == 0),
            Reason.DISORDERED: self._ordered.of(array(table["species"])) == 0,
            Reason.UNKNOWN_ELEMENT: row_sums((z == 0).astype(np.int64), count) > 0,
            Reason.LENGTHS: n_sites != count,
            Reason.ID_MISMATCH: ~ids_agree | (_filled(table["relaxation_step"]) != step),
        }
        code = first_true([faults[reason] for reason in ROW_FAULTS])
        for i in np.flatnonzero(code == 1 + ROW_FAULTS.index(Reason.UNKNOWN_ELEMENT)):
            symbols = table["species_at_sites"][int(i)].as_py()
            strange = {str(symbol) for symbol in symbols if not atomic_number(symbol)}
            at = (table["key"][int(i)].as_py(), int(step[i]))
            self._notes[at] = ", ".join(sorted(strange))
        for name, reason in _MAY_BE_NULL:
            null = numpy(array(table[name]).is_null()).astype(bool)
            for i in np.flatnonzero(null & (code == 1 + ROW_FAULTS.index(reason))):
                at = (table["key"][int(i)].as_py(), int(step[i]))
                self._notes[at] = f"{name} is null"
        return np.where(code > 0, (code << FAULT_BITS) + step, NONE)

    def result(self) -> Scan:
        if not self._steps:
            return Scan(empty(), [], [], [], {}, self._notes, self._malformed)
        texts: dict[str, list[Any]] = {}
        for name in tuple(self._texts):
            # Arrow does not unify dictionaries in which null is a value.
            known: dict[str | None, int] = {}  # codes count in order of first appearance
            self._parts[name] = []
            for of_parts, values in self._texts.pop(name):
                code = [known.setdefault(value, len(known)) for value in values.to_pylist()]
                self._parts[name].append(np.array(code, dtype=np.int64)[of_parts])
            texts[name] = list(known)
        parts = concatenated(self._parts)
        duplicates = duplicated_steps(parts, np.concatenate(self._steps))
        self._steps.clear()
        return Scan(
            calculations=merge_segments(parts)[0],
            keys=texts["key"],
            materials=texts["material"],
            functionals=texts["functional"],
            duplicates=duplicates,
            notes=self._notes,
            malformed=self._malformed,
        )


def _frames(
    table: Any,
    texts: dict[str, Any],
    hashes: tuple[NDArray[np.uint64], NDArray[np.uint64]],
    count: NDArray[np.int64],
    fault: NDArray[np.int64],
) -> Calculations:
    """Each row as a part of a calculation."""
    three = np.full(len(table), 3)
    cell = metric_tensor(vectors(table["lattice_vectors"], three)[0].reshape(-1, 3, 3))
    components = vectors(table["stress_tensor"], three)[0].reshape(-1, 9)
    with np.errstate(over="ignore"):
        stress = np.abs(components).max(axis=1).astype(np.float32)
    energy = numpy(array(table["energy"])).astype(np.float64)
    step = np.clip(_filled(table["relaxation_step"]), -1, LAST_STEP).astype(np.int32)
    columns: dict[str, Any] = {
        **{name: numpy(codes.indices).astype(np.int64) for name, codes in texts.items()},
        "number": _filled(table["relaxation_number"]).astype(np.int32),
        "n_frames": np.ones(len(table), np.int32),
        "n_sites": count.astype(np.int32),
        **dict.fromkeys(("first_step", "last_step"), step),
        **dict.fromkeys(("first_row", "last_row"), numpy(array(table["row"]))),
        **dict.fromkeys(("first_energy", "last_energy", "lowest_energy"), energy),
        **dict.fromkeys(("first_cell", "last_cell"), cell),
        "last_stress": stress,
        "composition": hashes[0],
        "sites": hashes[1],
        **dict.fromkeys(("other_composition", "other_sites"), np.full(len(table), NONE)),
        "fault": fault,
    }
    return Calculations(**columns)


def _filled(column: Any) -> NDArray[np.int64]:
    return numpy(pc.fill_null(array(column), -1)).astype(np.int64)


def _encoded(column: Any) -> Any:
    return pc.dictionary_encode(array(column), null_encoding="encode")
