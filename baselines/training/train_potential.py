"""`python -m baselines.train mace` and `tensornet`: a checkpoint with its card, or a trial."""

from __future__ import annotations

import argparse
import importlib
import shlex
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from baselines.training.model_card import described, training_sets, versions, write_card
from baselines.training.potential_training import Options, Recipe, train
from benchmarks.core import UserError

POTENTIALS: Mapping[str, str] = {
    "mace": "baselines.training.train_mace",
    "tensornet": "baselines.training.train_tensornet",
}
"""Modules whose `RECIPE` trains a potential of the equal-data track."""
SMOKE_RELAXATIONS = 3


def train_potential(args: argparse.Namespace) -> None:
    """Train this project's potential of that name; with `--smoke` hardly, and not in its place."""
    recipe: Recipe = importlib.import_module(POTENTIALS[args.model]).RECIPE
    if args.smoke:
        _smoke(recipe, args)
    else:
        _train_to(args.out or recipe.out, recipe, args)


def _train_to(out: Path, recipe: Recipe, args: argparse.Namespace) -> dict[str, Any]:
    """Train into `out`, its card beside it; what the card says of the training."""
    sources = args.data or ["embedded"]
    datasets = training_sets(sources, args.limit)
    epochs = args.epochs or recipe.epochs
    options = Options(seed=args.seed, epochs=epochs, device=args.device)
    results = train(recipe, sources, out, options, limit=args.limit)
    data = [word for source in sources for word in ("--data", source)]
    limited = [] if args.limit is None else ["--limit", str(args.limit)]
    write_card(
        out.with_suffix(".json"),
        model=recipe.name,
        trained="from scratch",
        command=shlex.join(["python", "-m", "baselines.train", recipe.name, *data, *limited])
        + f" --seed {args.seed} --epochs {epochs} --device {args.device}",
        training_data=described(datasets),
        seed=args.seed,
        device=args.device,
        **results,
        packages=versions(*recipe.packages),
    )
    return results


def _smoke(recipe: Recipe, args: argparse.Namespace) -> None:
    """One epoch on a few relaxations, through all steps; one line on stdout says what was done.

    Raises:
        UserError: `--out` is where the committed checkpoint is.
    """
    args.limit, args.epochs = args.limit or SMOKE_RELAXATIONS, args.epochs or 1
    if args.out and args.out.resolve() == recipe.out.resolve():
        message = f"--smoke would replace {recipe.out}: give another --out"
        raise UserError(message)
    with tempfile.TemporaryDirectory() as scratch:
        results = _train_to(args.out or Path(scratch) / recipe.out.name, recipe, args)
    error = results["rmse_train"]
    kept = f"written to {args.out}" if args.out else "nothing kept"
    print(
        f"{recipe.name}: trained on {results['n_frames']} frames of at most {args.limit} "
        f"relaxations, epochs: {args.epochs}; it loads again, with errors of {error['force']} eV/Å "
        f"and {error['stress']} eV/Å^3; {kept}"
    )
