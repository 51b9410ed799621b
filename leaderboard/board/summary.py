"""Scored runs of one data set to a board: rows with metrics, intervals and ranks.

Driven by the table `METRICS` alone. Models that were run on different samples are compared on the
samples they share; repeats of a sample are averaged first and never counted as samples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.core import Status, UserError
from benchmarks.core.statistics import (
    Floats,
    Resampling,
    estimates,
    interval,
    ranks,
    round_significant,
    wilson,
)
from benchmarks.core.training_data import Track, track
from benchmarks.data import ids_sha256
from benchmarks.data.exposure import Seen, seen
from benchmarks.metrics import METRICS, Metric, Reduce
from benchmarks.store import StoredRun
from leaderboard.board import differences, slices
from leaderboard.board.hybrids import Saving, savings
from leaderboard.board.samples import per_sample

if TYPE_CHECKING:
    import pandas as pd

REPLICATES: Final = 1000
SEED: Final = 0
RANKED_BY: Final = "score"
_SAMPLED: Final = [metric for metric in METRICS.values() if metric.reduce is not Reduce.PER_RUN]
_POSITION: Final = {metric.name: k for k, metric in enumerate(_SAMPLED)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """One number of a row; None where it does not apply."""

    value: float | None
    ci_low: float | None
    ci_high: float | None
    n: int
    """Samples that it is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One model."""

    model: str
    label: str
    family: str
    weights: str | None
    weights_sha256: str | None
    training_data: tuple[str, ...]
    track: Track
    functional: str | None = None
    """Of the DFT that it learned from; None where of none, or where the run does not say."""
    n_samples: int
    coverage: Mapping[str, int]
    """Outcomes by status; with repeats each counts."""
    rank: int
    rank_low: int
    rank_high: int
    metrics: Mapping[str, Value]


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """The leaderboard of one data set."""

    dataset: Mapping[str, Any]
    """name, revision, split, n_samples, ids_sha256, quarantined (reason -> count)."""
    environment: Mapping[str, Any]
    rows: tuple[Row, ...]
    """Best first."""
    ties: tuple[tuple[str, str], ...]
    """Pairs of models whose difference in score has an interval that contains 0."""
    notes: tuple[str, ...]
    slices: str
    """Markdown of `leaderboard.board.slices`."""
    differences: str
    """Markdown of `leaderboard.board.differences`."""
    hybrids: tuple[Saving, ...] = ()
    """Each hybrid whose last part alone is on the board, against that part."""

    @property
    def name(self) -> str:
        """Data set and split: `embedded-v1/test`, `substitution/test`."""
        split = self.dataset["split"]
        return str(self.dataset["name"]) + (f"/{split}" if split else "")


def board(
    runs: Sequence[StoredRun],
    tables: Sequence[pd.DataFrame],
    *,
    ended: Sequence[StoredRun] = (),
    replicates: int = REPLICATES,
    seed: int = SEED,
) -> Board:
    """Compare runs of one data set.

    Args:
        runs: One per model, all of one data set, revision and split.
        tables: `scores` of each run, in the same order.
        ended: Further runs, which the error budget ended: named in a note, not ranked.
        replicates: Of the bootstrap.
        seed: Of the bootstrap.

    Raises:
        UserError: The runs have no sample in common.
    """
    common = _common_ids(tables)
    if runs and not common:
        raise UserError(f"{', '.join(run.name for run in runs)}: no sample in common to compare")
    everyone = [*runs, *ended]
    rows: tuple[Row, ...] = ()
    ties: tuple[tuple[str, str], ...] = ()
    sliced = apart = ""
    saved: tuple[Saving, ...] = ()
    if runs:
        heading = str(runs[0].identity["dataset"])
        resampling = _resampling(tables[0], common, replicates, np.random.default_rng(seed))
        rows, ties = _rows(runs, tables, common, resampling)
        sliced = slices.markdown(runs, tables, heading)
        apart = _differences(rows, runs, tables, common, resampling, heading)
        saved = savings(runs, tables, common, resampling)
    return Board(
        dataset=_dataset(everyone, common),
        environment=_environment(everyone),
        rows=rows,
        ties=ties,
        notes=(*_unshared(runs, tables, common), *_left_out(ended)),
        slices=sliced,
        differences=apart,
        hybrids=saved,
    )


def _common_ids(tables: Sequence[pd.DataFrame]) -> list[str]:
    shared = [set(table["sample_id"]) for table in tables]
    return sorted(set.intersection(*shared)) if shared else []


def _resampling(
    table: pd.DataFrame, common: Sequence[str], replicates: int, rng: np.random.Generator
) -> Resampling:
    groups = table.drop_duplicates("sample_id").set_index("sample_id")["group"]
    return Resampling.of(list(groups.loc[list(common)]), replicates, rng)


def _differences(
    rows: Sequence[Row],
    runs: Sequence[StoredRun],
    tables: Sequence[pd.DataFrame],
    common: Sequence[str],
    resampling: Resampling,
    heading: str,
) -> str:
    """Every model, in the order of the board, against those that are no language model."""
    by_model = {run.name: table for run, table in zip(runs, tables, strict=True)}
    models = [row.model for row in rows]
    rivals = [row.model for row in rows if row.family != "llm"]
    ordered = [by_model[model] for model in models]
    return differences.markdown(models, rivals, ordered, common, resampling, heading)


def _rows(
    runs: Sequence[StoredRun],
    tables: Sequence[pd.DataFrame],
    common: Sequence[str],
    resampling: Resampling,
) -> tuple[tuple[Row, ...], tuple[tuple[str, str], ...]]:
    marked = [_with_clean_part(run, table) for run, table in zip(runs, tables, strict=True)]
    found = [_model(table, common, resampling) for table in marked]
    scores = np.stack([numbers[:, _POSITION[RANKED_BY]] for _, numbers in found], axis=1)
    placed = ranks(scores)
    spread = np.percentile(placed[1:], (2.5, 97.5), axis=0, method="nearest").astype(int)
    if resampling.n_groups < 2:  # one group drawn again and again says nothing about ranks
        spread = np.repeat([[1], [len(runs)]], len(runs), axis=1)
    rows = [
        Row(
            **_about(run),
            n_samples=len(common),
            coverage=_coverage(table, common),
            rank=int(placed[0, k]),
            rank_low=int(spread[0, k]),
            rank_high=int(spread[1, k]),
            metrics=_values(run, *found[k], resampling),
        )
        for k, (run, table) in enumerate(zip(runs, tables, strict=True))
    ]
    order = sorted(range(len(rows)), key=lambda k: (rows[k].rank, rows[k].model))
    return tuple(rows[k] for k in order), _ties([rows[k].model for k in order], scores[:, order])


def _with_clean_part(run: StoredRun, table: pd.DataFrame) -> pd.DataFrame:
    """With the column `clean`: 1 where the model cannot have seen the sample in training."""
    trained_on = run.provenance.get("training_data") or ()
    answers = [
        seen(trained_on, source, composition)
        for source, composition in zip(table["source"], table["group"], strict=True)
    ]
    return table.assign(clean=[float(answer is Seen.NO) for answer in answers])


def _model(
    table: pd.DataFrame, common: Sequence[str], resampling: Resampling
) -> tuple[NDArray[np.int64], Floats]:
    """Samples that count (n_metrics,), and estimates (1 + replicates, n_metrics)."""
    values, weights = per_sample(table, _SAMPLED, common)
    numbers = estimates([metric.reduce for metric in _SAMPLED], values, weights, resampling)
    skill = np.array([metric.reduce is Reduce.SKILL for metric in _SAMPLED])
    counted = np.isfinite(values) & np.isfinite(weights) & (skill | (weights != 0))
    return counted.sum(axis=0), numbers


def _values(
    run: StoredRun, counts: NDArray[np.int64], numbers: Floats, resampling: Resampling
) -> dict[str, Value]:
    values = {}
    for name, metric in METRICS.items():
        if metric.reduce is Reduce.PER_RUN:
            recorded = run.provenance.get(metric.column)
            values[name] = Value(
                value=round_significant(recorded),
                ci_low=None,
                ci_high=None,
                n=len(resampling.membership),
            )
            continue
        k = _POSITION[name]
        values[name] = _value(metric, numbers[:, k], int(counts[k]), resampling.n_groups)
    return values


def _value(metric: Metric, numbers: Floats, count: int, n_groups: int) -> Value:
    point = float(numbers[0])
    low = high = float("nan")
    if metric.reduce is Reduce.PROPORTION and count:
        low, high = wilson(point, count)
    elif np.isfinite(point) and n_groups > 1:
        low, high = interval(numbers[1:])
    return Value(
        value=round_significant(point),
        ci_low=round_significant(low),
        ci_high=round_significant(high),
        n=count,
    )


def _ties(models: Sequence[str], scores: Floats) -> tuple[tuple[str, str], ...]:
    """Pairs whose difference's interval contains 0; this is not transitive."""
    ties = []
    for first, second in combinations(range(len(models)), 2):
        low, high = interval(scores[1:, first] - scores[1:, second])
        if low <= 0 <= high:
            ties.append((models[first], models[second]))
    return tuple(ties)


