"""The rows of a board: metrics with intervals, ranks, ties. The table `METRICS` drives it alone.

Repeats of a sample are averaged first and never count as samples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING, Final

import numpy as np

from benchmarks.core import Status
from benchmarks.core.statistics import (
    BLOCK,
    Estimate,
    Floats,
    Resampling,
    estimates,
    interval,
    ranks,
    round_significant,
    wilson,
)
from benchmarks.core.training_cost import TrainingCost
from benchmarks.core.training_data import Track, track
from benchmarks.metrics import METRICS, Reduce
from benchmarks.models.provenance import known_training_costs
from benchmarks.store import StoredRun
from leaderboard.board.schema import Hardware, Row, Spread
from leaderboard.board.scores import per_sample, unseen

if TYPE_CHECKING:
    import pandas as pd

RANKED_BY: Final = "score"
_SAMPLED: Final = [metric for metric in METRICS.values() if metric.reduce is not Reduce.PER_RUN]
_RANKING: Final = [metric.name for metric in _SAMPLED].index(RANKED_BY)


def ranked_rows(
    runs: Sequence[StoredRun],
    tables: Sequence[pd.DataFrame],
    ids: Sequence[str],
    resampling: Resampling,
) -> tuple[tuple[Row, ...], tuple[tuple[str, str], ...]]:
    """Compare runs on the samples that all of them have.

    Args:
        runs: One per model.
        tables: `scores` of each run, in the same order.
        ids: Samples that all tables share.
        resampling: Bootstrap weights of these samples.

    Returns:
        The rows, best first, and the pairs of models that are not told apart: the interval of the
        difference of their scores contains 0. This relation is not transitive.
    """
    found = [
        _measured(run, table, ids, resampling) for run, table in zip(runs, tables, strict=True)
    ]
    scores = np.stack([replicates for _, replicates in found], axis=1)
    places = ranks(scores)
    spread = np.percentile(places[1:], (2.5, 97.5), axis=0, method="nearest").astype(int)
    if resampling.n_groups < 2:  # one group drawn again and again says nothing about ranks
        spread = np.repeat([[1], [len(runs)]], len(runs), axis=1)
    rows = [
        replace(
            row, rank=int(places[0, k]), rank_low=int(spread[0, k]), rank_high=int(spread[1, k])
        )
        for k, (row, _) in enumerate(found)
    ]
    order = sorted(range(len(rows)), key=lambda k: (places[0, k], rows[k].model))
    ties = []
    for first, second in combinations(order, 2):
        low, high = interval(scores[1:, first] - scores[1:, second])
        if low <= 0 <= high:
            ties.append((rows[first].model, rows[second].model))
    return tuple(rows[k] for k in order), tuple(ties)


def row_apart(run: StoredRun, table: pd.DataFrame, resampling: Resampling) -> Row:
    """The row of a run over its own samples, without a rank; `resampling` is of them, sorted."""
    return _measured(run, table, sorted(set(table["sample_id"])), resampling)[0]


def _measured(
    run: StoredRun, table: pd.DataFrame, ids: Sequence[str], resampling: Resampling
) -> tuple[Row, Floats]:
    """The row of a run without its rank, and its score at the point and in each replicate."""
    trained_on = tuple(run.provenance.get("training_data") or ())
    marked = table.assign(clean=unseen(run, table))
    numbers = np.empty((len(resampling.weights), len(_SAMPLED)))
    counts = np.empty(len(_SAMPLED), dtype=int)
    width = max(1, BLOCK // len(ids))
    for start in range(0, len(_SAMPLED), width):
        part = _SAMPLED[start : start + width]
        reduces = [metric.reduce for metric in part]
        values, weights = per_sample(marked, part, ids)
        numbers[:, start : start + width] = estimates(reduces, values, weights, resampling)
        skill = np.array([reduce is Reduce.SKILL for reduce in reduces])
        counted = np.isfinite(values) & np.isfinite(weights) & (skill | (weights != 0))
        counts[start : start + width] = counted.sum(axis=0)
    metrics = {}
    for k, metric in enumerate(_SAMPLED):
        point, count = float(numbers[0, k]), int(counts[k])
        ends: tuple[float, float] | None = None
        if metric.reduce is Reduce.PROPORTION and count:
            ends = wilson(point, count)
        elif np.isfinite(point) and resampling.n_groups > 1:
            ends = interval(numbers[1:, k])
        metrics[metric.name] = Estimate.of(point, ends, count)
    for metric in METRICS.values():
        if metric.reduce is Reduce.PER_RUN:
            recorded = run.provenance.get(metric.column)
            metrics[metric.name] = Estimate.of(recorded, None, 0 if recorded is None else len(ids))
    outcomes = Counter(table.loc[table["sample_id"].isin(list(ids)), "status"])
    identity = run.identity
    row = Row(
        model=run.name,
        label=str(identity.get("label", run.name)),
        family=str(identity["family"]),
        weights=identity.get("weights"),
        weights_sha256=identity.get("weights_sha256"),
        training_data=trained_on,
        training_cost=_training_cost(run),
        track=track(trained_on),
        functional=run.provenance.get("functional"),
        hardware=_hardware(run),
        n_samples=len(ids),
        coverage={str(status): int(outcomes[str(status)]) for status in Status},
        spread=_spread(table),
        rank=None,
        rank_low=None,
        rank_high=None,
        metrics={name: metrics[name] for name in METRICS},
    )
    return row, numbers[:, _RANKING]


def _spread(table: pd.DataFrame) -> Spread | None:
    """The largest difference between repeats; a failure in one of them leaves its errors out."""
    repeats = int(table.groupby("sample_id")["repeat"].nunique().max())
    if repeats < 2:
        return None
    errors = table.groupby("sample_id")[["strain", "position_error"]]
    largest = (errors.max() - errors.min()).max()
    strain, position = (round_significant(largest[name]) or 0.0 for name in largest.index)
    return Spread(repeats=repeats, strain=strain, position=position)


def _training_cost(run: StoredRun) -> tuple[TrainingCost | None, ...]:
    """What the trainings cost: as the registry knows of these weights, else as the run recorded."""
    known = known_training_costs(run.name, run.identity.get("weights_sha256"))
    if known is not None:
        return tuple(known)
    if (recorded := run.provenance.get("training_cost")) is not None:
        return tuple(None if cost is None else TrainingCost(**cost) for cost in recorded)
    trained = track(run.provenance.get("training_data") or ()) is not Track.TRIVIAL
    return (None,) if trained else ()


def _hardware(run: StoredRun) -> tuple[Hardware, ...]:
    """The machines that computed the run; each of its segments names one."""
    found = [
        Hardware(cpu=each.get("cpu"), device=each.get("device"), threads=each.get("threads"))
        for each in run.computing_segments
        if not each.get("submitted")  # computed elsewhere, on what its authors declare
    ]
    return tuple(dict.fromkeys(found))
