"""How far two models are apart, and where a model is good: paired differences and slices.

Whether two intervals on the board overlap does not tell if two models differ; whether the interval
of their paired difference contains 0 does. Slices are small: the number of samples stands with
each. All intervals come from paired bootstraps over compositions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, pairwise, product
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.core.statistics import Estimate, Floats, Resampling
from benchmarks.data.exposure import drawn_from
from benchmarks.metrics import METRICS
from benchmarks.store import StoredRun
from leaderboard.board.schema import Conclusion, DifferenceTable, Slice, SliceTable, TrainingSlice
from leaderboard.board.scores import per_sample, unseen

if TYPE_CHECKING:
    import pandas as pd

REPLICATES: Final = 1000
COMPARED: Final[Mapping[str, int]] = {
    "score": 3,
    "lattice_mae": 3,
    "volume_mape": 2,
    "strain": 4,
    "position_mae": 4,
}
"""Metrics that are means over samples, and the decimals to which differences are rounded."""
SLICE_DIGITS: Final = 3
"""The decimals to which the scores of slices are rounded."""
ERRORS: Final = ("lattice_error", "volume_error", "strain", "position_error")
"""The columns of `scores` that a known answer is checked by."""
SAME_ERRORS: Final = 1e-6
"""The largest difference from the errors of no change that is a rounding error [Å, % or 1]."""
SITES: Final = (0, 2, 4, 8, 16, 64, np.inf)
"""Edges of the numbers of sites; an upper edge belongs to its slice."""
CHANGE: Final = (0, 1, 5, 15, np.inf)
"""Edges of the change of volume from start to reference [%]."""


def differences(
    models: Sequence[str],
    rivals: Sequence[str],
    tables: Sequence[pd.DataFrame],
    ids: Sequence[str],
    resampling: Resampling,
) -> tuple[DifferenceTable, ...]:
    """Compare every model with each rival, in one table for each of `COMPARED`.

    Args:
        models: Names, in the order of the rows.
        rivals: The models that the others are compared with.
        tables: `scores` of each model.
        ids: Samples that all tables share.
        resampling: Bootstrap weights of these samples.
    """
    metrics = [METRICS[name] for name in COMPARED]
    values = {
        model: per_sample(table, metrics, ids)[0]
        for model, table in zip(models, tables, strict=True)
    }
    ones = np.ones(len(ids))
    # of two rivals, one difference is the other with the other sign
    pairs = [
        pair
        for pair in product(models, rivals)
        if pair[0] != pair[1] and not (set(pair) <= set(rivals) and pair[0] > pair[1])
    ]
    tables_of_metrics = []
    for k, (name, digits) in enumerate(COMPARED.items()):
        columns = ((values[model][:, k] - values[rival][:, k], ones) for model, rival in pairs)
        found = dict(zip(pairs, Estimate.means(columns, resampling, digits), strict=True))
        found = {pair[::-1]: -found[pair] for pair in pairs} | found
        cells = {
            model: {rival: found[model, rival] for rival in rivals if rival != model}
            for model in models
        }
        tables_of_metrics.append(
            DifferenceTable(metric=name, digits=digits, rivals=tuple(rivals), cells=cells)
        )
    return tuple(tables_of_metrics)


def conclusions(
    runs: Sequence[StoredRun],
    tables: Sequence[pd.DataFrame],
    ids: Sequence[str],
    replicates: int,
    seed: int,
) -> tuple[Conclusion, ...]:
    """Compare the scores of all pairs of models, on all samples and on those that are clean.

    Args:
        runs: The runs in the order of the rows.
        tables: `scores` of each run.
        ids: Samples that all tables share.
        replicates: Number of bootstrap replicates, which are drawn for each part of the samples.
        seed: Of the bootstrap.
    """
    scores, clean = [], []
    for run, table in zip(runs, tables, strict=True):
        scores.append(per_sample(table, [METRICS["score"]], ids)[0][:, 0])
        once = table.drop_duplicates("sample_id").set_index("sample_id").loc[list(ids)]
        clean.append(unseen(run, once) == 1)
        groups = once["group"].to_numpy()
    pairs = list(combinations(range(len(runs)), 2))
    parts: dict[bytes, list[tuple[int, int]]] = {}
    everything = np.ones(len(ids), dtype=bool).tobytes()
    for i, j in pairs:
        parts.setdefault((clean[i] & clean[j]).tobytes(), []).append((i, j))
    found: dict[bytes, dict[tuple[int, int], Estimate]] = {}
    for part, its_pairs in {**parts, everything: pairs}.items():
        kept = np.frombuffer(part, dtype=bool)
        if not kept.any():
            found[part] = dict.fromkeys(its_pairs, Estimate.of(None, None, 0))
            continue
        drawn = Resampling.of(list(groups[kept]), replicates, np.random.default_rng(seed))
        ones = np.ones(int(kept.sum()))
        columns = ((scores[i][kept] - scores[j][kept], ones) for i, j in its_pairs)
        found[part] = dict(zip(its_pairs, Estimate.means(columns, drawn), strict=True))
    return tuple(
        Conclusion(
            better=runs[i].name,
            worse=runs[j].name,
            everywhere=found[everything][i, j],
            clean=found[(clean[i] & clean[j]).tobytes()][i, j],
        )
        for i, j in pairs
    )


class Power(NamedTuple):
    """Half widths of the intervals of the paired differences of scores, over all pairs."""

    smallest: float
    median: float
    largest: float


def power(conclusions: Sequence[Conclusion]) -> Power | None:
    """The smallest differences of scores that the samples can show; None without a pair."""
    found = [each.everywhere for each in conclusions]
    halves = [
        (each.high - each.low) / 2
        for each in found
        if each.low is not None and each.high is not None and each.high > each.low
    ]
    if not halves:
        return None
    return Power(min(halves), float(np.median(halves)), max(halves))


def control_gap(table: pd.DataFrame, unchanged: pd.DataFrame) -> float:
    """The largest difference of a control's errors from those of no change; inf after a failure.

    Args:
        table: `scores` of the control.
        unchanged: `scores` of the model that predicts no change.
    """
    theirs = unchanged.drop_duplicates("sample_id").set_index("sample_id")[list(ERRORS)]
    gaps = table.set_index("sample_id")[list(ERRORS)] - theirs.reindex(table["sample_id"])
    return float(gaps.abs().to_numpy().max()) if gaps.notna().to_numpy().all() else float("inf")


def _binned(edges: Sequence[float], unit: str) -> Callable[[pd.Series], pd.Series]:
    def labels(column: pd.Series) -> pd.Series:
        import pandas as pd

        names = [
            f"{low:g} to {high:g}{unit}" if np.isfinite(high) else f"over {low:g}{unit}"
            for low, high in pairwise(edges)
        ]
        return pd.cut(column, list(edges), labels=names, include_lowest=True)

    return labels


def _as_it_is(column: pd.Series) -> pd.Series:
    return column


SLICED_BY: Final[Mapping[str, tuple[str, Callable[[pd.Series], pd.Series]]]] = {
    "Functional": ("functional", _as_it_is),
    "Source": ("source", _as_it_is),
    "Sites (more than, up to)": ("n_sites", _binned(SITES, "")),
    "Crystal system of the start": ("crystal_system", _as_it_is),
    "Change of volume (more than, up to)": ("identity_volume_error", _binned(CHANGE, " %")),
}
"""Titles of the tables, the column that each is about, and the label of each sample in it."""


def slices(
    runs: Sequence[StoredRun], tables: Sequence[pd.DataFrame], ids: Sequence[str]
) -> tuple[tuple[SliceTable, ...], tuple[TrainingSlice, ...]]:
    """The score of every model in every slice of the samples, and by its training sources.

    Args:
        runs: One per model, of one data set.
        tables: `scores` of each run, in the same order.
        ids: Samples that all tables share.

    Returns:
        One table for each property of which there are several values, and one line for each model.
    """
    scores = np.stack([_score(table, ids) for table in tables], axis=1)
    about = tables[0].drop_duplicates("sample_id").set_index("sample_id").loc[list(ids)]
    groups = list(about["group"])
    found = []
    for title, (column, by) in SLICED_BY.items():
        if column not in about:  # an older or damaged table
            continue
        labels = by(about[column]).astype(object).fillna("unknown").astype(str).to_numpy()
        if len(set(labels)) < 2:
            continue
        parts = []
        for label in sorted(set(labels), key=_by_size):
            inside = np.flatnonzero(labels == label).tolist()
            means = _means(inside, groups, scores)
            by_model = {run.name: mean for run, mean in zip(runs, means, strict=True)}
            parts.append(Slice(label=label, n=len(inside), scores=by_model))
        found.append(SliceTable(title=title, digits=SLICE_DIGITS, slices=tuple(parts)))
    contained: dict[str, Estimate] = {}
    not_contained: dict[str, Estimate] = {}
    alike: dict[tuple[bool, ...], list[int]] = {}
    for k, run in enumerate(runs):
        trained_on = run.provenance.get("training_data") or ()
        answers = {source: drawn_from(trained_on, source) for source in set(about["source"])}
        alike.setdefault(tuple(answers[source] for source in about["source"]), []).append(k)
    for told, places in alike.items():
        for answer, by_run in ((True, contained), (False, not_contained)):
            inside = [i for i, each in enumerate(told) if each is answer]
            means = _means(inside, groups, scores[:, places])
            by_run |= {runs[k].name: mean for k, mean in zip(places, means, strict=True)}
    by_training = [
        TrainingSlice(
            model=run.name, contained=contained[run.name], not_contained=not_contained[run.name]
        )
        for run in runs
    ]
    return tuple(found), tuple(by_training)


def _score(table: pd.DataFrame, ids: Sequence[str]) -> Floats:
    """The score of each sample; a failure earns 0."""
    means = table.assign(score=table["score"].fillna(0.0)).groupby("sample_id")["score"].mean()
    return means.loc[list(ids)].to_numpy(dtype=float)


def _means(
    inside: Sequence[int], groups: Sequence[str], scores: NDArray[np.float64]
) -> list[Estimate]:
    """The mean of each column over the samples `inside`; without samples no number."""
    if not inside:
        return [Estimate.of(None, None, 0)] * scores.shape[1]
    resampling = Resampling.of([groups[i] for i in inside], REPLICATES, np.random.default_rng(0))
    ones = np.ones(len(inside))
    columns = ((column, ones) for column in scores[list(inside)].T)
    return list(Estimate.means(columns, resampling, SLICE_DIGITS))


def _by_size(label: str) -> tuple[float, str]:
    """Sorts bins by their numbers, names by the alphabet."""
    number = label.removeprefix("over ").split(" ")[0]
    return (float(number) if number.replace(".", "").isdecimal() else 0.0, label)
