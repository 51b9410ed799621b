"""A hybrid compared with its last part alone: what it saves, and whether it ends as the part does.

`A+B` relaxes with B from A's structure; B alone starts from the unrelaxed structure. Costs are over
the samples that both have finished (`ok`). Two final structures of one sample are in the same
minimum if strain, displacement and energy differ by less than bounds. These three numbers need the
structures; they are columns of the hybrid's scores in an archive, so that a board can be made
where the data are not at hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from benchmarks.core import Status
from benchmarks.core.geometry import displacements, strain
from benchmarks.core.statistics import Estimate, Resampling, round_significant, wilson
from benchmarks.store import Record, StoredRun
from leaderboard.board.schema import Cost, Minimum, MinimumBounds, Saving
from leaderboard.board.scores import DATASET_KEYS, KEY

if TYPE_CHECKING:
    import pandas as pd

SAME_MINIMUM: Final = MinimumBounds(
    strain_below=0.01, mean_displacement_below_angstrom=0.05, energy_within_ev_per_atom=0.005
)
"""The Frobenius norm of the logarithmic strain between the two cells, the mean displacement of the
sites (compared by index), and the difference of the energies that the potential gives; 5 meV/atom
is about what a displacement of 0.05 Å costs at a force constant of 5 eV/Å^2."""
END_COLUMNS: Final = ("end_strain", "end_displacement", "end_energy")
"""Strain, mean displacement [Å], energy of the hybrid's final structure minus that of the part
alone [eV/atom]."""
COMPARED_WITH: Final = "end_of"
"""The column that holds the hash of the structures with which the hybrid's end was compared."""
_SAME_CONDITIONS: Final = ("cpu", "device", "threads", "batch_size")
"""Fields of the provenance; times can be compared only if they are equal."""
_COSTS: Final = ("n_force_evals", "seconds_per_structure")


def standalone_run(hybrid: StoredRun, runs: Sequence[StoredRun]) -> StoredRun | None:
    """The run of a hybrid's last part by itself, with the same data, settings, seed and weights."""
    if hybrid.identity.get("family") != "hybrid":
        return None
    last = hybrid.name.rpartition("+")[2]
    joined = str(hybrid.identity.get("weights_sha256") or "")
    for run in runs:
        keys = (*DATASET_KEYS, "missing_final_frame")
        same = all(hybrid.identity.get(key) == run.identity.get(key) for key in keys)
        # A hybrid records the settings that any of its parts honours, so that it can have more.
        alone, both = (each.identity.get("settings", {}) for each in (run, hybrid))
        same &= alone.items() <= both.items()
        same &= both.keys() - alone.keys() <= {"fmax", "max_steps"}
        same &= run.identity.get("seed") in (None, hybrid.identity.get("seed"))
        own = str(run.identity.get("weights_sha256") or "")
        if run.name == last and same and joined.endswith(own):
            return run
    return None


