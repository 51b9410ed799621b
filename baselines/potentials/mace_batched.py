"""MACE on the batched engine, through torch-sim's own wrapper."""

from __future__ import annotations

import torch
from torch_sim.models.mace import MaceModel
from torch_sim.state import SimState

from baselines.engines.batch_engine import BatchedRelaxer
from baselines.potentials import mace
from benchmarks.core import RelaxSettings, UserError


class Mace(BatchedRelaxer):
    """As `baselines.potentials.mace.Mace`, many structures at a time.

    Args:
        model: As there.
        settings: Settings of the relaxation; the seed and the batch size are not used.

    Raises:
        UserError: As there, or the model has several heads.
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
        potential = MaceBatch(one.calculator.models[0], device=torch.device(settings.device))
        super().__init__(
            potential,
            elements=one.elements,
            settings=settings,
        )


class MaceBatch(MaceModel):
    """torch-sim's, told of every batch which atoms belong together.

    It goes by atomic numbers alone: of two cells of aluminium with 1 and 3 atoms, and two with 2
    and 2, it takes the second for the first.
    """

    def forward(self, state: SimState) -> dict[str, torch.Tensor]:
        """Energy [eV], forces [eV/Å] and stress [eV/Å^3] of each system."""
        self.setup_from_system_idx(state.atomic_numbers, state.system_idx)
        said: dict[str, torch.Tensor] = super().forward(state)
        return said
