"""What each part of the sequence reward is good for: the same fine-tuning with and without it.

    python -m studies.ablation.ablation --data TRAIN.parquet --val VAL.parquet --out DIR

From one checkpoint four arms take the same number of steps over the same inputs: the token loss
alone, and, without it, the physical reward, the text reward and their sum. They are compared by
free, greedy decoding of validation structures. A checkpoint that was only trained to be decoded
under the grammar hardly writes species by itself: --start-steps trains it with the token loss first
(DIR/start). Without --data and --val the embedded set serves, whose validation split is tiny.

It was published that a model without ROUGE and BLEU loses atoms; DIR/ablation.md says whether it
does here. The last weights of an arm count, none are selected, so that the structures of the
comparison have decided nothing. A finished run is DIR/runs/ARM-SEED.json and is not run again.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.core import UserError
from benchmarks.core.geometry import reduced_composition
from studies.ablation.ablation_report import START, AblationOutcome, write_report
from studies.cached_runs import cached_run, exit_code, seeds
from t2relax import train_seq
from t2relax.data.pairs import read_pairs
from t2relax.lm import t5
from t2relax.policy import Example, Policy, Settings, load_free, optimizer_of, updates
from t2relax.reward import ESTIMATORS, Reward

ARMS: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "token": {"token": 1.0, "rouge": 0.0, "bleu": 0.0, "physical": 0.0},
        "physical": {"token": 0.0, "rouge": 0.0, "bleu": 0.0, "physical": 1.0},
        "text": {"token": 0.0, "rouge": 0.5, "bleu": 0.5, "physical": 0.0},
        "weighted": {"token": 0.0, "rouge": 0.5, "bleu": 0.5, "physical": 1.0},
    }
)
"""Weights of the loss and of the parts of the reward."""
TOKEN_RATE: Final = 3e-3
"""Learning rate of the training of the start, that of `t2relax.train`."""


def make_start(args: argparse.Namespace) -> Path:
    """The checkpoint that all arms start from: `--init` after its training with the token loss."""
    folder: Path = args.out / "start"
    if not args.start_steps:
        return Path(args.init)
    if not (folder / t5.WEIGHTS).is_file():
        sources = [x for path in args.data for x in ("--data", path)]
        sources += [x for path in args.val for x in ("--val", path)]
        paths = ["--init", str(args.init), "--out", str(folder)]
        weights = [x for name, value in ARMS["token"].items() for x in (f"--{name}", str(value))]
        # Validation is also where an interrupted training goes on.
        every = max(1, args.start_steps // 5)
        steps = ["--steps", str(args.start_steps), "--eval-steps", str(every)]
        sizes = ["--batch-size", "32", "--learning-rate", str(TOKEN_RATE)]
        argv = [*sources, *paths, *weights, *steps, *sizes]
        train_seq.train(train_seq.parse(argv), argv)
    return folder


class Ablation:
    """The runs of one command and where they are kept.

    Args:
        args: the command line.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.start = make_start(args)
        self.pairs, origin = read_pairs(args.data, "train")
        val_pairs, val_origin = read_pairs(args.val, "val")
        if not self.pairs or not val_pairs:
            raise UserError("no pairs to train or to compare on")
        self.examples: list[Example] = train_seq.subset(val_pairs, args.eval_size)
        self.origin = {
            "start": t5.origin(self.start)["weights"],
            "data": origin,
            "validation_data": val_origin,
            "n_examples": len(self.examples),
        }
        self.folder: Path = args.out / "runs"
        self.folder.mkdir(parents=True, exist_ok=True)

    def outcomes(self) -> list[AblationOutcome]:
        """The start and all arms, seed by seed, run where they are not recorded."""
        runs = [(START, 0, Settings(steps=0, failure=self.args.failure))]
        for seed in self.args.seeds:
            runs += [(arm, seed, self._settings(arm, seed)) for arm in ARMS]
        return [self._outcome(*run) for run in runs]

    def _settings(self, arm: str, seed: int) -> Settings:
        names = ("steps", "estimator", "group", "batch_size", "learning_rate", "failure")
        common = {name: getattr(self.args, name) for name in names}
        return Settings(**common, **ARMS[arm], seed=seed)

    def _outcome(self, arm: str, seed: int, settings: Settings) -> AblationOutcome:
        path = self.folder / f"{arm}-{seed}.json"
        identity = {"settings": asdict(settings), **self.origin}
        record = cached_run(path, identity, lambda: self._run(f"{arm}, seed {seed}", settings))
        columns = {k: np.array(v, dtype=np.float64) for k, v in record["columns"].items()}
        return AblationOutcome(arm, seed, record["steps"], columns)

    def _run(self, name: str, settings: Settings) -> dict[str, Any]:
        """Train and decode; null in a column stands for no value."""
        model = load_free(self.start, "cuda" if torch.cuda.is_available() else "cpu")
        policy = Policy(model, settings, Reward(settings.failure))
        began, steps = time.monotonic(), 0
        if settings.steps:
            logs = updates(policy, optimizer_of(policy), self.pairs)
            for log in (bar := tqdm(logs, desc=name, total=settings.steps, unit="step")):
                bar.set_postfix(log)
                steps += 1
                if time.monotonic() - began > 60 * self.args.minutes:
                    break
        minutes = (time.monotonic() - began) / 60
        columns = train_seq.validate(model, self.examples, policy.reward)
        plain = {k: [x if np.isfinite(x) else None for x in v.tolist()] for k, v in columns.items()}
        return {"steps": steps, "minutes": round(minutes, 2), "columns": plain}

    def groups(self) -> list[str]:
        """The reduced composition of each example."""
        return [reduced_composition(example.pair.initial.numbers) for example in self.examples]


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m studies.ablation.ablation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, default = parser.add_argument, Settings()
    add("--data", action="append", help="training data; may be repeated (default: embedded)")
    add("--val", action="append", help="validation data; may be repeated (default: embedded)")
    add("--out", type=Path, default=Path("runs/ablation"))
    add("--init", type=Path, default=t5.CHECKPOINT, help="checkpoint")
    add("--start-steps", type=int, default=0, help="of token loss before the arms")
    add("--seeds", type=seeds, default=(0, 1, 2), help="of the runs of each arm, as 0,1,2")
    add("--steps", type=int, default=default.steps, help="of each run")
    add("--minutes", type=float, default=20.0, help="most time for the training of a run")
    add("--eval-size", type=int, default=256, help="validation pairs that are decoded")
    add("--estimator", choices=sorted(ESTIMATORS), default=default.estimator)
    add("--group", type=int, default=default.group, help="texts sampled for an input")
    add("--batch-size", type=int, default=default.batch_size, help="inputs in a step")
    add("--learning-rate", type=float, default=default.learning_rate)
    add("--failure", type=float, default=default.failure, help="physical reward of no structure")
    args = parser.parse_args(argv)
    args.data, args.val = args.data or ["embedded"], args.val or ["embedded"]
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """The command: 0 when the report was written, 2 for a user's mistake, 130 interrupted."""
    args = parse(argv)

    def study() -> str:
        run = Ablation(args)
        return write_report(args.out, run.outcomes(), run.groups(), args.failure) + "\n"

    return exit_code(study)


if __name__ == "__main__":
    sys.exit(main())
