"""Whether a relaxation has left what a crystal can be: asked after every step, so it is fast.

0.1 to 0.3 ms up to 16 atoms, where an evaluation of a potential takes 20 ms and more.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

VOLUME_RATIO = (0.25, 4.0)
"""A cell that leaves this range against its start has exploded or collapsed."""
REACH = 0.5
"""Atoms nearer to each other than this have fused [Å]; H2, the shortest bond, has 0.74. The same
bound as for a valid prediction (`benchmarks.metrics`)."""
_PERIODIC = np.ones(3, dtype=np.int64)


def check_geometry(start: Floats, cell: Floats, positions: Floats) -> str | None:
    """What is wrong with a geometry, or None.

    Args:
        start: The cell before the relaxation, (3, 3) row vectors [Å].
        cell: The cell now, likewise.
        positions: (n_sites, 3) Cartesian [Å].
    """
    ratio = np.linalg.det(cell) / np.linalg.det(start)
    if not VOLUME_RATIO[0] < ratio < VOLUME_RATIO[1]:
        return f"volume changed by a factor of {ratio:.3g}"
    distance = shortest_contact(cell, positions)
    return None if distance is None else f"two atoms {distance:.2f} Å apart"


def shortest_contact(cell: Floats, positions: Floats, reach: float = REACH) -> float | None:
    """Whether two atoms, or an atom and its image, are nearer to each other than `reach`.

    Neighbours are looked for in the reduced cell: in one that is flat or skewed as it is given,
    there are as many images within reach as the memory holds.

    Args:
        cell: (3, 3) row vectors [Å].
        positions: (n_sites, 3) Cartesian [Å], anywhere.
        reach: [Å]

    Returns:
        How near [Å], 0 in a cell without a volume: the shortest distance, or the shortest vector of
        the lattice where that is in reach already. None if all are farther apart.
    """
    from moyopy import minkowski_reduce
    from pymatgen.optimization.neighbors import find_points_in_spheres

    if not abs(np.linalg.det(cell)) > 0:
        return 0.0
    reduced = np.array(minkowski_reduce(cell.tolist())[0])
    image = float(np.linalg.norm(reduced, axis=1).min())
    if image < reach:
        return image
    frac_coords = positions @ np.linalg.inv(reduced)
    wrapped = np.ascontiguousarray((frac_coords - np.floor(frac_coords)) @ reduced)
    first, second, _, distances = find_points_in_spheres(
        wrapped, wrapped, r=reach, pbc=_PERIODIC, lattice=reduced
    )
    near = distances[first != second]
    return float(near.min()) if len(near) else None
