"""What a training cost in computing time: as published for others' weights, as measured for ours.

The times of published weights are in `benchmarks.core.published_weights`, each with the place that
states it. The trainers of this project write theirs into the card beside the weights.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

MEASURED: Final = "measured"
"""The source of a time that a trainer of this project measured and wrote into its card."""
_T5_WEIGHTS: Final = "model.safetensors"
"""In a folder of its own, whose card has all stages of the training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingCost:
    """The computing time of one training."""

    hours: float
    """The time multiplied by the number of devices [h]; of a CPU the time on the clock."""
    device: str
    """The kind of device: `NVIDIA A100`, or `cpu`."""
    source: str
    """The DOI or address that states it, or `MEASURED`."""


def measured_costs(weights: Path) -> tuple[TrainingCost, ...]:
    """Read from the card beside weights of ours what their training took.

    Args:
        weights: The file or folder of the weights.

    Returns:
        One for each kind of device, over all stages of the training; none if there is no card, or
        if it does not say for each stage how long it took, and on what.
    """
    is_t5 = weights.name == _T5_WEIGHTS
    card = weights.with_name("t2relax.json") if is_t5 else weights.with_suffix(".json")
    hours: dict[str, float] = {}
    try:
        written = json.loads(card.read_text(encoding="utf-8"))
        stages: list[dict[str, Any]] = [written["training"] if is_t5 else written]
        done = []
        while stages:
            stage = stages.pop()
            if stage in done:  # two weights that were averaged can have a stage in common
                continue
            done.append(stage)
            if isinstance(stage.get("from"), list):
                stages += [each["training"] for each in stage["from"]]
            seconds = float(stage["seconds"] if "seconds" in stage else 60 * stage["minutes"])
            device = str(stage["device"])
            hours[device] = hours.get(device, 0.0) + seconds / 3600
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ()
    return tuple(
        TrainingCost(hours=round(time, 4), device=device, source=MEASURED)
        for device, time in hours.items()
    )
