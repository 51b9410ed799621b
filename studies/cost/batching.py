"""The batched engine against ASE's loop: time and memory by what is relaxed together.

The same structures, weights and limits. Both engines end where forces and stress are within the
limits; the batched one needs fewer evaluations for it (its optimiser), and less time for each (what
it evaluates together), so a row has both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from benchmarks.core import Geometry, RelaxSettings, Status, UserError
from benchmarks.data import load
from benchmarks.models.environments import interpreter
from benchmarks.models.registry import ENGINES, on_engine
from leaderboard.views.figures import save_figure
from studies.cost.cost_tables import SIZE, memory_label, where
from studies.cost.timing import Machine, Measured, timed

MODEL = "mace-embedded"
BATCHES = (1, 4, 16, 64)
STRUCTURES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchingRow:
    """A row of `batching.csv`."""

    model: str
    engine: str
    batch: int
    """Structures per call."""
    structures: int
    seconds_per_structure: float
    seconds_per_evaluation: float
    """Time of an evaluation of one structure's energy, forces and stress, with the optimiser."""
    evaluations: int
    converged: int
    loaded_mb: float
    """Peak memory of the process before its first structure [MB]; of the GPU if on one."""
    peak_mb: float
    """And after all."""
    threads: int
    device: str
    """`cpu`, or the name of the card."""
    cpu: str


def starts(n: int) -> list[Geometry]:
    """The starts of the embedded training split, from the first again where it has fewer."""
    split = load("embedded", split="train")
    return [split.geometries(i % len(split))[0] for i in range(n)]


def measure(
    model: Measured, batch: int, structures: list[Geometry], machine: Machine
) -> BatchingRow:
    """All structures, `batch` at a time, in a process of its own.

    Raises:
        UserError: The model cannot be loaded, or fails.
    """
    n = len(structures)
    parts = [structures[i : i + batch] for i in range(0, n, batch)]
    found = timed(model.spec, RelaxSettings(), [structures[:1], *parts], machine)
    evaluations = sum(outcome.n_force_evals or 0 for outcome in found.outcomes)
    if not evaluations:
        raise UserError(f"{model.spec.name}: {found.outcomes[0].detail}")
    return BatchingRow(
        model=model.spec.name,
        engine=model.spec.engine or ENGINES[0],
        batch=batch,
        structures=n,
        seconds_per_structure=sum(found.seconds) / n,
        seconds_per_evaluation=sum(found.seconds) / evaluations,
        evaluations=evaluations,
        converged=sum(outcome.status is Status.OK for outcome in found.outcomes),
        loaded_mb=found.loaded_mb,
        peak_mb=found.peak_mb,
        **machine.about(),
    )


def rows(
    model: Measured, n: int, machine: Machine, say: Callable[[str], None]
) -> Iterator[BatchingRow]:
    """ASE's loop, then the batched engine at every size of batch up to `n`; `say` is told of each.

    Raises:
        UserError: As `measure`, or the model has no second engine, or it is not installed, or its
            weights are random: they converge nowhere.
    """
    if model.weights == "random":
        raise UserError(f"{model.spec.name}: its weights are not here")
    batched = Measured(on_engine(model.spec, ENGINES[1]), model.weights)
    if batched.spec.engine is None:
        raise UserError(f"{model.spec.name} has no batched engine")
    interpreter(batched.spec)
    structures = starts(n)
    planned = [(model, 1), *((batched, batch) for batch in BATCHES if batch <= n)]
    for one, batch in planned:
        row = measure(one, batch, structures, machine)
        say(f"{row.engine}, {batch} per call: {row.seconds_per_structure:.3g} s a structure")
        yield row


def batching(rows: Sequence[BatchingRow], folder: Path) -> pd.DataFrame:
    """Write `batching.csv` and `batching.svg`; return the table."""
    table = pd.DataFrame([asdict(row) for row in rows])
    table.to_csv(folder / "batching.csv", index=False, float_format="%.4g")
    loop, batched = (table[table.engine == engine] for engine in ENGINES)
    times = table.seconds_per_structure
    with save_figure(folder / "batching.svg", SIZE, "batching") as figure:
        axes = figure.subplots(1, 2)
        for axis, column in zip(axes, ("seconds_per_structure", "peak_mb"), strict=True):
            axis.plot(batched.batch, batched[column], marker="o", label="batched engine")
            axis.axhline(loop[column].iloc[0], color="C1", linestyle="--", label="ASE, one by one")
            axis.set_xscale("log", base=2)
            axis.set_xticks(batched.batch, batched.batch)
            axis.set(xlabel="structures per call", ylim=(0, 1.1 * table[column].max()))
        axes[0].set(ylabel="time per structure (s)")
        axes[1].set(ylabel=memory_label(table))
        axes[0].set(yscale="log", ylim=(times.min() / 2, 2 * times.max()))
        axes[0].legend()
        first = table.iloc[0]
        figure.suptitle(f"{first.structures} relaxations with {first.model}, {where(table)}")
    return table
