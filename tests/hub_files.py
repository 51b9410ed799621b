"""Trajectories in the layout of LeMat-Traj, quickly made, cut into files as the Hub has them."""

import io
import json
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.conftest import LEMAT_SCHEMA

N_SITES = 8
LONG = 57
"""Frames of the longest trajectory: of every hundredth."""


def lemat_files(n_trajectories, n_files, rows_per_group, config="compatible_pbe", seed=0):
    """Path -> parquet: rows in the order of the ids' text; borders fall where they fall."""
    table = _table(n_trajectories, np.random.default_rng(seed))
    borders = np.linspace(0, len(table), n_files + 1).astype(int)
    return {
        f"{config}/train-{i:05d}-of-{n_files:05d}.parquet": _bytes(table[a:b], rows_per_group)
        for i, (a, b) in enumerate(pairwise(borders))
    }


def _bytes(table, rows_per_group):
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=rows_per_group, write_page_checksum=True)
    return sink.getvalue()


def _table(n, rng):
    lengths = rng.integers(2, 9, n)
    lengths[::100] = LONG
    materials = [f"agm{i:06d}" for i in range(n)]
    steps = np.concatenate([np.array(sorted(range(k), key=str)) for k in lengths])
    names = np.repeat(materials, lengths)
    rows = len(names)
    species = json.dumps([{"name": "Si", "chemical_symbols": ["Si"], "concentration": [1.0]}])
    columns = {
        "elements": [["Si"]] * rows,
        "nsites": [N_SITES] * rows,
        "chemical_formula_reduced": ["Si"] * rows,
        "nelements": [1] * rows,
        "dimension_types": [[1, 1, 1]] * rows,
        "nperiodic_dimensions": [3] * rows,
        "lattice_vectors": _vectors(_cells(rng, lengths)),
        "immutable_id": names,
        "cartesian_site_positions": _vectors(rng.uniform(0, 6, (rows, N_SITES, 3))),
        "species": [species] * rows,
        "species_at_sites": [["Si"] * N_SITES] * rows,
        "stress_tensor": _vectors(rng.normal(0, 1, (rows, 3, 3))),
        "energy": -5.0 * N_SITES - steps,
        "forces": _vectors(rng.normal(0, 0.1, (rows, N_SITES, 3))),
        "functional": ["pbe"] * rows,
        "cross_compatibility": [True] * rows,
        "id": [f"{name}-pbe-{step}" for name, step in zip(names, steps, strict=True)],
        "relaxation_step": steps,
        "relaxation_number": [0] * rows,
    }
    empty = pa.nulls(rows)
    return pa.table(
        [
            pa.array(columns[f.name]).cast(f.type) if f.name in columns else empty.cast(f.type)
            for f in LEMAT_SCHEMA
        ],
        schema=LEMAT_SCHEMA,
    )


def _cells(rng, lengths):
    sides = np.repeat(rng.uniform(5, 7, len(lengths)), lengths)
    return sides[:, None, None] * np.eye(3)


def _vectors(values):
    rows, n = values.shape[:2]
    inner = pa.ListArray.from_arrays(np.arange(0, rows * n * 3 + 1, 3, np.int32), values.ravel())
    return pa.ListArray.from_arrays(np.arange(0, rows * n + 1, n, np.int32), inner)