def with_ends(runs: Sequence[StoredRun], tables: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """The tables; those of hybrids get the columns that compare final structures.

    Args:
        runs: The runs of one data set.
        tables: `scores` of each run, in the same order.
    """
    by_name = {run.name: table for run, table in zip(runs, tables, strict=True)}
    found = []
    for run, table in zip(runs, tables, strict=True):
        other = standalone_run(run, runs)
        if other is not None:
            table = compare_final_structures(run, other, table, by_name[other.name])
        found.append(table)
    return found


def compare_final_structures(
    hybrid: StoredRun, other: StoredRun, table: pd.DataFrame, against: pd.DataFrame
) -> pd.DataFrame:
    """The hybrid's scores with `END_COLUMNS` and `COMPARED_WITH`; nan without two structures.

    Args:
        hybrid: The run of `A+B`.
        other: The run of B alone.
        table: `scores` of the hybrid; columns that are stored in it are used if structures are not
            at hand and if they belong to the very structures of `against`.
        against: `scores` of the other.
    """
    hashes = table[KEY].merge(against[[*KEY, "structures"]], on=KEY, how="left")["structures"]
    hashes = hashes.set_axis(table.index)
    if all(run.table.num_rows and run.changes is None for run in (hybrid, other)):
        first, second = (
            {(record.sample_id, record.repeat): record for record in run.records}
            for run in (hybrid, other)
        )
        keys = table[KEY].itertuples(index=False, name=None)
        numbers = np.array([_distance(first[key], second.get(key)) for key in keys])
    elif {COMPARED_WITH, *END_COLUMNS} <= set(table):
        stored = table[list(END_COLUMNS)].to_numpy(dtype=float)
        numbers = np.where((table[COMPARED_WITH] == hashes).to_numpy()[:, None], stored, np.nan)
    else:
        numbers = np.full((len(table), len(END_COLUMNS)), np.nan)
    columns = {name: numbers[:, k] for k, name in enumerate(END_COLUMNS)}
    return table.assign(**columns, **{COMPARED_WITH: hashes})


def _distance(end: Record, other: Record | None) -> tuple[float, float, float]:
    """`END_COLUMNS` of two records; nan if one has no structure with the same sites."""
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


def savings(
    runs: Sequence[StoredRun],
    tables: Sequence[pd.DataFrame],
    ids: Sequence[str],
    resampling: Resampling,
) -> tuple[Saving, ...]:
    """Compare every hybrid whose last part has a comparable run, in the order of their names.

    Args:
        runs: One per model, of one data set.
        tables: `scores` of each run, in the same order, with the columns of `with_ends`.
        ids: Samples that all tables share.
        resampling: Bootstrap weights of these samples.
    """
    by_name = {run.name: table for run, table in zip(runs, tables, strict=True)}
    found = []
    for run in sorted(runs, key=lambda run: run.name):
        other = standalone_run(run, runs)
        if other is None:
            continue
        pair = _paired(by_name[run.name], by_name[other.name], ids)
        facts = (run.provenance, other.provenance)
        comparable = all(facts[0].get(key) == facts[1].get(key) for key in _SAME_CONDITIONS)
        seconds = _cost(pair, "seconds_per_structure", resampling) if comparable else None
        saving = Saving(
            model=run.name,
            alone=other.name,
            n_samples=len(pair),
            finished=int(pair["ok"].sum()),
            alone_finished=int(pair["ok_alone"].sum()),
            both_finished=int((pair["ok"] * pair["ok_alone"]).sum()),
            force_evals=_cost(pair, "n_force_evals", resampling),
            seconds=seconds,
            minimum=_minimum(pair),
        )
        found.append(saving)
    return tuple(found)


def _paired(table: pd.DataFrame, against: pd.DataFrame, ids: Sequence[str]) -> pd.DataFrame:
    """One row per sample of `ids`: means over repeats; costs and ends are nan unless both finished.

    Ends are in the same minimum within the bounds; an energy that was not recorded is not asked
    for.
    """
    ok = str(Status.OK)
    left = table[[*KEY, *_COSTS, *END_COLUMNS]].assign(ok=(table["status"] == ok).astype(float))
    right = against[[*KEY, *_COSTS]].assign(ok=(against["status"] == ok).astype(float))
    near = left["end_strain"] < SAME_MINIMUM.strain_below
    near &= left["end_displacement"] < SAME_MINIMUM.mean_displacement_below_angstrom
    near &= ~(left["end_energy"].abs() > SAME_MINIMUM.energy_within_ev_per_atom)
    left["same"] = np.where(left["end_strain"].notna(), near, np.nan)
    pair = left.merge(right, on=KEY, suffixes=("", "_alone"))
    means = pair.drop(columns="repeat").groupby("sample_id").mean().reindex(list(ids))
    means[["ok", "ok_alone"]] = (means[["ok", "ok_alone"]] == 1).astype(float)
    unfinished = (means["ok"] * means["ok_alone"]) == 0
    means.loc[unfinished, [c for c in means if not str(c).startswith("ok")]] = np.nan
    return means


def _cost(pair: pd.DataFrame, column: str, resampling: Resampling) -> Cost | None:
    ours, theirs = (pair[name].to_numpy(dtype=float) for name in (column, f"{column}_alone"))
    both = np.isfinite(ours - theirs)
    if not both.any():
        return None
    return Cost(
        hybrid=round_significant(float(ours[both].mean())),
        alone=round_significant(float(theirs[both].mean())),
        # the mean of ratios, weighted by the divisor, is the ratio of the sums
        ratio=Estimate.mean(ours / theirs, theirs, resampling),
        saved=Estimate.mean(theirs - ours, np.ones_like(ours), resampling),
    )


def _minimum(pair: pd.DataFrame) -> Minimum | None:
    compared = pair[pair["same"].notna()]
    if not len(compared):
        return None
    share = float(compared["same"].mean())
    gaps = compared.loc[compared["same"] < 1, "end_energy"]
    bound = SAME_MINIMUM.energy_within_ev_per_atom
    return Minimum(
        rate=Estimate.of(share, wilson(share, len(compared)), len(compared)),
        lower=int((gaps < -bound).sum()),
        level=int((gaps.abs() <= bound).sum()),
        higher=int((gaps > bound).sum()),
    )
