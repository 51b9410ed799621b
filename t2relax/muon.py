"""The optimiser of all trainings of the T5: Muon for matrices, AdamW for other parameters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

TABLES = ("shared.weight", "embed_tokens.weight")
"""Ends of the names of the parameters that hold the tokens' vectors."""
VECTOR_RATE = 3.0
"""Learning rate of the tokens' vectors and of the norms, divided by that of the matrices."""


class MuonAdamW(torch.optim.Optimizer):
    """Muon (Jordan et al., 2024) for the matrices, AdamW for the tokens' vectors and all else.

    Args:
        named: the parameters by name.
        rate: learning rate of the matrices.
        decay: their weight decay.
    """

    def __init__(
        self, named: Iterable[tuple[str, torch.nn.Parameter]], rate: float, decay: float
    ) -> None:
        matrices: list[torch.nn.Parameter] = []
        others: list[torch.nn.Parameter] = []
        for name, parameter in named:
            table = name.endswith(TABLES) or "relative_attention_bias" in name
            (others if table or parameter.ndim != 2 else matrices).append(parameter)
        self.parts = (
            torch.optim.Muon(matrices, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=VECTOR_RATE * rate, weight_decay=0.0, betas=(0.9, 0.98)),
        )
        super().__init__([group for part in self.parts for group in part.param_groups], {})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step with both."""
        for part in self.parts:
            part.step(closure)  # type: ignore[no-untyped-call]

    def state_dict(self) -> dict[str, Any]:
        """Return the states of both."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the states of both; the schedule finds their groups here again."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self.parts for group in part.param_groups]
