"""The potentials of matgl on the batched engine: one graph of many structures."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from ase import Atoms
from matgl.ext.ase import Atoms2Graph
from torch_geometric.data import Batch
from torch_sim.models.interface import ModelInterface
from torch_sim.state import SimState

from baselines.engines.batch_engine import BatchedRelaxer
from baselines.potentials import matgl
from benchmarks.core import GPA, RelaxSettings


class BatchedMatGL(BatchedRelaxer):
    """`MatGL` on the batched engine, which relaxes many structures at a time.

    Args:
        model: The same as for `MatGL`.
        trust: The same as for `MatGL`.
        settings: Settings of the relaxation; the seed and the batch size are not used.

    Raises:
        UserError: As for `MatGL`.
    """

    def __init__(
        self,
        model: str,
        *,
        trust: bool = False,
        settings: RelaxSettings = RelaxSettings(),
    ) -> None:
        one = matgl.MatGL(model, trust=trust, settings=settings)  # which checks the weights
        potential = TorchSimMatGL(one.calculator.potential, torch.device(settings.device))
        super().__init__(
            potential,
            elements=one.elements,
            settings=settings,
        )


class TorchSimMatGL(ModelInterface):
    """A `matgl.apps.pes.Potential` with the interface of a torch-sim model, in double precision.

    `TorchSimCHGNet` says why single precision is not enough.

    Args:
        potential: A potential that computes forces and stresses.
        device: The device of the computation.
    """

    def __init__(self, potential: Any, device: torch.device) -> None:
        super().__init__()
        self.potential = potential.to(device).double().eval()
        self.convert = Atoms2Graph(potential.model.element_types, potential.model.cutoff)
        self._device = device
        self._dtype = torch.float64
        self._compute_forces = self._compute_stress = True
        self._memory_scales_with = "n_atoms_x_density"

    def forward(self, state: SimState) -> dict[str, torch.Tensor]:
        """Energy [eV], forces [eV/Å] and stress [eV/Å^3] of each system."""
        n = state.n_systems
        graphs, cells, attributes = zip(*map(self.convert.get_graph, _atoms(state)), strict=True)
        cell = torch.cat([cell.reshape(1, 3, 3) for cell in cells])
        # the state attributes of matgl's models are zeros here
        attribute = torch.as_tensor(np.stack(attributes), dtype=self.dtype)
        batch = Batch.from_data_list(list(graphs))
        energy, forces, stress, *_ = self.potential(batch, cell, attribute)
        return {
            "energy": energy.detach().reshape(n),
            "forces": forces.detach(),
            "stress": stress.detach().reshape(n, 3, 3) * GPA,
        }


def _atoms(state: SimState) -> list[Atoms]:
    sizes = state.n_atoms_per_system.tolist()
    cells = state.row_vector_cell.cpu().numpy()
    places, numbers = state.positions.cpu().split(sizes), state.atomic_numbers.cpu().split(sizes)
    return [
        Atoms(number.numpy(), cell=cell, positions=place.numpy(), pbc=True)
        for number, cell, place in zip(numbers, cells, places, strict=True)
    ]
