"""The relaxer `gnn-delta`: one pass of the graph network, without forces or steps.

Like the T5 it sees the initial structure only, and it learned from the same pairs: it is the
equal-data counterpart of the language model. `python -m baselines.train gnn-delta` trains it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from pymatgen.core import Structure

from baselines.delta.network import DeltaNetwork, graph, joined, load
from baselines.engines.protocol import unsupported
from baselines.engines.sanity import check_geometry
from benchmarks.core import Geometry, Relaxed, RelaxSettings, Status
from benchmarks.core.geometry import Floats, strained

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
