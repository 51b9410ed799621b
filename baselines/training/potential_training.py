"""How a potential of the equal-data track is trained, whichever library does the training.

The frames are read, the library trains in a folder of its own, what it leaves is loaded and
measured, and only then replaces what was there before.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from baselines.training import labelled_frames as labelled
from benchmarks.core.files import atomic_write
from benchmarks.data import Frame

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a person may choose."""

    seed: int = 0
    """Of the initial weights and the order of the frames."""
    epochs: int
    """Passes over the frames."""
    device: str = "cpu"
    """`cpu` or `cuda`."""


class Trained(NamedTuple):
    """What a library leaves."""

    path: Path
    """The checkpoint: a file, or a folder."""
    about: dict[str, Any]
    """What its card should say of the training: settings, …"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A potential that is trained here."""

    name: str
    """The registry's."""
    out: Path
    """The committed checkpoint; its card is beside it."""
    epochs: int
    """Of the committed checkpoint."""
    fit: Callable[[Path, Sequence[Frame], Options], Trained]
    """Train on frames that have all labels, in an empty folder."""
    calculator: Callable[[Path], Any]
    """An ASE calculator of a checkpoint."""
    elements: Callable[[Any], frozenset[int]]
    """The atomic numbers that a calculator knows."""
    packages: tuple[str, ...]
    """Whose versions the card should say."""


def train(
    recipe: Recipe,
    sources: Sequence[str],
    out: Path,
    options: Options,
    *,
    limit: int | None = None,
) -> dict[str, Any]:
    """Train, check that the checkpoint loads, measure it, and write it.

    Args:
        recipe: Of the potential.
        sources: `embedded`, or paths of data sets; of splits the training split is used.
        out: Where the checkpoint goes; until the end what is there stays as it is.
        options: Seed, epochs, device.
        limit: Frames of at most so many relaxations of each; of the Hub no more is read.

    Returns:
        What its card should say, beside the data and the options.

    Raises:
        UserError: If there is nothing to train on.
    """
    examples = labelled.training_frames(sources, limit)
    held_out = labelled.validation_frames(sources)
    if os.environ.get("OMP_NUM_THREADS") is None:
        log.warning("set OMP_NUM_THREADS=1 before starting: these graphs are too small to share")
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        trained = recipe.fit(Path(scratch), examples, options)
        seconds = round(time.perf_counter() - started)
        # a checkpoint that cannot be loaded must not replace one that can
        potential = recipe.calculator(trained.path)
        elements = recipe.elements(potential)
        table = {
            "rmse_train": labelled.errors(potential, elements, examples),
            "rmse_val": labelled.errors(potential, elements, held_out),
        }
        _replace(trained.path, out)
    return {"n_frames": len(examples), "seconds": seconds, **table, **trained.about}


def _replace(new: Path, out: Path) -> None:
    """Put a file or folder in the place of another; what is copied has another name until then."""
    if not new.is_dir():
        with atomic_write(out) as partial:
            shutil.copyfile(new, partial)
        return
    beside, old = out.with_name(f".{out.name}.new"), out.with_name(f".{out.name}.old")
    shutil.rmtree(beside, ignore_errors=True)  # of a run that was killed
    shutil.copytree(new, beside)
    if out.exists():  # a folder cannot be renamed to one that is there
        out.rename(old)
    beside.rename(out)
    shutil.rmtree(old, ignore_errors=True)
