"""Relax many structures at once with a torch-sim model: the second engine of `protocol`.

Every structure goes down its own path (`baselines.engines.frechet`), and in each round those under
way are evaluated together, as many at a time as fit into memory by torch-sim's own measure, atoms
times density (its estimate of the limit is for GPUs and refuses the CPU). torch-sim's optimisers
are not used: for cells it has FIRE, which takes about five times as many evaluations, goes through
the cell filter system by system, and reports what ran out of steps as converged.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from pymatgen.core import Structure
from torch_sim.models.interface import ModelInterface
from torch_sim.state import SimState

from baselines.engines.frechet import FrechetLBFGS
from baselines.engines.protocol import PotentialResult, relaxation_loop, unsupported
from benchmarks.core import Geometry, Relaxed, RelaxSettings, Status

CPU_MEMORY = 10_000.0
"""Of one evaluation on a CPU: sum over its structures of atoms times atoms per nm^3 (torch-sim's
`n_atoms_x_density`). About 200 atoms: in larger evaluations CHGNet takes longer per atom."""
GPU_MEMORY = 2_500.0
"""And on a GPU, per GB of its memory: about 50 atoms. For each CHGNet takes 2.8 MB (measured by
tests/perf on an H100), so that a ninth of the memory is used; the large published potentials want
several times as much."""


@dataclass(frozen=True, slots=True)
class _Descent:
    """A structure under way."""

    index: int
    start: Geometry
    path: FrechetLBFGS
    steps: Generator[None, PotentialResult, Relaxed]

    @classmethod
    def begin(cls, index: int, structure: Structure, settings: RelaxSettings) -> _Descent:
        start = Geometry.of(structure)
        path = FrechetLBFGS(start)
        steps = relaxation_loop(path, start, settings)
        next(steps)
        return cls(index, start, path, steps)

    def memory(self, scales_with: str) -> float:
        """As `torch_sim.autobatching.calculate_memory_scaler`, of the geometry as it is now."""
        n_sites = len(self.start.numbers)
        if scales_with == "n_atoms":
            return float(n_sites)
        return float(n_sites**2 / abs(np.linalg.det(self.path.cell)) * 1000)


class BatchedRelaxer:
    """Relaxes with L-BFGS and the Fréchet cell filter; statuses are those of `AseRelaxer`.

    Args:
        model: Gives energy, forces and stress.
        elements: Atomic numbers the potential knows; None for all. Others are `unsupported`.
        settings: Limits of the relaxation, and whether the space group of the start is kept.
        memory: Of one evaluation, in the unit of the model's `memory_scales_with`; a structure that
            is larger by itself is evaluated alone. None: by the device, see `CPU_MEMORY` and
            `GPU_MEMORY`.
    """

    def __init__(
        self,
        model: ModelInterface,
        *,
        elements: Collection[int] | None = None,
        settings: RelaxSettings = RelaxSettings(),
        memory: float | None = None,
    ) -> None:
        self.model = model
        self.elements = None if elements is None else frozenset(elements)
        self.settings = settings
        self.memory = memory or _memory(model.device)

    def relax(self, structures: Sequence[Structure], /) -> list[Relaxed]:
        """Relax all; see `benchmarks.core.Relaxer`."""
        reasons = [unsupported(structure, self.elements) for structure in structures]
        outcomes = {
            index: Relaxed(status=Status.UNSUPPORTED, detail=reason)
            for index, reason in enumerate(reasons)
            if reason is not None
        }
        running = [
            _Descent.begin(index, structure, self.settings)
            for index, structure in enumerate(structures)
            if index not in outcomes
        ]
        while running:
            for batch in self._batches(running):
                outcomes |= self._advance(batch)
            running = [descent for descent in running if descent.index not in outcomes]
        return [outcomes[index] for index in range(len(structures))]

    def _batches(self, running: Sequence[_Descent]) -> Iterator[list[_Descent]]:
        """Those under way, in order, as many at a time as fit into memory as they are now."""
        batch: list[_Descent] = []
        used = 0.0
        for descent in running:
            more = descent.memory(self.model.memory_scales_with)
            if batch and used + more > self.memory:
                yield batch
                batch, used = [], 0.0
            batch.append(descent)
            used += more
        if batch:
            yield batch

    def _advance(self, batch: Sequence[_Descent]) -> dict[int, Relaxed]:
        """One evaluation and a step of each; the outcomes of those that it ended."""
        ended = {}
        for descent, answer in zip(batch, _answers(self.model, batch), strict=True):
            try:
                descent.steps.send(answer)
            except StopIteration as end:
                ended[descent.index] = end.value
        return ended


def _memory(device: torch.device) -> float:
    """Of one evaluation there."""
    if device.type == "cpu":
        return CPU_MEMORY
    _free, total = torch.cuda.mem_get_info(device)
    return GPU_MEMORY * total / 2**30


def _answers(model: ModelInterface, batch: Sequence[_Descent]) -> list[PotentialResult]:
    """What the model says about each of the batch, in double precision."""
    sizes = [len(descent.start.numbers) for descent in batch]
    said = {name: value.double().cpu() for name, value in model(_state(model, batch)).items()}
    forces = said["forces"].split(sizes)
    return [
        PotentialResult(float(energy), force.numpy(), stress.numpy())
        for energy, force, stress in zip(said["energy"], forces, said["stress"], strict=True)
    ]


def _state(model: ModelInterface, batch: Sequence[_Descent]) -> SimState:
    """All structures of the batch, one after the other; cells as columns, as torch-sim has them."""
    sizes = [len(descent.start.numbers) for descent in batch]
    numbers = np.concatenate([descent.start.numbers for descent in batch])
    positions = np.concatenate([descent.path.positions for descent in batch])
    cells = np.stack([descent.path.cell.T for descent in batch])
    floating = {"device": model.device, "dtype": model.dtype}
    return SimState(
        positions=torch.as_tensor(positions, **floating),
        masses=torch.ones(len(numbers), **floating),
        cell=torch.as_tensor(cells, **floating),
        pbc=True,
        atomic_numbers=torch.as_tensor(numbers.astype(np.int64), device=model.device),
        system_idx=torch.arange(len(batch), device=model.device).repeat_interleave(
            torch.tensor(sizes, device=model.device)
        ),
    )
