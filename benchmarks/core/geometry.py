"""Distances and strains between two periodic crystals: the mathematics under the metrics.

Lattices are row vectors [Å]; fractional coordinates need not be wrapped. numpy only, apart from
the lattice reduction and the symmetry search (moyopy) and neighbour lists (pymatgen).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import combinations_with_replacement, product
from math import gcd
from typing import Final, NamedTuple, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from benchmarks.core import Geometry
from benchmarks.core.symmetry import symmetry_dataset

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.intp]

MIN_DISTANCE = 0.5
"""Atoms of a crystal are farther apart than this [Å]; H2, the shortest bond, has 0.74."""
LONGEST_EDGE = 1000.0
"""Longest edge of a cell in which neighbours are searched [Å]."""
MOST_SKEWED = 1000.0
"""Largest product of the three edges of a cell over its volume. That of a crystal is below 10 in
its usual settings; far above this bound reductions of the cell do not end, or fill the memory."""
MAX_PASSES = 50
"""Bound on the passes of translation removal and of assignment; both settle in 2 or 3."""
MAX_STARTS = 16
"""Translations tried by the assignment when atoms have moved past their neighbours."""
PAIRS_AT_ONCE = 20_000
"""Pairs of sites whose images are held in memory together (27 images, 13 MB)."""


class MinimumImage(NamedTuple):
    """The exact minimum image of one lattice.

    In a Minkowski-reduced cell the nearest image of a vector is one of the 27 around its rounded
    position; in the skewed cell itself it need not be (Nguyen & Stehlé, ACM Trans. Algorithms 5,
    46 (2009)).
    """

    reduced: Floats
    """(3, 3) Minkowski-reduced basis [Å]."""
    inverse: Floats
    """(3, 3) its inverse [1/Å]."""
    images: Floats
    """(27, 3) lattice vectors around the origin [Å], zero first so that ties stay."""

    @classmethod
    def of(cls, lattice: Floats) -> Self:
        """Reduce `lattice`: (3, 3) row vectors [Å], finite and not singular."""
        from moyopy import minkowski_reduce

        reduced = np.array(minkowski_reduce(lattice.tolist())[0])
        return cls(reduced, np.linalg.inv(reduced), _AROUND @ reduced)

    def shortest(self, vectors: Floats) -> Floats:
        """The shortest equivalent of each vector: (n, 3) Cartesian [Å], same shape back."""
        fractional = vectors @ self.inverse
        rounded = (fractional - np.rint(fractional)) @ self.reduced
        candidates = rounded[:, None, :] + self.images
        nearest = np.einsum("nik,nik->ni", candidates, candidates).argmin(axis=1)
        shortest: Floats = rounded + self.images[nearest]
        return shortest


_AROUND = np.array(sorted(product((-1.0, 0.0, 1.0), repeat=3), key=lambda n: sum(map(abs, n))))
_OFF_DIAGONAL = ([1, 0, 0], [2, 2, 1])
"""The entries of the metric tensor that hold alpha, beta, gamma."""


def displacements(reference: Geometry, prediction: Geometry) -> Floats:
    """Displacements of the sites from their reference, rigid translation removed.

    The mean displacement is subtracted and the rest wrapped until wrapping changes nothing. The
    first guess is the circular mean along each axis, so that a crystal moved by half a cell is
    recognised too: the plain mean of wrapped values would be near zero there.

    Returns:
        (n_sites, 3) Cartesian vectors in the reference cell [Å], in site order.
    """
    image = MinimumImage.of(reference.lattice)
    moved = prediction.frac_coords - reference.frac_coords
    phase = np.exp(2j * np.pi * moved).mean(axis=0)
    # Where the phases cancel there is no preferred origin, and the angle would be rounding noise.
    circular_mean = np.where(np.abs(phase) < 1e-6, 0.0, np.angle(phase) / (2 * np.pi))
    wrapped = image.shortest((moved - circular_mean) @ reference.lattice)
    for _ in range(MAX_PASSES):
        centred = wrapped - wrapped.mean(axis=0)
        wrapped = image.shortest(centred)
        if np.abs(wrapped - centred).max() < 1e-9:
            break
    return wrapped


DISPLACEMENT: Final = 0.08
"""Width [Å] of the half-normal distribution of the widths that `drawn_displacements` draws."""
LARGEST_WIDTH: Final = 3.0
"""The largest of these widths, in units of `DISPLACEMENT`."""


def drawn_displacements(rng: np.random.Generator, n_sites: int) -> Floats:
    """Draw displacements (n_sites, 3) [Å] of a crystal's sites, without a common translation.

    Each Cartesian component is normal, with one width for the crystal that is itself drawn from a
    half-normal distribution of width `DISPLACEMENT`.
    """
    width = DISPLACEMENT * min(abs(rng.normal()), LARGEST_WIDTH)
    moves = rng.normal(0.0, width, (n_sites, 3))
    return np.asarray(moves - moves.mean(axis=0))


def assigned_rmse(reference: Geometry, prediction: Geometry, by_index: Floats) -> float:
    """Root mean square displacement after the best assignment within each species [Å].

    Assignment and translation are improved in turn, each never increasing the error, from the
    comparison by index (so the result never exceeds it) and from the translations that carry a
    reference site of the rarest species onto one of the predicted ones (so that any permutation
    with any translation is found, up to `MAX_STARTS` sites of that species). Where no site has
    moved by half the distance between like sites, the order is already the best assignment.

    Args:
        reference: The relaxed structure.
        prediction: The same composition, species in the same order.
        by_index: (n_sites, 3) `displacements(reference, prediction)` [Å].
    """
    return best_assignment(reference, prediction, by_index)[0]


def best_assignment(
    reference: Geometry, prediction: Geometry, by_index: Floats
) -> tuple[float, Integers]:
    """The error of `assigned_rmse` and the assignment itself.

    Args:
        reference: The relaxed structure.
        prediction: The same composition, species in the same order.
        by_index: (n_sites, 3) `displacements(reference, prediction)` [Å].

    Returns:
        The root mean square displacement [Å], and (n_sites,) for each site of the reference the
        index of the predicted one.
    """
    own = float(np.sqrt((by_index**2).sum(axis=1).mean()))
    same = np.arange(len(reference.numbers))
    image = MinimumImage.of(reference.lattice)
    species = [np.flatnonzero(reference.numbers == z) for z in np.unique(reference.numbers)]
    start = reference.frac_coords @ reference.lattice
    like_distance = min(_closest_pair(image, start[sites]) for sites in species)
    if 2 * np.linalg.norm(by_index, axis=1).max() < like_distance:
        return own, same
    end = prediction.frac_coords @ reference.lattice
    rarest = min(species, key=len)
    shifts = [(end - start - by_index)[0], *(end[rarest[:MAX_STARTS]] - start[rarest[0]])]
    found = [_assign(image, start, end - shift, species) for shift in shifts]
    return min([(own, same), *found], key=lambda each: each[0])


def _closest_pair(image: MinimumImage, cart: Floats) -> float:
    shortest = np.inf
    sites = np.arange(len(cart))
    first, second = np.nonzero(sites[:, None] < sites)
    for part in range(0, len(first), PAIRS_AT_ONCE):
        chosen = slice(part, part + PAIRS_AT_ONCE)
        vectors = image.shortest(cart[first[chosen]] - cart[second[chosen]])
        shortest = min(shortest, float(np.linalg.norm(vectors, axis=1).min()))
    return shortest


def _assign(
    image: MinimumImage, start: Floats, end: Floats, species: Sequence[Integers]
) -> tuple[float, Integers]:
    """Alternate assignment and translation until the error stops falling: RMSE [Å] and order."""
    from scipy.optimize import linear_sum_assignment

    best, order = np.inf, np.arange(len(start))
    for _ in range(MAX_PASSES):
        moved, found = np.empty_like(start), np.empty_like(order)
        for sites in species:
            vectors = image.shortest((end[None, sites] - start[sites, None]).reshape(-1, 3))
            vectors = vectors.reshape(len(sites), len(sites), 3)
            rows, columns = linear_sum_assignment((vectors**2).sum(axis=2))
            moved[sites] = vectors[rows, columns]
            found[sites] = sites[columns]
        shift = moved.mean(axis=0)
        error = float(np.sqrt(((moved - shift) ** 2).sum(axis=1).mean()))
        if error >= best - 1e-9:
            break
        best, order, end = error, found, end - shift
    return best, order


def shortest_distance(geometry: Geometry) -> float:
    """Shortest distance between two atoms under periodic boundaries, own images included [Å]."""
    image = MinimumImage.of(geometry.lattice)
    own = float(np.linalg.norm(image.reduced, axis=1).min())
    return min(own, _closest_pair(image, geometry.frac_coords @ geometry.lattice))


def is_compact(lattices: Floats) -> NDArray[np.bool_]:
    """Say of each cell whether it is within `LONGEST_EDGE` and `MOST_SKEWED`.

    Args:
        lattices: (…, 3, 3) row vectors [Å].

    Returns:
        (…), False where a number is not finite.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        edges = np.linalg.norm(lattices, axis=-1)
        volume = np.abs(np.linalg.det(lattices))
        skewed = volume * MOST_SKEWED < edges.prod(axis=-1)
        compact: NDArray[np.bool_] = (edges.max(axis=-1) < LONGEST_EDGE) & ~skewed & (volume > 0)
    return compact


