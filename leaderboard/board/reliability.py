"""How well the models that tell an expected error know their own errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from benchmarks.core.statistics import (
    Estimate,
    Floats,
    Resampling,
    interval,
    round_significant,
)
from benchmarks.store import StoredRun
from leaderboard.board.schema import KeptShare, Reliability, ReliabilityBin

if TYPE_CHECKING:
    import pandas as pd

BINS: Final = 8
SHARES: Final = (0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
FEWEST: Final = 16
"""With fewer samples a model has no entry: two in a bin say nothing."""


def reliability(
    runs: Sequence[StoredRun],
    tables: Sequence[pd.DataFrame],
    ids: Sequence[str],
    resampling: Resampling,
) -> tuple[Reliability, ...]:
    """Compare expected with true errors, of the runs that have the former.

    Args:
        runs: One per model.
        tables: `scores` of each run, in the same order.
        ids: Samples that all tables share.
        resampling: Bootstrap weights of these samples.
    """
    found = (_of_run(*pair, ids, resampling) for pair in zip(runs, tables, strict=True))
    return tuple(each for each in found if each is not None)


def _of_run(
    run: StoredRun, table: pd.DataFrame, ids: Sequence[str], resampling: Resampling
) -> Reliability | None:
    expected, error, unchanged = _columns(run, table, ids)
    known = np.isfinite(expected) & np.isfinite(error)
    if known.sum() < FEWEST:
        return None
    order = np.flatnonzero(known)[np.argsort(expected[known], kind="stable")]
    bins = [
        ReliabilityBin(
            n=len(part),
            expected=round_significant(float(expected[part].mean())) or 0.0,
            error=_mean(error, part, resampling),
        )
        for part in np.array_split(order, min(BINS, len(order) // 2))
    ]
    kept = []
    for share in SHARES:
        part = order[: max(1, round(share * len(order)))]
        kept.append(
            KeptShare(
                share=share,
                n=len(part),
                error=_mean(error, part, resampling),
                unchanged=_mean(unchanged, part, resampling),
            )
        )
    return Reliability(
        model=run.name,
        n=len(order),
        rank_correlation=_rank_correlation(expected, error, order, resampling),
        bins=tuple(bins),
        kept=tuple(kept),
    )


def _columns(
    run: StoredRun, table: pd.DataFrame, ids: Sequence[str]
) -> tuple[Floats, Floats, Floats]:
    """Expected error, error and error of no change [Å] of each sample: means over its repeats."""
    told = run.table.select(["sample_id", "repeat", "expected_error"]).to_pandas()
    if not len(told) or told["expected_error"].isna().all():
        nothing = np.full(len(ids), np.nan)
        return nothing, nothing, nothing
    joined = table.merge(told, on=["sample_id", "repeat"], how="left")
    sums = {
        "expected": joined["expected_error"],
        "error": joined["lattice_error"] + joined["position_error"],
        "unchanged": joined["identity_lattice_error"] + joined["identity_position_error"],
    }
    means = joined[["sample_id"]].assign(**sums).groupby("sample_id").mean().loc[list(ids)]
    expected, error, unchanged = (means[name].to_numpy(dtype=float) for name in sums)
    return expected, error, unchanged


def _mean(values: Floats, part: np.ndarray, resampling: Resampling) -> Estimate:
    """The mean over some of the samples, with its interval."""
    chosen = np.full(len(values), np.nan)
    chosen[part] = values[part]
    return Estimate.mean(chosen, np.ones(len(values)), resampling)


def _rank_correlation(
    expected: Floats, error: Floats, part: np.ndarray, resampling: Resampling
) -> Estimate:
    """Spearman's correlation; in a replicate the samples keep their ranks and have its weights."""
    from scipy.stats import rankdata

    columns = np.zeros((len(expected), 6))
    x, y = (rankdata(values[part]) / len(part) for values in (expected, error))
    columns[part] = np.column_stack([np.ones(len(part)), x, y, x * x, y * y, x * y])
    n, x, y, xx, yy, xy = resampling.sums(columns).T
    with np.errstate(divide="ignore", invalid="ignore"):
        found = (n * xy - x * y) / np.sqrt((n * xx - x * x) * (n * yy - y * y))
    ends = interval(found[1:]) if resampling.n_groups > 1 else None
    return Estimate.of(float(found[0]), ends, len(part))
