"""Fit the baselines that are fitted, and write down on what.

    PAIRS=../shared/data/substitution/train.parquet
    python -m baselines.train mean-delta --data $PAIRS --data embedded
    python -m baselines.train gbr --data $PAIRS --data embedded
    OMP_NUM_THREADS=1 python -m baselines.train gnn-delta --data embedded --data $PAIRS --val VAL
    OMP_NUM_THREADS=1 python -m baselines.train mace

Of data with splits (`embedded` is such) the training split is read, others whole. Each writes its
file and a JSON card beside it. Progress goes to stderr; an interrupted run leaves the old files as
they were, and one of `gnn-delta` goes on where it stopped.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import logging
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from baselines import trivial
from benchmarks.core import Geometry, UserError
from benchmarks.data import Dataset, load
from benchmarks.data.sources import split_names

log = logging.getLogger("baselines.train")  # also when run with -m


def training_sets(names: Sequence[str], limit: int | None = None) -> list[Dataset]:
    """The data sets named on the command line; of one that has splits the training split only.

    Args:
        names: What `benchmarks.data.load` reads.
        limit: At most so many relaxations of each; of a data set of the Hub no more is read.

    Raises:
        UserError: One cannot be read.
    """
    return [load(n, split="train" if split_names(n) else None, limit=limit) for n in names]


def validation_sets(names: Sequence[str]) -> list[Dataset]:
    """The same for the validation split.

    Raises:
        UserError: One cannot be read.
    """
    return [load(n, split="val" if split_names(n) else None) for n in names]


def described(datasets: Sequence[Dataset]) -> list[dict[str, Any]]:
    """Name, revision (a hash of the content) and size of each, for the card."""
    return [
        {
            "name": data.name if data.split is None else f"{data.name}/{data.split}",
            "revision": data.revision,
            "n": len(data),
            "quarantined": len(data.quarantined),
        }
        for data in datasets
    ]


def pairs(datasets: Sequence[Dataset]) -> Iterator[tuple[Any, Any]]:
    """Initial and final structures of all, with a progress bar."""
    for data in datasets:
        for sample in tqdm(data, desc=data.name, unit="pair", total=len(data)):
            yield sample.initial, sample.final


def geometries(datasets: Sequence[Dataset]) -> Iterator[tuple[Geometry, Geometry]]:
    """Initial and final geometries of all."""
    return (data.geometries(i) for data in datasets for i in range(len(data)))


def versions(*packages: str) -> dict[str, str]:
    """Installed versions, for the card."""
    return {name: importlib.metadata.version(name) for name in packages}


def write_card(path: Path, **entries: Any) -> None:
    """Write JSON, keys in the order given."""
    path.write_text(json.dumps(entries, indent=2) + "\n")
    log.info("wrote %s", path)


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
    """Fit `baselines.gbr` on all pairs."""
    from dataclasses import asdict

    from baselines import gbr

    started = time.perf_counter()
    datasets = training_sets(args.data, args.limit)
    settings = gbr.Settings()
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
    """Train the graph network of `baselines.delta_network` on all pairs."""
    from dataclasses import replace

    from baselines import delta, train_delta

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


def train_mace(args: argparse.Namespace) -> None:
    """Train this project's MACE; see `baselines.train_mace`."""
    from baselines import mace, train_mace

    out = args.out or mace.OURS
    (data,) = training_sets([args.data], args.limit)
    epochs = args.epochs or train_mace.EPOCHS
    results = train_mace.train(
        args.data, args.seed, out, limit=args.limit, epochs=epochs, device=args.device
    )
    limited = "" if args.limit is None else f" --limit {args.limit}"
    write_card(
        out.with_suffix(".json"),
        model="mace",
        trained="from scratch",
        command=f"python -m baselines.train mace --data {args.data}{limited} --seed {args.seed} "
        f"--epochs {epochs} --device {args.device}",
        training_data=described([data]),
        seed=args.seed,
        device=args.device,
        **results,
        packages=versions("mace-torch", "torch", "e3nn"),
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
    command = commands.add_parser("mace", help="train this project's MACE")
    command.add_argument("--data", default="embedded", help="frames with energy, forces, stress")
    command.set_defaults(function=train_mace)
    for name in ("gnn-delta", "mace"):
        command = commands.choices[name]
        command.add_argument("--epochs", type=int, help="default: as for the committed checkpoint")
        command.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    for command in commands.choices.values():
        command.add_argument("--limit", type=int, metavar="N", help=_LIMIT)
        command.add_argument("--seed", type=int, default=0)
        command.add_argument("--out", type=Path, help="default: the file that the relaxer loads")
    return top


def _log_to_stderr() -> None:
    """Our own lines only: mace-torch installs a handler of its own for everything at the root."""
    ours = logging.getLogger("baselines")
    if not ours.handlers:
        ours.addHandler(logging.StreamHandler())
    ours.setLevel(logging.INFO)
    ours.propagate = False


def main(argv: Sequence[str] | None = None) -> int:
    """Fit one baseline; 0, 2 for a mistake of the user's, 130 when interrupted."""
    argv = list(sys.argv[1:] if argv is None else argv)
    args = parser().parse_args(argv)
    args.command = argv
    _log_to_stderr()
    try:
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
