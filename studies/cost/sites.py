"""What a model costs in use: an evaluation by the number of sites, and a relaxation.

The sizes are supercells of one crystal, so that the density is the same. A potential is asked for
energy, forces and stress once (a relaxation of no steps), and a model that answers in one pass for
its whole answer. The relaxations are those of the embedded test split, one structure at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pymatgen.core import Structure

from benchmarks.core import SCORED, Geometry, RelaxSettings, Status, UserError
from benchmarks.data import load
from benchmarks.models.registry import ENGINES
from studies.cost.timing import Machine, Measured, timed

CRYSTAL = "gpaw-B1-Li-Br-0-pbe"
"""Rocksalt with 2 sites and 21 Å^3 per site, of the embedded training split."""
SUPERCELLS = (
    (1, 1, 1),
    (2, 1, 1),
    (2, 2, 1),
    (2, 2, 2),
    (4, 2, 2),
    (4, 4, 2),
    (4, 4, 4),
    (5, 5, 4),
)
"""Its supercells, with 2 to 200 sites."""
ROUNDS = 11
"""Number of rounds, whose median counts, after a warm-up."""
RATTLE = 0.01
"""[Å]; every round has a geometry of its own, or ASE's calculators would remember the answer."""
RELAXED = 53
"""Structures of the embedded test split that are relaxed: all."""
LARGE = 8.0
"""An exponent is fitted to sizes within this factor of the largest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A row of `cost.csv`."""

    model: str
    engine: str
    weights: str
    """`its own`, or `random`."""
    sites: int
    seconds: float
    """Median of an evaluation of energy, forces and stress; of the T5, of an answer."""
    loaded_mb: float
    """Peak memory of the process before its first structure [MB]; of the GPU if on one."""
    peak_mb: float
    """And after all."""
    threads: int
    device: str
    """`cpu`, or the name of the card."""
    cpu: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Relaxations:
    """What the relaxations of one model took."""

    structures: int
    seconds_per_structure: float
    """Median; the first structure is relaxed once before."""
    evaluations_per_structure: float | None
    """Median; None of a model that answers in one pass."""
    finished: int
    """Number of structures that ended as `ok`."""


def supercell(multiples: tuple[int, int, int]) -> Structure:
    """So many cells of the crystal along its three vectors."""
    found = (s.initial for s in load("embedded", split="train") if s.sample_id == CRYSTAL)
    return next(found).make_supercell(multiples, in_place=False)


def rattled(structure: Structure, rng: np.random.Generator) -> Geometry:
    """The structure with its atoms moved a little."""
    start = Geometry.of(structure)
    moved = rng.normal(0, RATTLE, start.frac_coords.shape) @ np.linalg.inv(start.lattice)
    return start._replace(frac_coords=start.frac_coords + moved)


def measure(model: Measured, structure: Structure, machine: Machine) -> Point:
    """One point, in a process of its own.

    Raises:
        UserError: The model cannot be loaded, fails, or does not take the structure.
    """
    rng = np.random.default_rng(0)
    calls = [[rattled(structure, rng)] for _ in range(ROUNDS + 1)]
    found = timed(model.spec, RelaxSettings(max_steps=0), calls, machine)
    for outcome in found.outcomes:
        if outcome.status not in SCORED:
            raise UserError(f"{model.spec.name}: {outcome.status} ({outcome.detail})")
    return Point(
        model=model.spec.name,
        engine=(model.spec.engine or ENGINES[0]) if model.is_potential else "",
        weights=model.weights,
        sites=len(structure),
        seconds=float(np.median(found.seconds)),
        loaded_mb=found.loaded_mb,
        peak_mb=found.peak_mb,
        **machine.about(),
    )


def relaxations(model: Measured, n: int, machine: Machine) -> Relaxations:
    """Relax structures of the embedded test split one at a time, in a process of its own.

    Args:
        model: The model.
        n: So many structures, from the first.
        machine: Where.

    Raises:
        UserError: The model cannot be loaded, or a call came to nothing.
    """
    split = load("embedded", split="test")
    starts = [split.geometries(i)[0] for i in range(min(n, len(split)))]
    found = timed(model.spec, RelaxSettings(), [[each] for each in (starts[0], *starts)], machine)
    evaluations = [x.n_force_evals for x in found.outcomes if x.n_force_evals is not None]
    return Relaxations(
        structures=len(starts),
        seconds_per_structure=float(np.median(found.seconds)),
        evaluations_per_structure=float(np.median(evaluations)) if evaluations else None,
        finished=sum(outcome.status is Status.OK for outcome in found.outcomes),
    )


def exponent(sizes: Sequence[int], seconds: Sequence[float]) -> float | None:
    """The exponent of the growth of the time at large sizes; None from fewer than three sizes."""
    large = np.array(sizes) >= max(sizes, default=0) / LARGE
    if large.sum() < 3:
        return None
    logs = np.log(np.array(sizes)[large]), np.log(np.array(seconds)[large])
    return float(np.polyfit(*logs, 1)[0])
