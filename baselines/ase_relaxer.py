"""Relax with any ASE calculator: cell and positions together, convergence measured, not believed.

`AseRelaxer(factory)` is all that a potential needs; `AseRelaxer("package.module:factory")` takes
the user's own from the command line (`LABEL=ase:package.module:factory`).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE
from numpy.typing import NDArray
from pymatgen.core import Element, Structure

from baselines.explosion import contact, exploded
from benchmarks.core import GPA, Geometry, Relaxed, Status, UserError


@dataclass(frozen=True, slots=True)
class _State:
    """What the potential says about one geometry."""

    energy: float
    """[eV]"""
    max_force: float
    """Largest norm of a force [eV/Å]."""
    max_stress: float
    """Largest absolute component of the stress [eV/Å^3]."""

    @classmethod
    def of(cls, atoms: Atoms) -> _State:
        return cls(
            float(atoms.get_potential_energy()),
            float(np.linalg.norm(atoms.get_forces(), axis=1).max()),
            float(np.abs(atoms.get_stress()).max()),
        )

    @property
    def finite(self) -> bool:
        return bool(np.isfinite([self.energy, self.max_force, self.max_stress]).all())


class AseRelaxer:
    """Relaxes one structure after the other with an ASE calculator and the Fréchet cell filter.

    A structure is `ok` when, at the structure that is returned, every force is at most `fmax` and
    every component of the stress at most `max_stress`; the optimiser's own criterion, which mixes
    both into one number that grows with the cell, is not used.

    Args:
        calculator: An ASE calculator, a function without arguments that builds one, or the name
            of such a function, `package.module:factory`.
        elements: Atomic numbers the potential knows; None for all. Others are `unsupported`.
        fmax: Largest norm of a force [eV/Å].
        max_stress: Largest absolute component of the stress [eV/Å^3].
        max_steps: Steps of the optimiser after which the structure is `unconverged`.
        optimizer: A class of `ase.optimize` that evaluates the potential once per step.

    Raises:
        UserError: If the factory's name cannot be resolved.
    """

    def __init__(
        self,
        calculator: Calculator | Callable[[], Calculator] | str,
        *,
        elements: Collection[int] | None = None,
        fmax: float = 0.05,
        max_stress: float = 0.1 * GPA,
        max_steps: int = 500,
        optimizer: type[Any] = FIRE,
    ) -> None:
        factory = _imported(calculator) if isinstance(calculator, str) else calculator
        self.calculator: Any = factory() if callable(factory) else factory
        self.elements = None if elements is None else frozenset(elements)
        self.fmax = fmax
        self.max_stress = max_stress
        self.max_steps = max_steps
        self.optimizer = optimizer

    def relax(self, structures: Sequence[Structure], /) -> list[Relaxed]:
        """Relax each structure; see `benchmarks.core.Relaxer`."""
        return [self._relax_one(structure) for structure in structures]

    def _relax_one(self, structure: Structure) -> Relaxed:
        reason = self._unsupported(structure)
        if reason is not None:
            return Relaxed(status=Status.UNSUPPORTED, detail=reason)
        start = Geometry.of(structure)
        atoms = Atoms(
            numbers=start.numbers,
            cell=start.lattice,
            scaled_positions=start.frac_coords,
            pbc=True,
            calculator=self.calculator,
        )
        return self._descend(atoms, start)

    def _unsupported(self, structure: Structure) -> str | None:
        if not structure.is_ordered:
            return "partially occupied sites"
        elements = {site.specie.Z for site in structure}
        if self.elements is not None and not elements <= self.elements:
            unknown = sorted(elements - self.elements)
            return f"no parameters for {', '.join(Element.from_Z(z).symbol for z in unknown)}"
        distance = contact(structure.lattice.matrix, structure.cart_coords)
        return None if distance is None else f"two atoms {distance:.2f} Å apart in the input"

    def _descend(self, atoms: Atoms, start: Geometry) -> Relaxed:
        """Step until converged, out of steps, or exploded."""
        optimizer = self.optimizer(FrechetCellFilter(atoms), logfile=None)
        for n_steps in range(self.max_steps + 1):
            state = _State.of(atoms)
            if not state.finite:
                return _invalid(atoms, start, n_steps, "energy, force or stress is not finite")
            converged = state.max_force <= self.fmax and state.max_stress <= self.max_stress
            if converged or n_steps == self.max_steps:
                break
            optimizer.step()
            # before the next evaluation: neighbour lists of a collapsed cell fill the memory
            reason = exploded(start.lattice, atoms.cell.array, atoms.positions)
            if reason is not None:
                return _invalid(atoms, start, n_steps, reason)
        return Relaxed(
            status=Status.OK if converged else Status.UNCONVERGED,
            structure=_geometry(atoms, start, n_steps).structure(),
            energy=state.energy,
            max_force=state.max_force,
            max_stress=state.max_stress,
            n_force_evals=n_steps + 1,
        )


def _geometry(atoms: Atoms, start: Geometry, n_steps: int) -> Geometry:
    """Where the atoms are, fractional coordinates continued from the start; unmoved, exactly it."""
    if n_steps == 0:
        return start
    frac_coords: NDArray[np.float64] = atoms.cell.scaled_positions(atoms.positions)
    return Geometry(atoms.cell.array.copy(), frac_coords, start.numbers)


def _invalid(atoms: Atoms, start: Geometry, n_steps: int, detail: str) -> Relaxed:
    cell = atoms.cell.array
    usable = np.isfinite(cell).all() and abs(np.linalg.det(cell)) > 0
    return Relaxed(
        status=Status.INVALID,
        # a singular cell has no fractional coordinates
        structure=_geometry(atoms, start, n_steps + 1).structure() if usable else None,
        n_force_evals=n_steps + 1,
        detail=detail,
    )


def _imported(name: str) -> Callable[[], Calculator]:
    """The function named `package.module:factory`."""
    module, _, attribute = name.partition(":")
    try:
        factory = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        message = f"cannot import the calculator factory {name!r} (package.module:factory): {error}"
        raise UserError(message) from error
    if not callable(factory):
        message = f"{name!r} is not a function that returns an ASE calculator"
        raise UserError(message)
    result: Callable[[], Calculator] = factory
    return result


class ZeroForce(Calculator):
    """A potential without forces or stress: through `AseRelaxer` it must change nothing at all."""

    implemented_properties = ("energy", "forces", "stress")

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Fill in zeros; see `ase.calculators.calculator.Calculator.calculate`."""
        super().calculate(atoms, properties, system_changes)
        self.results = {
            "energy": 0.0,
            "forces": np.zeros((len(self.atoms), 3)),
            "stress": np.zeros(6),
        }
