"""Values of metrics for each sample: failures filled in, repeats averaged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchmarks.core.statistics import Floats
from benchmarks.metrics import Metric

if TYPE_CHECKING:
    import pandas as pd


def per_sample(
    table: pd.DataFrame, metrics: Sequence[Metric], ids: Sequence[str]
) -> tuple[Floats, Floats]:
    """Values and weights, each (n_samples, n_metrics) in the order of `ids`.

    Args:
        table: `scores` of one run.
        metrics: What is wanted; none of `Reduce.PER_RUN`.
        ids: Samples, all of them in the table.
    """
    failed = table["scored"].to_numpy() == 0
    values = np.stack([_filled(table, metric, failed) for metric in metrics], axis=1)
    weights = np.stack([_weights(table, metric) for metric in metrics], axis=1)
    return _means(table, values, ids), _means(table, weights, ids)


def _filled(table: pd.DataFrame, metric: Metric, failed: NDArray[np.bool_]) -> Floats:
    """The metric's column with the value of a failure filled in."""
    values = table[metric.column].to_numpy(dtype=float)
    if metric.failure is None:
        return values
    if isinstance(metric.failure, str):
        return np.where(failed, table[metric.failure].to_numpy(dtype=float), values)
    # a rung of the ladder has a value for an invalid answer, which stays
    return np.where(failed & np.isnan(values), metric.failure, values)


def _weights(table: pd.DataFrame, metric: Metric) -> Floats:
    if metric.weight is None:
        return np.ones(len(table))
    return table[metric.weight].to_numpy(dtype=float)


def _means(table: pd.DataFrame, columns: Floats, ids: Sequence[str]) -> Floats:
    """Mean over the repeats of each sample."""
    import pandas as pd

    means = pd.DataFrame(columns).groupby(table["sample_id"].to_numpy()).mean()
    return means.loc[list(ids)].to_numpy(dtype=float)
