"""SevenNet with the weights in its wheel (Park et al., J. Chem. Theory Comput. 20, 4857 (2024)).

sevenn needs another e3nn than mace-torch pins, so it has an environment of its own: `make
env-sevenn`. The checkpoint is a pickle that sevenn itself loads in full, as trusted as the code of
the wheel that it comes in.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from baselines.engines.ase_engine import AseRelaxer
from baselines.potentials.loading import (
    bundled,
    check_reference_energy,
    intact,
    loading,
    reference_energy,
)
from benchmarks.core import RelaxSettings
from benchmarks.core.published_weights import published_by

PUBLISHED = published_by("sevenn")


class SevenNet(AseRelaxer):
    """SevenNet through ASE, in float32.

    Args:
        model: A name in `PUBLISHED`.
        settings: Settings of the relaxation; the seed and the batch size are not used.

    Raises:
        UserError: The checkpoint is not there, cannot be loaded, or gives wrong energies.
    """

    def __init__(
        self,
        model: str = "sevennet-0",
        *,
        settings: RelaxSettings = RelaxSettings(),
    ) -> None:
        potential = calculator(weights(model), settings.device, PUBLISHED[model].head)
        check_reference_energy(potential, reference_energy(PUBLISHED[model]), model)
        elements = frozenset(int(z) for z in potential.type_map)
        super().__init__(
            potential,
            elements=elements,
            settings=settings,
        )


def weights(model: str = "sevennet-0") -> Path:
    """Return the file of the weights, without importing sevenn or torch.

    Raises:
        UserError: If the package or the file is missing, or the file breaks off.
    """
    return intact(bundled("sevenn", PUBLISHED[model].file, "make env-sevenn"))


def calculator(path: Path, device: str = "cpu", head: str = "") -> Any:
    """Build an ASE calculator from the checkpoint: energy eV, forces eV/Å, stress eV/Å^3.

    Args:
        path: The checkpoint.
        device: `cpu` or `cuda`.
        head: The functional of weights that have several.

    Raises:
        UserError: The file holds no SevenNet.
    """
    with loading(path):
        from sevenn.calculator import SevenNetCalculator

        several = {"modal": head} if head else {}
        return SevenNetCalculator(model=str(path), device=device, **several)
