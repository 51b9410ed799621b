"""Fit the baselines that are fitted, and write down on what.

    PAIRS=../shared/data/substitution/train.parquet
    python -m baselines.train mean-delta --data $PAIRS --data embedded
    python -m baselines.train gbr --data $PAIRS --data embedded
    OMP_NUM_THREADS=1 python -m baselines.train gnn-delta --data embedded --data $PAIRS --val VAL
    OMP_NUM_THREADS=1 python -m baselines.train mace
    OMP_NUM_THREADS=1 python -m baselines.train tensornet
    python -m baselines.train mace --smoke          # seconds, and nothing is kept

Of data with splits (`embedded` is such) the training split is read, others whole. Each writes its
file (tensornet: its folder) and a JSON card beside it. Progress goes to stderr; an interrupted run
leaves the old files as they were, and one of `gnn-delta` goes on where it stopped.

`mace` and `tensornet` share relaxations with the model `t5-equal`, not labels: that one is given
structures (every frame with the last), a potential also energy, forces and stress of every frame.
`gnn-delta` sees what `t5` sees.
"""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from tqdm import tqdm

from baselines import trivial
from baselines.potentials.matgl import FILES
from baselines.training.model_card import (
    described,
    training_sets,
    validation_sets,
    versions,
    write_card,
)
from baselines.training.train_potential import POTENTIALS, train_potential
from benchmarks.core import Geometry, UserError
from benchmarks.core.cli import check_device, check_installed, whole_number
from benchmarks.data import Dataset

log = logging.getLogger("baselines.train")  # also when run with -m


def pairs(datasets: Sequence[Dataset]) -> Iterator[tuple[Any, Any]]:
    """Initial and final structures of all, with a progress bar."""
    for data in datasets:
        for sample in tqdm(data, desc=data.name, unit="pair", total=len(data)):
            yield sample.initial, sample.final


def geometries(datasets: Sequence[Dataset]) -> Iterator[tuple[Geometry, Geometry]]:
    """Initial and final geometries of all."""
    return (data.geometries(i) for data in datasets for i in range(len(data)))


def train_mean_delta(args: argparse.Namespace) -> None:
    """Mean of ln(V_f / V_i) / 3 over all pairs; the card is the model."""
    datasets = training_sets(args.data, args.limit)
    strains = [np.log(final.volume / initial.volume) / 3 for initial, final in pairs(datasets)]
    write_card(
        args.out or trivial.MEAN_DELTA,
        model="mean-delta",
        log_strain=float(np.mean(strains)),
        n=len(strains),
        training_data=described(datasets),
    )


def train_gbr(args: argparse.Namespace) -> None:
    """Fit `baselines.gbr.boosting` on all pairs."""
    from dataclasses import asdict

    from baselines.gbr import boosting as gbr

    started = time.perf_counter()
    datasets = training_sets(args.data, args.limit)
    settings = gbr.BoostingSettings()
    examples = list(pairs(datasets))
    log.info("fitting on %d pairs", len(examples))
    model = gbr.fit(examples, settings, seed=args.seed)
    out = args.out or trivial.GBR
    gbr.save(model, out)
    write_card(
        out.with_suffix(".json"),
        model="gbr",
        n=len(examples),
        training_data=described(datasets),
        settings=asdict(settings),
        seed=args.seed,
        seconds=round(time.perf_counter() - started),
        packages=versions("scikit-learn", "skops"),
    )


