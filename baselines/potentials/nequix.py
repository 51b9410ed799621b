"""Nequix (Koker et al., arXiv:2508.16067): a small equivariant network with published weights.

It needs another e3nn than mace-torch pins, so it has an environment of its own: `make env-nequix`.
Its weights are JSON and arrays, which run no code. They are written by JAX and evaluated by torch:
JAX would compile the network anew for each size of a crystal.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from baselines.engines.ase_engine import AseRelaxer
from baselines.potentials.loading import (
    check_reference_energy,
    loading,
    reference_energy,
)
from benchmarks.core import RelaxSettings, UserError
from benchmarks.core.download import download
from benchmarks.core.published_weights import local_weights, published_by

PUBLISHED = published_by("nequix")
CACHE = Path("~/.cache/nequix/models")
"""The library's own cache."""
DOWNLOADS = "https://github.com/atomicarchitects/nequix/raw"


class Nequix(AseRelaxer):
    """Nequix through ASE, in float32.

    Args:
        model: A name in `PUBLISHED`, or the path of a file of weights.
        settings: Settings of the relaxation; the seed and the batch size are not used.

    Raises:
        UserError: The weights are not there, cannot be loaded, or give wrong energies.
    """

    def __init__(
        self, model: str = "nequix-oam-1", *, settings: RelaxSettings = RelaxSettings()
    ) -> None:
        potential = calculator(weights(model, offline=settings.offline), settings.device)
        if model in PUBLISHED:
            check_reference_energy(potential, reference_energy(PUBLISHED[model]), model)
        elements = frozenset(int(z) for z in potential.atom_indices)
        super().__init__(potential, elements=elements, settings=settings)


def weights(model: str = "nequix-oam-1", *, offline: bool = False) -> Path:
    """Return the file of the weights; one that is nowhere on disk is downloaded.

    Args:
        model: As for `Nequix`.
        offline: Never download.

    Raises:
        UserError: It is not there: where to get it, where to put it.
    """
    if model not in PUBLISHED:
        path = Path(model)
        if not path.is_file():
            raise UserError(f"{path}: no such file of Nequix weights")
        return path
    file = Path(PUBLISHED[model].file).name
    path = local_weights(model, file) or CACHE.expanduser() / file
    url = f"{DOWNLOADS}/{PUBLISHED[model].file}"
    reason = None if path.is_file() else download(url, path, offline=offline)
    if reason is None:
        return path
    raise UserError(
        f"the weights of {model} are not there, {reason}: get {url} and save it as {path}"
    )


def calculator(path: Path, device: str = "cpu") -> Any:
    """Build an ASE calculator from the weights: energy eV, forces eV/Å, stress eV/Å^3.

    The library writes what it has converted beside the weights, which may not be writable, so it
    is given a copy.

    Raises:
        UserError: The file holds no Nequix.
    """
    with loading(path), tempfile.TemporaryDirectory() as scratch:
        from nequix.calculator import NequixCalculator

        copy = shutil.copyfile(path, Path(scratch) / "model.nqx")
        potential = NequixCalculator("model", str(copy), backend="torch", use_kernel=False)
        potential.device = device
        potential.model.to(device)
        return potential