def cell_parameters(lattice: Floats) -> Floats:
    """Lengths a, b, c [Å] and angles alpha, beta, gamma [°] of (3, 3) row vectors: (6,)."""
    metric = lattice @ lattice.T
    lengths = np.sqrt(np.diagonal(metric))
    cosines = (metric / lengths / lengths[:, None])[_OFF_DIAGONAL]
    angles = np.degrees(np.arccos(np.minimum(np.maximum(cosines, -1.0), 1.0)))
    return np.concatenate([lengths, angles])


def strain(reference: Floats, prediction: Floats) -> float:
    """Frobenius norm of the logarithmic strain between two lattices, free of rotation.

    F = (L_ref^-1 L_pred)^T is the deformation gradient and U = (F^T F)^½ its stretch, whose
    eigenvalues are the singular values of F.
    """
    gradient = np.linalg.solve(reference, prediction)
    stretches = np.linalg.svd(gradient, compute_uv=False)
    return float(np.sqrt((np.log(stretches) ** 2).sum()))


def symmetry(geometry: Geometry, symprec: float) -> tuple[int, Floats]:
    """Space group number and the rotations of all operations, in the basis of the cell itself.

    Args:
        geometry: A valid structure.
        symprec: Tolerance [Å].

    Returns:
        Number from 1 to 230 and (n_operations, 3, 3) integers, acting on columns of fractional
        coordinates; centring translations repeat a rotation. 0 and no rotation where moyopy finds
        no consistent group.
    """
    dataset = symmetry_dataset(geometry, symprec)
    if dataset is None:
        return 0, np.empty((0, 3, 3))
    return int(dataset.number), np.array(dataset.operations.rotations, dtype=np.float64)


