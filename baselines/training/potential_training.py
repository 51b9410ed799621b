"""Train a potential of the equal-data track, whichever library does the training.

    python -m baselines.train mace-embedded --data embedded --out DIR/mine.model
    python -m baselines.train tensornet-embedded --smoke

The frames are read, the library trains in a folder of its own, and what it leaves is loaded and
measured. Only then it replaces what was there before. An interrupted training of a small potential
begins anew; that of `mace` goes on from the last epoch that was an improvement.

The frames with energy, forces and stress, and the errors of a potential on them, are made here too.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from baselines.potentials.loading import quiet
from baselines.training.model_card import described, training_sets, versions, write_card
from benchmarks.core import Geometry, UserError
from benchmarks.core.cli import require_numbers
from benchmarks.core.files import atomic_write
from benchmarks.core.training_identity import require_same_training
from benchmarks.data import Frame, frames, load
from benchmarks.data.folders import split_names


def training_frames(sources: Sequence[str], limit: int | None = None) -> list[Frame]:
    """The frames that have all three labels; of a source that has splits, of its training split.

    Args:
        sources: `embedded`, or paths of data sets.
        limit: Largest number of relaxations of each source; of the Hub no more is read.

    Raises:
        UserError: A source has no such frame.
    """
    examples: list[Frame] = []
    for source in sources:
        split = "train" if split_names(source) else None
        found = [frame for frame in frames_of(source, split, limit) if _complete(frame)]
        if not found:
            raise UserError(f"{source}: no frame has energy, forces and stress")
        examples += found
    return examples


def validation_frames(sources: Sequence[str]) -> list[Frame]:
    """The labelled frames of the validation splits; sources without such a split have none."""
    held_out = (frames(source, "val") for source in sources if "val" in split_names(source))
    return [frame for each in held_out for frame in each if _complete(frame)]


def frames_of(source: str, split: str | None, limit: int | None) -> Iterator[Frame]:
    """Yield all frames; with a limit those of the relaxations that the limit chooses."""
    if limit is None:
        yield from frames(source, split)
        return
    chosen = load(source, split=split, limit=limit)
    ids = set(chosen.ids)
    yield from (frame for frame in chosen.frames() if frame.sample_id in ids)


def _complete(frame: Frame) -> bool:
    return frame.energy is not None and frame.forces is not None and frame.stress is not None


def to_atoms(geometry: Geometry, potential: Any = None) -> Any:
    """ASE's atoms of a structure, with a calculator if one is given."""
    from ase import Atoms

    lattice, frac_coords, numbers = geometry
    return Atoms(
        numbers, cell=lattice, scaled_positions=frac_coords, pbc=True, calculator=potential
    )


def errors(potential: Any, elements: frozenset[int], examples: Sequence[Frame]) -> dict[str, Any]:
    """Root mean square errors over the frames whose elements a potential knows.

    Args:
        potential: An ASE calculator.
        elements: Atomic numbers.
        examples: Frames with all labels.

    Returns:
        `n` frames, `energy_per_atom` [eV], `force` component [eV/Å], `stress` component [eV/Å^3].
    """
    differences: dict[str, list[Any]] = {"energy_per_atom": [], "force": [], "stress": []}
    usable = [frame for frame in examples if elements.issuperset(frame.geometry.numbers.tolist())]
    for frame in usable:
        atoms = to_atoms(frame.geometry, potential)
        energy = atoms.get_potential_energy() - frame.energy
        differences["energy_per_atom"].append([energy / len(atoms)])
        differences["force"].append((atoms.get_forces() - frame.forces).ravel())
        differences["stress"].append((atoms.get_stress(voigt=False) - frame.stress).ravel())
    rmse = {
        name: round(float(np.sqrt(np.mean(np.concatenate(values) ** 2))), 5) if values else None
        for name, values in differences.items()
    }
    return {"n": len(usable), **rmse}


log = logging.getLogger(__name__)

POTENTIALS: Final[Mapping[str, str]] = {
    "mace": "baselines.training.train_mace:DISTILLATION",
    "mace-embedded": "baselines.training.train_mace:RECIPE",
    "tensornet-embedded": "baselines.training.train_tensornet:RECIPE",
}
"""The recipes of the potentials that this project trains, as `module:name`, by the model's name."""
MEASURED: Final = 1000
"""Number of training frames, at most twice as many, whose errors the card states."""
SMOKE_RELAXATIONS: Final = 3
"""Number of relaxations on which a trial trains if no limit is given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PotentialTrainingConfig:
    """The configuration of a potential's training.

    Raises:
        UserError: A number makes no sense.
    """

    model: str
    """A name in `POTENTIALS`."""
    data: tuple[str, ...] = ("embedded",)
    """Sources of the frames; of a source that has splits the training split is used."""
    out: Path
    """The checkpoint; its card is beside it. What is there stays as it is until the end."""
    limit: int | None = None
    """Largest number of relaxations of each source."""
    seed: int = 0
    """Seed of the initial weights and of the order of the frames."""
    epochs: int
    """Number of passes over the frames."""
    device: str = "cpu"
    """`cpu` or `cuda`."""

    def __post_init__(self) -> None:
        require_numbers(self, positive=("epochs", "limit"), not_negative=("seed",))


class TrainedPotential(NamedTuple):
    """The result of a library's trainer."""

    path: Path
    """The checkpoint: a file, or a folder."""
    about: dict[str, Any]
    """Entries of the card about the training: settings, …"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The parts of a training that differ from one potential to the other."""

    name: str
    """The registry's name of the model."""
    out: Path
    """The committed checkpoint; its card is beside it."""
    epochs: int
    """Number of epochs of the committed checkpoint."""
    fit: Callable[[Path, Sequence[Frame], PotentialTrainingConfig], TrainedPotential]
    """Trains in an empty folder, on frames that have all labels."""
    calculator: Callable[[Path], Any]
    """Makes an ASE calculator from a checkpoint."""
    elements: Callable[[Any], frozenset[int]]
    """Returns the atomic numbers that a calculator knows."""
    packages: tuple[str, ...]
    """Packages whose versions the card states."""
    resumable: bool = False
    """True if the library's trainer goes on from what it left in its folder."""


