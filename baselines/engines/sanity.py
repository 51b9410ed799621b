"""A check that a geometry on the way of a relaxation can still be a crystal.

It runs after every step and takes 0.1 to 0.3 ms for up to 16 atoms; one evaluation of a potential
takes 20 ms and more.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.metrics.columns import MIN_DISTANCE, VOLUME_BOUNDS

Floats = NDArray[np.float64]

_PERIODIC = np.ones(3, dtype=np.int64)


def check_geometry(start: Floats, cell: Floats, positions: Floats) -> str | None:
    """Return what is wrong with a geometry, or None.

    The bounds are those of a valid prediction (`benchmarks.metrics`): a cell whose volume leaves
    them has exploded or collapsed, and atoms that are nearer to each other have fused.

    Args:
        start: The cell before the relaxation, (3, 3) row vectors [Å].
        cell: The cell now, likewise.
        positions: (n_sites, 3) Cartesian [Å].
    """
    ratio = np.linalg.det(cell) / np.linalg.det(start)
    if not VOLUME_BOUNDS[0] < ratio < VOLUME_BOUNDS[1]:
        return f"volume changed by a factor of {ratio:.3g}"
    distance = shortest_contact(cell, positions)
    return None if distance is None else f"two atoms {distance:.2f} Å apart"


def shortest_contact(cell: Floats, positions: Floats, reach: float = MIN_DISTANCE) -> float | None:
    """Return the shortest distance between two atoms, or an atom and its image, below `reach`.

    The neighbours are searched in the reduced cell. In a flat or skewed cell so many images can be
    within reach that they fill the memory.

    Args:
        cell: (3, 3) row vectors [Å].
        positions: (n_sites, 3) Cartesian [Å], anywhere.
        reach: [Å]

    Returns:
        The shortest distance [Å], or the shortest lattice vector if that is already below `reach`;
        0 in a cell without a volume. None if all atoms are farther apart.
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
