"""One crystal in other writings: sites in another order, another origin, other axes, a supercell.

None of these changes the crystal, so that the answer of a model that sees crystals, and not their
descriptions, does not move. `Writing.restore` brings an answer back, so that answers to several
writings can be compared or averaged.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from itertools import permutations
from math import prod
from typing import Final, Self

import numpy as np

from benchmarks.core import Geometry
from benchmarks.core.geometry import Floats, Integers, displacements


class Convention(StrEnum):
    """What two descriptions of one crystal may differ in."""

    SITES = "sites"
    """The order of the sites."""
    ORIGIN = "origin"
    """The point that has the coordinates 0, 0, 0."""
    AXES = "axes"
    """Which lattice vector is a, which b, which c."""
    SUPERCELL = "supercell"
    """The number of crystal's cells in the cell."""


COPIES: Final = 2
"""Cells in a supercell, along one of the three axes."""
_AS_GIVEN = (0, 1, 2)
_EXCHANGED: Final = [(a, b, c) for a, b, c in permutations(_AS_GIVEN) if (a, b, c) != _AS_GIVEN]


@dataclass(frozen=True, slots=True, eq=False)
class Writing:
    """A way to write the crystals of one number of sites."""

    multiples: tuple[int, int, int]
    """How often the cell is repeated along a, b and c."""
    axes: tuple[int, int, int]
    """The old axis that becomes a, b and c. After an odd permutation all axes are reversed, which
    keeps the handedness; the axes stay where they are in space."""
    shift: Floats
    """(3,) what is added to the fractional coordinates in the written cell."""
    order: Integers
    """(n_written,) the place of each written site in the list in which the copies of a site stand
    together, in the order of the sites."""

    @classmethod
    def drawn(
        cls, conventions: Collection[Convention], n_sites: int, rng: np.random.Generator
    ) -> Self:
        """Draw a writing that differs from the given one in these conventions, and in no other.

        Args:
            conventions: Which. A crystal with one site has no other order of its sites.
            n_sites: Number of sites of the crystal.
            rng: Draws axes, origin and order.
        """
        multiples, axes, shift = [1, 1, 1], _AS_GIVEN, np.zeros(3)
        if Convention.SUPERCELL in conventions:
            multiples[rng.integers(3)] = COPIES
        if Convention.AXES in conventions:
            axes = _EXCHANGED[rng.integers(len(_EXCHANGED))]
        if Convention.ORIGIN in conventions:
            shift = rng.random(3)
        given = np.arange(n_sites * prod(multiples))
        order = given
        while Convention.SITES in conventions and n_sites > 1 and np.array_equal(order, given):
            order = rng.permutation(given)
        a, b, c = multiples
        return cls((a, b, c), axes, shift, order)

    @property
    def _sign(self) -> int:
        return round(float(np.linalg.det(np.eye(3)[list(self.axes)])))

    def apply(self, geometry: Geometry) -> Geometry:
        """Write a crystal anew; its atoms stay where they are in space but for the origin.

        Coordinates are brought into the cell where origin or directions of the axes change.
        """
        multiples, axes = np.array(self.multiples), list(self.axes)
        images = np.array(list(np.ndindex(self.multiples)))
        fracs = ((geometry.frac_coords[:, None] + images) / multiples).reshape(-1, 3)
        fracs = self._sign * fracs[:, axes] + self.shift
        if self._sign < 0 or self.shift.any():
            fracs %= 1.0
        return Geometry(
            self._sign * (geometry.lattice * multiples[:, None])[axes],
            fracs[self.order],
            np.repeat(geometry.numbers, len(images))[self.order],
        )

    def restore(self, answer: Geometry, initial: Geometry) -> Geometry:
        """Write an answer to `apply(initial)` as an answer to `initial`.

        Args:
            answer: A cell with the sites of `apply(initial)`, in their order.
            initial: The crystal as it was given.

        Returns:
            The relaxed crystal with the sites of `initial`. What the sites have moved by is freed
            of its mean, and averaged over the copies of a site.
        """
        written, axes = self.apply(initial), list(self.axes)
        moved = np.empty_like(written.frac_coords)
        moved[self.order] = displacements(written, answer) @ np.linalg.inv(written.lattice)
        fracs, lattice = np.empty_like(moved), np.empty((3, 3))
        fracs[:, axes] = self._sign * moved
        lattice[axes] = self._sign * answer.lattice
        multiples = np.array(self.multiples)
        mean = fracs.reshape(len(initial.numbers), -1, 3).mean(axis=1) * multiples
        return Geometry(lattice / multiples[:, None], initial.frac_coords + mean, initial.numbers)
