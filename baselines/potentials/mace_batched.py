"""MACE on the batched engine, through torch-sim's own wrapper."""

from __future__ import annotations

import torch
from torch_sim.models.mace import MaceModel
from torch_sim.state import SimState

from baselines.engines.batch_engine import BatchedRelaxer
from baselines.potentials import mace
from benchmarks.core import RelaxSettings, UserError


class BatchedMace(BatchedRelaxer):
    """`Mace` on the batched engine, which relaxes many structures at a time.

    Args:
        model: The same as for `Mace`.
        settings: Settings of the relaxation; the seed and the batch size are not used.

    Raises:
        UserError: As for `Mace`, or the model has several heads.
    """

    def __init__(
        self,
        model: str = "mace",
        *,
        settings: RelaxSettings = RelaxSettings(),
    ) -> None:
        one = mace.Mace(model, settings=settings)  # which checks the weights
        heads = one.calculator.available_heads
        if len(heads) > 1:  # torch-sim asks the first, ASE's calculator the one called default
            raise UserError(f"{model} has the heads {', '.join(heads)}: use --engine ase")
        potential = TorchSimMace(one.calculator.models[0], device=torch.device(settings.device))
        super().__init__(
            potential,
            elements=one.elements,
            settings=settings,
        )


class TorchSimMace(MaceModel):
    """torch-sim's `MaceModel`, which is told for every batch which atoms belong together.

    The original notices a new batch by its atomic numbers only: it mistakes two cells of aluminium
    with 2 and 2 atoms for two with 1 and 3.
    """

    def forward(self, state: SimState) -> dict[str, torch.Tensor]:
        """Energy [eV], forces [eV/Å] and stress [eV/Å^3] of each system."""
        self.setup_from_system_idx(state.atomic_numbers, state.system_idx)
        results: dict[str, torch.Tensor] = super().forward(state)
        return results
