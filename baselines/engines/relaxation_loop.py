"""The relaxation protocol that both engines share: when a relaxation ends, and with which status.

`relaxation_loop` is a coroutine: it asks for energy, forces and stress where its path stands, and
returns the outcome. An engine only evaluates the potential (`ase_engine` for one structure at a
time, `batch_engine` for many in one evaluation) and decides on no status.
"""

from __future__ import annotations

from collections.abc import Collection, Generator
from typing import NamedTuple, Protocol

import numpy as np
from ase.stress import voigt_6_to_full_3x3_stress
from numpy.typing import NDArray
from pymatgen.core import Element, Structure

from benchmarks.core import Geometry, Relaxed, RelaxSettings, Status
from benchmarks.core.geometry import MIN_DISTANCE, symmetric_lattice
from benchmarks.core.symmetry import space_group
from benchmarks.metrics.validity import VOLUME_BOUNDS

Floats = NDArray[np.float64]

SYMPREC = 0.01
"""Tolerance of the symmetry search [Å], as for the metrics. A smaller asymmetry is not removed."""
_PERIODIC = np.ones(3, dtype=np.int64)


class PotentialResult(NamedTuple):
    """Energy, forces and stress of one geometry."""

    energy: float
    """[eV]"""
    forces: Floats
    """(n_sites, 3) [eV/Å]."""
    stress: Floats
    """(3, 3) or six Voigt components [eV/Å^3], with the sign of ASE."""

    @property
    def max_force(self) -> float:
        """Largest norm of a force [eV/Å]."""
        return float(np.linalg.norm(self.forces, axis=1).max())

    @property
    def max_stress(self) -> float:
        """Largest absolute component of the stress [eV/Å^3]."""
        return float(np.abs(self.stress).max())

    @property
    def finite(self) -> bool:
        """True if no number in it is NaN or infinite."""
        return bool(np.isfinite([self.energy, self.max_force, self.max_stress]).all())

    def projected(self, kept: KeptSymmetry) -> PotentialResult:
        """Return the part that is invariant under the symmetry operations."""
        return PotentialResult(self.energy, kept.forces(self.forces), kept.stress(self.stress))


class GeometryOptimizer(Protocol):
    """A geometry with the optimiser that moves it."""

    @property
    def cell(self) -> Floats:
        """(3, 3) row vectors [Å], right-handed: at first `right_handed` of the initial lattice."""
        ...

    @property
    def positions(self) -> Floats:
        """(n_sites, 3) Cartesian [Å]."""
        ...

    def step(self, answer: PotentialResult) -> None:
        """Move by one step, given the result of the potential at the present geometry."""
        ...


def unsupported(structure: Structure, elements: Collection[int] | None) -> str | None:
    """Return why a potential cannot relax a structure, or None; asked before any evaluation.

    Args:
        structure: The initial structure.
        elements: Atomic numbers that the potential knows; None for all.
    """
    if not structure.is_ordered:
        return "partially occupied sites"
    unknown = {site.specie.Z for site in structure} - set(elements or ())
    if elements is not None and unknown:
        return f"no parameters for {', '.join(Element.from_Z(z).symbol for z in sorted(unknown))}"
    distance = shortest_contact(structure.lattice.matrix, structure.cart_coords)
    return None if distance is None else f"two atoms {distance:.2f} Å apart in the input"


def right_handed(lattice: Floats) -> Floats:
    """Return a right-handed cell of the same lattice: of a left-handed one, all vectors negated.

    No atom moves, so that energy, forces and stress are the same. Potentials see only such cells,
    because some take det(cell) for the volume: the stress of CHGNet's ASE calculator has the wrong
    sign in a left-handed cell. `relaxation_loop` gives the answer in the cell of the input.

    Args:
        lattice: (3, 3) row vectors [Å].
    """
    return -lattice if np.linalg.det(lattice) < 0 else lattice


