"""Where a model is good and where not: the ranking score by functional, source, size, symmetry.

Written as `slices.md` beside each board. Slices are small: the number of samples stands with each,
and every interval is a paired bootstrap over compositions, as on the board.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.core.statistics import Resampling, interval
from benchmarks.data.exposure import drawn_from
from benchmarks.store import StoredRun

if TYPE_CHECKING:
    import pandas as pd

REPLICATES: Final = 1000
SITES: Final = (0, 2, 4, 8, 16, 64, np.inf)
"""Edges of the sizes; an upper edge belongs to its slice."""
CHANGE: Final = (0, 1, 5, 15, np.inf)
"""Edges of the change of volume from start to reference [%]."""


def _binned(column: str, edges: Sequence[float], unit: str) -> Callable[[pd.DataFrame], pd.Series]:
    def names(table: pd.DataFrame) -> pd.Series:
        import pandas as pd

        labels = [
            f"{low:g} to {high:g}{unit}" if np.isfinite(high) else f"over {low:g}{unit}"
            for low, high in pairwise(edges)
        ]
        return pd.cut(table[column], list(edges), labels=labels, include_lowest=True)

    return names


SLICES: Final[Mapping[str, Callable[[pd.DataFrame], pd.Series]]] = {
    "Functional": lambda table: table["functional"],
    "Source": lambda table: table["source"],
    "Sites (more than, up to)": _binned("n_sites", SITES, ""),
    "Crystal system of the start": lambda table: table["crystal_system"],
    "Change of volume (more than, up to)": _binned("identity_volume_error", CHANGE, " %"),
}
"""Title of each table, and what it slices by."""


def markdown(runs: Sequence[StoredRun], tables: Sequence[pd.DataFrame], heading: str) -> str:
    """Tables of the score of every model in every slice, over the samples that all share.

    Args:
        runs: One per model, of one data set.
        tables: `scores` of each run, in the same order.
        heading: Title of the board.
    """
    shared = sorted(set.intersection(*(set(table["sample_id"]) for table in tables)))
    scores = np.stack([_score(table, shared) for table in tables], axis=1)
    about = tables[0].drop_duplicates("sample_id").set_index("sample_id").loc[shared]
    names = [run.name for run in runs]
    parts = [f"# Slices: {heading}\n", _INTRODUCTION]
    for title, by in SLICES.items():
        labels = by(about).astype(str).to_numpy()
        if len(set(labels)) > 1:
            parts.append(_table(title, names, labels, list(about["group"]), scores))
    parts.append(_by_training(runs, list(about["source"]), list(about["group"]), scores))
    return "\n".join(parts)


def _by_training(
    runs: Sequence[StoredRun],
    sources: Sequence[str],
    groups: Sequence[str],
    scores: NDArray[np.float64],
) -> str:
    """Each model where its training data contain the sample's source, and where they do not."""
    lines = [
        "| Training sources contain the sample's source | n yes | score | n no | score |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for k, run in enumerate(runs):
        trained_on = run.provenance.get("training_data") or ()
        seen = [drawn_from(trained_on, source) for source in sources]
        cells = []
        for answer in (True, False):
            inside = [i for i, each in enumerate(seen) if each is answer]
            cell = _means(inside, groups, scores[:, k : k + 1])[0] if inside else "—"
            cells.append(f"{len(inside)} | {cell}")
        lines.append(f"| {run.name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


_INTRODUCTION = (
    "Score (mean of `adwt` and `strain_awt`, a failure earns 0) with its 95 % interval, a paired "
    "bootstrap over compositions; n samples. A slice of one composition has no interval.\n"
)


def _score(table: pd.DataFrame, shared: Sequence[str]) -> NDArray[np.float64]:
    means = table.assign(score=table["score"].fillna(0.0)).groupby("sample_id")["score"].mean()
    return means.loc[list(shared)].to_numpy(dtype=float)


def _table(
    title: str,
    names: Sequence[str],
    labels: NDArray[np.object_],
    groups: Sequence[str],
    scores: NDArray[np.float64],
) -> str:
    lines = [f"| {title} | n | {' | '.join(names)} |", f"| --- | ---: |{' ---: |' * len(names)}"]
    for label in sorted(set(labels), key=_by_size):
        inside = np.flatnonzero(labels == label).tolist()
        cells = _means(inside, groups, scores)
        lines.append(f"| {label} | {len(inside)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _means(inside: Sequence[int], groups: Sequence[str], scores: NDArray[np.float64]) -> list[str]:
    """Mean of each column over the samples `inside`, with its interval."""
    resampling = Resampling.of([groups[i] for i in inside], REPLICATES, np.random.default_rng(0))
    weight = resampling.sums(np.ones((len(inside), 1)))
    means = resampling.sums(scores[list(inside)]) / weight
    return [_cell(column, resampling.n_groups) for column in means.T]


def _by_size(label: str) -> tuple[float, str]:
    """Bins in the order of their numbers, names by the alphabet."""
    number = label.removeprefix("over ").split(" ")[0]
    return (float(number) if number.replace(".", "").isdecimal() else 0.0, label)


def _cell(means: NDArray[np.float64], n_groups: int) -> str:
    if n_groups < 2:
        return f"{means[0]:.3f}"
    low, high = interval(means[1:])
    return f"{means[0]:.3f} [{low:.3f}, {high:.3f}]"
