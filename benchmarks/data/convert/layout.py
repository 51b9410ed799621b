"""A relaxation as rows in the column layout of LeMaterial/LeMat-Traj, one per ionic step.

Columns that are not known here are null: the time of the last modification, the corrected energy,
the compatibility of the settings across databases, and the space group.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import gcd
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.data.convert.relaxation import Relaxation

_VECTORS = pa.list_(pa.list_(pa.float64()))
SCHEMA = pa.schema(
    [
        ("elements", pa.list_(pa.string())),
        ("nsites", pa.int32()),
        ("chemical_formula_anonymous", pa.string()),
        ("chemical_formula_reduced", pa.string()),
        ("chemical_formula_descriptive", pa.string()),
        ("nelements", pa.int8()),
        ("dimension_types", pa.list_(pa.int8())),
        ("nperiodic_dimensions", pa.int8()),
        ("lattice_vectors", _VECTORS),
        ("immutable_id", pa.string()),
        ("cartesian_site_positions", _VECTORS),
        ("species", pa.string()),
        ("species_at_sites", pa.list_(pa.string())),
        ("last_modified", pa.string()),
        ("elements_ratios", pa.list_(pa.float64())),
        ("stress_tensor", _VECTORS),
        ("energy", pa.float64()),
        ("energy_corrected", pa.float64()),
        ("forces", _VECTORS),
        ("functional", pa.string()),
        ("cross_compatibility", pa.bool_()),
        ("space_group_it_number", pa.int32()),
        ("id", pa.string()),
        ("relaxation_step", pa.int32()),
        ("relaxation_number", pa.int32()),
    ]
)
"""The columns of LeMat-Traj, in its order and with its types."""
_LETTERS = [*ascii_uppercase, *(f"{letter}a" for letter in ascii_uppercase)]
_GROUP_BYTES = 64 << 20
"""Frames are collected up to this size and then written as one row group."""


class TableWriter:
    """Writes frames to a parquet file; complete at the end of its `with` block."""

    def __init__(self, path: Path) -> None:
        self._writer = pq.ParquetWriter(path, SCHEMA, compression="zstd")
        self._held: list[Any] = []
        self._bytes = 0

    def __enter__(self) -> Self:
        return self

    def add(self, frames: Any) -> None:
        """Append an Arrow table of `SCHEMA`."""
        self._held.append(frames)
        self._bytes += frames.nbytes
        if self._bytes > _GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._held:
            self._writer.write_table(pa.concat_tables(self._held).combine_chunks())
            self._held, self._bytes = [], 0

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._flush()
        self._writer.close()


def table(relaxation: Relaxation, material: str, functional: str, trajectory: str) -> Any:
    """An Arrow table of `SCHEMA`; the arguments are those of `rows`."""
    return pa.Table.from_pylist(rows(relaxation, material, functional, trajectory), schema=SCHEMA)


def rows(
    relaxation: Relaxation, material: str, functional: str, trajectory: str
) -> list[dict[str, Any]]:
    """The values of `SCHEMA`, one row per step; columns that are not known are left out.

    Args:
        relaxation: Checked: the same sites in the same order in every step.
        material: The value of `immutable_id`.
        functional: Name of the functional in LeMat-Traj.
        trajectory: Id of the frames without the step.
    """
    same = {
        **_composition(relaxation.steps[0].symbols),
        "dimension_types": [1, 1, 1],
        "nperiodic_dimensions": 3,
        "immutable_id": material,
        "functional": functional,
    }
    return [
        {
            **same,
            "lattice_vectors": step.lattice.tolist(),
            "cartesian_site_positions": step.positions.tolist(),
            "energy": step.energy,
            "forces": None if step.forces is None else step.forces.tolist(),
            "stress_tensor": None if step.stress is None else step.stress.tolist(),
            "relaxation_number": step.calculation,
            "id": f"{trajectory}-{i}",
            "relaxation_step": i,
        }
        for i, step in enumerate(relaxation.steps)
    ]


def _composition(symbols: tuple[str, ...]) -> dict[str, Any]:
    """The columns that follow from the sites by OPTIMADE's rules; elements are sorted by symbol."""
    elements = sorted(set(symbols))
    counts = [symbols.count(element) for element in elements]
    units = [count // gcd(*counts) for count in counts]
    return {
        "elements": elements,
        "nelements": len(elements),
        "elements_ratios": [count / len(symbols) for count in counts],
        "nsites": len(symbols),
        "chemical_formula_anonymous": _formula(_LETTERS, sorted(units, reverse=True)),
        "chemical_formula_reduced": _formula(elements, units),
        "chemical_formula_descriptive": _formula(elements, counts, " "),
        "species": json.dumps(
            [{"name": e, "chemical_symbols": [e], "concentration": [1.0]} for e in elements]
        ),
        "species_at_sites": list(symbols),
    }


def _formula(names: Sequence[str], counts: list[int], between: str = "") -> str:
    pairs = zip(names, counts, strict=False)
    return between.join(name + (str(count) if count > 1 else "") for name, count in pairs)