def relaxation_loop(
    path: GeometryOptimizer, start: Geometry, settings: RelaxSettings
) -> Generator[None, PotentialResult, Relaxed]:
    """Relax until the structure has converged, has used all steps, or has exploded.

    `ok` means that at the returned structure every force and every component of the stress is
    within the settings. The criterion and the flag of the optimiser are not used. If the symmetry
    is kept, the optimiser, the limits and the record all see the invariant part of forces and
    stress, because the rest never vanishes.

    Args:
        path: The geometry with its optimiser, at `start`; only this function moves it.
        start: The initial geometry.
        settings: The limits, and whether the initial space group is kept.

    Yields:
        None, whenever the potential has to be evaluated at the geometry of `path`; the caller sends
        the `PotentialResult`.

    Returns:
        The outcome.
    """
    kept = KeptSymmetry.of(start) if settings.keep_symmetry else None
    for n_steps in range(settings.max_steps + 1):
        answer = yield
        if not answer.finite:
            return _invalid(path, start, n_steps, "energy, force or stress is not finite")
        if kept is not None:
            answer = answer.projected(kept)
        converged = answer.max_force <= settings.fmax and answer.max_stress <= settings.max_stress
        if converged or n_steps == settings.max_steps:
            break
        path.step(answer)
        # before the next evaluation: neighbour lists of a collapsed cell fill the memory
        reason = check_geometry(right_handed(start.lattice), path.cell, path.positions)
        if reason is not None:
            return _invalid(path, start, n_steps, reason)
    return Relaxed(
        status=Status.OK if converged else Status.UNCONVERGED,
        structure=_geometry(path, start, n_steps).structure(),
        energy=float(answer.energy),
        max_force=answer.max_force,
        max_stress=answer.max_stress,
        n_force_evals=n_steps + 1,
    )


def _geometry(path: GeometryOptimizer, start: Geometry, n_steps: int) -> Geometry:
    """Return the present geometry, coordinates not wrapped; exactly `start` if nothing moved.

    Its cell has the handedness of that of `start`, whatever the path has.
    """
    if n_steps == 0:
        return start
    cell = path.cell * (-1.0 if np.linalg.det(start.lattice) < 0 else 1.0)
    frac_coords = np.linalg.solve(cell.T, path.positions.T).T.astype(np.float64)
    return Geometry(cell, frac_coords, start.numbers)


def _invalid(path: GeometryOptimizer, start: Geometry, n_steps: int, detail: str) -> Relaxed:
    usable = np.isfinite(path.cell).all() and abs(np.linalg.det(path.cell)) > 0
    return Relaxed(
        status=Status.INVALID,
        # a singular cell has no fractional coordinates
        structure=_geometry(path, start, n_steps + 1).structure() if usable else None,
        n_force_evals=n_steps + 1,
        detail=detail,
    )


class KeptSymmetry(NamedTuple):
    """The symmetry operations of the initial structure: `benchmarks.run --keep-symmetry`.

    They stay those of every later geometry, because a strain that the operations leave unchanged
    commutes with them. A potential that is exactly symmetric keeps the symmetry except for
    rounding. One that is not (trained without it, or in single precision over many steps) leaves
    the saddle points to which symmetry holds a structure. DFT codes keep the symmetry, so that a
    comparison with them may need it. ASE's `FixSymmetry` does the same, but only for ASE's atoms.
    """

    rotations: Floats
    """(n_operations, 3, 3) orthogonal, on columns of Cartesian coordinates."""
    images: NDArray[np.intp]
    """(n_operations, n_sites) index of the site onto which each site is mapped."""

    @classmethod
    def of(cls, start: Geometry) -> KeptSymmetry | None:
        """Return the operations of `start`; None if no consistent space group is found."""
        group = space_group(start, SYMPREC)
        if group is None:
            return None
        cell = symmetric_lattice(start.lattice, group.rotations)
        return cls(cell.T @ group.rotations @ np.linalg.inv(cell).T, group.images)

    def forces(self, forces: Floats) -> Floats:
        """Return the part of the forces, (n_sites, 3), that is invariant under all operations."""
        carried_back = np.einsum("gba,gnb->gna", self.rotations, forces[self.images])
        mean: Floats = carried_back.mean(axis=0)
        return mean

    def stress(self, stress: Floats) -> Floats:
        """Return the invariant part, (3, 3), of a stress, (3, 3) or six Voigt components."""
        full = stress if stress.shape == (3, 3) else voigt_6_to_full_3x3_stress(stress)
        mean: Floats = (self.rotations.transpose(0, 2, 1) @ full @ self.rotations).mean(axis=0)
        return mean


def check_geometry(start: Floats, cell: Floats, positions: Floats) -> str | None:
    """Return what is wrong with a geometry, or None.

    The bounds are those of a valid prediction (`benchmarks.metrics.validity`): a cell whose volume
    leaves them has exploded or collapsed, and atoms that are nearer to each other have fused.

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
