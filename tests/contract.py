"""What every relaxer must obey, as one function: `check_relaxer(relaxer)`.

Yours too: `from tests.contract import check_relaxer` in your own test. DESIGN's contract in short:
one outcome per input in input order, inputs untouched, the same answer alone and in a batch, and
what is returned can be stored.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Sequence

import numpy as np
from pymatgen.core import Lattice, Structure

from benchmarks.core import SCORED, Geometry, Relaxed, Relaxer, Status


def sample_structures() -> list[Structure]:
    """Crystals that relaxers have stumbled over; elements of the embedded training split only."""
    skew = np.array([[1, 0, 0], [3, 1, 0], [-1, 2, 1]])
    return [
        # a single atom has no force to follow
        Structure(Lattice.cubic(3.0), ["Al"], [[0, 0, 0]]),
        Structure(_fcc(5.6), ["Li", "Br"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
        # outside [0, 1), as a trajectory that crosses the boundary has it
        Structure(_fcc(5.6), ["Zn", "Se"], [[-0.01, 1.02, 0.0], [2.26, -0.75, 0.25]]),
        # rocksalt in a cell whose shortest vectors are not its edges
        Structure(
            Lattice(skew @ _fcc(4.4).matrix),
            ["Ti", "C"],
            [[0, 0, 0], [2.2, 0, 0]],
            coords_are_cartesian=True,
        ),
        # species out of order, and more than a handful of atoms
        Structure(Lattice.cubic(4.3), ["Ti", "C"] * 4, _rocksalt_sites()),
        # layered, and not quite symmetric
        Structure(
            Lattice.hexagonal(3.8, 6.2),
            ["Se", "Zr", "Se"],
            [[1 / 3, 2 / 3, 0.25], [0, 0, 0], [2 / 3, 1 / 3, 0.76]],
        ),
    ]


def _fcc(a: float) -> Lattice:
    return Lattice([[0, a / 2, a / 2], [a / 2, 0, a / 2], [a / 2, a / 2, 0]])


def _rocksalt_sites() -> list[list[float]]:
    metal = [(0, 0, 0), (0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0)]
    return [[x + d, y, z] for x, y, z in metal for d in (0.0, 0.5)]


def check_relaxer(
    relaxer: Relaxer, structures: Sequence[Structure] | None = None, *, tolerance: float = 1e-4
) -> list[Relaxed]:
    """Assert that `relaxer` keeps the contract.

    Args:
        relaxer: The one to check; it is called several times.
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
    """One outcome is complete, typed, and about the sites that went in."""
    assert isinstance(outcome, Relaxed)
    assert isinstance(outcome.status, Status)
    assert type(pickle.loads(pickle.dumps(outcome))) is Relaxed
    for value in (outcome.energy, outcome.max_force, outcome.max_stress):
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
    """The answer for a structure does not depend on its batch, on the order, or on the past."""
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


def assert_same(one: Geometry, two: Geometry, tolerance: float, message: str) -> None:
    """Same species in the same order, lattice vectors and positions within `tolerance` [Å]."""
    assert one.numbers.tolist() == two.numbers.tolist(), message
    assert np.abs(one.lattice - two.lattice).max() <= tolerance, message
    if tolerance == 0:
        assert (one.frac_coords == two.frac_coords).all(), message
    moved = (one.frac_coords - two.frac_coords) @ two.lattice
    assert np.abs(moved).max() <= tolerance, message
