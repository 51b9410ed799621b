"""Train this project's two MACE with mace-torch's own trainer.

`mace` has all elements and learns from the frames that a published potential labelled
(`baselines.training.distillation`).

`mace-embedded` learns from the frames of one training split. It is small because the training set
is: 229 frames of 47 compounds. Most forces vanish by symmetry, so what there is to learn stands in
the stresses. Settings were chosen on the training split alone: leave out ten compounds of known
elements, relax them, compare cells (twice, with other compounds). The loss on frames that were left
out is no guide: it is smallest after a few epochs, for potentials too soft to relax anything with.
No setting relaxed compounds that were left out better than doing nothing (0.27 and 0.31 Å against
0.18 and 0.16 Å); those it was trained on come out right (median 0.02 Å). That is what 47 compounds
teach about a 48th.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase.units import GPa

from baselines.potentials import mace
from baselines.potentials.loading import quiet
from baselines.training.potential_training import (
    PotentialTrainingConfig,
    Recipe,
    TrainedPotential,
    to_atoms,
)
from benchmarks.core.files import atomic_write
from benchmarks.data import Frame

SETTINGS: dict[str, str] = {
    "model": "ScaleShiftMACE",
    "num_interactions": "1",
    "num_channels": "8",
    "max_L": "0",
    "max_ell": "2",
    "correlation": "2",
    # with 4.5 Å compounds that were left out relax worse; 7 Å fits badly
    "r_max": "6.0",
    # weights of the products shared by all elements: two compounds of an element are too few
    "use_agnostic_product": "True",
    # as two atoms come close nothing in the training set says that they repel
    "pair_repulsion": "",
    # energies of the elements are not known apart from those of their compounds, so only slopes are
    # fitted: differences between crystals of different composition mean nothing
    "E0s": "average",
    "scaling": "rms_forces_scaling",
    "loss": "stress",
    "energy_weight": "0",
    "forces_weight": "10",
    "stress_weight": "1000",
    "batch_size": "4",
    "valid_batch_size": "32",
    "lr": "0.01",
    "scheduler": "ExponentialLR",
    "lr_scheduler_gamma": "0.96",
    "ema": "",
    "ema_decay": "0.99",
    "default_dtype": "float64",
}
"""Arguments of `mace.cli.run_train`; an empty one is a flag."""


DISTILLED: dict[str, str] = {
    "model": "ScaleShiftMACE",
    "num_interactions": "2",
    "num_channels": "64",
    "max_L": "0",
    "max_ell": "2",
    "correlation": "2",
    # with distances transformed as Agnesi's, or products shared by all elements, forces are learnt
    # later: 0.36 and 0.27 eV/Å after 400 steps, against 0.20 (validation, batches of 16); with 5 Å
    # atoms as large as Cs do not see each other, and their crystals stay as they are
    "r_max": "6.0",
    # a quarter of the usual work, so that 6 Å cost no more than 5 Å
    "radial_MLP": "[32,32]",
    # no teacher is right where two atoms fuse
    "pair_repulsion": "",
    "scaling": "rms_forces_scaling",
    "loss": "universal",
    "huber_delta": "0.1",
    "energy_weight": "1",
    "forces_weight": "10",
    "stress_weight": "100",
    "batch_size": "8",
    "valid_batch_size": "64",
    # AMSGrad would keep the gradients of the first loss, and slow down the second one by three
    "lr": "0.005",
    "scheduler": "ExponentialLR",
    "lr_scheduler_gamma": "0.8",
    "ema": "",
    "ema_decay": "0.99",
    "clip_grad": "1",
    "default_dtype": "float32",
}
"""Arguments of `mace.cli.run_train` for a MACE of all elements that learns from another potential:
small enough to be packaged and to relax on a CPU."""
FIRST_EPOCHS = 6
"""Epochs with the loss of `DISTILLED`, which is nearly quadratic, and in which forces count most.
With robust terms from the start, forces are not learnt."""
STAGE_TWO: dict[str, str] = {"huber_delta": "0.01", "energy_weight": "2", "stress_weight": "200"}
"""The loss of the later epochs: nearly the mean absolute error, in which strongly compressed cells
do not outweigh the stresses near a minimum, which decide how a cell relaxes."""
SECOND_EPOCHS = 12
"""Epochs before the last stage, with `DISTILLED` and then `STAGE_TWO`."""
LAST_STAGE: dict[str, str] = {
    "multiheads_finetuning": "False",
    "E0s": "foundation",
    "lr": "0.003",
    "lr_scheduler_gamma": "0.75",
    "batch_size": "16",
    "huber_delta": "0.01",
    "energy_weight": "1",
    "stress_weight": "200",
}
"""The last epochs start from the model that the earlier ones left, with a new optimiser. A frame
with a larger stress than `LARGEST_STRESS` or a larger force than `LARGEST_FORCE` counts less, in
proportion: a tenth of the frames has most of the gradient otherwise. Left out altogether, their
lesson is forgotten: after six epochs Fe and Al collapsed when compressed."""
LARGEST_STRESS = 50.0 * GPa
LARGEST_FORCE = 15.0
"""[eV/Å]"""
VOLUME = 20.0
"""The stress of a structure counts by its volume per atom over this one [Å^3], so that virials per
atom are learnt: crystals of large atoms are soft, and a small stress decides how they relax."""
ALONE = 12.0
"""An atom in a cell with longer edges [Å] sees no other."""
HELD_OUT = 40
"""One frame of this many is held out."""


def fit(
    folder: Path, examples: Sequence[Frame], config: PotentialTrainingConfig
) -> TrainedPotential:
    """Run mace-torch's trainer in `folder`; the model is the one that fits best.

    There is no early stopping and nothing is held out; the module says why.
    """
    batch_size = min(int(SETTINGS["batch_size"]), len(examples))
    changed = {"max_num_epochs": str(config.epochs), "batch_size": str(batch_size)}
    settings = {**SETTINGS, **changed}
    trained = _run_trainer(folder, examples, examples, settings, config)
    return TrainedPotential(trained, {"settings": settings})


def distil(
    folder: Path, examples: Sequence[Frame], config: PotentialTrainingConfig
) -> TrainedPotential:
    """Run mace-torch's trainer in `folder` on the frames of a teacher, from where it stopped.

    The energies of single atoms are the teacher's. After `FIRST_EPOCHS` the loss is another one,
    after `SECOND_EPOCHS` frames are weighed as `LAST_STAGE` says. The model is that of the last
    epoch; the frames that are held out give the curve.
    """
    several = [frame for frame in examples if len(frame.geometry.numbers) > 1]
    held_out = several[::HELD_OUT] or list(examples)
    out = {id(frame) for frame in held_out} if len(held_out) < len(examples) else set()
    learnt = [frame for frame in examples if id(frame) not in out]
    settings = {**DISTILLED, "restart_latest": "", "save_all_checkpoints": ""}
    settings["batch_size"] = str(min(int(settings["batch_size"]), len(learnt)))
    alone = {int(frame.geometry.numbers[0]) for frame in learnt if _is_alone(frame)}
    if {int(z) for frame in examples for z in frame.geometry.numbers} - alone:
        settings["E0s"] = "average"  # without single atoms
    first = {"max_num_epochs": str(min(FIRST_EPOCHS, config.epochs))}
    second = {"max_num_epochs": str(min(SECOND_EPOCHS, config.epochs))} | STAGE_TWO
    last = {"max_num_epochs": str(config.epochs - SECOND_EPOCHS)} | LAST_STAGE
    start = folder / "last" / "start.model"
    if not start.exists():
        if _epochs_done(folder) < FIRST_EPOCHS or config.epochs <= FIRST_EPOCHS:
            trained = _run_trainer(folder, learnt, held_out, settings | first, config)
        if config.epochs > FIRST_EPOCHS:
            trained = _run_trainer(folder, learnt, held_out, settings | second, config)
    about: dict[str, Any] = {"settings": settings | first}
    if config.epochs > FIRST_EPOCHS:
        about["settings_of_stage_two"] = second
    if config.epochs > SECOND_EPOCHS:
        if not start.exists():
            with atomic_write(start) as partial:
                shutil.copyfile(trained, partial)
        last["batch_size"] = str(min(int(last["batch_size"]), len(learnt)))
        arguments = settings | last | {"foundation_model": str(start)}
        trained = _run_trainer(start.parent, learnt, held_out, arguments, config)
        about["settings_of_the_last_stage"] = last | {
            "largest_stress_GPa": LARGEST_STRESS / GPa,
            "largest_force": LARGEST_FORCE,
        }
    # of all processes, where the training was interrupted
    seconds, curve = _progress(folder, 0)
    more, last_curve = _progress(folder / "last", SECOND_EPOCHS)
    about |= {
        "seconds": round(seconds + more),
        "n_held_out": len(held_out),
        "labels": _labels(config.data),
        "rmse_held_out_by_epoch": curve + last_curve,
    }
    return TrainedPotential(trained, about)


def _epochs_done(folder: Path) -> int:
    """The number of epochs of which mace-torch's trainer left a checkpoint."""
    saved = [path.stem for path in (folder / "checkpoints").glob("*_epoch-*.pt")]
    return 1 + max((int(name.rsplit("-", 1)[1]) for name in saved), default=-1)


