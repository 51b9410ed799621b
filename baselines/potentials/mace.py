"""MACE through mace-torch: this project's two models, and the published ones (arXiv:2401.00096).

`mace` and `mace-embedded` are the checkpoints in `baselines`: one learned from the labels that a
published potential gave, the other from the embedded training split alone
(`baselines.training.train_mace`). The published weights come by mace-torch's own download into its
own cache (`$XDG_CACHE_HOME/mace` or `~/.cache/mace`). A checkpoint is a pickle, and loading one
can run any code: load only files that you trust.
"""

from __future__ import annotations

import contextlib
import os
import sys
import urllib.request
from pathlib import Path
from typing import Any

from baselines.engines.ase_engine import AseRelaxer
from baselines.potentials.loading import (
    check_reference_energy,
    intact,
    loading,
    quiet,
    reference_energy,
)
from benchmarks.core import RelaxSettings, UserError
from benchmarks.core.published_weights import published_by

PACKAGED = {
    "mace": Path(__file__).parents[1] / "mace.model",
    "mace-embedded": Path(__file__).parents[1] / "mace_embedded.model",
}
PUBLISHED = published_by("mace")
DOWNLOADS = "https://github.com/ACEsuit/mace-mp/releases/download"
RELEASES = "github.com/ACEsuit/mace-foundations/releases"
PROBE_TIMEOUT = 10
"""Seconds to wait for the server before the download, whose own limit is two minutes."""


class Mace(AseRelaxer):
    """MACE through ASE, in double precision.

    Args:
        model: A name in `PACKAGED` or `PUBLISHED`, or the path of a checkpoint.
        settings: Settings of the relaxation; the seed and the batch size are not used.

    Raises:
        UserError: If the checkpoint is not there and cannot be fetched, cannot be loaded, or is a
            published one and gives another energy than it should.
    """

    def __init__(
        self,
        model: str = "mace",
        *,
        settings: RelaxSettings = RelaxSettings(),
    ) -> None:
        potential = calculator(weights(model, offline=settings.offline), settings.device)
        if model in PUBLISHED:
            check_reference_energy(potential, reference_energy(PUBLISHED[model]), model)
        # an element without training has random parameters in our model; other models raise for it
        elements = frozenset(int(z) for z in potential.z_table.zs)
        super().__init__(
            potential,
            elements=elements,
            settings=settings,
        )


def calculator(path: Path, device: str = "cpu") -> Any:
    """Build an ASE calculator from the checkpoint: energy eV, forces eV/Å, stress eV/Å^3.

    Raises:
        UserError: The file holds no MACE.
    """
    # mace-torch says on stdout which accelerators are not installed, and warns of full pickles,
    # which it allows itself through the environment
    with loading(path):
        from mace.calculators import MACECalculator

        return MACECalculator(model_paths=str(path), device=device, default_dtype="float64")


def weights(model: str = "mace", *, offline: bool = False) -> Path:
    """Return the checkpoint's file; a published one that is not in the cache is downloaded.

    Args:
        model: As for `Mace`.
        offline: Never download.

    Raises:
        UserError: If it is not there: which file, where to get it, where to put it. Or it is no
            checkpoint, or breaks off.
    """
    if model in PUBLISHED:
        return intact(_published(model, offline=offline))
    path = PACKAGED.get(model, Path(model))
    if not path.is_file():
        hint = "no such file"
        if model in PACKAGED:
            hint = f"train it with `python -m baselines.train {model}`"
        message = f"MACE checkpoint {path}: {hint}"
        raise UserError(message)
    return intact(path)


def _published(model: str, *, offline: bool) -> Path:
    name, file = PUBLISHED[model].package_name, PUBLISHED[model].file
    path = _cached(file)
    if path.is_file():
        return path
    url = f"{DOWNLOADS}/{file}"
    reason = "not downloading (offline)" if offline else _download(name, url)
    if reason is None:
        return path
    message = (
        f"the weights of {model} are not there, {reason}: get {Path(file).name} "
        f"from {url} (releases: {RELEASES}) and save it as {path}"
    )
    raise UserError(message)


def _cached(file: str) -> Path:
    """Return the path in mace-torch's cache: the letters, digits and underscores of the name."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mace"
    return cache / "".join(c for c in Path(file).name if c.isalnum() or c == "_")


def _download(name: str, url: str) -> str | None:
    """Fetch a file into mace-torch's cache; return the reason of a failure, or None."""
    try:
        # answers at once whether there is a network at all
        probe = urllib.request.Request(url, method="HEAD")  # noqa: S310  # https
        urllib.request.urlopen(probe, timeout=PROBE_TIMEOUT).close()  # noqa: S310  # likewise
        with quiet():
            from mace.calculators import foundations_models as mace_torch
        with contextlib.redirect_stdout(sys.stderr):
            mace_torch.download_mace_mp_checkpoint(name)
    except (OSError, RuntimeError) as error:  # URLError, timeouts; a web page instead of a file
        return f"cannot be downloaded ({getattr(error, 'reason', error)})"
    return None
