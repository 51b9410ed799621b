"""CHGNet on the batched engine: one graph of many structures, and no second derivatives.

The network is CHGNet's own; the graphs are built here with arrays (0.2 ms for a cell of a few
atoms). CHGNet's converter visits bonds and angles one by one in Python, and its forces keep all
that their derivatives would need.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from chgnet.model.model import BatchedGraph
from chgnet.model.model import CHGNet as Network
from numpy.typing import NDArray
from torch import Tensor
from torch_sim.models.interface import ModelInterface
from torch_sim.state import SimState
from vesin import NeighborList

from baselines.engines.batch_engine import BatchedRelaxer
from baselines.potentials import chgnet
from benchmarks.core import RelaxSettings

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class BondGraph(NamedTuple):
    """The bonds and angles of one structure, or of several structures in a row.

    Bond b of n runs from `first` to `second`. As a directed bond it has the number b, and its
    reverse has the number b + n.
    """

    first: Ints
    """(n_bonds,) index of the first atom."""
    second: Ints
    """(n_bonds,) index of the second atom, which lies in the cell `image`."""
    image: Floats
    """(n_bonds, 3) lattice translation of the second atom."""
    angles: Ints
    """(n_angles, 2, 2): two directed bonds that leave one atom, as (bond, 1 for the reverse)."""


def graph(cell: Floats, positions: Floats, reach: float, angle_reach: float) -> BondGraph:
    """Find the bonds up to `reach`, and the angles between bonds up to `angle_reach` [Å].

    Args:
        cell: (3, 3) row vectors [Å].
        positions: (n_sites, 3) Cartesian [Å], anywhere.
        reach: CHGNet's cutoff of the atom graph.
        angle_reach: CHGNet's cutoff of the bond graph.
    """
    neighbours = NeighborList(cutoff=reach, full_list=False)
    first, second, image, distance = neighbours.compute(
        points=positions, box=cell, periodic=True, quantities="ijSd"
    )
    first, second = first.astype(np.int64), second.astype(np.int64)
    short = np.flatnonzero(distance < angle_reach)
    leaves = np.concatenate([first[short], second[short]])
    one, other = _pairs(leaves, len(positions))
    bond, back = np.tile(short, 2), np.repeat([0, 1], len(short))
    angles = np.stack([bond[[one, other]], back[[one, other]]], axis=-1)
    return BondGraph(first, second, image.astype(np.float64), angles.transpose(1, 0, 2))


def _pairs(group: Ints, n_groups: int) -> tuple[Ints, Ints]:
    """Return all ordered pairs (i, j), i ≠ j, of elements with the same value of `group`."""
    order = np.argsort(group, kind="stable")
    size = np.bincount(group, minlength=n_groups)
    partners = size[group[order]]
    one = np.repeat(np.arange(len(group)), partners)
    begin = np.repeat((np.cumsum(size) - size)[group[order]], partners)
    other = begin + np.arange(len(one)) - np.repeat(np.cumsum(partners) - partners, partners)
    apart = one != other
    return order[one[apart]], order[other[apart]]


def joined(graphs: Sequence[BondGraph], n_sites: Ints) -> BondGraph:
    """Join several graphs into one; atoms and bonds are counted over all of them."""
    n_bonds = np.array([len(g.first) for g in graphs])
    atoms = np.repeat(np.cumsum(n_sites) - n_sites, n_bonds)
    bonds = np.cumsum(n_bonds) - n_bonds
    for_angles = np.array([[n, 0] for n in bonds])
    return BondGraph(
        np.concatenate([g.first for g in graphs]) + atoms,
        np.concatenate([g.second for g in graphs]) + atoms,
        np.concatenate([g.image for g in graphs]),
        np.concatenate([g.angles + n for g, n in zip(graphs, for_angles, strict=True)]),
    )


class BatchedCHGNet(BatchedRelaxer):
    """`CHGNet` on the batched engine, which relaxes many structures at a time.

    Args:
        model: The same as for `CHGNet`.
        trust: The same as for `CHGNet`.
        settings: Settings of the relaxation; the seed and the batch size are not used.

    Raises:
        UserError: As for `CHGNet`.
    """

    def __init__(
        self,
        model: str = "chgnet",
        *,
        trust: bool = False,
        settings: RelaxSettings = RelaxSettings(),
    ) -> None:
        one = chgnet.CHGNet(model, trust=trust, settings=settings)  # which checks the weights
        potential = TorchSimCHGNet(one.calculator.model, torch.device(settings.device))
        super().__init__(
            potential,
            elements=one.elements,
            settings=settings,
        )


class TorchSimCHGNet(ModelInterface):
    """CHGNet with the interface of a torch-sim model, in double precision.

    In single precision the sums over a batch are rounded differently from those over one structure,
    and a long relaxation amplifies this to 0.005 Å: an answer would depend on its batch.

    Args:
        network: CHGNet with its weights; it is put into evaluation mode.
        device: The device of the computation.
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
        """Return the energy of CHGNet's linear composition model, for each system [eV]."""
        total = torch.zeros(state.n_systems, dtype=self.dtype, device=self.device)
        if self.network.composition_model is None:
            return total
        per_atom = self.network.composition_model.fc.weight[0][state.atomic_numbers - 1]
        return total.index_add_(0, state.system_idx, per_atom)

    def _graph(self, state: SimState, positions: Tensor, strain: Tensor) -> BatchedGraph:
        """Build CHGNet's input from strained positions and cells."""
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
        """Return the (n_bonds, 3) vectors from second to first atom in the strained cells [Å]."""
        first, second, image = bonds
        deformation = torch.eye(3, dtype=self.dtype, device=self.device) + strain
        placed = torch.einsum("ni,nij->nj", positions, deformation[state.system_idx])
        cells = (state.row_vector_cell @ deformation)[state.system_idx[first]]
        return placed[first] - placed[second] - torch.einsum("ni,nij->nj", image, cells)

    def _bonds(self, state: SimState) -> BondGraph:
        """Return the bonds and angles of all systems."""
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
