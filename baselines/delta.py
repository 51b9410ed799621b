"""The relaxer of `baselines.delta_network`: one pass of a graph network, no forces, no steps.

It sees what the T5 sees, the start, and learned from the same pairs: the equal-data counterpart of
text. `python -m baselines.train gnn-delta` trains it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from pymatgen.core import Structure

from baselines.delta_network import DeltaNetwork, graph, joined, load
from baselines.protocol import unsupported
from baselines.strain import strained
from benchmarks.core import Geometry, Relaxed, Status

PACKAGED = Path(__file__).with_name("gnn_delta.safetensors")


class GraphDelta:
    """Predicts logarithmic strain and displacements with a graph network.

    Args:
        path: A file of `python -m baselines.train gnn-delta`.
        device: `cpu` or `cuda`.

    Raises:
        UserError: The file is not there, or holds something else.
    """

    def __init__(self, path: str | Path = PACKAGED, *, device: str = "cpu") -> None:
        self.network, self.elements = load(Path(path))
        self.network.to(device).eval()
        self.device = device

    def relax(self, structures: Sequence[Structure], /) -> list[Relaxed]:
        """Predict each; see `benchmarks.core.Relaxer`."""
        reasons = [unsupported(structure, self.elements) for structure in structures]
        starts = [
            Geometry.of(structure)
            for structure, reason in zip(structures, reasons, strict=True)
            if reason is None
        ]
        ends = iter(predict(self.network, starts, self.device))
        return [
            Relaxed(status=Status.UNSUPPORTED, detail=reason)
            if reason is not None
            else Relaxed(status=Status.OK, structure=next(ends).structure())
            for reason in reasons
        ]


@torch.inference_mode()
def predict(
    network: DeltaNetwork, starts: Sequence[Geometry], device: str = "cpu"
) -> list[Geometry]:
    """The end of each start."""
    if not starts:
        return []
    cutoff = network.shape.cutoff
    batch = joined([graph(start, cutoff) for start in starts], cutoff).to(device)
    strains, moved = (found.double().cpu().numpy() for found in network(batch))
    offsets = np.cumsum([len(start.numbers) for start in starts])[:-1]
    return [
        Geometry(
            strained(start.lattice, strain),
            start.frac_coords + move @ np.linalg.inv(start.lattice),
            start.numbers,
        )
        for start, strain, move in zip(starts, strains, np.split(moved, offsets), strict=True)
    ]
