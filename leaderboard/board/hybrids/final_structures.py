"""How far a hybrid's end is from the end of its last part alone, sample by sample.

`A+B` relaxes with B from A's structure. Whether that reaches the minimum that B reaches by itself
is told by two ends of one sample: strain, displacement, energy. Where structures may not be
committed these numbers are, as columns of the hybrid's scores (`python -m leaderboard --strip`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from benchmarks.core.geometry import displacements, strain
from benchmarks.store import Record, StoredRun
from leaderboard.board.scores import DATASET_KEYS, KEY

if TYPE_CHECKING:
    import pandas as pd

MAX_STRAIN: Final = 0.01
"""Ends of one minimum: Frobenius norm of the logarithmic strain between them, less than this …"""
MAX_DISPLACEMENT: Final = 0.05
"""… and mean displacement of the sites [Å], less than this, atoms compared by index …"""
MAX_ENERGY: Final = 0.005
"""… and difference of the energies that the potential gives them [eV/atom], at most this. About
what a displacement of 0.05 Å costs at a force constant of 5 eV/Å^2."""
COLUMNS: Final = ("end_strain", "end_displacement", "end_energy")
"""Strain, mean displacement [Å], energy of the hybrid's end minus that of the other [eV/atom]."""
COMPARED_WITH: Final = "end_of"
"""Column with the hash of the structures that the hybrid's end was compared with."""


def standalone_run(hybrid: StoredRun, runs: Sequence[StoredRun]) -> StoredRun | None:
    """The run of a hybrid's last part by itself: same data, settings, seed and weights."""
    if hybrid.identity.get("family") != "hybrid":
        return None
    last = hybrid.name.rpartition("+")[2]
    return next((run for run in runs if run.name == last and _comparable(hybrid, run)), None)


def _comparable(hybrid: StoredRun, run: StoredRun) -> bool:
    keys = (*DATASET_KEYS, "end_missing")
    same = all(hybrid.identity.get(key) == run.identity.get(key) for key in keys)
    # A hybrid records the settings that any of its parts honours, so that it can have more of them.
    alone, both = (each.identity.get("settings", {}) for each in (run, hybrid))
    same &= alone.items() <= both.items() and both.keys() - alone.keys() <= {"fmax", "max_steps"}
    same &= run.identity.get("seed") in (None, hybrid.identity.get("seed"))
    joined, own = (each.identity.get("weights_sha256") or "" for each in (hybrid, run))
    return same and str(joined).endswith(str(own))


def with_ends(runs: Sequence[StoredRun], tables: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """The tables, those of hybrids with `COLUMNS` and `OF` where the other run is at hand, too."""
    by_run = {id(run): table for run, table in zip(runs, tables, strict=True)}
    found = []
    for run, table in zip(runs, tables, strict=True):
        other = standalone_run(run, runs)
        found.append(
            table
            if other is None
            else compare_final_structures(run, other, table, by_run[id(other)])
        )
    return found


def compare_final_structures(
    hybrid: StoredRun, other: StoredRun, table: pd.DataFrame, against: pd.DataFrame
) -> pd.DataFrame:
    """The hybrid's scores with `COLUMNS` and `OF`; nan where one of the two has no scored end.

    Args:
        hybrid: The run of `A+B`.
        other: The run of B alone.
        table: `scores` of the hybrid; columns that are stored in it are used where structures
            are not at hand, if they are of the very structures of `against`.
        against: `scores` of the other.
    """
    hashes = table[KEY].merge(against[[*KEY, "structures"]], on=KEY, how="left")["structures"]
    hashes = hashes.set_axis(table.index)
    if hybrid.table.num_rows and other.table.num_rows:
        keys = list(table[KEY].itertuples(index=False, name=None))
        numbers = _measured(hybrid, other, keys)
    elif {COMPARED_WITH, *COLUMNS} <= set(table):
        stored = table[list(COLUMNS)].to_numpy(dtype=float)
        numbers = np.where((table[COMPARED_WITH] == hashes).to_numpy()[:, None], stored, np.nan)
    else:
        numbers = np.full((len(table), len(COLUMNS)), np.nan)
    columns = {name: numbers[:, k] for k, name in enumerate(COLUMNS)}
    return table.assign(**columns, **{COMPARED_WITH: hashes})


def _measured(hybrid: StoredRun, other: StoredRun, keys: Sequence[tuple[str, int]]) -> np.ndarray:
    first, second = ({(r.sample_id, r.repeat): r for r in run.records} for run in (hybrid, other))
    return np.array([_distance(first[key], second.get(key)) for key in keys])


def _distance(end: Record, other: Record | None) -> tuple[float, float, float]:
    """`COLUMNS` of two records; nan where one has no structure with the same sites."""
    nothing = (np.nan, np.nan, np.nan)
    if other is None or end.geometry is None or other.geometry is None:
        return nothing
    if not np.array_equal(end.geometry.numbers, other.geometry.numbers):
        return nothing
    moved = np.linalg.norm(displacements(other.geometry, end.geometry), axis=1)
    gap = np.nan
    if end.energy is not None and other.energy is not None:
        gap = (end.energy - other.energy) / len(moved)
    return strain(other.geometry.lattice, end.geometry.lattice), float(moved.mean()), gap