def _coverage(table: pd.DataFrame, common: Iterable[str]) -> dict[str, int]:
    counts = Counter(table.loc[table["sample_id"].isin(list(common)), "status"])
    return {str(status): int(counts[str(status)]) for status in Status}


def _about(run: StoredRun) -> dict[str, Any]:
    trained_on = tuple(run.provenance.get("training_data", ()))
    return {
        "model": run.name,
        "label": str(run.identity.get("label", run.name)),
        "family": str(run.identity["family"]),
        "weights": run.identity.get("weights"),
        "weights_sha256": run.identity.get("weights_sha256"),
        "training_data": trained_on,
        "track": track(trained_on),
        "functional": run.provenance.get("functional"),
    }


def _dataset(runs: Sequence[StoredRun], common: Sequence[str]) -> dict[str, Any]:
    listed = max((each.provenance.get("quarantined") or [] for each in runs), key=len)
    reasons = Counter(str(entry["reason"]) for entry in listed)
    identity = runs[0].identity
    return {
        "name": identity["dataset"],
        "revision": identity["revision"],
        "split": identity.get("split"),
        "n_samples": len(common),
        "ids_sha256": ids_sha256(common),
        "quarantined": dict(sorted(reasons.items())),
    }


def _environment(runs: Sequence[StoredRun]) -> dict[str, Any]:
    """What the rows were made with; where runs differ, all values are named."""
    packages: dict[str, set[str]] = {}
    for run in runs:
        for package, version in (run.provenance.get("packages") or {}).items():
            packages.setdefault(package, set()).add(str(version))
    return {
        **{key: _joined(run.provenance.get(key) for run in runs) for key in _MACHINE},
        "packages": {package: _joined(packages[package]) for package in sorted(packages)},
    }


_MACHINE: Final = ("cpu", "device", "python", "threads")


def _joined(values: Iterable[Any]) -> str:
    return "; ".join(sorted({str(value) for value in values if value is not None}))


def _unshared(
    runs: Sequence[StoredRun], tables: Sequence[pd.DataFrame], common: Sequence[str]
) -> list[str]:
    pairs = zip(runs, tables, strict=True)
    sizes = {run.name: table["sample_id"].nunique() for run, table in pairs}
    larger = [f"{name} {size}" for name, size in sizes.items() if size != len(common)]
    if not larger:
        return []
    shared = f"Compared on the {len(common)} samples that all rows share"
    return [f"{shared}; run on more: {', '.join(larger)}."]


def _left_out(ended: Sequence[StoredRun]) -> list[str]:
    return [
        f"Not ranked: {run.name}, whose run ended early ({run.provenance['aborted']})."
        for run in ended
    ]