def _progress(folder: Path, before: int) -> tuple[float, list[dict[str, Any]]]:
    """The seconds of mace-torch's trainer in a folder, and its errors on what is held out.

    An epoch that was gone through again stands in the trainer's log twice, and here once.

    Args:
        folder: The trainer's.
        before: Epochs of earlier stages.
    """
    seconds, curve = 0.0, {}
    for log in sorted(folder.glob("results/*_train.txt")):
        for entry in map(json.loads, log.read_text().splitlines()):
            if entry["mode"] == "opt":
                seconds += entry["time"]
            else:
                epoch = entry["epoch"]  # None before the first
                if epoch is None and before:
                    continue
                curve[epoch] = {
                    "epoch": None if epoch is None else epoch + before,
                    "energy_per_atom": round(entry["rmse_e_per_atom"], 5),
                    "force": round(entry["rmse_f"], 5),
                    "stress": round(entry["rmse_stress"], 6),
                }
    return seconds, list(curve.values())


def _weight(frame: Frame) -> float:
    """How much a frame counts in the last stage."""
    force, stress = np.abs(np.asarray(frame.forces)).max(), np.abs(np.asarray(frame.stress)).max()
    return float(min(1.0, LARGEST_FORCE / max(force, 1e-9), LARGEST_STRESS / max(stress, 1e-9)))


