"""Frames -> trajectories: group, order, choose the first and the relaxed frame, quarantine.

The first pass over the files reads the light columns only and keeps a few numbers per frame.
Order is by `relaxation_step`, as a number, and the last frame counts as the relaxed one. The
public LeMat-Traj numbers the calculations of one trajectory in reverse (`relaxation_number`);
that is not undone here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from benchmarks.data.reader import FrameFiles, array, lengths, numpy, row_sums

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


class Reason(StrEnum):
    """Why a trajectory is not used."""

    MALFORMED_ID = "malformed id"
    ID_MISMATCH = "id does not match material, functional and step"
    NO_STEP = "no relaxation step"
    NOT_PERIODIC = "not periodic in three dimensions"
    ZERO_SITES = "zero sites"
    DISORDERED = "disordered species or vacancies"
    UNKNOWN_ELEMENT = "unknown element"
    LENGTHS = "species, positions and nsites differ in length"
    SINGLE_FRAME = "single frame"
    DUPLICATED_STEP = "duplicated step"
    COMPOSITION = "frames of different composition"
    SITE_ORDER = "frames of different site order"
    NO_LATTICE = "no 3x3 lattice"
    NOT_FINITE = "lattice or positions not finite"
    COLLAPSED = "singular or collapsed cell"


_ROW_FAULTS = (
    Reason.NO_STEP,
    Reason.NOT_PERIODIC,
    Reason.ZERO_SITES,
    Reason.DISORDERED,
    Reason.UNKNOWN_ELEMENT,
    Reason.LENGTHS,
)


@dataclass(frozen=True, slots=True)
class Quarantined:
    """One trajectory (or stray row) that is not used."""

    sample_id: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Trajectories:
    """Usable trajectories after the first pass, in file order, as columns."""

    ids: list[str]
    materials: list[str]
    functionals: list[str]
    first: NDArray[np.int64]
    """(n,) row number of the initial frame."""
    last: NDArray[np.int64]
    """(n,) row number of the relaxed frame."""
    n_frames: NDArray[np.int64]

    def take(self, indices: NDArray[np.int64]) -> Trajectories:
        """These trajectories, in this order."""
        return Trajectories(
            ids=[self.ids[i] for i in indices],
            materials=[self.materials[i] for i in indices],
            functionals=[self.functionals[i] for i in indices],
            first=self.first[indices],
            last=self.last[indices],
            n_frames=self.n_frames[indices],
        )


@dataclass(frozen=True, slots=True)
class _Light:
    """What the first pass keeps of every row that has a well-formed id."""

    row: NDArray[np.int64]
    key: NDArray[np.int64]
    step: NDArray[np.int64]
    step_in_id: NDArray[np.int64]
    material: NDArray[np.int64]
    functional: NDArray[np.int64]
    composition: NDArray[np.uint64]
    sites: NDArray[np.uint64]
    fault: NDArray[np.int64]
    """0, or 1 + index into `_ROW_FAULTS`."""

    def take(self, rows: NDArray[Any]) -> _Light:
        return _Light(*(getattr(self, name)[rows] for name in self.__slots__))


def find(files: FrameFiles) -> tuple[Trajectories, list[Quarantined]]:
    """Group the frames of `files` into trajectories and choose two frames of each.

    Args:
        files: Frames in the layout of LeMat-Traj, rows in any order.

    Returns:
        The usable trajectories, in the order in which they first appear, and those that are not.
    """
    scan = _Scan()
    for start, table in files.tables(_LIGHT):
        scan.add(start, table)
    return scan.result()


class _Scan:
    """The first pass: one `add` per row group, then `result`."""

    def __init__(self) -> None:
        self._columns: list[dict[str, NDArray[Any]]] = []
        self._names: dict[str, list[Any]] = {"key": [], "material": [], "functional": []}
        self._notes: dict[int, str] = {}
        self._malformed: list[Quarantined] = []
        self._numbers = _Memo(_atomic_number)
        self._ordered = _Memo(_is_ordered)

    def add(self, start: int, table: Any) -> None:
        table = self._well_formed(start, table)
        ids = table["key"]
        for name, column in (("key", ids), ("material", table["immutable_id"])):
            self._names[name].append(_encoded(column))
        self._names["functional"].append(_encoded(table["functional"]))
        rows = numpy(array(table["row"]))
        composition, sites, fault = self._sites(rows, table)
        step = array(table["relaxation_step"])
        self._columns.append(
            {
                "row": rows,
                "step": numpy(pc.fill_null(step, -1)),
                "step_in_id": numpy(array(table["step"])),
                "composition": composition,
                "sites": sites,
                "fault": fault,
            }
        )

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

    def _sites(
        self, rows: NDArray[np.int64], table: Any
    ) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.int64]]:
        """Hashes of composition and of site order, and the first fault, of each row."""
        species = array(table["species_at_sites"])
        count = lengths(species)
        symbols = pc.list_flatten(species)
        z = self._numbers.of(symbols)
        place = np.arange(len(z)) - np.repeat(np.cumsum(count) - count, count)
        disordered = self._ordered.of(array(table["species"])) == 0
        n_sites = numpy(pc.fill_null(array(table["nsites"]), -1))
        faults = [
            numpy(array(table["relaxation_step"]).is_null()),
            ~_periodic(table),
            (count == 0) | (n_sites == 0),
            disordered,
            row_sums((z == 0).astype(np.int64), count) > 0,
            n_sites != count,
        ]
        fault = first_true(faults)
        for i in np.flatnonzero(fault == 1 + _ROW_FAULTS.index(Reason.UNKNOWN_ELEMENT)):
            strange = {s for s in species[int(i)].as_py() if not _atomic_number(s)}
            self._notes[int(rows[i])] = ", ".join(sorted(map(str, strange)))
        composition = row_sums(_mix(z.astype(np.uint64)), count)
        order = row_sums(_mix(((z << 32) + place).astype(np.uint64)), count)
        return composition, order, fault

    def result(self) -> tuple[Trajectories, list[Quarantined]]:
        """Group, order and judge what was added."""
        coded = {name: _codes(chunks) for name, chunks in self._names.items()}
        merged: dict[str, NDArray[Any]] = {
            name: np.concatenate([chunk[name] for chunk in self._columns])
            for name in self._columns[0]
        }
        codes: dict[str, Any] = {name: code for name, (code, _) in coded.items()}
        light = _Light(**merged, **codes)
        names = {name: values for name, (_, values) in coded.items()}
        return self._judge(light, names)

    def _judge(
        self, light: _Light, names: dict[str, list[str]]
    ) -> tuple[Trajectories, list[Quarantined]]:
        light = light.take(np.lexsort((light.row, light.step, light.key)))
        starts = np.flatnonzero(np.diff(light.key, prepend=-1))
        count = np.diff(starts, append=len(light.key))
        bad = _frame_faults(light, starts, count)
        bad[Reason.ID_MISMATCH] |= np.repeat(~_ids_agree(light, starts, names), count)
        verdict = _first_per_group(bad, starts) if len(starts) else np.zeros(0, dtype=np.int64)
        quarantined = self._malformed + [
            self._explain(light, names, starts[g], count[g], tuple(bad)[verdict[g] - 1], bad)
            for g in np.flatnonzero(verdict)
        ]
        good = verdict == 0
        begin, size = starts[good], count[good]
        end = begin + size - 1
        return Trajectories(
            ids=[names["key"][i] for i in light.key[begin]],
            materials=[names["material"][i] for i in light.material[begin]],
            functionals=[names["functional"][i] for i in light.functional[begin]],
            first=light.row[begin],
            last=light.row[end],
            n_frames=size,
        ), quarantined

    def _explain(
        self,
        light: _Light,
        names: dict[str, list[str]],
        start: int,
        count: int,
        reason: Reason,
        bad: dict[Reason, NDArray[np.bool_]],
    ) -> Quarantined:
        at = start + int(np.argmax(bad[reason][start : start + count]))
        detail = f"step {light.step_in_id[at]}"
        note = self._notes.get(int(light.row[at]))
        return Quarantined(
            names["key"][light.key[start]], reason, f"{detail}: {note}" if note else detail
        )


def _frame_faults(
    light: _Light, starts: NDArray[np.int64], count: NDArray[np.int64]
) -> dict[Reason, NDArray[np.bool_]]:
    """For each reason, in order of precedence, which frames (sorted into groups) have it."""
    head = np.repeat(starts, count)
    step = light.step
    repeated = np.zeros(len(step), dtype=bool)
    repeated[1:] = (step[1:] == step[:-1]) & (light.key[1:] == light.key[:-1])
    bad = {reason: light.fault == 1 + i for i, reason in enumerate(_ROW_FAULTS)}
    bad[Reason.ID_MISMATCH] = (
        (light.material != light.material[head])
        | (light.functional != light.functional[head])
        | (light.step_in_id != step)
    )
    bad[Reason.SINGLE_FRAME] = np.repeat(count == 1, count)
    bad[Reason.DUPLICATED_STEP] = repeated
    bad[Reason.COMPOSITION] = light.composition != light.composition[head]
    bad[Reason.SITE_ORDER] = light.sites != light.sites[head]
    return bad


def _ids_agree(
    light: _Light, starts: NDArray[np.int64], names: dict[str, list[str]]
) -> NDArray[np.bool_]:
    """Whether key = `{material}-{trajectory}-{functional}`, for each group."""

    def agree(key: str, material: str | None, functional: str | None) -> bool:
        if not material or not functional:
            return False
        head, tail = f"{material}-", f"-{functional}"
        middle = key[len(head) : -len(tail)]
        return key.startswith(head) and key.endswith(tail) and middle.isdecimal()

    return np.array(
        [
            agree(
                names["key"][light.key[i]],
                names["material"][light.material[i]],
                names["functional"][light.functional[i]],
            )
            for i in starts
        ],
        dtype=bool,
    )


def _first_per_group(
    bad: dict[Reason, NDArray[np.bool_]], starts: NDArray[np.int64]
) -> NDArray[np.int64]:
    return first_true([np.logical_or.reduceat(frames, starts) for frames in bad.values()])


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


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scatter 64-bit integers (the finaliser of splitmix64)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


class _Memo:
    """Apply a function of a string to an Arrow column, once per distinct value."""

    def __init__(self, function: Callable[[str | None], int]) -> None:
        self._function = function
        self._known: dict[str | None, int] = {}

    def of(self, column: Any) -> NDArray[np.int64]:
        encoded = pc.dictionary_encode(column, null_encoding="encode")
        values = encoded.dictionary.to_pylist()
        for value in values:
            if value not in self._known:
                self._known[value] = self._function(value)
        table = np.array([self._known[value] for value in values], dtype=np.int64)
        return np.asarray(table[numpy(encoded.indices)])


def _atomic_number(symbol: str | None) -> int:
    """Z of an element symbol; 0 for anything else, isotopes and vacancies included."""
    from ase.data import atomic_numbers

    return int(atomic_numbers.get(symbol, 0))


def _is_ordered(species: str | None) -> int:
    """Whether every species of the JSON text is one element at full occupation; null passes."""
    if species is None:
        return 1
    try:
        entries = json.loads(species)
        return int(
            all(
                len(entry["chemical_symbols"]) == 1
                and entry["chemical_symbols"][0] != "vacancy"
                and abs(entry["concentration"][0] - 1) < 1e-6
                for entry in entries
            )
        )
    except (ValueError, KeyError, TypeError, IndexError):
        return 0


def _encoded(column: Any) -> Any:
    return pc.dictionary_encode(array(column), null_encoding="encode")


def _codes(chunks: Iterable[Any]) -> tuple[NDArray[np.int64], list[Any]]:
    """Dictionary-encoded chunks -> codes in order of first appearance, and the values."""
    unified = pa.chunked_array(list(chunks)).unify_dictionaries()
    codes = np.concatenate([numpy(chunk.indices) for chunk in unified.chunks])
    return codes.astype(np.int64), unified.chunk(0).dictionary.to_pylist()


def atomic_numbers(species: Any) -> NDArray[np.int16]:
    """Atomic numbers of a flat Arrow column of element symbols; 0 where unknown."""
    return _Memo(_atomic_number).of(array(species)).astype(np.int16)
