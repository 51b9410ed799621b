"""DIEP with the weights in its wheel (Tawfik et al., Digital Discovery (2024)), or your own.

DIEP is an M3GNet whose three-body terms are integrals of the potential of the ions. The weights
were trained on MatPES-r2SCAN. Its library saves a model as matgl does, and calls whatever its files
name: a folder of your own that names anything but a DIEP is refused unless it is trusted.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from baselines.engines.ase_engine import AseRelaxer
from baselines.potentials.loading import (
    bundled,
    check_reference_energy,
    loading,
    reference_energy,
)
from baselines.potentials.matgl import check_own_energy, refuse_foreign, whole_model
from benchmarks.core import RelaxSettings
from benchmarks.core.published_weights import published_by

PUBLISHED = published_by("diep")


class DIEP(AseRelaxer):
    """DIEP through ASE, in float64.

    Args:
        model: A name in `PUBLISHED`, or the folder of a saved `Potential`.
        trust: The files may name any code, which is run.
        settings: Settings of the relaxation; the seed and the batch size are not used.

    Raises:
        UserError: The files are not there, cannot be loaded, name code that is no DIEP without
            `trust`, or give NaCl another energy than they should.
    """

    def __init__(
        self,
        model: str = "diep-matpes-r2scan",
        *,
        trust: bool = False,
        settings: RelaxSettings = RelaxSettings(),
    ) -> None:
        from pymatgen.core import Element

        folder = weights(model)
        potential = calculator(folder, settings.device, trust=trust)
        if model in PUBLISHED:
            check_reference_energy(potential, reference_energy(PUBLISHED[model]), model)
        else:
            check_own_energy(potential, folder, library="diep")
        elements = frozenset(Element(symbol).Z for symbol in potential.element_types)
        super().__init__(potential, elements=elements, settings=settings)


def weights(model: str = "diep-matpes-r2scan") -> Path:
    """Return the folder of the model's files, without importing diep or torch.

    Raises:
        UserError: The package or a file is missing, or a file breaks off.
    """
    if model not in PUBLISHED:
        return whole_model(Path(model), "diep")
    state = bundled("diep", f"{PUBLISHED[model].file}/state.pt", "pip install diep==2.0.0")
    return whole_model(state.parent, "diep")


def calculator(folder: Path, device: str = "cpu", *, trust: bool = False) -> Any:
    """Build an ASE calculator from a saved `Potential`: energy eV, forces eV/Å, stress eV/Å^3.

    It computes in float64. In float32 the frame of three atoms that are nearly on a line is mostly
    rounding, as the library's own description says: MgB2 and TaB2 did not converge in 500 steps,
    and fcc Ta fell out of its symmetry. The library's constants are set for it, and torch's default
    is not, which other models of the process use.

    Args:
        folder: The folder of the files.
        device: `cpu` or `cuda`.
        trust: Run whatever code the files name.

    Raises:
        UserError: The files hold no DIEP, or without `trust` name code that is none.
    """
    with loading(folder, code="diep does not read that, with or without --trust"):
        import torch

        torch.load(folder / "state.pt", map_location="cpu", weights_only=True)
        if not trust:
            refuse_foreign(folder, lambda module: bool(_OF_DIEP.fullmatch(module)), "diep")

        import numpy as np
        from diep import config
        from diep.pretrained import make_calculator

        potential = make_calculator(folder, device=device)
        potential.potential.double()
        config.float_th, config.float_np = torch.float64, np.float64
        return potential


_OF_DIEP = re.compile(r"diep(_pyg)?\.models\._diep")
"""The module of the class; the published files have the name from before its release."""