def _labels(sources: Sequence[str]) -> list[dict[str, Any]]:
    """What the cards beside the sources say of the teacher, its labels and their structures."""
    cards = [Path(source).with_suffix(".json") for source in sources]
    told = [json.loads(card.read_text()) for card in cards if card.is_file()]
    places = {"command", "out", "data"}  # the structures are named by their hashes
    return [{name: card[name] for name in card if name not in places} for card in told]


def _run_trainer(
    folder: Path,
    examples: Sequence[Frame],
    held_out: Sequence[Frame],
    settings: dict[str, str],
    config: PotentialTrainingConfig,
) -> Path:
    """Run mace-torch's trainer in `folder`; the path of the model it leaves."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, frames in {"train": examples, "valid": held_out}.items():
        write_extxyz(
            folder / f"{name}.xyz",
            frames,
            by_volume=settings["loss"] == "universal",
            by_size="foundation_model" in settings,
        )
    arguments = ["--name", "mace", "--work_dir", str(folder), "--seed", str(config.seed)]
    arguments += ["--train_file", str(folder / "train.xyz"), "--device", config.device]
    arguments += ["--valid_file", str(folder / "valid.xyz")]
    arguments += ["--energy_key", "REF_energy", "--forces_key", "REF_forces"]
    arguments += ["--stress_key", "REF_stress", "--compute_stress", "True"]
    arguments += ["--error_table", "PerAtomRMSEstressvirials", "--plot", "False"]
    for name, value in settings.items():
        arguments += [f"--{name}", value] if value else [f"--{name}"]
    with quiet():
        import torch
        from mace.cli.run_train import run
        from mace.tools import build_default_arg_parser
    # mace-torch changes the precision and the logging of the whole process
    precision, root = torch.get_default_dtype(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        with contextlib.redirect_stdout(sys.stderr):  # where progress belongs
            run(build_default_arg_parser().parse_args(arguments))
    finally:
        torch.set_default_dtype(precision)
        root.handlers[:] = handlers
        root.setLevel(level)
    return folder / "mace.model"


def write_extxyz(
    path: Path, examples: Sequence[Frame], *, by_volume: bool = False, by_size: bool = False
) -> None:
    """Write frames as mace-torch reads them: REF_energy eV, REF_forces eV/Å, REF_stress eV/Å^3.

    A single atom that sees no other is marked, so that its energy is that of its element.

    Args:
        path: Where to.
        examples: The frames.
        by_volume: Let the stress count by the volume per atom, up to five times `VOLUME`.
        by_size: Let frames of large stresses or forces count less, see `LAST_STAGE`.
    """
    from ase.io import write

    images = []
    for frame in examples:
        atoms = to_atoms(frame.geometry)
        atoms.info |= {"REF_energy": frame.energy, "REF_stress": np.asarray(frame.stress).ravel()}
        atoms.arrays["REF_forces"] = np.asarray(frame.forces)
        weight = _weight(frame) if by_size else 1.0
        volume = min(atoms.get_volume() / len(atoms) / VOLUME, 5.0) if by_volume else 1.0
        atoms.info |= {
            "config_energy_weight": weight,
            "config_forces_weight": weight,
            "config_stress_weight": weight * volume,
        }
        if _is_alone(frame):
            atoms.info["config_type"] = "IsolatedAtom"
        images.append(atoms)
    write(path, images, format="extxyz")


def _is_alone(frame: Frame) -> bool:
    """Say whether a frame is a single atom that sees no other."""
    lattice, _, numbers = frame.geometry
    return len(numbers) == 1 and bool(np.linalg.norm(lattice, axis=1).min() > ALONE)


def _elements(potential: Any) -> frozenset[int]:
    return frozenset(int(z) for z in potential.z_table.zs)


RECIPE = Recipe(
    name="mace-embedded",
    out=mace.PACKAGED["mace-embedded"],
    epochs=91,
    fit=fit,
    calculator=mace.calculator,
    elements=_elements,
    packages=("mace-torch", "torch", "e3nn"),
)
DISTILLATION = Recipe(
    name="mace",
    out=mace.PACKAGED["mace"],
    epochs=20,
    fit=distil,
    calculator=mace.calculator,
    elements=_elements,
    packages=("mace-torch", "torch", "e3nn"),
    resumable=True,
)
