"""Errors by setting, and how far the target moves beside them, as numbers with intervals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from benchmarks.core import Status
from benchmarks.core.statistics import Resampling, estimates, interval, round_significant
from benchmarks.metrics import METRICS, Reduce, score
from leaderboard.board.scores import per_sample
from studies.dft_settings.materials import DIFFERENCES, SETTINGS, UNKNOWN

if TYPE_CHECKING:
    import pandas as pd

    from benchmarks.data import Dataset

TARGET: Final = "target"
"""Stands in place of a model for the differences between relaxations."""
IDENTITY: Final = "identity"
PAIR: Final = "functionals"
ANY_TWO: Final = "any two functionals"
"""Label of all pairs of different functionals, where there are several."""
REPLICATES: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingEstimate:
    """One number of a table; None where it does not apply."""

    by: str
    """A name in `SETTINGS`, or `PAIR`."""
    label: str
    metric: str
    model: str
    """Name of the model, or `TARGET`."""
    n: int
    """Number of scored samples; in a comparison of two functionals, number of materials."""
    n_compositions: int
    """Number of compositions, which the bootstrap draws."""
    mean: float | None
    ci_low: float | None
    ci_high: float | None
    median: float | None


def errors_of(table: pd.DataFrame) -> pd.DataFrame:
    """Errors of a run: (n_samples, `DIFFERENCES`), nan where a sample was not scored.

    Args:
        table: `scores` of the run.
    """
    import pandas as pd

    ids = sorted(set(table["sample_id"]))
    values, _ = per_sample(table, [METRICS[name] for name in DIFFERENCES], ids)
    return pd.DataFrame(values, index=ids, columns=DIFFERENCES)


def errors_of_identity(dataset: Dataset) -> pd.DataFrame:
    """The same number for predicting no change, which needs no run."""
    import pandas as pd

    rows = []
    for position, sample_id in enumerate(dataset.ids):
        initial, final = dataset.geometries(position)
        rows.append({"sample_id": sample_id, **score(initial, final, initial, Status.OK)})
    return errors_of(pd.DataFrame(rows))


def by_setting(
    errors: Mapping[str, pd.DataFrame], samples: pd.DataFrame
) -> Iterator[SettingEstimate]:
    """Errors of each model in each slice; settings that nothing is known of are passed over.

    Args:
        errors: `errors_of` each model.
        samples: Index sample_id, `SETTINGS` and composition.
    """
    for by in SETTINGS:
        if by != "functional" and (samples[by] == UNKNOWN).all():
            continue
        for label, part in samples.groupby(by):
            for metric in DIFFERENCES:
                for model, table in errors.items():
                    values = table[metric].reindex(part.index)
                    yield _estimate(by, str(label), metric, model, values, part["composition"])


def by_pair(errors: Mapping[str, pd.DataFrame], pairs: pd.DataFrame) -> Iterator[SettingEstimate]:
    """The shift of the target, and the errors of the models on the same samples.

    Each material counts once, by the median over its pairs of relaxations or over its samples.

    Args:
        errors: `errors_of` each model.
        pairs: As `materials.pairs` gives them.
    """
    parts = {str(label): part for label, part in pairs.groupby("functionals")}
    several = [label for label in parts if two_functionals(label)]
    if len(several) > 1:
        parts[ANY_TWO] = pairs[pairs["functionals"].isin(several)]
    for label, part in parts.items():
        for metric in DIFFERENCES:
            counted = part[part[metric].notna()]
            compositions = counted.groupby("material")["composition"].first()
            ends = counted.melt("material", ["first", "second"], value_name="sample_id")
            ends = ends.drop_duplicates(["material", "sample_id"]).set_index("sample_id")
            moved = {TARGET: counted.groupby("material")[metric].median()}
            for model, table in errors.items():
                values = table[metric].reindex(ends.index)
                moved[model] = values.groupby(ends["material"]).median()
            for model, values in moved.items():
                yield _estimate(PAIR, label, metric, model, values, compositions)


def two_functionals(label: str) -> bool:
    """True if a pair such as `pbe, pbesol` has two functionals."""
    first, second = label.split(", ")
    return first != second


def _estimate(
    by: str, label: str, metric: str, model: str, values: pd.Series, compositions: pd.Series
) -> SettingEstimate:
    """Estimate the mean of the values that are not nan.

    The bootstrap draws `compositions`, which have the index of `values`.
    """
    counted = values.dropna()
    groups = list(compositions.loc[counted.index])
    mean = low = high = np.nan
    if len(counted):
        resampling = Resampling.of(groups, REPLICATES, np.random.default_rng(0))
        column = counted.to_numpy(dtype=float)[:, None]
        means = estimates([Reduce.MEAN], column, np.ones_like(column), resampling)[:, 0]
        mean = means[0]
        low, high = interval(means[1:]) if resampling.n_groups > 1 else (np.nan, np.nan)
    return SettingEstimate(
        by=by, label=label, metric=metric, model=model, n=len(counted),
        n_compositions=len(set(groups)), mean=round_significant(mean),
        ci_low=round_significant(low),
        ci_high=round_significant(high), median=round_significant(counted.median()),
    )  # fmt: skip
