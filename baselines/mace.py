"""MACE through mace-torch: this project's small model, and the published ones (arXiv:2401.00096).

`mace` is the checkpoint beside this file, trained from scratch on the embedded training split by
`python -m baselines.train mace`. The published weights come by mace-torch's own download into its
own cache (`$XDG_CACHE_HOME/mace` or `~/.cache/mace`). A checkpoint is a pickle, and loading one
can run any code: load only files that you trust.
"""

from __future__ import annotations

import contextlib
import os
import sys
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from baselines.ase_relaxer import AseRelaxer
from benchmarks.core import UserError

OURS = Path(__file__).with_name("mace_embedded.model")
PUBLISHED = {
    "mace-mp-0": "medium",
    "mace-mpa-0": "medium-mpa-0",
    "mace-omat-0": "medium-omat-0",
}
"""The published models under mace-torch's names for them."""
RELEASES = "github.com/ACEsuit/mace-foundations/releases"
PROBE_TIMEOUT = 10
"""Seconds to wait for the server before the download, whose own limit is two minutes."""


class Mace(AseRelaxer):
    """MACE through ASE, in double precision.

    Args:
        model: `mace` (this project's), a name in `PUBLISHED`, or the path of a checkpoint.
        device: `cpu` or `cuda`.
        fmax: Largest norm of a force [eV/Å].
        max_steps: Steps after which a structure is `unconverged`.
        offline: Never download.

    Raises:
        UserError: If the checkpoint is not there and cannot be fetched.
    """

    def __init__(
        self,
        model: str = "mace",
        *,
        device: str = "cpu",
        fmax: float = 0.05,
        max_steps: int = 500,
        offline: bool = False,
    ) -> None:
        potential = calculator(weights(model, offline=offline), device)
        # one it was not trained on has random parameters in our model, and raises in others
        elements = frozenset(int(z) for z in potential.z_table.zs)
        super().__init__(potential, elements=elements, fmax=fmax, max_steps=max_steps)


def calculator(path: Path, device: str = "cpu") -> Any:
    """An ASE calculator of the checkpoint: energy eV, forces eV/Å, stress eV/Å^3."""
    with quiet():
        from mace.calculators import MACECalculator

        return MACECalculator(model_paths=str(path), device=device, default_dtype="float64")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Import or load without the notes that these print.

    Of accelerators that are not installed, on stdout; and of full pickles, which mace-torch allows
    itself through the environment.
    """
    with (
        warnings.catch_warnings(),
        Path(os.devnull).open("w") as null,
        contextlib.redirect_stdout(null),
    ):
        warnings.simplefilter("ignore")
        yield


def weights(model: str = "mace", *, offline: bool = False) -> Path:
    """The checkpoint's file, downloaded if it is a published one that is not in the cache yet.

    Args:
        model: As for `Mace`.
        offline: Never download.

    Raises:
        UserError: If it is not there: which file, where to get it, where to put it.
    """
    if model in PUBLISHED:
        return _published(model, offline=offline)
    path = OURS if model == "mace" else Path(model)
    if not path.is_file():
        hint = "train it with `python -m baselines.train mace`" if path == OURS else "no such file"
        message = f"MACE checkpoint {path}: {hint}"
        raise UserError(message)
    return path


def _published(model: str, *, offline: bool) -> Path:
    with quiet():
        from mace.calculators import foundations_models as mace_torch

    url = mace_torch.mace_mp_urls[PUBLISHED[model]]
    # mace-torch names the cached file by the letters, digits and underscores of the address's end
    name = "".join(c for c in url.rsplit("/", 1)[1] if c.isalnum() or c == "_")
    path = Path(mace_torch.get_cache_dir()) / name
    if path.is_file():
        return path
    reason = "not downloading (offline)" if offline else _download(mace_torch, model, url)
    if reason is None:
        return path
    message = (
        f"the weights of {model} are not there, {reason}: get {url.rsplit('/', 1)[1]} "
        f"from {url} (releases: {RELEASES}) and save it as {path}"
    )
    raise UserError(message)


def _download(mace_torch: Any, model: str, url: str) -> str | None:
    """Fetch into mace-torch's cache; the reason why not, or None."""
    try:
        # answers at once whether there is a network at all
        probe = urllib.request.Request(url, method="HEAD")  # noqa: S310  # https, from mace-torch
        urllib.request.urlopen(probe, timeout=PROBE_TIMEOUT).close()  # noqa: S310  # likewise
        with contextlib.redirect_stdout(sys.stderr):
            mace_torch.download_mace_mp_checkpoint(PUBLISHED[model])
    except (OSError, RuntimeError) as error:  # URLError, timeouts; a web page instead of a file
        return f"cannot be downloaded ({getattr(error, 'reason', error)})"
    return None
