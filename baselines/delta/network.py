"""A graph network that predicts a relaxation in one pass: logarithmic strain and displacements.

The backbone is MEGNet (Chen et al., Chem. Mater. 31, 3564 (2019)) in matgl's layers: bonds, sites
and the crystal as a whole inform one another. The head turns bonds into vectors and tensors: a site
moves along its bonds, and the cell stretches along all of them, by weights that the network gives.
The prediction has every symmetry of the input crystal, whatever the weights are, and does not
depend on the orientation, the setting or the order of the sites.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matgl.layers import MLP, BondExpansion, MEGNetBlock
from numpy.typing import NDArray
from pymatgen.core import Structure
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from vesin import NeighborList

from baselines.engines.relaxation_loop import check_geometry, unsupported
from benchmarks.core import Geometry, Relaxed, RelaxSettings, Status, UserError
from benchmarks.core.geometry import Floats, strained

N_ELEMENTS = 94
"""Number of elements that have an embedding: hydrogen to plutonium."""
MARGIN = 1.15
"""Bonds are listed up to this multiple of the cutoff, so that a cell can be strained by 15 %."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The sizes of the backbone; chosen on substitution/val."""

    width: int = 64
    blocks: int = 3
    radial: int = 32
    """Number of Gaussians between 0 and the cutoff."""
    cutoff: float = 5.0
    """Largest length of a bond [Å]."""


class CrystalGraph(NamedTuple):
    """One crystal with its bonds in fractional form, so that its cell can be changed."""

    lattice: NDArray[np.float64]
    """(3, 3) row vectors [Å]."""
    frac_coords: NDArray[np.float64]
    """(n_sites, 3)"""
    numbers: NDArray[np.int64]
    """(n_sites,) atomic numbers."""
    bonds: NDArray[np.int64]
    """(2, n_bonds) indices of the two sites; each bond is listed in both directions."""
    images: NDArray[np.int64]
    """(n_bonds, 3) lattice translation of the second site."""


def graph(geometry: Geometry, reach: float) -> CrystalGraph:
    """Build the graph of a crystal with all its bonds up to `reach` [Å]."""
    lattice, frac_coords, numbers = geometry
    first, second, images = NeighborList(cutoff=reach, full_list=True).compute(
        points=frac_coords @ lattice, box=lattice, periodic=True, quantities="ijS"
    )
    bonds = np.stack([first, second]).astype(np.int64)
    return CrystalGraph(
        lattice, frac_coords, numbers.astype(np.int64), bonds, images.astype(np.int64)
    )


class Batch(NamedTuple):
    """Several crystals as one graph of tensors."""

    positions: Tensor
    """(n_sites, 3) [Å]."""
    kinds: Tensor
    """(n_sites,) atomic numbers minus one."""
    bonds: Tensor
    """(2, n_bonds) indices of sites, counted over all crystals."""
    shifts: Tensor
    """(n_bonds, 3) lattice translation of the second site [Å]."""
    crystal: Tensor
    """(n_sites,) index of the crystal to which a site belongs."""
    n_crystals: int

    def to(self, device: torch.device | str) -> Batch:
        """Return the same batch on a device."""
        return Batch(
            self.positions.to(device),
            self.kinds.to(device),
            self.bonds.to(device),
            self.shifts.to(device),
            self.crystal.to(device),
            self.n_crystals,
        )


def joined(graphs: Sequence[CrystalGraph], cutoff: float) -> Batch:
    """Join several graphs, with the bonds that are at most `cutoff` long [Å]."""
    sizes = np.array([len(g.numbers) for g in graphs])
    offsets = np.cumsum(sizes) - sizes
    positions = np.concatenate([g.frac_coords @ g.lattice for g in graphs])
    shifts = np.concatenate([g.images @ g.lattice for g in graphs])
    bonds = np.concatenate([g.bonds + n for g, n in zip(graphs, offsets, strict=True)], axis=1)
    vectors = positions[bonds[1]] + shifts - positions[bonds[0]]
    near = np.einsum("ij,ij->i", vectors, vectors) < cutoff**2
    numbers = np.concatenate([g.numbers for g in graphs])
    return Batch(
        torch.from_numpy(positions).float(),
        torch.from_numpy(numbers - 1),
        torch.from_numpy(bonds[:, near]),
        torch.from_numpy(shifts[near]).float(),
        torch.from_numpy(np.repeat(np.arange(len(graphs)), sizes)),
        len(graphs),
    )


