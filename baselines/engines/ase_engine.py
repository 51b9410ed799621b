"""The ASE engine: relaxes cell and positions with any ASE calculator, one structure at a time.

Convergence is measured at the returned structure; the flag of the optimiser is not used.
`AseRelaxer(factory)` is all that a potential needs, and `AseRelaxer("package.module:factory")` is
the user's own potential from the command line (`LABEL=ase:package.module:factory`).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Sequence
from typing import Any

from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.calculators.singlepoint import SinglePointCalculator
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE
from pymatgen.core import Structure

from baselines.engines.relaxation_loop import (
    Floats,
    PotentialResult,
    relaxation_loop,
    right_handed,
    unsupported,
)
from benchmarks.core import Geometry, Relaxed, RelaxSettings, Status, UserError


class _AsePath:
    """A `GeometryOptimizer` of ASE: atoms in the Fréchet cell filter, moved by an optimiser."""

    def __init__(self, atoms: Atoms, optimizer: type[Any]) -> None:
        self.atoms, self.potential = atoms, atoms.calc
        self.optimizer = optimizer(FrechetCellFilter(atoms), logfile=None)

    @property
    def cell(self) -> Floats:
        array: Floats = self.atoms.cell.array
        return array

    @property
    def positions(self) -> Floats:
        array: Floats = self.atoms.positions
        return array

    def evaluate(self) -> PotentialResult:
        atoms = self.atoms
        atoms.calc = self.potential
        return PotentialResult(
            float(atoms.get_potential_energy()), atoms.get_forces(), atoms.get_stress()
        )

    def step(self, answer: PotentialResult) -> None:
        # The optimiser asks the atoms for forces and stress, and must get the projected ones.
        self.atoms.calc = SinglePointCalculator(self.atoms, **answer._asdict())
        self.optimizer.step()


class AseRelaxer:
    """Relaxes one structure after the other with an ASE calculator and the Fréchet cell filter.

    A structure is `ok` when, at the structure that is returned, every force is at most `fmax` of
    the settings and every component of the stress at most `max_stress`; the optimiser's own
    criterion, which mixes both into one number that grows with the cell, is not used.

    Args:
        calculator: An ASE calculator, a function without arguments that builds one, or the name
            of such a function, `package.module:factory`.
        elements: Atomic numbers the potential knows; None for all. Others are `unsupported`.
        settings: Limits of the relaxation, and whether the initial space group is kept.
        optimizer: A class of `ase.optimize` that evaluates the potential once per step.

    Raises:
        UserError: If the factory's name cannot be resolved.
    """

    def __init__(
        self,
        calculator: Calculator | Callable[[], Calculator] | str,
        *,
        elements: Collection[int] | None = None,
        settings: RelaxSettings = RelaxSettings(),
        optimizer: type[Any] = FIRE,
    ) -> None:
        factory = _imported(calculator) if isinstance(calculator, str) else calculator
        self.calculator: Any = factory() if callable(factory) else factory
        self.elements = None if elements is None else frozenset(elements)
        self.settings = settings
        self.optimizer = optimizer

    def relax(self, structures: Sequence[Structure], /) -> list[Relaxed]:
        """Relax each structure; see `benchmarks.core.Relaxer`."""
        return [self._relax_one(structure) for structure in structures]

    def _relax_one(self, structure: Structure) -> Relaxed:
        reason = unsupported(structure, self.elements)
        if reason is not None:
            return Relaxed(status=Status.UNSUPPORTED, detail=reason)
        start = Geometry.of(structure)
        atoms = Atoms(
            numbers=start.numbers,
            cell=right_handed(start.lattice),
            positions=start.frac_coords @ start.lattice,
            pbc=True,
            calculator=self.calculator,
        )
        path = _AsePath(atoms, self.optimizer)
        descent = relaxation_loop(path, start, self.settings)
        next(descent)
        while True:
            try:
                descent.send(path.evaluate())
            except StopIteration as end:
                outcome: Relaxed = end.value
                return outcome


def _imported(name: str) -> Callable[[], Calculator]:
    """Import the function that is named `package.module:factory`."""
    module, _, attribute = name.partition(":")
    try:
        factory = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # the user's module can raise anything
        message = f"cannot import the calculator factory {name!r} (package.module:factory): {error}"
        raise UserError(message) from error
    if not callable(factory):
        message = f"{name!r} is not a function that returns an ASE calculator"
        raise UserError(message)
    result: Callable[[], Calculator] = factory
    return result
