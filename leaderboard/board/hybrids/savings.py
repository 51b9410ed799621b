"""A hybrid against its last part alone: what it costs, and whether it ends in the same minimum.

Costs are over the samples that both have finished (`ok`); the same minimum is defined by the bounds
of `leaderboard.board.hybrids.final_structures`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from benchmarks.core import Status
from benchmarks.core.statistics import (
    Floats,
    Resampling,
    estimates,
    interval,
    round_significant,
    wilson,
)
from benchmarks.metrics import Reduce
from benchmarks.store import StoredRun
from leaderboard.board.hybrids.final_structures import (
    COLUMNS,
    MAX_DISPLACEMENT,
    MAX_ENERGY,
    MAX_STRAIN,
    compare_final_structures,
    standalone_run,
)
from leaderboard.board.scores import KEY

if TYPE_CHECKING:
    import pandas as pd

_MACHINE: Final = ("cpu", "device", "threads", "batch_size")
"""Of the provenance: where these differ, times cannot be compared."""
_COSTS: Final = ("n_force_evals", "seconds_per_structure")


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number with its 95 % interval; None where there is none."""

    value: float | None
    ci_low: float | None
    ci_high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Force evaluations, or seconds, per structure."""

    n: int
    """Samples that both have finished and have this number for."""
    hybrid: float | None
    """Mean."""
    alone: float | None
    """Mean."""
    ratio: Estimate
    """Sum over the samples of the hybrid's by that of the part alone."""
    saved: Estimate
    """Mean of the paired differences, alone minus hybrid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Minimum:
    """Whether two relaxations that were both finished ended in one place."""

    n: int
    """Samples whose two ends could be compared."""
    rate: Estimate
    """Share that ended in the same minimum, Wilson's interval."""
    lower: int
    """Of the others: the hybrid's end is lower in energy by more than the bound …"""
    level: int
    """… within the bound of the other's (a symmetric image, or a flat valley) …"""
    higher: int
    """… higher by more than the bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Saving:
    """One hybrid against its last part alone."""

    model: str
    alone: str
    n_samples: int
    finished: int
    """Samples that the hybrid finished (`ok`, in every repeat) …"""
    alone_finished: int
    """… the part alone …"""
    both_finished: int
    """… both."""
    force_evals: Cost | None
    seconds: Cost | None
    """None where machine, threads or batch size of the two runs differ."""
    minimum: Minimum | None
    """None where structures are not stored, nor what was measured of them."""


def savings(
    runs: Sequence[StoredRun],
    tables: Sequence[pd.DataFrame],
    ids: Sequence[str],
    resampling: Resampling,
) -> tuple[Saving, ...]:
    """Every hybrid whose last part has a comparable run beside it, by name.

    Args:
        runs: One per model, of one data set.
        tables: `scores` of each run, in the same order.
        ids: Samples that all tables share.
        resampling: Of these samples.
    """
    by_name = {run.name: table for run, table in zip(runs, tables, strict=True)}
    found = []
    for run in sorted(runs, key=lambda run: run.name):
        other = standalone_run(run, runs)
        if other is not None:
            pair = _paired(run, other, by_name[run.name], by_name[other.name], ids)
            found.append(_saving(run, other, pair, resampling))
    return tuple(found)


def _paired(
    hybrid: StoredRun,
    other: StoredRun,
    table: pd.DataFrame,
    against: pd.DataFrame,
    ids: Sequence[str],
) -> pd.DataFrame:
    """One row per sample of `ids`: means over repeats, costs and ends nan unless both finished."""
    marked = compare_final_structures(hybrid, other, table, against).assign(ok=_finished(table))
    marked["same"] = np.where(marked["end_strain"].notna(), _same(marked), np.nan)
    right = against[[*KEY, *_COSTS]].assign(ok=_finished(against))
    pair = marked[[*KEY, *_COSTS, *COLUMNS, "same", "ok"]].merge(
        right, on=KEY, suffixes=("", "_alone")
    )
    means = pair.drop(columns="repeat").groupby("sample_id").mean().reindex(list(ids))
    means[["ok", "ok_alone"]] = (means[["ok", "ok_alone"]] == 1).astype(float)
    unfinished = (means["ok"] * means["ok_alone"]) == 0
    means.loc[unfinished, [c for c in means if not str(c).startswith("ok")]] = np.nan
    return means


def _finished(table: pd.DataFrame) -> pd.Series:
    return (table["status"] == str(Status.OK)).astype(float)


def _same(rows: pd.DataFrame) -> pd.Series:
    """Within the bounds; an energy that was not recorded is not asked for."""
    near = (rows["end_strain"] < MAX_STRAIN) & (rows["end_displacement"] < MAX_DISPLACEMENT)
    return near & ~(rows["end_energy"].abs() > MAX_ENERGY)


def _saving(
    hybrid: StoredRun, other: StoredRun, pair: pd.DataFrame, resampling: Resampling
) -> Saving:
    facts = (hybrid.provenance, other.provenance)
    one_machine = all(facts[0].get(key) == facts[1].get(key) for key in _MACHINE)
    return Saving(
        model=hybrid.name,
        alone=other.name,
        n_samples=len(pair),
        finished=int(pair["ok"].sum()),
        alone_finished=int(pair["ok_alone"].sum()),
        both_finished=int((pair["ok"] * pair["ok_alone"]).sum()),
        force_evals=_cost(pair, "n_force_evals", resampling),
        seconds=_cost(pair, "seconds_per_structure", resampling) if one_machine else None,
        minimum=_minimum(pair),
    )


def _cost(pair: pd.DataFrame, column: str, resampling: Resampling) -> Cost | None:
    ours, theirs = (pair[name].to_numpy(dtype=float) for name in (column, f"{column}_alone"))
    count = int(np.isfinite(ours - theirs).sum())
    if not count:
        return None
    both = np.isfinite(ours - theirs)
    return Cost(
        n=count,
        hybrid=round_significant(float(ours[both].mean())),
        alone=round_significant(float(theirs[both].mean())),
        # the weighted mean of ratios, weighted by the divisor, is the ratio of the sums
        ratio=_estimate(ours / theirs, theirs, resampling),
        saved=_estimate(theirs - ours, np.ones_like(ours), resampling),
    )


def _estimate(values: Floats, weights: Floats, resampling: Resampling) -> Estimate:
    found = estimates([Reduce.MEAN], values[:, None], weights[:, None], resampling)[:, 0]
    low, high = interval(found[1:]) if resampling.n_groups > 1 else (np.nan, np.nan)
    return Estimate(
        value=round_significant(float(found[0])),
        ci_low=round_significant(low),
        ci_high=round_significant(high),
    )


def _minimum(pair: pd.DataFrame) -> Minimum | None:
    compared = pair[pair["same"].notna()]
    if not len(compared):
        return None
    share = float(compared["same"].mean())
    low, high = wilson(share, len(compared))
    gaps = compared.loc[compared["same"] < 1, "end_energy"]
    return Minimum(
        n=len(compared),
        rate=Estimate(
            value=round_significant(share),
            ci_low=round_significant(low),
            ci_high=round_significant(high),
        ),
        lower=int((gaps < -MAX_ENERGY).sum()),
        level=int((gaps.abs() <= MAX_ENERGY).sum()),
        higher=int((gaps > MAX_ENERGY).sum()),
    )
