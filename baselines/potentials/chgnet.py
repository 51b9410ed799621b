"""CHGNet with the weights in its wheel (Deng et al., Nat. Mach. Intell. 5, 1031 (2023)), or yours.

0.3.0 is the published default, 0.2.0 that of the paper, and r2scan was fine-tuned on MP-r2SCAN
(Huang et al., npj Comput. Mater. (2025), as its card in the wheel says). All are read without
running code from the file (`weights_only`), and so is a checkpoint of your own that is not trusted.
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

ELEMENTS = frozenset(range(1, 95)) - set(range(84, 89))
"""The 89 elements of MPtrj: H to Pu without Po, At, Rn, Fr, Ra."""


PUBLISHED = published_by("chgnet")


class CHGNet(AseRelaxer):
    """CHGNet through ASE, in float32; 0.2.0 and 0.3.0 give energies with MP's corrections.

    Args:
        model: A name in `PUBLISHED`, or the path of a checkpoint of CHGNet's trainer.
        trust: The checkpoint may hold more than tensors and plain data, which can run any code.
        settings: Settings of the relaxation; the seed and the batch size are not used.

    Raises:
        UserError: The checkpoint is not there, is something else, or gives wrong energies.
    """

    def __init__(
        self,
        model: str = "chgnet",
        *,
        trust: bool = False,
        settings: RelaxSettings = RelaxSettings(),
    ) -> None:
        known = PUBLISHED.get(model)
        potential = calculator(
            weights(model),
            settings.device,
            version=known.package_name if known else None,
            trust=trust,
        )
        if known:
            check_reference_energy(potential, reference_energy(known), model)
        elements = ELEMENTS - (known.unfitted_elements if known else frozenset())
        super().__init__(
            potential,
            elements=elements,
            settings=settings,
        )


def weights(model: str = "chgnet") -> Path:
    """Return the file of the weights, without importing torch; nothing is ever downloaded.

    Raises:
        UserError: If the package or the file is missing, or the file breaks off.
    """
    if model not in PUBLISHED:
        return intact(Path(model))
    file = PUBLISHED[model].file
    return intact(bundled("chgnet", file, "pip install 'chgnet>=0.4.2'"))


def calculator(
    path: Path, device: str = "cpu", *, version: str | None = None, trust: bool = False
) -> Any:
    """Build a CHGNet calculator: energy eV, forces eV/Å, stress eV/Å^3 (it converts from GPa).

    Args:
        path: The checkpoint.
        device: `cpu` or `cuda`.
        version: CHGNet's name for published weights.
        trust: Read the file even if it holds more than tensors and plain data.

    Raises:
        UserError: The file holds no CHGNet, or without `trust` more than tensors and plain data.
    """
    with loading(path):
        import torch
        from chgnet.model.dynamics import CHGNetCalculator
        from chgnet.model.model import CHGNet as Model

        saved = torch.load(path, map_location="cpu", weights_only=not trust)["model"]
        # as CHGNet.load has it, which would read full pickles
        told = {"mlp_out_bias": version == "0.2.0", "version": version} if version else {}
        model = Model.from_dict(saved, **told)
        # an atom without neighbours has its atomic energy and no force; no need to say so at every
        # step
        return CHGNetCalculator(model, use_device=device, on_isolated_atoms="ignore")
