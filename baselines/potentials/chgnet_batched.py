"""CHGNet on the batched engine: one graph of many structures, and no second derivatives.

The network is CHGNet's own; what is ours is what it is fed with. Its converter goes through bonds
and angles one by one in Python, and its forces keep all that a derivative of them would need.
"""

from __future__ import annotations

import numpy as np
import torch
from chgnet.model.model import BatchedGraph
from chgnet.model.model import CHGNet as Network
from torch import Tensor
from torch_sim.models.interface import ModelInterface
from torch_sim.state import SimState

from baselines.engines.batch_engine import BatchedRelaxer
from baselines.potentials import chgnet
from baselines.potentials.bonds import BondGraph, graph, joined
from benchmarks.core import RelaxSettings


class CHGNet(BatchedRelaxer):
    """As `baselines.potentials.chgnet.CHGNet`, many structures at a time.

    Args:
        model: As there.
        settings: Settings of the relaxation; the seed and the batch size are not used.

    Raises:
        UserError: As there.
    """

    def __init__(
        self,
        model: str = "chgnet",
        *,
        settings: RelaxSettings = RelaxSettings(),
    ) -> None:
        one = chgnet.CHGNet(model, settings=settings)  # which checks the weights
        potential = CHGNetBatch(one.calculator.model, torch.device(settings.device))
        super().__init__(
            potential,
            elements=one.elements,
            settings=settings,
        )


class CHGNetBatch(ModelInterface):
    """CHGNet as torch-sim calls a model, in double precision.

    In single precision the sums of a batch round otherwise than those of one structure, and a long
    relaxation makes of that up to 0.005 Å: an answer would depend on what it was batched with.

    Args:
        network: With weights; is put into evaluation mode.
        device: Where to compute.
    """

    def __init__(self, network: Network, device: torch.device) -> None:
        super().__init__()
        self.network = network.to(device).double().eval().requires_grad_(requires_grad=False)
        self._device = device
        self._dtype = torch.float64
        self._compute_forces = self._compute_stress = True
        self._memory_scales_with = "n_atoms_x_density"

    def forward(self, state: SimState) -> dict[str, Tensor]:
        """Energy [eV], forces [eV/Å] and stress [eV/Å^3] of each system."""
        positions = state.positions.detach().requires_grad_()
        strain = torch.zeros_like(state.cell).requires_grad_()
        with torch.enable_grad():
            batch = self._graph(state, positions, strain)
            energy = self.network._compute(batch)["e"]  # noqa: SLF001 - `forward` takes its own graphs
            if self.network.is_intensive:
                energy = energy * state.n_atoms_per_system
        by_position, by_strain = torch.autograd.grad(energy.sum(), [positions, strain])
        volume = torch.linalg.det(state.cell).abs()
        return {
            "energy": energy.detach() + self._composition_energy(state),
            "forces": -by_position,
            "stress": by_strain / volume[:, None, None],
        }

    def _composition_energy(self, state: SimState) -> Tensor:
        """What CHGNet's linear model of the composition adds [eV]."""
        total = torch.zeros(state.n_systems, dtype=self.dtype, device=self.device)
        if self.network.composition_model is None:
            return total
        per_atom = self.network.composition_model.fc.weight[0][state.atomic_numbers - 1]
        return total.index_add_(0, state.system_idx, per_atom)

    def _graph(self, state: SimState, positions: Tensor, strain: Tensor) -> BatchedGraph:
        """CHGNet's input, of strained positions and cells."""
        first, second, image, angles = (
            torch.as_tensor(a).to(self.device) for a in self._bonds(state)
        )
        vectors = self._vectors(state, positions, strain, (first, second, image.to(self.dtype)))
        lengths = vectors.norm(dim=1)
        bond, back = angles.unbind(-1)
        sides = (vectors / lengths[:, None])[bond] * (1 - 2 * back)[..., None]
        centres = torch.where(back == 0, first[bond], second[bond])[:, :1]
        there = torch.stack([first, second], dim=1)
        radial, angular = self.network.bond_basis_expansion, self.network.angle_basis_expansion
        return BatchedGraph(
            atomic_numbers=state.atomic_numbers,
            bond_bases_ag=radial.rbf_expansion_ag(lengths),
            bond_bases_bg=radial.rbf_expansion_bg(lengths),
            angle_bases=angular(sides[:, 0], sides[:, 1]),
            batched_atom_graph=torch.cat([there, there.flip(1)]),
            batched_bond_graph=torch.cat([centres, bond], 1),
            atom_owners=state.system_idx,
            directed2undirected=torch.arange(len(first), device=self.device).repeat(2),
            atom_positions=[],
            strains=[],
            volumes=[],
        )

    def _vectors(
        self,
        state: SimState,
        positions: Tensor,
        strain: Tensor,
        bonds: tuple[Tensor, Tensor, Tensor],
    ) -> Tensor:
        """(n_bonds, 3) from the second atom to the first [Å], in the strained cells."""
        first, second, image = bonds
        deformation = torch.eye(3, dtype=self.dtype, device=self.device) + strain
        placed = torch.einsum("ni,nij->nj", positions, deformation[state.system_idx])
        cells = (state.row_vector_cell @ deformation)[state.system_idx[first]]
        return placed[first] - placed[second] - torch.einsum("ni,nij->nj", image, cells)

    def _bonds(self, state: SimState) -> BondGraph:
        """The graph of all systems."""
        converter = self.network.graph_converter
        reach = float(converter.atom_graph_cutoff), float(converter.bond_graph_cutoff)
        sizes = state.n_atoms_per_system.tolist()
        positions = state.positions.detach().double().cpu().split(sizes)
        cells = state.row_vector_cell.detach().double().cpu()
        graphs = [
            graph(cell.numpy(), place.numpy(), *reach)
            for cell, place in zip(cells, positions, strict=True)
        ]
        return joined(graphs, np.array(sizes))
