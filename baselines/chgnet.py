"""CHGNet 0.3.0, from the weights in its wheel (Deng et al., Nat. Mach. Intell. 5, 1031 (2023))."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from pathlib import Path
from typing import Any

from baselines.ase_relaxer import AseRelaxer
from benchmarks.core import UserError

VERSION = "0.3.0"
FILE = f"pretrained/{VERSION}/chgnet_0.3.0_e29f68s314m37.pth.tar"
ELEMENTS = frozenset(range(1, 95)) - set(range(84, 89))
"""The 89 elements of MPtrj: H to Pu without Po, At, Rn, Fr, Ra."""
NACL_ENERGY = -3.6664
"""Energy of rocksalt with a = 5.64 Å, measured with these weights [eV/atom]."""


class CHGNet(AseRelaxer):
    """CHGNet through ASE. Its energies are Materials Project's corrected ones, in float32.

    Args:
        device: `cpu` or `cuda`.
        fmax: Largest norm of a force [eV/Å].
        max_steps: Steps after which a structure is `unconverged`.
    """

    def __init__(self, *, device: str = "cpu", fmax: float = 0.05, max_steps: int = 500) -> None:
        potential = calculator(device)
        check_reference_energy(potential)
        super().__init__(potential, elements=ELEMENTS, fmax=fmax, max_steps=max_steps)


def weights(*, offline: bool = False) -> Path:  # noqa: ARG001  # the wheel holds them: never online
    """The file of the weights, without importing torch.

    Raises:
        UserError: If the package or the file in it is missing.
    """
    spec = importlib.util.find_spec("chgnet")
    path = Path(spec.origin).parent / FILE if spec and spec.origin else None
    if path is None or not path.is_file():
        message = f"CHGNet's weights ({FILE}) are not there: pip install 'chgnet>=0.4.2'"
        raise UserError(message)
    return path


def calculator(device: str = "cpu") -> Any:
    """A CHGNet calculator: energy eV, forces eV/Å, stress eV/Å^3 (its GPa converted by itself)."""
    from chgnet.model.dynamics import CHGNetCalculator
    from chgnet.model.model import CHGNet as Model

    # both announce themselves on stdout
    with Path(os.devnull).open("w") as null, contextlib.redirect_stdout(null):
        model = Model.load(
            model_name=VERSION, use_device=device, check_cuda_mem=False, verbose=False
        )
        # an atom without neighbours within 6 Å has its atomic energy and no force; no need to say
        # so at every step
        return CHGNetCalculator(model, use_device=device, on_isolated_atoms="ignore")


def check_reference_energy(potential: Any) -> None:
    """Make sure that these weights are these weights: loaders have failed in silence elsewhere.

    Raises:
        RuntimeError: If rocksalt has another energy than when the code was written.
    """
    from ase.build import bulk

    rocksalt = bulk("NaCl", "rocksalt", a=5.64)
    rocksalt.calc = potential
    energy = float(rocksalt.get_potential_energy()) / len(rocksalt)
    if abs(energy - NACL_ENERGY) > 1e-3:
        message = f"CHGNet gives NaCl {energy:.4f} eV/atom instead of {NACL_ENERGY}: wrong weights"
        raise RuntimeError(message)
