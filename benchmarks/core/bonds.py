"""The neighbours of each site, and where sites would go to balance their bonds.

What is computed here knows no energy and was trained on nothing. The row `bond-balance` says how
far it gets alone.
"""

from __future__ import annotations

from itertools import product
from typing import Final

import numpy as np
from numpy.typing import NDArray

BOND_CUTOFF: Final = 5.0
"""Sites further apart than this [Å] share no bond."""
SOFTNESS: Final = 0.2
"""The length [Å] over which a valence falls to 1/e."""
HELD: Final = 3.0
"""Stiffness [1/Å] of the springs that hold the sites where they are."""


def neighbours(
    lattice: NDArray[np.float64], frac_coords: NDArray[np.float64], cutoff: float
) -> NDArray[np.float64]:
    """Vectors from each site to the images of each other one.

    Args:
        lattice: (3, 3) row vectors [Å].
        frac_coords: (n_sites, 3).
        cutoff: All vectors that are shorter than this [Å] are there, and more.

    Returns:
        (n_sites, n_sites, n_images, 3) [Å]; a site is infinitely far from itself.
    """
    heights = 1.0 / np.linalg.norm(np.linalg.inv(lattice), axis=0)
    reach = np.floor(cutoff / heights + 0.5).astype(int)
    grids = np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij")
    images = np.stack(grids, axis=-1).reshape(-1, 3) @ lattice
    apart = frac_coords[None] - frac_coords[:, None]
    apart = (apart - np.round(apart)) @ lattice
    vectors: NDArray[np.float64] = apart[:, :, None] + images
    same = np.arange(len(frac_coords))
    vectors[same, same, len(images) // 2] = np.inf
    return vectors


def balancing_shifts(
    vectors: NDArray[np.float64], numbers: NDArray[np.int16]
) -> NDArray[np.float64]:
    """Where the sites would go to balance their bonds: one step of Newton's method for all of them.

    A bond of length d has the valence exp((R - d) / `SOFTNESS`), the form of Brown and Altermatt
    (Acta Cryst. B 41, 244, 1985), and the valences of the bonds of a relaxed site, as vectors,
    nearly cancel (Zachara, Inorg. Chem. 46, 9760, 2007). R is the typical shortest distance of the
    two species in this structure itself. Each site is also held where it is, so that a site with
    few bonds does not fly. The numbers were chosen on relaxed crystals of the validation split of
    the substitutions, displaced by 0.1 Å.

    Args:
        vectors: (n_sites, n_sites, n_images, 3) [Å], as `neighbours` returns them.
        numbers: (n_sites,) atomic numbers.

    Returns:
        (n_sites, 3) shifts [Å], their mean removed.
    """
    n_sites = len(numbers)
    lengths = np.linalg.norm(vectors, axis=-1)
    nearest = lengths.min(axis=2).clip(max=BOND_CUTOFF)
    typical = np.empty_like(nearest)
    for one, other in product(np.unique(numbers), repeat=2):
        block = np.ix_(numbers == one, numbers == other)
        typical[block] = min(np.median(nearest[block].min(axis=axis)) for axis in (0, 1))
    # Sites at one place have no direction between them.
    bonded = np.nonzero((lengths <= BOND_CUTOFF) & (lengths > 0.0))
    first, second = bonded[:2]
    toward = vectors[bonded] / lengths[bonded][:, None]
    # A bond far shorter than typical would otherwise outweigh every other one.
    valences = np.exp(np.minimum((typical[first, second] - lengths[bonded]) / SOFTNESS, 4.0))
    pull = np.zeros((n_sites, 3))
    np.add.at(pull, first, valences[:, None] * toward)
    springs = (valences / SOFTNESS)[:, None, None] * toward[:, :, None] * toward[:, None]
    stiffness = np.zeros((n_sites, n_sites, 3, 3))
    np.add.at(stiffness, (first, first), springs)
    np.subtract.at(stiffness, (first, second), springs)
    matrix = stiffness.transpose(0, 2, 1, 3).reshape(3 * n_sites, 3 * n_sites)
    shifts = -np.linalg.solve(matrix + HELD * np.eye(3 * n_sites), pull.ravel())
    shifts = shifts.reshape(n_sites, 3)
    centred: NDArray[np.float64] = shifts - shifts.mean(axis=0)
    return centred