def free_angles(lattice: Floats, rotations: Floats) -> NDArray[np.bool_]:
    """Find the angles that a relaxation can change without breaking the symmetry.

    Lengths are always free (a uniform expansion breaks nothing). An angle is free when some change
    dG of the metric tensor G = L L^T that the point group leaves invariant (W^T dG W = dG for each
    rotation W) changes it to first order. This is right in any setting: the angle of a
    rhombohedral cell is free, that of a primitive fcc cell is not.

    Args:
        lattice: (3, 3) row vectors [Å] of the initial cell.
        rotations: (n_operations, 3, 3) in the basis of `lattice`; none leave everything free.

    Returns:
        (3,) booleans for alpha, beta, gamma.
    """
    group = rotations if len(rotations) else np.eye(3)[None]
    metric = invariant(lattice @ lattice.T, group)  # as symmetric as the rotations are
    lengths = np.sqrt(np.diagonal(metric))
    scale = np.sqrt(np.outer(np.diagonal(metric), np.diagonal(metric)))
    free = np.zeros(3, dtype=np.bool_)
    for row, column in combinations_with_replacement(range(3), 2):
        change = np.zeros((3, 3))
        change[row, column] = change[column, row] = lengths[row] * lengths[column]
        allowed = invariant(change, group)
        relative = np.diagonal(allowed) / np.diagonal(metric)
        rates = allowed / scale - metric / scale * (relative[:, None] + relative) / 2
        free |= np.abs(rates[_OFF_DIAGONAL]) > 1e-6  # the rates of the cosines of the angles
    return free


