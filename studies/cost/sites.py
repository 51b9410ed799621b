"""Cost against the number of sites: supercells of one crystal, so that the density is the same.

A potential is asked for energy, forces and stress once (a relaxation of no steps), the T5 for its
whole answer, in which a potential would need some ten evaluations or more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from pymatgen.core import Structure

from benchmarks.core import SCORED, Geometry, RelaxSettings, UserError
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
        engine=(model.spec.engine or ENGINES[0]) if model.spec.family == "gnn" else "",
        weights=model.weights,
        sites=len(structure),
        seconds=float(np.median(found.seconds)),
        loaded_mb=found.loaded_mb,
        peak_mb=found.peak_mb,
        **machine.about(),
    )


def points(
    models: Sequence[Measured], largest: int, machine: Machine, say: Callable[[str], None]
) -> Iterator[Point]:
    """All up to `largest` sites, model by model; a model ends at the first size that it fails at.

    `say` is told of each, and of that.
    """
    structures = [supercell(multiples) for multiples in SUPERCELLS]
    for model in models:
        for structure in structures:
            if len(structure) > largest:
                break
            try:
                point = measure(model, structure, machine)
            except UserError as error:
                say(f"{len(structure)} sites: {error}")
                break
            say(f"{point.sites} sites: {point.model} {point.seconds:.3g} s, {point.peak_mb:.0f} MB")
            yield point


def exponent(sizes: Sequence[int], seconds: Sequence[float]) -> float | None:
    """The exponent of the growth of the time at large sizes; None from fewer than three sizes."""
    large = np.array(sizes) >= max(sizes, default=0) / LARGE
    if large.sum() < 3:
        return None
    logs = np.log(np.array(sizes)[large]), np.log(np.array(seconds)[large])
    return float(np.polyfit(*logs, 1)[0])
