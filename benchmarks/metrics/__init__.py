"""The worth of a prediction, per sample and on the board.

`score` and `score_slow` turn (initial, reference, prediction) into the columns of one sample.
`validity` decides which predictions are invalid. `METRICS` says how a column becomes a number of
the leaderboard: its unit, its direction, its reduction over samples, and the value of a failure.
The summary of a board is driven by that table alone.
"""

from benchmarks.core.statistics import Reduce
from benchmarks.metrics.columns import COLUMNS, EVALUATOR, SLOW_COLUMNS, score, score_slow
from benchmarks.metrics.table import METRICS, Metric

__all__ = [
    "COLUMNS",
    "EVALUATOR",
    "METRICS",
    "SLOW_COLUMNS",
    "Metric",
    "Reduce",
    "score",
    "score_slow",
]
