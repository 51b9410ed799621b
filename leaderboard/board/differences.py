"""How far two models are apart: mean paired differences with intervals.

Written as `differences.md` beside each board, against every model on it that is no language model.
Whether two intervals on the board overlap does not tell; whether that of the difference contains 0
does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from benchmarks.core.statistics import Floats, Resampling, estimates, interval
from benchmarks.metrics import METRICS, Reduce
from leaderboard.board.samples import per_sample

if TYPE_CHECKING:
    import pandas as pd

COMPARED: Final[Mapping[str, int]] = {
    "score": 3,
    "lattice_mae": 3,
    "volume_mape": 2,
    "strain": 4,
    "position_mae": 4,
}
"""Metrics, each a mean over samples, and the digits to show."""
_INTRODUCTION: Final = (
    "Row minus column, the mean over the samples that both scored (all samples for the score, "
    "where a failure earns 0), with its 95 % interval from the board's paired bootstrap over "
    "compositions; **bold** where it excludes 0. Lower is better but for the score.\n"
)


def markdown(
    models: Sequence[str],
    rivals: Sequence[str],
    tables: Sequence[pd.DataFrame],
    ids: Sequence[str],
    resampling: Resampling,
    heading: str,
) -> str:
    """One table for each of `COMPARED`: every model against each rival.

    Args:
        models: Names, in the order of the rows.
        rivals: Those of them that the others are compared with.
        tables: `scores` of each model.
        ids: Samples that all tables share.
        resampling: Of these samples.
        heading: Title of the board.
    """
    metrics = [METRICS[name] for name in COMPARED]
    values = {
        model: per_sample(table, metrics, ids)[0]
        for model, table in zip(models, tables, strict=True)
    }
    parts = [f"# Differences: {heading}\n", _INTRODUCTION]
    for k, metric in enumerate(metrics):
        unit = f" ({metric.unit})" if metric.unit else ""
        lines = [
            f"| {metric.name}{unit} | {' | '.join(f'− {rival}' for rival in rivals)} |",
            f"| --- |{' ---: |' * len(rivals)}",
        ]
        for model in models:
            cells = (
                _cell(values[model][:, k] - values[rival][:, k], resampling, COMPARED[metric.name])
                if model != rival
                else ""
                for rival in rivals
            )
            lines.append(f"| {model} | {' | '.join(cells)} |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _cell(differences: Floats, resampling: Resampling, digits: int) -> str:
    column = differences[:, None]
    found = estimates([Reduce.MEAN], column, np.ones_like(column), resampling)[:, 0]
    count = int(np.isfinite(differences).sum())
    if not count:
        return "—"
    low, high = interval(found[1:]) if resampling.n_groups > 1 else (np.nan, np.nan)
    # + 0.0: no minus before a zero that rounding made
    point, low, high = (round(x, digits) + 0.0 for x in (float(found[0]), low, high))
    text = f"{point:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"
    apart = f"**{text}**" if low > 0 or high < 0 else text
    return apart if count == len(differences) else f"{apart}, n = {count}"
