"""Train the baselines, and record the data, the command and the versions.

    PAIRS=../shared/data/substitution/train.parquet
    python -m baselines.train mean-delta --data $PAIRS --data embedded
    python -m baselines.train gbr --data $PAIRS --data embedded
    OMP_NUM_THREADS=1 python -m baselines.train gnn-delta --data embedded --data $PAIRS --val VAL
    OMP_NUM_THREADS=1 python -m baselines.train mace-embedded
    OMP_NUM_THREADS=1 python -m baselines.train tensornet-embedded
    OMP_NUM_THREADS=1 python -m baselines.train mace --data runs/labels/labels.parquet
    python -m baselines.train mace --smoke          # seconds, and nothing is kept

Of a source that has splits (as `embedded` has) the training split is read; other sources are read
whole. Each command writes its model (tensornet-embedded: a folder) and a JSON card beside it.
Progress goes to stderr. An interrupted command leaves the old files as they were; `gnn-delta` and
`mace` go on where they stopped, if data and settings are the same.

`mace-embedded` and `tensornet-embedded` share relaxations with the model `t5-equal`, but not
labels: `t5-equal` is given structures (every frame with the last one), a potential also the energy,
forces and stress of every frame. `gnn-delta` is trained on the same pairs as `t5`. The labels that
`mace` learns from are made by `python -m baselines.training.distillation`.
"""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from tqdm import tqdm

from baselines import trivial
from baselines.potentials.matgl import FILES
from baselines.training.model_card import (
    described,
    training_sets,
    versions,
    write_card,
)
from baselines.training.potential_training import (
    POTENTIALS,
    PotentialTrainingConfig,
    recipe_of,
    smoke,
)
from baselines.training.potential_training import train as train_potential
from benchmarks.core import UserError
from benchmarks.core.cli import check_device, check_installed, run_command, whole_number
from benchmarks.data import Dataset

if TYPE_CHECKING:
    from pymatgen.core import Structure

log = logging.getLogger("baselines.train")  # also when run with -m


def train_mean_delta(data: Sequence[str], out: Path, limit: int | None = None) -> None:
    """Fit `mean-delta`: the mean of ln(V_f / V_i) / 3 over all pairs. The card is the model.

    Args:
        data: Sources of the pairs; of a source that has splits the training split is used.
        out: The card.
        limit: Largest number of relaxations of each source.
    """
    datasets = training_sets(data, limit)
    strains = [np.log(final.volume / initial.volume) / 3 for initial, final in _pairs(datasets)]
    write_card(
        out,
        model="mean-delta",
        log_strain=float(np.mean(strains)),
        n=len(strains),
        training_data=described(datasets),
    )


def train_gbr(data: Sequence[str], out: Path, limit: int | None = None, seed: int = 0) -> None:
    """Fit `gbr`, the gradient boosting of `baselines.gbr`, on all pairs.

    Args:
        data: Sources of the pairs; of a source that has splits the training split is used.
        out: The model; its card is beside it.
        limit: Largest number of relaxations of each source.
        seed: Seed of the trees.
    """
    from baselines import gbr

    started = time.perf_counter()
    datasets = training_sets(data, limit)
    settings = gbr.BoostingSettings()
    examples = list(_pairs(datasets))
    log.info("fitting on %d pairs", len(examples))
    model = gbr.fit(examples, settings, seed=seed)
    gbr.save(model, out)
    write_card(
        out.with_suffix(".json"),
        model="gbr",
        n=len(examples),
        training_data=described(datasets),
        settings=asdict(settings),
        seed=seed,
        device="cpu",
        seconds=round(time.perf_counter() - started),
        packages=versions("scikit-learn", "skops"),
    )


def _pairs(datasets: Sequence[Dataset]) -> Iterator[tuple[Structure, Structure]]:
    """Initial and final structures of all data sets, with a progress bar."""
    for data in datasets:
        for sample in tqdm(data, desc=data.name, unit="pair", total=len(data)):
            yield sample.initial, sample.final


def _train(args: argparse.Namespace, command: str) -> None:
    """Train the model that the command line names, with its configuration."""
    if args.model == "mean-delta":
        train_mean_delta(args.data, args.out or trivial.MEAN_DELTA, args.limit)
    elif args.model == "gbr":
        train_gbr(args.data, args.out or trivial.GBR, args.limit, args.seed)
    elif args.model == "gnn-delta":
        from baselines.delta import network as graph_delta
        from baselines.delta import train_delta

        config = train_delta.DeltaTrainingConfig(
            data=tuple(args.data),
            val=tuple(args.val),
            out=args.out or graph_delta.PACKAGED,
            limit=args.limit,
            seed=args.seed,
            device=args.device,
        )
        config = replace(config, epochs=args.epochs or config.epochs)
        train_delta.train(config, command)
    else:
        recipe = recipe_of(args.model)
        potential = PotentialTrainingConfig(
            model=args.model,
            data=tuple(args.data or ["embedded"]),
            out=args.out or recipe.out,
            limit=args.limit,
            seed=args.seed,
            epochs=args.epochs or (1 if args.smoke else recipe.epochs),
            device=args.device,
        )
        if args.smoke:
            print(smoke(potential, keep=args.out is not None))
        else:
            train_potential(potential, command)