class DeltaNetwork(nn.Module):
    """The network; before any training it predicts no change.

    Args:
        shape: The sizes of the backbone.
    """

    def __init__(self, shape: Shape = Shape()) -> None:
        super().__init__()
        self.shape = shape
        width, act = shape.width, nn.SiLU()
        self.expand = BondExpansion(
            rbf_type="Gaussian",
            final=shape.cutoff,
            num_centers=shape.radial,
            width=shape.cutoff / shape.radial,
        )
        self.kinds = nn.Embedding(N_ELEMENTS, width)
        self.lengths = MLP([shape.radial, width], act, activate_last=True)
        self.start = nn.Parameter(torch.zeros(width))
        hidden = [2 * width, width]
        self.blocks = nn.ModuleList(
            MEGNetBlock(dims=[width, width], conv_hiddens=hidden, act=act)
            for _ in range(shape.blocks)
        )
        self.growth = MLP([width, width, 1], act, activate_last=False)
        self.pull = MLP([width, width, 2], act, activate_last=False)
        for last in (self.growth.layers[-1], self.pull.layers[-1]):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Predict strains and displacements.

        Args:
            batch: The graph of n crystals with m sites together.

        Returns:
            (n, 3, 3) symmetric logarithmic strain ε, so that row vectors become L exp(ε); and
            (m, 3) displacements in the initial cell [Å], whose mean over each crystal is 0.
        """
        first, second = batch.bonds
        vectors = batch.positions[second] + batch.shifts - batch.positions[first]
        lengths = vectors.norm(dim=1)
        sites, bonds = self.kinds(batch.kinds), self.lengths(self.expand(lengths))
        whole = self.start.expand(batch.n_crystals, -1)
        of_bond, of_site = batch.crystal[first], batch.crystal
        for block in self.blocks:
            bonds, sites, whole = block(
                batch.bonds, bonds, sites, whole, of_site, of_bond, len(sites), len(whole)
            )
            whole = whole.view(batch.n_crystals, -1)
        along = vectors / lengths[:, None]
        stretch, push = self.pull(bonds).T[:, :, None]
        strain = _mean(stretch[..., None] * _traceless(along), of_bond, batch.n_crystals)
        strain = strain + self.growth(whole)[..., None] * torch.eye(3, device=strain.device)
        moved = torch.zeros_like(batch.positions).index_add(0, first, push * along)
        return strain, moved - _mean(moved, of_site, batch.n_crystals)[of_site]

    @property
    def n_parameters(self) -> int:
        """Number of trained parameters."""
        return sum(p.numel() for p in self.parameters())


def _traceless(along: Tensor) -> Tensor:
    """Return u uᵀ - 1/3 of unit vectors u: (n, 3) -> (n, 3, 3) traceless tensors."""
    outer = along[:, :, None] * along[:, None, :]
    return outer - torch.eye(3, device=along.device) / 3


def _mean(values: Tensor, crystal: Tensor, n: int) -> Tensor:
    """Return the mean of `values` over each of n crystals; 0 for a crystal without any."""
    total = values.new_zeros(n, *values.shape[1:]).index_add(0, crystal, values)
    sizes = torch.bincount(crystal, minlength=n).clamp(min=1)
    return total / sizes.view(-1, *[1] * (values.ndim - 1))


def save(network: DeltaNetwork, elements: Collection[int], path: Path) -> None:
    """Write a safetensors file: the weights, and in its header the shape and the elements.

    Args:
        network: The network to store.
        elements: Atomic numbers that occurred in training; for others it has random vectors.
        path: The file to write.
    """
    about = {"shape": json.dumps(asdict(network.shape)), "elements": json.dumps(sorted(elements))}
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, path, about)


def load(path: Path) -> tuple[DeltaNetwork, frozenset[int]]:
    """Read a file of `save`: the network and the elements it was trained on.

    Raises:
        UserError: The file is damaged or holds another model.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
        network = DeltaNetwork(Shape(**json.loads(about["shape"])))
        network.load_state_dict(load_file(path))
        return network, frozenset(json.loads(about["elements"]))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        first = (str(error).splitlines() or [""])[0]
        message = f"{path}: no model of `baselines.train gnn-delta` ({first})"
        raise UserError(message) from error


LARGEST = 10.0
"""A logarithmic strain with a component of this size or more counts as not finite."""
PACKAGED = Path(__file__).parents[1] / "gnn_delta.safetensors"


class GraphDelta:
    """Predicts logarithmic strain and displacements with a graph network.

    Args:
        path: A file of `python -m baselines.train gnn-delta`.
        settings: Only the device is used.

    Raises:
        UserError: The file is not there, or holds something else.
    """

    def __init__(
        self, path: str | Path = PACKAGED, *, settings: RelaxSettings = RelaxSettings()
    ) -> None:
        self.network, self.elements = load(Path(path))
        self.network.to(settings.device).eval()
        self.device = settings.device

    def relax(self, structures: Sequence[Structure], /) -> list[Relaxed]:
        """Predict the relaxation of each; see `benchmarks.core.Relaxer`."""
        reasons = [unsupported(structure, self.elements) for structure in structures]
        starts = [
            Geometry.of(structure)
            for structure, reason in zip(structures, reasons, strict=True)
            if reason is None
        ]
        predicted = predict(self.network, starts, self.device)
        ends = (_outcome(*pair) for pair in zip(starts, predicted, strict=True))
        return [
            Relaxed(status=Status.UNSUPPORTED, detail=reason) if reason is not None else next(ends)
            for reason in reasons
        ]


def _outcome(start: Geometry, end: Geometry | None) -> Relaxed:
    if end is None:
        return Relaxed(status=Status.INVALID, detail="strain or displacement is not finite")
    reason = check_geometry(start.lattice, end.lattice, end.frac_coords @ end.lattice)
    status = Status.OK if reason is None else Status.INVALID
    return Relaxed(status=status, structure=end.structure(), detail=reason)


@torch.inference_mode()
def predict(
    network: DeltaNetwork, starts: Sequence[Geometry], device: str = "cpu"
) -> list[Geometry | None]:
    """Predict the relaxed geometry of each; None if the prediction is not finite."""
    if not starts:
        return []
    cutoff = network.shape.cutoff
    batch = joined([graph(start, cutoff) for start in starts], cutoff).to(device)
    strains, moved = (found.double().cpu().numpy() for found in network(batch))
    offsets = np.cumsum([len(start.numbers) for start in starts])[:-1]
    changes = zip(starts, strains, np.split(moved, offsets), strict=True)
    return [_changed(*change) for change in changes]


def _changed(start: Geometry, strain: Floats, moved: Floats) -> Geometry | None:
    if not (np.isfinite(moved).all() and np.abs(strain).max() < LARGEST):  # NaN is not either
        return None
    frac_coords = start.frac_coords + moved @ np.linalg.inv(start.lattice)
    return Geometry(strained(start.lattice, strain), frac_coords, start.numbers)
