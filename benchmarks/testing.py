"""For authors of relaxers: a test of the contract, and relaxers to test a harness with.

    from benchmarks.testing import check_relaxer

    def test_my_relaxer():
        check_relaxer(MyRelaxer())

or, from the shell, of a function without arguments that returns a relaxer or an ASE calculator:

    python -m benchmarks.testing my_package.module:factory

`check_relaxer` asserts what `benchmarks.core.Relaxer` promises: one outcome per input in input
order, inputs untouched, the same answer alone and in a batch, and outcomes that can be stored.
`check_mirrored` asserts beside it that left-handed cells are relaxed as right-handed ones are. The
toy relaxers answer without any physics or fail on purpose; `ZeroForce` is a potential without
forces, with which every engine must return its input.
"""

from __future__ import annotations

import math
import os
import pickle
import time
from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from pymatgen.core import Lattice, Structure

from benchmarks.core import SCORED, Geometry, Relaxed, Relaxer, Status


def sample_structures() -> list[Structure]:
    """Six crystals that relaxers have stumbled over, of elements of the embedded training split."""
    skew = np.array([[1, 0, 0], [3, 1, 0], [-1, 2, 1]])
    fcc = np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    metal = [(0, 0, 0), (0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0)]
    rocksalt = [[x + d, y, z] for x, y, z in metal for d in (0.0, 0.5)]
    return [
        # a single atom has no force to follow
        Structure(Lattice.cubic(3.0), ["Al"], [[0, 0, 0]]),
        Structure(Lattice(5.6 * fcc), ["Li", "Br"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
        # outside [0, 1), as a trajectory that crosses the boundary has it
        Structure(Lattice(5.6 * fcc), ["Zn", "Se"], [[-0.01, 1.02, 0.0], [2.26, -0.75, 0.25]]),
        # rocksalt in a cell whose shortest vectors are not its edges
        Structure(
            Lattice(4.4 * skew @ fcc),
            ["Ti", "C"],
            [[0, 0, 0], [2.2, 0, 0]],
            coords_are_cartesian=True,
        ),
        # species out of order, and more than a handful of atoms
        Structure(Lattice.cubic(4.3), ["Ti", "C"] * 4, rocksalt),
        # layered, and not quite symmetric
        Structure(
            Lattice.hexagonal(3.8, 6.2),
            ["Se", "Zr", "Se"],
            [[1 / 3, 2 / 3, 0.25], [0, 0, 0], [2 / 3, 1 / 3, 0.76]],
        ),
    ]


def check_relaxer(
    relaxer: Relaxer, structures: Sequence[Structure] | None = None, *, tolerance: float = 1e-4
) -> list[Relaxed]:
    """Assert that `relaxer` keeps the contract.

    Args:
        relaxer: The relaxer to check; it is called several times.
        structures: Inputs; `sample_structures()` by default.
        tolerance: Largest difference of the same answer obtained twice [Å].

    Returns:
        The outcomes, so that a test can go on to say what they should be.
    """
    inputs = sample_structures() if structures is None else list(structures)
    before = [Geometry.of(structure) for structure in inputs]
    assert relaxer.relax([]) == []
    outcomes = relaxer.relax(inputs)
    assert isinstance(outcomes, list)
    assert len(outcomes) == len(inputs), "one outcome per input"
    for structure, geometry in zip(inputs, before, strict=True):
        assert_same(Geometry.of(structure), geometry, 0.0, "an input was modified")
    for geometry, outcome in zip(before, outcomes, strict=True):
        check_outcome(outcome, geometry)
    check_independent(relaxer, inputs, outcomes, tolerance)
    return outcomes


def check_outcome(outcome: Relaxed, initial: Geometry) -> None:
    """Assert that one outcome is complete, has the right types, and is about the initial sites."""
    assert isinstance(outcome, Relaxed)
    assert isinstance(outcome.status, Status)
    assert type(pickle.loads(pickle.dumps(outcome))) is Relaxed  # noqa: S301 - its own bytes
    numbers = (outcome.energy, outcome.max_force, outcome.max_stress, outcome.expected_error)
    for value in numbers:
        assert value is None or (isinstance(value, float) and math.isfinite(value))
    for count in (outcome.n_force_evals, outcome.n_tokens):
        assert count is None or (isinstance(count, int) and count >= 0)
    if outcome.status in SCORED:
        assert outcome.structure is not None
        final = Geometry.of(outcome.structure)
        assert final.numbers.tolist() == initial.numbers.tolist(), "sites lost or out of order"
        assert np.isfinite(final.lattice).all()
        assert np.isfinite(final.frac_coords).all()
        assert np.linalg.det(final.lattice) * np.linalg.det(initial.lattice) > 0
    elif outcome.status is not Status.INVALID:
        assert outcome.structure is None
    if outcome.status is Status.UNSUPPORTED:
        assert outcome.detail, "say what is not supported"


def check_independent(
    relaxer: Relaxer, inputs: Sequence[Structure], outcomes: Sequence[Relaxed], tolerance: float
) -> None:
    """Assert that no answer depends on the batch, on the order, or on earlier calls."""
    alone = [relaxer.relax([structure.copy()])[0] for structure in inputs]
    backwards = relaxer.relax([structure.copy() for structure in reversed(inputs)])[::-1]
    for again in (alone, backwards):
        for first, second in zip(outcomes, again, strict=True):
            assert first.status is second.status
            assert first.n_tokens == second.n_tokens
            assert (first.structure is None) == (second.structure is None)
            if first.structure is not None and second.structure is not None:
                one, two = Geometry.of(first.structure), Geometry.of(second.structure)
                assert_same(one, two, tolerance, "the answer depends on the batch")


def check_mirrored(
    relaxer: Relaxer,
    inputs: Sequence[Structure],
    outcomes: Sequence[Relaxed],
    tolerance: float = 0.01,
) -> None:
    """Assert that crystals mirrored at x = 0 give the mirrored answers, within `tolerance` [Å].

    The mirror image of a right-handed cell is left-handed, so that a stress or a volume that has
    the sign of det(lattice) is found out here. Cell parameters and fractional coordinates are those
    of the original.
    """
    images = [mirrored(Geometry.of(structure)).structure() for structure in inputs]
    for first, second in zip(outcomes, relaxer.relax(images), strict=True):
        assert first.status is second.status, "the mirror image has another status"
        assert (first.structure is None) == (second.structure is None)
        if first.structure is not None and second.structure is not None:
            one, two = mirrored(Geometry.of(first.structure)), Geometry.of(second.structure)
            assert_same(one, two, tolerance, "the mirror image has another answer")


def mirrored(geometry: Geometry) -> Geometry:
    """Return the mirror image at x = 0, with the same cell parameters and fractional coordinates.

    A right-handed cell becomes left-handed, and a left-handed one right-handed.
    """
    return geometry._replace(lattice=geometry.lattice * [-1.0, 1.0, 1.0])


def assert_same(one: Geometry, two: Geometry, tolerance: float, message: str) -> None:
    """Assert the same species in the same order, and vectors equal within `tolerance` [Å]."""
    assert one.numbers.tolist() == two.numbers.tolist(), message
    assert np.abs(one.lattice - two.lattice).max() <= tolerance, message
    if tolerance == 0:
        assert (one.frac_coords == two.frac_coords).all(), message
    moved = (one.frac_coords - two.frac_coords) @ two.lattice
    assert np.abs(moved).max() <= tolerance, message


class ReturnsInput:
    """Returns its input; subclasses misbehave at structures with `bad` sites.

    Args:
        bad: Number of sites of the structures at which `misbehave` is called; 0 for none.
        settings: Accepted and not used.
    """

    def __init__(self, bad: int = 0, **settings: object) -> None:  # noqa: ARG002 - as documented
        self.bad = bad

    def relax(self, structures: Sequence[Structure], /) -> list[Relaxed]:
        """Return the structures as they are; see `benchmarks.core.Relaxer`."""
        for structure in structures:
            if len(structure) == self.bad:
                self.misbehave()
        return [Relaxed(status=Status.OK, structure=structure) for structure in structures]

    def misbehave(self) -> None:
        """Do nothing; a subclass does here what it is named for."""


class Raises(ReturnsInput):
    """Raises a `TypeError`."""

    def misbehave(self) -> None:
        """Raise."""
        raise TypeError("no such orbital")


class Hangs(ReturnsInput):
    """Does not answer for a minute."""

    def misbehave(self) -> None:
        """Sleep."""
        time.sleep(60)


class Exits(ReturnsInput):
    """Ends its process."""

    def misbehave(self) -> None:
        """End the process with status 3."""
        os._exit(3)


class LosesAnAtom(ReturnsInput):
    """Removes the first atom of a structure with `bad` sites and says `ok` all the same."""

    def relax(self, structures: Sequence[Structure], /) -> list[Relaxed]:
        """Return the structures, some without their first atom."""
        outcomes = super().relax(structures)
        for outcome in outcomes:
            if outcome.structure is not None and len(outcome.structure) == self.bad:
                outcome.structure.remove_sites([0])
        return outcomes


class ZeroForce(Calculator):
    """A potential without forces or stress: an engine must return its input unchanged."""

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


def main(argv: Sequence[str] | None = None) -> int:
    """Check the relaxer of `package.module:factory`; 0 if it keeps the contract, 1 if not, 2."""
    import argparse
    import sys

    from baselines.engines.ase_engine import AseRelaxer
    from benchmarks.core import UserError
    from benchmarks.core.cli import run_command
    from benchmarks.models.registry import import_target, require, resolve

    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.testing",
        description="Check that a relaxer, or the one of an ASE calculator, keeps the contract.",
    )
    parser.add_argument("factory", metavar="PACKAGE.MODULE:FACTORY")
    args = parser.parse_args(argv)

    def command() -> int:
        require(resolve(f"checked=relaxer:{args.factory}"))
        made = import_target(args.factory)()
        relaxer = AseRelaxer(made) if hasattr(made, "get_potential_energy") else made
        if not isinstance(relaxer, Relaxer):
            raise UserError(f"{args.factory} makes a {type(made).__name__}, without relax()")
        try:
            outcomes = check_relaxer(relaxer)
            check_mirrored(relaxer, sample_structures(), outcomes)
        except AssertionError as error:
            sys.stdout.write(
                f"{args.factory} breaks the contract: {error or 'see its traceback'}\n"
            )
            return 1
        statuses = ", ".join(str(outcome.status) for outcome in outcomes)
        sys.stdout.write(f"{args.factory} keeps the contract ({statuses})\n")
        return 0

    return run_command(command)


if __name__ == "__main__":
    raise SystemExit(main())