_LIMIT = "relaxations of each --data, at most; of hf:// data no more is read"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="python -m baselines.train", description=(__doc__ or "").split("\n", 1)[0]
    )
    commands = top.add_subparsers(dest="model", required=True)
    for name, about in (
        ("mean-delta", "fit the mean logarithmic strain of all pairs"),
        ("gbr", "fit gradient boosting on all pairs"),
    ):
        command = commands.add_parser(name, help=about)
        command.add_argument(
            "--data", action="append", required=True, help="embedded, PATH or hf://…"
        )
    command = commands.add_parser("gnn-delta", help="train the graph network on pairs")
    command.add_argument("--data", action="append", required=True, help="embedded, PATH or hf://…")
    command.add_argument("--val", action="append", default=[], help="errors after each epoch")
    for name in POTENTIALS:
        command = commands.add_parser(name, help=f"train this project's own potential {name}")
        command.add_argument(
            "--data", action="append", help="frames with energy, forces, stress; default: embedded"
        )
        command.add_argument(
            "--smoke", action="store_true", help="in seconds through all steps; keeps only --out"
        )
    for name in ("gnn-delta", *POTENTIALS):
        command = commands.choices[name]
        command.add_argument(
            "--epochs", type=whole_number(1), help="default: as for the committed one"
        )
        command.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    for command in commands.choices.values():
        command.add_argument("--limit", type=whole_number(1), metavar="N", help=_LIMIT)
        command.add_argument("--seed", type=whole_number(0), default=0)
        command.add_argument("--out", type=Path, help="default: the file that the relaxer loads")
    return top


def _log_to_stderr() -> None:
    """Show our own lines only: mace-torch installs a handler for everything at the root logger."""
    ours = logging.getLogger("baselines")
    if not ours.handlers:
        ours.addHandler(logging.StreamHandler())
    ours.setLevel(logging.INFO)
    ours.propagate = False


def _check(args: argparse.Namespace) -> None:
    """Refuse before the training what would only be found out after it.

    Raises:
        UserError: A library is not installed, there is no such device, or the model cannot be
            written where it should go.
    """
    if args.model == "mace" and not (args.data or args.smoke):
        made_by = "python -m baselines.training.distillation"
        raise UserError(f"mace: say --data LABELS.parquet, which {made_by} writes")
    if args.model in _NEEDS:
        check_installed(args.model, *_NEEDS[args.model])
    if args.out:
        _check_out(args.model, args.out)
    check_device(getattr(args, "device", "cpu"))


_NEEDS: Final[Mapping[str, tuple[Sequence[str], str]]] = {
    "gnn-delta": (("torch", "matgl", "lightning"), "matgl"),
    "tensornet-embedded": (("torch", "matgl", "lightning"), "matgl"),
    "mace": (("torch", "mace"), "mace"),
    "mace-embedded": (("torch", "mace"), "mace"),
}
"""The modules that a training imports, and the extra that installs them."""


def _check_out(model: str, out: Path) -> None:
    if model != "mean-delta" and out.suffix == ".json":
        raise UserError(f"--out {out}: the card beside the model ends in .json")
    if model == "tensornet-embedded":  # a folder, which takes the place of what is there
        if out.is_file() or (out.is_dir() and {p.name for p in out.iterdir()} - set(FILES)):
            raise UserError(f"--out {out}: is there, and is no checkpoint of {model}")
    elif out.is_dir():
        raise UserError(f"--out {out} is a folder: name a file")
    there = next(parent for parent in out.absolute().parents if parent.exists())
    if not (out.name and there.is_dir() and os.access(there, os.W_OK)):
        raise UserError(f"--out {out}: cannot be written")


def main(argv: Sequence[str] | None = None) -> int:
    """Train one baseline; 0, 2 for a mistake of the user's, 130 when interrupted."""
    argv = list(sys.argv[1:] if argv is None else argv)
    args = parser().parse_args(argv)
    _log_to_stderr()

    def command() -> int:
        _check(args)
        _train(args, shlex.join(["python", "-m", "baselines.train", *argv]))
        return 0

    return run_command(command, interrupted="interrupted; no model was written")


if __name__ == "__main__":
    sys.exit(main())