def invariant(change: Floats, rotations: Floats) -> Floats:
    """Mean of W^T dG W over the group: the part of a metric change that the symmetry allows."""
    mean: Floats = np.einsum("wki,kl,wlj->ij", rotations, change, rotations) / len(rotations)
    return mean


def symmetric_lattice(lattice: Floats, rotations: Floats) -> Floats:
    """Strain a lattice by as little as makes it exactly as symmetric as it nearly is.

    Args:
        lattice: (3, 3) row vectors [Å].
        rotations: (n_operations, 3, 3) of a group, on columns of fractional coordinates.
    """
    return strained(lattice, log_strain(lattice, invariant(lattice @ lattice.T, rotations)))


def bond_errors(reference: Geometry, lattice: Floats, moved: Floats, reach: float = 1.25) -> Floats:
    """Absolute changes of the reference's bond lengths, each followed to the same image.

    Args:
        reference: The relaxed structure; its pairs closer than `reach` times the sum of covalent
            radii (Cordero 2008) are the bonds.
        lattice: (3, 3) predicted cell [Å].
        moved: (n_sites, 3) `displacements(reference, prediction)` [Å], in the reference cell.
        reach: Factor on the sum of covalent radii.

    Returns:
        (n_bonds,) [Å], each bond seen from both ends; empty without bonds.
    """
    from ase.data import covalent_radii
    from pymatgen.optimization.neighbors import find_points_in_spheres

    radii = covalent_radii[reference.numbers]
    cart = np.ascontiguousarray(reference.frac_coords @ reference.lattice)
    first, second, offsets, lengths = find_points_in_spheres(
        cart, cart, r=float(2 * reach * radii.max()), pbc=np.ones(3, dtype=np.int64),
        lattice=np.ascontiguousarray(reference.lattice), tol=1e-8,
    )  # fmt: skip
    bonded = (lengths > 1e-8) & (lengths < reach * (radii[first] + radii[second]))
    first, second, offsets = first[bonded], second[bonded], offsets[bonded]
    fractional = (cart + moved) @ np.linalg.inv(reference.lattice)
    vectors = (fractional[second] + offsets - fractional[first]) @ lattice
    errors: Floats = np.abs(np.linalg.norm(vectors, axis=1) - lengths[bonded])
    return errors


def log_strain(initial: Floats, metric: Floats) -> Floats:
    """The strain of a lattice (3, 3) towards a cell given by its metric, L_f L_fᵀ (3, 3) [Å²].

    A metric has no orientation, so that a rotation between the two cells does not count. Nothing
    shrinks to less than a third: a matrix that is no metric (angles that do not close) has an end.
    """
    inverse = np.linalg.inv(initial)
    wanted = inverse @ metric @ inverse.T
    values, vectors = np.linalg.eigh((wanted + wanted.T) / 2)
    strain: Floats = (vectors * np.log(np.maximum(values, 0.1)) / 2) @ vectors.T
    return strain


def strained(lattice: Floats, strain: Floats) -> Floats:
    """The lattice (3, 3), strained; keeps its orientation as far as a strain does."""
    values, vectors = np.linalg.eigh((strain + strain.T) / 2)
    changed: Floats = lattice @ (vectors * np.exp(values)) @ vectors.T
    return changed


def reduced_composition(numbers: Iterable[int]) -> str:
    """Symbols in alphabetical order with reduced counts: `O3SrTi`.

    Args:
        numbers: Atomic numbers of the sites, in any order.
    """
    from ase.data import chemical_symbols

    symbols = [chemical_symbols[z] for z in numbers]
    counts = {symbol: symbols.count(symbol) for symbol in sorted(set(symbols))}
    shared = gcd(*counts.values())
    return "".join(
        f"{symbol}{count // shared if count > shared else ''}" for symbol, count in counts.items()
    )


def elements(composition: str) -> list[str]:
    """The symbols of a reduced composition: `O3SrTi` -> O, Sr, Ti."""
    return re.findall(r"[A-Z][a-z]?", composition)
