"""The scores of single samples as a script, so that a reader's filters can compute a board again.

`window.BOARD` has the ids and the properties of the samples, and of each metric of the table the
value of each model for each sample: failures filled in and repeats averaged, as the board itself
adds them up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.core.statistics import Floats
from benchmarks.metrics import METRICS, Reduce
from leaderboard.board.schema import Board
from leaderboard.board.scores import per_sample, unseen
from leaderboard.scoring import ScoredRuns
from leaderboard.site.board_table import PARTS, SHOWN, recomputable


def sample_ids(board: Board, scored: ScoredRuns) -> list[str]:
    """The ids of the samples that a board is over, sorted."""
    ranked = {row.model for row in board.rows}
    sets = [
        set(table["sample_id"])
        for run, table in zip(scored.runs, scored.tables, strict=True)
        if run.name in ranked
    ]
    return sorted(set.intersection(*sets)) if sets else []


def board_data(
    board: Board, scored: ScoredRuns, pages: dict[str, str], ids: Sequence[str]
) -> dict[str, Any]:
    """What `window.BOARD` holds.

    Args:
        board: A board.
        scored: Its runs.
        pages: The address of each sample that has a page.
        ids: `sample_ids` of the board.
    """
    by_name = {
        run.name: (run, table) for run, table in zip(scored.runs, scored.tables, strict=True)
    }
    models = [row.model for row in board.rows]
    names = [name for name in (*SHOWN, *PARTS) if recomputable(name)]
    metrics = [METRICS[name] for name in names]
    if not models:
        return {"name": board.name, "ids": [], "models": [], "metrics": []}
    about = by_name[models[0]][1].drop_duplicates("sample_id").set_index("sample_id").loc[list(ids)]
    values, weights = [], []
    for model in models:
        run, table = by_name[model]
        marked = table.assign(clean=unseen(run, table))
        found, weighed = per_sample(marked, metrics, ids)
        values.append(found)
        weights.append(weighed)
    listed = []
    for k, metric in enumerate(metrics):
        entry: dict[str, Any] = {
            "name": metric.name,
            "reduce": metric.reduce.name,
            "values": [_numbers(found[:, k]) for found in values],
        }
        if metric.weight is not None or metric.reduce is Reduce.SKILL:
            entry["weights"] = [_numbers(weighed[:, k]) for weighed in weights]
        listed.append(entry)
    return {
        "name": board.name,
        "models": models,
        "ids": list(ids),
        "pages": [pages.get(each, "") for each in ids],
        "group": about["group"].tolist(),
        "functional": about["functional"].tolist(),
        "source": about["source"].tolist(),
        "system": about["crystal_system"].tolist(),
        "sites": [int(n) for n in about["n_sites"]],
        "metrics": listed,
    }


def _numbers(column: Floats) -> list[float | None]:
    """Five digits are enough for the three that are shown; nan is null."""
    finite = np.isfinite(column)
    numbers = np.where(finite, column, 0.0)
    size = np.abs(numbers)
    # as a whole number over a power of ten, which is the nearest float of a short decimal
    exponent = np.clip(4 - np.floor(np.log10(np.where(size > 1e-9, size, 1.0))), 0, 15)
    power = 10.0**exponent
    rounded = (np.round(numbers * power) / power + 0.0).tolist()
    return [x if known else None for x, known in zip(rounded, finite.tolist(), strict=True)]
