"""Near-duplicates: structures that are the same up to a small distortion, found without a cell.

The fingerprint of a structure is its average minimum distances (Widdowson et al., MATCH Commun.
Math. Comput. Chem. 87, 529 (2022)): for j = 1 … 24 the distance to the j-th nearest neighbour,
averaged over the sites, once among all sites and once among those of the same element. It does not
depend on cell, origin, orientation or names of the elements and changes continuously with the
positions. Divided by (volume per site)^(1/3) it does not depend on the volume either, in which
sources and functionals differ most.

Two structures are near-duplicates if no component differs by more than `TOLERANCE`. The ends of a
chain of near-duplicates may differ by more; all structures of a chain are joined all the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.core import Geometry

NEIGHBOURS = 24
"""Two shells of a close packing and more: cubic and hexagonal packing agree up to the 18th."""
TOLERANCE = 0.02
"""The unit is (volume per site)^(1/3); the tolerance is about 0.05 Å."""
_GRID = TOLERANCE / 20
"""Fingerprints are rounded to multiples of this, so that equal ones are one point of the search."""

Floats = NDArray[np.float64]


def fingerprint(geometry: Geometry) -> Floats:
    """The average minimum distances among all sites, then among sites of the same element.

    Args:
        geometry: A valid structure.

    Returns:
        (2 * NEIGHBOURS,) in units of (volume per site)^(1/3).
    """
    cart = geometry.frac_coords @ geometry.lattice
    like = np.zeros(NEIGHBOURS)
    for number in np.unique(geometry.numbers):
        same = cart[geometry.numbers == number]
        like += _nearest(geometry.lattice, same).sum(axis=0) / len(cart)
    spacing = np.cbrt(abs(np.linalg.det(geometry.lattice)) / len(cart))
    every = _nearest(geometry.lattice, cart).mean(axis=0)
    return np.asarray(np.concatenate([every, like]) / spacing)


def _nearest(lattice: Floats, cart: Floats) -> Floats:
    """Distances of each site to its nearest neighbours [Å], ascending: (n_sites, NEIGHBOURS)."""
    from pymatgen.optimization.neighbors import find_points_in_spheres

    sites = np.ascontiguousarray(cart)
    cell = np.ascontiguousarray(lattice)
    radius = np.cbrt(NEIGHBOURS * abs(np.linalg.det(lattice)) / len(sites))
    while True:
        centre, _, _, distance = find_points_in_spheres(
            sites, sites, r=float(radius), pbc=np.ones(3, dtype=np.int64), lattice=cell, tol=1e-8
        )
        # the site itself is found, too, at distance 0
        found = np.bincount(centre, minlength=len(sites))
        if found.min() > NEIGHBOURS:
            break
        radius *= 1.5
    ordered = distance[np.lexsort((distance, centre))]
    starts = np.cumsum(found) - found
    return np.asarray(ordered[starts[:, None] + np.arange(1, NEIGHBOURS + 1)])


def near_duplicates(fingerprints: Floats, kinds: Sequence[Hashable]) -> NDArray[np.int64]:
    """Groups of structures that are near-duplicates, directly or through a chain of them.

    Args:
        fingerprints: (n, m).
        kinds: (n,) only structures of the same kind are compared.

    Returns:
        (n,) the index of a structure of the same group.
    """
    group = np.arange(len(fingerprints))
    of_kind: dict[Hashable, list[int]] = defaultdict(list)
    for i, kind in enumerate(kinds):
        of_kind[kind].append(i)
    for members in map(np.array, of_kind.values()):
        rounded = np.rint(fingerprints[members] / _GRID)
        points, first, of = np.unique(rounded, axis=0, return_index=True, return_inverse=True)
        group[members] = members[first[_linked(points)][of.ravel()]]
    return group


def _linked(points: Floats) -> NDArray[np.int64]:
    """The index, for each point, of the one that represents all points in its chains."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    pairs = cKDTree(points).query_pairs(TOLERANCE / _GRID, p=np.inf, output_type="ndarray")
    ones = np.ones(len(pairs), dtype=bool)
    graph = coo_matrix((ones, pairs.T), shape=(len(points), len(points)))
    _, label = connected_components(graph, directed=False)
    _, first = np.unique(label, return_index=True)
    return np.asarray(first[label])
