"""Metrics from values of samples, with intervals from one paired bootstrap.

The bootstrap draws groups with replacement. A group is all samples of one reduced composition, so
that near-copies of a crystal do not narrow an interval. All models and metrics share one matrix of
group weights: this makes the comparison paired, and a linear metric is one matrix product.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import islice
from typing import Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


class Reduce(StrEnum):
    """The rule by which values x of samples, with weights w, become one number."""

    MEAN = "sum w x / sum w"
    ROOT_MEAN = "(sum w x / sum w)^½"
    INVERSE_MEAN = "sum w / sum w x"
    SKILL = "1 - sum x / sum w, where w is identity's error; null if identity's mean is below 1e-4"
    PROPORTION = "sum w x / sum w, with Wilson's interval"
    MEDIAN = "median of x"
    P95 = "95th percentile of x"
    PER_RUN = "one number of the whole run, from its provenance"


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number with its 95 % interval; None where there is none."""

    point: float | None
    low: float | None
    high: float | None
    n: int
    """Number of samples that count."""

    @property
    def sign(self) -> int:
        """1 or -1 if the interval excludes 0, else 0; also 0 without an interval."""
        if self.low is None or self.high is None:
            return 0
        return int(self.low > 0) - int(self.high < 0)

    def __neg__(self) -> Self:
        """The estimate of the number with the other sign."""
        point, low, high = (
            None if x is None else 0.0 - x for x in (self.point, self.high, self.low)
        )
        return replace(self, point=point, low=low, high=high)

    @classmethod
    def of(
        cls,
        point: float | None,
        interval: tuple[float, float] | None,
        n: int,
        digits: int | None = None,
    ) -> Self:
        """Round the numbers to `digits` decimals, or to six significant digits if it is None.

        Numbers that are not finite become None.
        """
        low, high = interval or (None, None)
        rounded = [round_significant(x) for x in (point, low, high)]
        if digits is not None:
            rounded = [
                None if x is None or not np.isfinite(x) else round(float(x), digits) + 0.0
                for x in (point, low, high)
            ]
        return cls(point=rounded[0], low=rounded[1], high=rounded[2], n=n)

    @classmethod
    def mean(
        cls, values: Floats, weights: Floats, resampling: Resampling, digits: int | None = None
    ) -> Self:
        """The weighted mean with its interval from the bootstrap; one group gives no interval.

        Args:
            values: (n_samples,), nan where a sample does not count.
            weights: (n_samples,), likewise.
            resampling: Bootstrap weights of these samples.
            digits: As in `of`.
        """
        return next(cls.means([(values, weights)], resampling, digits))

    @classmethod
    def means(
        cls,
        columns: Iterable[tuple[Floats, Floats]],
        resampling: Resampling,
        digits: int | None = None,
    ) -> Iterator[Self]:
        """`mean` of each column; many columns together are faster than one after another.

        Args:
            columns: Values and weights of each, as `mean` has them.
            resampling: Bootstrap weights of these samples.
            digits: As in `of`.
        """
        rest = iter(columns)
        width = max(1, BLOCK // max(1, len(resampling.membership)))
        while block := list(islice(rest, width)):
            values, weights = (np.stack(each, axis=1) for each in zip(*block, strict=True))
            found = estimates([Reduce.MEAN] * len(block), values, weights, resampling)
            counts = (np.isfinite(values) & np.isfinite(weights)).sum(axis=0)
            for column, count in zip(found.T, counts, strict=True):
                ends = interval(column[1:]) if resampling.n_groups > 1 else None
                yield cls.of(float(column[0]), ends, int(count), digits)


BLOCK: Final = 2_000_000
"""Numbers that are held at a time where there may be any number of them."""
LEVEL: Final = (2.5, 97.5)
"""Percentiles of the 95 % interval."""
NULL_SKILL: Final = 1e-4
"""Identity's mean error [Å or %] below which a skill would divide by nothing."""


@dataclass(frozen=True, slots=True)
class Resampling:
    """Bootstrap weights over groups of samples."""

    membership: NDArray[np.intp]
    """Index of each sample's group, (n_samples,)."""
    weights: NDArray[np.uint8]
    """The times that each group is drawn, (1 + replicates, n_groups); the first row is ones."""

    @classmethod
    def of(cls, groups: Sequence[str], replicates: int, rng: np.random.Generator) -> Self:
        """Draw `replicates` samples of as many groups as there are."""
        names, membership = np.unique(np.array(groups, dtype=str), return_inverse=True)
        count = len(names)
        # A group is drawn more than 255 times once in 10^500 such draws.
        weights = np.ones((1 + replicates, count), dtype=np.uint8)
        for row in weights[1:]:
            row[:] = rng.multinomial(count, np.full(count, 1 / count))
        return cls(membership, weights)

    @property
    def n_groups(self) -> int:
        """The number of groups; one alone gives no interval."""
        return int(self.weights.shape[1])

    def sums(self, values: Floats) -> Floats:
        """Weighted sums over samples of each column: (n_samples, k) -> (1 + replicates, k)."""
        by_group = np.empty((self.n_groups, values.shape[1]))
        places: dict[bytes, int] = {}  # of columns that differ
        place = []
        for column in values.T:
            added = np.bincount(self.membership, column, self.n_groups)
            place.append(places.setdefault(added.tobytes(), len(places)))
            by_group[:, place[-1]] = added
        by_group = by_group[:, : len(places)]
        rows = max(1, BLOCK // max(1, self.n_groups))
        blocks = range(0, len(self.weights), rows)
        products = [self.weights[k : k + rows].astype(float) @ by_group for k in blocks]
        return np.concatenate(products)[:, place]

    def quantile(self, values: Floats, share: float) -> Floats:
        """Weighted quantile, averaged at steps: (n_samples,) without nan -> (1 + replicates,).

        All replicates have it near the same place of the ordered values: only the weights there are
        added up one by one.
        """
        order = np.argsort(values, kind="stable")
        group = self.membership[order]
        target = share * self.sums(np.ones((len(values), 1)))
        near = 8 * int(np.sqrt(len(values)))
        while True:
            first = max(0, int(share * len(values)) - near)
            end = min(len(values), int(share * len(values)) + near)
            lower = np.zeros((len(values), 1))
            lower[order[:first]] = 1
            before = self.sums(lower)
            upto = before + np.cumsum(self.weights[:, group[first:end]], axis=1, dtype=float)
            outside = (before >= target) & (first > 0) | (upto[:, -1:] <= target) & (
                end < len(values)
            )
            if not outside.any():
                break
            near *= 4
        last = len(values) - 1
        low = np.minimum(first + (upto < target).sum(axis=1), last)
        high = np.minimum(first + (upto <= target).sum(axis=1), last)
        ordered = values[order]
        found = (ordered[low] + ordered[high]) / 2
        return np.where(target[:, 0] > 0, found, np.nan)


def estimates(
    reduces: Sequence[Reduce], values: Floats, weights: Floats, resampling: Resampling
) -> Floats:
    """Compute every metric at the point (row 0) and in each replicate.

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
        identity_error = bottom / size
    result = np.full_like(means, np.nan)
    for k, reduce in enumerate(reduces):
        match reduce:
            case Reduce.MEDIAN | Reduce.P95:
                finite = np.isfinite(values[:, k])
                if finite.any():
                    part = Resampling(resampling.membership[finite], resampling.weights)
                    share = 0.5 if reduce is Reduce.MEDIAN else 0.95
                    result[:, k] = part.quantile(values[finite, k], share)
            case Reduce.ROOT_MEAN:
                result[:, k] = np.sqrt(means[:, k])
            case Reduce.INVERSE_MEAN:
                with np.errstate(divide="ignore"):
                    result[:, k] = 1 / means[:, k]
            case Reduce.SKILL:
                unknown = identity_error[:, k] < NULL_SKILL
                result[:, k] = np.where(unknown, np.nan, 1 - means[:, k])
            case _:
                result[:, k] = means[:, k]
    return result


def interval(replicates: Floats) -> tuple[float, float]:
    """The 95 % percentile interval of (replicates,) estimates; nan without any."""
    finite = replicates[np.isfinite(replicates)]
    if not len(finite):
        return float("nan"), float("nan")
    low, high = np.percentile(finite, LEVEL)
    return float(low), float(high)


def on_front(costs: ArrayLike, losses: ArrayLike) -> NDArray[np.bool_]:
    """Say of each point whether it is on the Pareto front.

    A point is on it if no other is as good in both numbers and better in one; equal points are on
    it together.

    Args:
        costs: (n,), less is better.
        losses: (n,), likewise.

    Returns:
        (n,) flags.
    """
    cost, loss = np.asarray(costs, dtype=float), np.asarray(losses, dtype=float)
    no_worse = (cost[:, None] <= cost) & (loss[:, None] <= loss)
    better = (cost[:, None] < cost) | (loss[:, None] < loss)
    front: NDArray[np.bool_] = ~np.any(no_worse & better, axis=0)
    return front


def round_significant(number: float | None) -> float | None:
    """Round to six significant digits, so that a board is the same wherever it is added up.

    Numbers within 1e-9 of zero become zero; None and numbers that are not finite become None.
    """
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