def train_gnn_delta(args: argparse.Namespace) -> None:
    """Train the graph network of `baselines.delta.network` on all pairs."""
    from dataclasses import replace

    from baselines.delta import graph_delta as delta
    from baselines.delta import train_delta

    started = time.perf_counter()
    out = args.out or delta.PACKAGED
    settings = train_delta.Settings()
    if args.epochs:
        settings = replace(settings, epochs=args.epochs)
    datasets, held_out = training_sets(args.data, args.limit), validation_sets(args.val)
    results = train_delta.train(
        geometries(datasets),
        geometries(held_out),
        out,
        settings=settings,
        seed=args.seed,
        device=args.device,
    )
    write_card(
        out.with_suffix(".json"),
        model="gnn-delta",
        trained="from scratch",
        command=shlex.join(["python", "-m", "baselines.train", *args.command]),
        training_data=described(datasets),
        validation_data=described(held_out),
        seed=args.seed,
        device=args.device,
        seconds=round(time.perf_counter() - started),
        **results,
        packages=versions("matgl", "torch", "lightning"),
    )


_LIMIT = "relaxations of each --data, at most; of hf:// data no more is read"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="python -m baselines.train", description=(__doc__ or "").split("\n", 1)[0]
    )
    commands = top.add_subparsers(dest="model", required=True)
    for name, function in (("mean-delta", train_mean_delta), ("gbr", train_gbr)):
        command = commands.add_parser(name, help=(function.__doc__ or "").splitlines()[0])
        command.add_argument(
            "--data", action="append", required=True, help="embedded, PATH or hf://…"
        )
        command.set_defaults(function=function)
    command = commands.add_parser("gnn-delta", help="train the graph network on pairs")
    command.add_argument("--data", action="append", required=True, help="embedded, PATH or hf://…")
    command.add_argument("--val", action="append", default=[], help="errors after each epoch")
    command.set_defaults(function=train_gnn_delta)
    for name in POTENTIALS:
        command = commands.add_parser(name, help=f"train this project's own potential {name}")
        command.add_argument(
            "--data", action="append", help="frames with energy, forces, stress; default: embedded"
        )
        command.add_argument(
            "--smoke", action="store_true", help="in seconds through all steps; keeps only --out"
        )
        command.set_defaults(function=train_potential)
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
    """Our own lines only: mace-torch installs a handler of its own for everything at the root."""
    ours = logging.getLogger("baselines")
    if not ours.handlers:
        ours.addHandler(logging.StreamHandler())
    ours.setLevel(logging.INFO)
    ours.propagate = False


def _check(args: argparse.Namespace) -> None:
    """What would be found out after a training.

    Raises:
        UserError: Something is not installed, there is no such device, or the model cannot go
            where it should.
    """
    if args.model in _NEEDS:
        check_installed(args.model, *_NEEDS[args.model])
    if args.out:
        _check_out(args.model, args.out)
    check_device(getattr(args, "device", "cpu"))


_NEEDS: Final[Mapping[str, tuple[Sequence[str], str]]] = {
    "gnn-delta": (("torch", "matgl", "lightning"), "matgl"),
    "tensornet": (("torch", "matgl", "lightning"), "matgl"),
    "mace": (("torch", "mace"), "mace"),
}
"""Modules, and the extra that brings them."""


def _check_out(model: str, out: Path) -> None:
    if model != "mean-delta" and out.suffix == ".json":
        raise UserError(f"--out {out}: the card beside the model ends in .json")
    if model == "tensornet":  # a folder, which takes the place of what is there
        if out.is_file() or (out.is_dir() and {p.name for p in out.iterdir()} - set(FILES)):
            raise UserError(f"--out {out}: is there, and is no checkpoint of {model}")
    elif out.is_dir():
        raise UserError(f"--out {out} is a folder: name a file")
    there = next(parent for parent in out.absolute().parents if parent.exists())
    if not (out.name and there.is_dir() and os.access(there, os.W_OK)):
        raise UserError(f"--out {out}: cannot be written")


def main(argv: Sequence[str] | None = None) -> int:
    """Fit one baseline; 0, 2 for a mistake of the user's, 130 when interrupted."""
    argv = list(sys.argv[1:] if argv is None else argv)
    args = parser().parse_args(argv)
    args.command = argv
    _log_to_stderr()
    try:
        _check(args)
        args.function(args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; no model was written", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
