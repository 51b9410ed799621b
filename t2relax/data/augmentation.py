"""Augmentation: changes of a training pair that leave the physics as it is.

Sites, axes and origin are conventions. Inversion and an odd permutation of the axes give the mirror
image, which has the same energy. A start that is moved along the way to its own relaxed structure,
or dilated, lies (for the sizes used here) in the basin of the same minimum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from t2relax.data.training_pairs import Pair
from t2relax.text.codec import Crystal, Delta

LARGEST: Final = 16
"""Largest number of sites of a supercell: as many as the largest crystals of substitution/train."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """The probability of each change; the changes are made in the order of `__call__`."""

    sites: float = 0.5
    axes: float = 0.3
    origin: float = 0.3
    inversion: float = 0.5
    along: float = 0.35
    """The start becomes a structure between the initial (0) and the relaxed one (1)."""
    dilation: float = 0.35
    """The start is dilated uniformly; the standard deviation of its lengths is 3 %."""
    supercell: float = 0.2
    """The cell is repeated along one axis, to at most `LARGEST` sites: large crystals are rare."""

    def __call__(self, pair: Pair, rng: np.random.Generator) -> Pair:
        """Return a changed copy of the pair."""
        steps = (
            (self.supercell, _repeat),
            (self.along, _interpolate_to_final),
            (self.dilation, _dilate),
            (self.inversion, _invert),
            (self.origin, _shift),
            (self.axes, _permute_axes),
            (self.sites, _permute_sites),
        )
        for probability, step in steps:
            if rng.random() < probability:
                pair = step(pair, rng)
        return pair


NO_AUGMENTATION = Augmentation(
    sites=0, axes=0, origin=0, inversion=0, along=0, dilation=0, supercell=0
)


def _repeat(pair: Pair, rng: np.random.Generator) -> Pair:
    """A supercell relaxes as its cell does: lengths and their change grow, fractions shrink."""
    n_sites = len(pair.initial.numbers)
    if 2 * n_sites > LARGEST:
        return pair
    axis, times = rng.integers(3), int(rng.integers(2, LARGEST // n_sites + 1))
    factor, share = np.ones(6), np.ones(3)
    factor[axis], share[axis] = times, 1 / times
    cells = np.zeros((times, 1, 3))
    cells[:, 0, axis] = np.arange(times)
    frac_coords = ((pair.initial.frac_coords + cells) * share).reshape(-1, 3)
    moved = np.tile(pair.delta.frac_coords * share, (times, 1))
    numbers = np.tile(pair.initial.numbers, times)
    initial = Crystal(pair.initial.cellpar * factor, frac_coords, numbers)
    return Pair(initial, Delta(pair.delta.cellpar * factor, moved))


def _interpolate_to_final(pair: Pair, rng: np.random.Generator) -> Pair:
    way = rng.uniform(0.0, 1.0)
    moved = pair.initial.frac_coords + way * pair.delta.frac_coords
    cell = pair.initial.cellpar + way * pair.delta.cellpar
    left = Delta((1 - way) * pair.delta.cellpar, (1 - way) * pair.delta.frac_coords)
    return Pair(replace(pair.initial, cellpar=cell, frac_coords=moved), left)


def _dilate(pair: Pair, rng: np.random.Generator) -> Pair:
    factor = np.ones(6)
    factor[:3] = np.exp(np.clip(rng.normal(0.0, 0.03), -0.08, 0.08))
    cell = pair.initial.cellpar * factor
    change = pair.delta.cellpar + pair.initial.cellpar - cell
    return Pair(replace(pair.initial, cellpar=cell), replace(pair.delta, cellpar=change))


def _invert(pair: Pair, _: np.random.Generator) -> Pair:
    return _on_fracs(pair, lambda x: -x)


def _shift(pair: Pair, rng: np.random.Generator) -> Pair:
    moved = pair.initial.frac_coords + rng.random(3)
    return Pair(replace(pair.initial, frac_coords=moved), pair.delta)


def _permute_axes(pair: Pair, rng: np.random.Generator) -> Pair:
    order = rng.permutation(3)
    six = np.concatenate([order, order + 3])
    pair = _on_fracs(pair, lambda x: x[:, order])
    return Pair(
        replace(pair.initial, cellpar=pair.initial.cellpar[six]),
        replace(pair.delta, cellpar=pair.delta.cellpar[six]),
    )


def _permute_sites(pair: Pair, rng: np.random.Generator) -> Pair:
    order = rng.permutation(len(pair.initial.numbers))
    pair = _on_fracs(pair, lambda x: x[order])
    return replace(pair, initial=replace(pair.initial, numbers=pair.initial.numbers[order]))


def _on_fracs(pair: Pair, change: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> Pair:
    return Pair(
        replace(pair.initial, frac_coords=change(pair.initial.frac_coords)),
        replace(pair.delta, frac_coords=change(pair.delta.frac_coords)),
    )
