"""Published architectures of matgl with random weights, where their cost is asked and not they.

What an evaluation costs depends on the shape of a network and not on its weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from baselines.potentials.loading import quiet

_SMOOTH: Mapping[str, Any] = {"units": 128, "use_smooth": True, "rbf_type": "SphericalBessel"}
ARCHITECTURES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "tensornet-matpes-pbe": ("TensorNet", _SMOOTH),
    "m3gnet-matpes-pbe": ("M3GNet", _SMOOTH),
}
"""By the name of the published model: class, and how it differs from matgl's defaults. TensorNet's
card on the Hub says 128 units and 0.84 M parameters, which this has (837,378; with a third block
the 1,067,906 of the card of its larger variant). M3GNet's shape was not at hand: it is taken to be
as wide (664,221 parameters)."""


def save(model: str, folder: Path) -> Path:
    """A potential with random weights, saved as matgl saves one.

    Args:
        model: A name in `ARCHITECTURES`.
        folder: Is made.

    Returns:
        The folder.
    """
    with quiet():
        import torch
        from matgl import models
        from matgl.apps.pes import Potential

        architecture, shape = ARCHITECTURES[model]
        torch.manual_seed(0)
        network = getattr(models, architecture)(is_intensive=False, **shape)
        # small energies: forces of random weights would throw the atoms about
        Potential(network, data_std=0.01).save(folder)
    return folder
