"""One relaxation protocol, whatever evaluates the potential: when a descent ends, and as what.

`relaxation_loop` is a coroutine: it asks for energy, forces and stress where its path stands, and
returns the outcome. An engine (`baselines.engines.ase_engine`: one structure at a time;
`baselines.engines.batch_engine`: many in one evaluation) only answers: none has statuses of its
own.
"""

from __future__ import annotations

from collections.abc import Collection, Generator
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Element, Structure

from baselines.engines.kept_symmetry import KeptSymmetry
from baselines.engines.sanity import check_geometry, shortest_contact
from benchmarks.core import Geometry, Relaxed, RelaxSettings, Status

Floats = NDArray[np.float64]


class PotentialResult(NamedTuple):
    """What the potential says about one geometry."""

    energy: float
    """[eV]"""
    forces: Floats
    """(n_sites, 3) [eV/Å]."""
    stress: Floats
    """[eV/Å^3], ASE's sign; (3, 3), or the six components of Voigt."""

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
        """Whether nothing in it is NaN or infinite."""
        return bool(np.isfinite([self.energy, self.max_force, self.max_stress]).all())

    def projected(self, kept: KeptSymmetry) -> PotentialResult:
        """What of it breaks no symmetry."""
        return PotentialResult(self.energy, kept.forces(self.forces), kept.stress(self.stress))


class GeometryOptimizer(Protocol):
    """A geometry and the optimiser that moves it."""

    @property
    def cell(self) -> Floats:
        """(3, 3) row vectors [Å]."""
        ...

    @property
    def positions(self) -> Floats:
        """(n_sites, 3) Cartesian [Å]."""
        ...

    def step(self, answer: PotentialResult) -> None:
        """Move by what the potential says about where it stands, in the symmetry that is kept."""
        ...


def unsupported(structure: Structure, elements: Collection[int] | None) -> str | None:
    """Why a structure cannot be relaxed by a potential that knows `elements` (None: all), or None.

    Asked before any evaluation.
    """
    if not structure.is_ordered:
        return "partially occupied sites"
    unknown = {site.specie.Z for site in structure} - set(elements or ())
    if elements is not None and unknown:
        return f"no parameters for {', '.join(Element.from_Z(z).symbol for z in sorted(unknown))}"
    distance = shortest_contact(structure.lattice.matrix, structure.cart_coords)
    return None if distance is None else f"two atoms {distance:.2f} Å apart in the input"


def relaxation_loop(
    path: GeometryOptimizer, start: Geometry, settings: RelaxSettings
) -> Generator[None, PotentialResult, Relaxed]:
    """Step until converged, out of steps, or exploded.

    `ok` means that at the structure that is returned every force and every component of the stress
    is within the settings. An optimiser's own criterion, or its flag, is never asked. Where the
    symmetry is kept, forces and stress are what is left of them in it, to the optimiser, the
    limits and the record alike: the rest never vanishes.

    Args:
        path: At `start`; moved by this function alone.
        start: The input.
        settings: When to end, and whether the space group of the start is kept.

    Yields:
        None, when the potential has to be evaluated where `path` stands; is sent the `Answer`.

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
        reason = check_geometry(start.lattice, path.cell, path.positions)
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
    """Where the atoms are, fractional coordinates continued from the start; unmoved, exactly it."""
    if n_steps == 0:
        return start
    frac_coords = np.linalg.solve(path.cell.T, path.positions.T).T.astype(np.float64)
    return Geometry(path.cell.copy(), frac_coords, start.numbers)


def _invalid(path: GeometryOptimizer, start: Geometry, n_steps: int, detail: str) -> Relaxed:
    usable = np.isfinite(path.cell).all() and abs(np.linalg.det(path.cell)) > 0
    return Relaxed(
        status=Status.INVALID,
        # a singular cell has no fractional coordinates
        structure=_geometry(path, start, n_steps + 1).structure() if usable else None,
        n_force_evals=n_steps + 1,
        detail=detail,
    )
