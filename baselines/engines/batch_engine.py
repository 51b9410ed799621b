"""The batched engine: relaxes many structures at once with a torch-sim model.

Every structure has an optimiser of its own (`FrechetLBFGS`). In each round all structures
that have not ended are evaluated together, as many at a time as fit into memory by torch-sim's own
measure, atoms times density. The optimisers of torch-sim 0.3 are not used: its FIRE with a cell
filter needed about five times as many evaluations, and it reported structures that had run out of
steps as converged.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Generator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pymatgen.core import Structure
from scipy.linalg import expm
from torch_sim.models.interface import ModelInterface
from torch_sim.state import SimState

from baselines.engines.relaxation_loop import (
    PotentialResult,
    relaxation_loop,
    right_handed,
    unsupported,
)
from benchmarks.core import Geometry, Relaxed, RelaxSettings, Status

Floats = NDArray[np.float64]

STIFFNESS = 30.0
"""The curvature that is assumed before the first step has shown any [eV/Å^2]."""
MAX_MOVE = 0.2
"""No atom moves farther in one step [Å]."""
MAX_STRAIN = 0.06
"""No component of the strain changes more in one step."""
MEMORY = 20
"""Number of past steps from which the curvature is estimated."""


class FrechetLBFGS:
    """L-BFGS in the Fréchet cell filter: one evaluation of the potential a step, no line search.

    The coordinates are those of ASE's `FrechetCellFilter`: the positions in the frame of the first
    cell, and the logarithm of the deformation F (cell = first cell · Fᵀ). Two things differ, and
    neither moves a minimum. The logarithm is kept symmetric, so that a cell strains but does not
    turn. It is scaled by the square root of the number of atoms, not by the number: the curvature
    of the energy against strain grows with the volume, so that cell and atoms are about equally
    stiff in cells of any size. L-BFGS is algorithm 7.4 of Nocedal & Wright, Numerical Optimization
    (2006).

    Args:
        start: The initial geometry; its arrays are not changed.
    """

    def __init__(self, start: Geometry) -> None:
        self._first = right_handed(start.lattice)
        self._scale = np.sqrt(len(start.numbers))
        self._x = np.concatenate([start.frac_coords @ start.lattice, np.zeros((3, 3))])
        self._pairs: deque[tuple[Floats, Floats, float]] = deque(maxlen=MEMORY)
        self._last: tuple[Floats, Floats] | None = None
        self._place()

    def _place(self) -> None:
        """Set cell and positions from the coordinates."""
        self._log = self._x[-3:] / self._scale
        self._strain: Floats = expm(self._log)
        self.cell: Floats = self._first @ self._strain.T
        self.positions: Floats = self._x[:-3] @ self._strain.T

    def step(self, answer: PotentialResult) -> None:
        """Move by one limited quasi-Newton step; see `GeometryOptimizer`."""
        gradient = self._gradient(answer)
        if self._last is not None:
            moved, changed = self._x - self._last[0], gradient - self._last[1]
            curvature = float((moved * changed).sum())
            # only a step along which the energy is convex shows a curvature that can be used
            if curvature > 1e-3 * float((moved * moved).sum()):
                self._pairs.append((moved, changed, curvature))
        self._last = self._x, gradient
        move = -self._newton(gradient)
        farthest = float(np.linalg.norm(move[:-3], axis=1).max()) / MAX_MOVE
        most = float(np.abs(move[-3:]).max()) / self._scale / MAX_STRAIN
        self._x = self._x + move / max(farthest, most, 1.0)
        self._place()

    def _gradient(self, answer: PotentialResult) -> Floats:
        """Return the gradient of the energy by the coordinates, (n_sites + 3, 3) [eV/Å]."""
        of_atoms = -answer.forces @ self._strain
        volume = abs(np.linalg.det(self.cell))
        by_strain = volume * np.linalg.solve(self._strain, answer.stress).T
        # the derivative of the exponential stands in the corner of a larger one (Higham, Functions
        # of Matrices (2008), eq. 3.16); transposed, it takes a gradient by F to one by log F
        block = np.zeros((6, 6))
        block[:3, :3] = block[3:, 3:] = self._log.T
        block[:3, 3:] = by_strain
        by_log = expm(block)[:3, 3:]
        return np.concatenate([of_atoms, (by_log + by_log.T) / 2 / self._scale])

    def _newton(self, gradient: Floats) -> Floats:
        """Return the estimated inverse Hessian times the gradient."""
        direction, shares = gradient.copy(), []
        for moved, changed, curvature in reversed(self._pairs):
            shares.append((moved * direction).sum() / curvature)
            direction -= shares[-1] * changed
        stiffness = STIFFNESS
        if self._pairs:
            _, changed, curvature = self._pairs[-1]
            stiffness = float((changed * changed).sum()) / curvature
        direction /= stiffness
        for (moved, changed, curvature), share in zip(self._pairs, reversed(shares), strict=True):
            direction += moved * (share - (changed * direction).sum() / curvature)
        return direction


CPU_MEMORY = 10_000.0
"""Memory limit of one evaluation on a CPU: the sum over its structures of atoms times atoms per
nm^3 (torch-sim's `n_atoms_x_density`). It allows about 200 atoms; in larger evaluations CHGNet
takes longer per atom."""
GPU_MEMORY = 2_500.0
"""The same limit on a GPU, per GB of its memory: about 50 atoms. CHGNet takes 2.8 MB for each
(measured by tests/perf on an H100), so that a ninth of the memory is used; the large published
potentials need several times as much."""


@dataclass(frozen=True, slots=True)
class _Relaxation:
    """One structure that is being relaxed."""

    index: int
    start: Geometry
    path: FrechetLBFGS
    steps: Generator[None, PotentialResult, Relaxed]

    @classmethod
    def begin(cls, index: int, structure: Structure, settings: RelaxSettings) -> _Relaxation:
        start = Geometry.of(structure)
        path = FrechetLBFGS(start)
        steps = relaxation_loop(path, start, settings)
        next(steps)
        return cls(index, start, path, steps)

    def memory(self, scales_with: str) -> float:
        """Return torch-sim's memory measure (`calculate_memory_scaler`) of the present geometry."""
        n_sites = len(self.start.numbers)
        if scales_with == "n_atoms":
            return float(n_sites)
        return float(n_sites**2 / abs(np.linalg.det(self.path.cell)) * 1000)


class BatchedRelaxer:
    """Relaxes with L-BFGS and the Fréchet cell filter; statuses are those of `AseRelaxer`.

    Args:
        model: A torch-sim model that gives energy, forces and stress.
        elements: Atomic numbers the potential knows; None for all. Others are `unsupported`.
        settings: Limits of the relaxation, and whether the initial space group is kept.
        memory: Memory limit of one evaluation, in the unit of the model's `memory_scales_with`; a
            structure that alone exceeds it is evaluated alone. None: `CPU_MEMORY` or `GPU_MEMORY`,
            by the device of the model.
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
        if memory is None and model.device.type != "cpu":
            _free, total = torch.cuda.mem_get_info(model.device)
            memory = GPU_MEMORY * total / 2**30
        self.memory = memory or CPU_MEMORY

    def relax(self, structures: Sequence[Structure], /) -> list[Relaxed]:
        """Relax all structures; see `benchmarks.core.Relaxer`."""
        reasons = [unsupported(structure, self.elements) for structure in structures]
        outcomes = {
            index: Relaxed(status=Status.UNSUPPORTED, detail=reason)
            for index, reason in enumerate(reasons)
            if reason is not None
        }
        running = [
            _Relaxation.begin(index, structure, self.settings)
            for index, structure in enumerate(structures)
            if index not in outcomes
        ]
        while running:
            for batch in self._batches(running):
                outcomes |= self._advance(batch)
            running = [descent for descent in running if descent.index not in outcomes]
        return [outcomes[index] for index in range(len(structures))]

    def _batches(self, running: Sequence[_Relaxation]) -> Iterator[list[_Relaxation]]:
        """Yield the running relaxations in order, as many at a time as fit into memory."""
        batch: list[_Relaxation] = []
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

    def _advance(self, batch: Sequence[_Relaxation]) -> dict[int, Relaxed]:
        """Evaluate a batch and step each structure; return the outcomes of those that ended."""
        ended = {}
        for descent, answer in zip(batch, _answers(self.model, batch), strict=True):
            try:
                descent.steps.send(answer)
            except StopIteration as end:
                ended[descent.index] = end.value
        return ended


def _answers(model: ModelInterface, batch: Sequence[_Relaxation]) -> list[PotentialResult]:
    """Evaluate the model on a batch: one result per structure, in double precision."""
    sizes = [len(descent.start.numbers) for descent in batch]
    results = {name: value.double().cpu() for name, value in model(_state(model, batch)).items()}
    forces = results["forces"].split(sizes)
    return [
        PotentialResult(float(energy), force.numpy(), stress.numpy())
        for energy, force, stress in zip(results["energy"], forces, results["stress"], strict=True)
    ]


def _state(model: ModelInterface, batch: Sequence[_Relaxation]) -> SimState:
    """Return the batch as a torch-sim state, whose cells are column vectors."""
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
