"""A generated table in the layout of LeMat-Traj, of any size, whose pairs are known.

Trajectories of the Materials Project as the public fetcher writes them: rows in the order of `id`
as text, the calculations of a trajectory in reverse under one running step, the last frame of the
list dropped. Site counts are log-normal (median 8, mean 12, at most 64), 10 frames on average.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.conftest import LEMAT_SCHEMA

PER_CHUNK = 10_000
"""Trajectories that are made at a time, about 100,000 frames."""
N_FILES = 10
ROW_GROUP = 10_000
ELEMENTS = np.array(["Li", "O", "Na", "Si", "Cl", "Ti", "Fe", "Ni", "Sr", "Ba"])
KINDS = np.array(
    [
        json.dumps([{"name": e, "chemical_symbols": [e], "concentration": [1.0]} for e in pair])
        for pair in zip(ELEMENTS, np.roll(ELEMENTS, 1), strict=True)
    ]
)


def write(folder: Path, n_frames: int, seed: int = 0) -> np.ndarray:
    """Write ten files of about `n_frames` frames altogether.

    Returns:
        (n, 3) of each trajectory, in the order of `id` as text: number of frames, steps of the
        initial and of the relaxed frame.
    """
    rng = np.random.default_rng(seed)
    materials = np.sort(np.array([f"mp-{i}" for i in range(n_frames // 10)]))
    truth = []
    for i, part in enumerate(np.array_split(materials, N_FILES)):
        with pq.ParquetWriter(folder / f"part-{i:05d}.parquet", LEMAT_SCHEMA) as writer:
            for start in range(0, len(part), PER_CHUNK):
                table, true = _chunk(rng, part[start : start + PER_CHUNK])
                writer.write_table(table, row_group_size=ROW_GROUP)
                truth.append(true)
    return np.concatenate(truth)


def _chunk(rng: np.random.Generator, materials: np.ndarray) -> tuple[pa.Table, np.ndarray]:
    n = len(materials)
    frames = 1 + rng.geometric(1 / 9, n)  # at least 2
    second = np.where(rng.random(n) < 0.5, frames // 3, 0)  # frames of the last calculation
    sites = np.clip(np.exp(rng.normal(np.log(8), 0.9, n)).astype(int), 1, 64)
    of = np.repeat(np.arange(n), frames)
    step = np.concatenate([TEXT_ORDER[k] for k in frames])
    late = step < second[of]
    # Frames since the start: the last calculation begins where the first one ended, with the frame
    # that was dropped.
    time = np.where(late, step + (frames - second)[of], step - second[of])
    columns = _light(rng, of, time, sites)
    columns |= _heavy(rng, of, sites)
    columns |= {
        "immutable_id": pa.array(materials[of]),
        "id": pa.array([f"{m}-0-pbe-{s}" for m, s in zip(materials[of], step, strict=True)]),
        "relaxation_step": pa.array(step, pa.int32()),
        "relaxation_number": pa.array(np.where(late | (second[of] == 0), 0, 1), pa.int32()),
    }
    empty = {f.name: pa.nulls(len(of), f.type) for f in LEMAT_SCHEMA if f.name not in columns}
    table = pa.table({**columns, **empty}).select(LEMAT_SCHEMA.names).cast(LEMAT_SCHEMA)
    last = np.where(second > 0, second, frames) - 1
    return table, np.stack([frames, second, last], axis=1)


TEXT_ORDER = [np.array(sorted(range(k), key=str), dtype=int) for k in range(400)]
"""Steps 0 … k-1 in the order of their text."""


def _light(rng: Any, of: Any, time: Any, sites: Any) -> dict[str, pa.Array]:
    far = np.exp(-time / 2.0)  # how far from the end
    edge = (sites * 14.0) ** (1 / 3)
    strain = rng.uniform(-0.05, 0.05, (len(sites), 3))
    cells = np.zeros((len(of), 3, 3))
    cells[:, range(3), range(3)] = edge[of, None] * (1 + strain[of] * far[:, None])
    stress = -np.einsum("ni,ij->nij", strain[of] * far[:, None] * 1000, np.eye(3))
    energy = sites[of] * (rng.uniform(-9, -3, len(sites))[of] + 0.2 * far**2)
    return {
        "nsites": pa.array(sites[of], pa.int32()),
        "nperiodic_dimensions": pa.array(np.full(len(of), 3), pa.int8()),
        "dimension_types": _lists(np.ones(3 * len(of), np.int8), np.full(len(of), 3)),
        "lattice_vectors": _matrices(cells.reshape(-1, 3), np.full(len(of), 3)),
        "stress_tensor": _matrices(stress.reshape(-1, 3), np.full(len(of), 3)),
        "energy": pa.array(energy),
        "energy_corrected": pa.array(energy),
        "functional": pa.array(np.full(len(of), "pbe")),
        "last_modified": pa.array(np.full(len(of), "2026-01-01")),
        "cross_compatibility": pa.array(np.full(len(of), True)),
    }


def _heavy(rng: Any, of: Any, sites: Any) -> dict[str, pa.Array]:
    count = sites[of]
    total = int(count.sum())
    kind = rng.integers(len(ELEMENTS), size=len(sites))
    odd = (np.arange(total) - np.repeat(np.cumsum(count) - count, count)) % 2
    symbols = ELEMENTS[(np.repeat(kind[of], count) - odd) % len(ELEMENTS)]
    edge = np.repeat((count * 14.0) ** (1 / 3), count)[:, None]
    return {
        "species": pa.array(KINDS[kind[of]]),
        "species_at_sites": _lists(symbols, count),
        "cartesian_site_positions": _matrices(rng.random((total, 3)) * edge, count),
        "forces": _matrices(rng.normal(0, 0.02, (total, 3)), count),
    }


def _lists(values: Any, count: Any) -> pa.Array:
    offsets = np.concatenate([[0], np.cumsum(count)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))


def _matrices(vectors: Any, count: Any) -> pa.Array:
    inner = _lists(vectors.ravel(), np.full(len(vectors), 3))
    offsets = np.concatenate([[0], np.cumsum(count)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), inner)
