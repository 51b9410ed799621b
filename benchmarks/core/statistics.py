"""Numbers of a metric from per-sample values, with intervals from one paired bootstrap.

Groups (all samples of one reduced composition) are drawn with replacement, so that near-copies do
not narrow an interval. All models and metrics share one matrix of group weights: that makes the
comparison paired and the linear metrics one matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Reduce(StrEnum):
    """How per-sample values x with weights w become one number."""

    MEAN = "sum w x / sum w"
    ROOT_MEAN = "(sum w x / sum w)^½"
    INVERSE_MEAN = "sum w / sum w x"
    SKILL = "1 - sum x / sum w, where w is identity's error; null if identity's mean is below 1e-4"
    PROPORTION = "sum w x / sum w, with Wilson's interval"
    MEDIAN = "median of x"
    P95 = "95th percentile of x"
    PER_RUN = "one number of the whole run, from its provenance"


LEVEL: Final = (2.5, 97.5)
"""Percentiles of the 95 % interval."""
NULL_SKILL: Final = 1e-4
"""Identity's mean error [Å or %] below which a skill would divide by nothing."""
_QUANTILES: Final = {Reduce.MEDIAN: 0.5, Reduce.P95: 0.95}


@dataclass(frozen=True, slots=True)
class Resampling:
    """Bootstrap weights over groups of samples."""

    membership: NDArray[np.intp]
    """(n_samples,) index of each sample's group."""
    weights: Floats
    """(1 + replicates, n_groups) how often each group is drawn; the first row is all ones."""

    @classmethod
    def of(cls, groups: Sequence[str], replicates: int, rng: np.random.Generator) -> Self:
        """Draw `replicates` samples of as many groups as there are."""
        names, membership = np.unique(np.array(groups, dtype=str), return_inverse=True)
        count = len(names)
        drawn = rng.multinomial(count, np.full(count, 1 / count), size=replicates)
        return cls(membership, np.concatenate([np.ones((1, count)), drawn]))

    @property
    def n_groups(self) -> int:
        """How many groups there are; one alone gives no interval."""
        return int(self.weights.shape[1])

    def sums(self, values: Floats) -> Floats:
        """Weighted sums over samples of each column: (n_samples, k) -> (1 + replicates, k)."""
        by_group = np.zeros((self.n_groups, values.shape[1]))
        np.add.at(by_group, self.membership, values)
        product: Floats = self.weights @ by_group
        return product

    def quantile(self, values: Floats, share: float) -> Floats:
        """Weighted quantile, averaged at steps: (n_samples,) without nan -> (1 + replicates,)."""
        order = np.argsort(values, kind="stable")
        upto = np.cumsum(self.weights[:, self.membership[order]], axis=1)
        target = share * upto[:, -1:]
        last = len(values) - 1
        low = np.minimum((upto < target).sum(axis=1), last)
        high = np.minimum((upto <= target).sum(axis=1), last)
        ordered = values[order]
        found = (ordered[low] + ordered[high]) / 2
        return np.where(upto[:, -1] > 0, found, np.nan)


def estimates(
    reduces: Sequence[Reduce], values: Floats, weights: Floats, resampling: Resampling
) -> Floats:
    """Every metric at the point (row 0) and in each replicate.

    Args:
        reduces: One per metric; linear ones and quantiles.
        values: (n_samples, n_metrics), nan where a sample does not count.
        weights: (n_samples, n_metrics), likewise.
        resampling: Shared by all models that are compared.

    Returns:
        (1 + replicates, n_metrics), nan where nothing counts.
    """
    counts = np.isfinite(values) & np.isfinite(weights)
    x, w = np.where(counts, values, 0.0), np.where(counts, weights, 0.0)
    skill = np.array([reduce is Reduce.SKILL for reduce in reduces])
    top, bottom = resampling.sums(np.where(skill, x, x * w)), resampling.sums(w)
    size = resampling.sums(counts.astype(float))
    with np.errstate(divide="ignore", invalid="ignore"):
        means = top / bottom
        floor = bottom / size
    result = np.full_like(means, np.nan)
    for k, reduce in enumerate(reduces):
        if reduce in _QUANTILES:
            result[:, k] = _quantile(values[:, k], _QUANTILES[reduce], resampling)
        else:
            result[:, k] = _finish(reduce, means[:, k], floor[:, k])
    return result


def _quantile(values: Floats, share: float, resampling: Resampling) -> Floats | float:
    counts = np.isfinite(values)
    if not counts.any():
        return np.nan
    part = Resampling(resampling.membership[counts], resampling.weights)
    return part.quantile(values[counts], share)


def _finish(reduce: Reduce, mean: Floats, floor: Floats) -> Floats:
    match reduce:
        case Reduce.ROOT_MEAN:
            return np.sqrt(mean)
        case Reduce.INVERSE_MEAN:
            with np.errstate(divide="ignore"):
                return 1 / mean
        case Reduce.SKILL:
            return np.where(floor < NULL_SKILL, np.nan, 1 - mean)
        case _:
            return mean


def interval(replicates: Floats) -> tuple[float, float]:
    """The 95 % percentile interval of (replicates,) estimates; nan without any."""
    finite = replicates[np.isfinite(replicates)]
    if not len(finite):
        return float("nan"), float("nan")
    low, high = np.percentile(finite, LEVEL)
    return float(low), float(high)


def round_significant(number: float | None) -> float | None:
    """Six significant digits and no rounding noise: a board is the same wherever it is added up."""
    if number is None or not np.isfinite(number):
        return None
    return float(f"{number:.6g}") if abs(number) > 1e-9 else 0.0


def wilson(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion over `count` samples."""
    z = 1.959963984540054
    centre = share + z * z / (2 * count)
    half = z * np.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return max(0.0, float((centre - half) / scale)), min(1.0, float((centre + half) / scale))


def ranks(scores: Floats) -> NDArray[np.int64]:
    """Rank of each model in each row, best first, equals sharing the better rank.

    Args:
        scores: (n_rows, n_models), higher is better.
    """
    better = scores[:, None, :] > scores[:, :, None]
    ranked: NDArray[np.int64] = 1 + better.sum(axis=2)
    return ranked
