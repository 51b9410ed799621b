"""matgl's potentials of 2021 and 2025.1: M3GNet and TensorNet, by the last matgl that is right.

Since matgl 2.2.0 (TensorNet) and 3.0.0 (M3GNet) a message goes to the other end of its edge, so
that these weights give wrong energies there. matgl 2.1.2 has an environment of its own: `make
env-matgl2`. It reads whole pickles, so the files are read as tensors and plain data before it sees
them, and what holds more, or names anything but a model of matgl, is refused unless it is trusted.
"""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path
from typing import Any

from baselines.engines.ase_engine import AseRelaxer
from baselines.potentials.loading import (
    check_reference_energy,
    loading,
    reference_energy,
)
from baselines.potentials.matgl import (
    FILES,
    check_own_energy,
    of_older_matgl,
    refuse_foreign,
    whole_model,
)
from benchmarks.core import RelaxSettings, UserError
from benchmarks.core.download import download
from benchmarks.core.published_weights import local_weights, published_by

PUBLISHED = published_by("matgl2")
CACHE = Path("~/.cache/matgl")
"""The library's own cache."""
DOWNLOADS = "https://github.com/materialyzeai/matgl/raw"
VERSION = "2.1.2"
"""The version of matgl that is meant."""


class MatGL2(AseRelaxer):
    """A potential of matgl before 2.2.0 through ASE, in float32.

    Args:
        model: A name in `PUBLISHED`, or the folder of a saved `Potential`.
        trust: The files may hold code, which is run.
        settings: Settings of the relaxation; the seed and the batch size are not used.

    Raises:
        UserError: The files are not there and cannot be fetched, cannot be loaded, hold code
            without `trust`, or give another energy than they should.
    """

    def __init__(
        self,
        model: str = "m3gnet-mp-2021",
        *,
        trust: bool = False,
        settings: RelaxSettings = RelaxSettings(),
    ) -> None:
        from pymatgen.core import Element

        folder = weights(model, offline=settings.offline)
        potential = calculator(folder, settings.device, trust=trust)
        known = PUBLISHED.get(model) or of_older_matgl(folder)
        if known:
            check_reference_energy(potential, reference_energy(known), model)
        else:
            check_own_energy(potential, folder)
        elements = frozenset(Element(symbol).Z for symbol in potential.element_types)
        super().__init__(potential, elements=elements, settings=settings)


def weights(model: str = "m3gnet-mp-2021", *, offline: bool = False) -> Path:
    """Return the folder of the model's files; one that is nowhere on disk is downloaded.

    Args:
        model: As for `MatGL2`.
        offline: Never download.

    Raises:
        UserError: It is not there: where to get it, where to put it. Or a file breaks off.
    """
    if model not in PUBLISHED:
        return whole_model(Path(model))
    file = Path(PUBLISHED[model].file).name
    folder = local_weights(model, file) or CACHE.expanduser() / file
    url = f"{DOWNLOADS}/{PUBLISHED[model].file}"
    missing = [name for name in FILES if not (folder / name).is_file()]
    for name in missing:
        reason = download(f"{url}/{name}", folder / name, offline=offline)
        if reason:
            raise UserError(
                f"the weights of {model} are not there, {reason}: get {', '.join(missing)} from "
                f"{url} into {folder}"
            )
    return whole_model(folder)


def calculator(folder: Path, device: str = "cpu", *, trust: bool = False) -> Any:
    """Build an ASE calculator from a saved `Potential`: energy eV, forces eV/Å, stress eV/Å^3.

    M3GNet is of dgl and TensorNet of torch-geometric, and a process can have one of the two.

    Args:
        folder: The folder of the files.
        device: `cpu` or `cuda`.
        trust: Read whole pickles.

    Raises:
        UserError: The files hold no potential of matgl 2, without `trust` more than tensors and
            plain data or code that is no model of matgl, or another backend is in use already.
    """
    os.environ.setdefault("DGLBACKEND", "pytorch")  # or dgl asks for a file in the home
    with loading(folder):
        import torch

        if not trust:
            torch.load(folder / "state.pt", map_location="cpu", weights_only=True)
            refuse_foreign(folder, lambda module: bool(_OF_MATGL.fullmatch(module)))
        saved = torch.load(folder / "model.pt", map_location="cpu", weights_only=not trust)
        potential = _load(folder, "PYG" if saved["model"]["@class"] == "TensorNet" else "DGL")

        from matgl.ext.ase import PESCalculator

        return PESCalculator(potential.to(device).eval(), stress_unit="eV/A3", use_voigt=True)


_OF_MATGL = re.compile(r"matgl\.models(\._[a-z0-9_]+)?")


def _load(folder: Path, backend: str) -> Any:
    import matgl

    if matgl.__version__ != VERSION:
        raise UserError(f"these weights need matgl {VERSION}, not {matgl.__version__}: {REMEDY}")
    matgl.set_backend(backend)
    from matgl.apps.pes import Potential

    if not Potential.__module__.endswith(backend.lower()):
        raise UserError(
            f"{folder} needs matgl's {backend}, and another model of this process its other "
            "backend: one of the two at a time"
        )
    # of another version it only warns, and the energies are wrong
    warnings.filterwarnings("error", "Incompatible model version", UserWarning)
    try:
        return Potential.load({name: folder / name for name in FILES})
    except UserWarning as error:
        raise UserError(f"{folder} was written by a matgl before 0.8: train again") from error


REMEDY = "make env-matgl2"