def recipe_of(model: str) -> Recipe:
    """The recipe of a model in `POTENTIALS`."""
    module, _, name = POTENTIALS[model].partition(":")
    recipe: Recipe = getattr(importlib.import_module(module), name)
    return recipe


def train(config: PotentialTrainingConfig, command: str | None = None) -> dict[str, Any]:
    """Train, check that the checkpoint loads, measure it, and write it with its card.

    Args:
        config: The configuration.
        command: The command line, for the card; None if there is none.

    Returns:
        The card.

    Raises:
        UserError: There is nothing to train on, or the checkpoint cannot be written.
    """
    recipe = recipe_of(config.model)
    datasets = described(training_sets(config.data, config.limit))
    examples = training_frames(config.data, config.limit)
    held_out = validation_frames(config.data)
    if os.environ.get("OMP_NUM_THREADS") is None:
        log.warning("set OMP_NUM_THREADS=1 before starting: these graphs are too small to share")
    started = time.perf_counter()
    identity = {
        "data": {each["name"]: each["revision"] for each in datasets},
        **{name: getattr(config, name) for name in ("model", "limit", "seed", "epochs")},
    }
    with _folder(recipe, config.out, identity) as folder:
        trained = recipe.fit(folder, examples, config)
        seconds = round(time.perf_counter() - started)
        # a checkpoint that cannot be loaded must not replace one that can
        potential = recipe.calculator(trained.path)
        elements = recipe.elements(potential)
        some = examples[:: max(1, len(examples) // MEASURED)]
        table = {
            "rmse_train": errors(potential, elements, some),
            "rmse_val": errors(potential, elements, held_out),
        }
        _replace(trained.path, config.out)
    card = {
        "model": recipe.name,
        "trained": "from scratch",
        "command": command,
        "training_data": datasets,
        "seed": config.seed,
        "device": config.device,
        "n_frames": len(examples),
        "seconds": seconds,
        **table,
        **trained.about,
        "identity": identity,
        "packages": versions(*recipe.packages),
    }
    write_card(config.out.with_suffix(".json"), **card)
    return card


@contextlib.contextmanager
def _folder(recipe: Recipe, out: Path, identity: Mapping[str, Any]) -> Iterator[Path]:
    """Give the folder of a training: one beside `out` that outlives interruptions, or another.

    Raises:
        UserError: The folder is of another training.
    """
    if not recipe.resumable:
        with tempfile.TemporaryDirectory() as scratch:
            yield Path(scratch)
        return
    folder = out.with_name(f"{out.name}.state")
    stated = folder / "identity.json"
    if folder.exists():
        known = json.loads(stated.read_text()) if stated.exists() else None
        require_same_training(folder, known, identity)
        log.info("going on with the training in %s", folder)
    else:
        with atomic_write(stated) as partial:
            partial.write_text(json.dumps(identity, indent=2) + "\n")
    yield folder
    shutil.rmtree(folder)


def smoke(config: PotentialTrainingConfig, keep: bool) -> str:
    """Go through all steps of a training in seconds.

    Args:
        config: The configuration; without a limit a few relaxations are used.
        keep: Whether the checkpoint goes to `config.out`; otherwise nothing is kept.

    Returns:
        One line that says what was done.

    Raises:
        UserError: `config.out` is where the committed checkpoint is.
    """
    recipe = recipe_of(config.model)
    if keep and config.out.resolve() == recipe.out.resolve():
        raise UserError(f"--smoke would replace {recipe.out}: give another --out")
    config = replace(config, limit=config.limit or SMOKE_RELAXATIONS)
    with tempfile.TemporaryDirectory() as scratch:
        out = config.out if keep else Path(scratch) / recipe.out.name
        card = train(replace(config, out=out))
    error = card["rmse_train"]
    kept = f"written to {config.out}" if keep else "nothing kept"
    return (
        f"{recipe.name}: trained on {card['n_frames']} frames of at most {config.limit} "
        f"relaxations, epochs: {config.epochs}; it loads again, with errors of {error['force']} "
        f"eV/Å and {error['stress']} eV/Å^3; {kept}"
    )


def _replace(new: Path, out: Path) -> None:
    """Put a file or folder in the place of another; the copy has another name until it is whole."""
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


@contextlib.contextmanager
def lightning_session() -> Iterator[None]:
    """Build and run a trainer without its remarks on workers and products, progress on stderr.

    Raises:
        KeyboardInterrupt: It was interrupted. Lightning itself would end the process with 1, and
            ignore every interrupt from then on.
    """
    logger, handler = logging.getLogger("lightning.pytorch"), signal.getsignal(signal.SIGINT)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with quiet(), contextlib.redirect_stdout(sys.stderr):
            yield
    except SystemExit as ended:
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from ended
    finally:
        logger.setLevel(level)
