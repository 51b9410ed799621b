"""Measure the use of each part of the sequence reward: the same fine-tuning with and without it.

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

from benchmarks.core.cli import run_command, whole_number
from benchmarks.core.geometry import reduced_composition
from studies.ablation.ablation_report import START, AblationOutcome, write_report
from studies.cached_runs import cached_run, seeds
from t2relax import train_seq
from t2relax.data.training_pairs import read_training_data
from t2relax.lm import t5
from t2relax.policy import Policy, PolicySettings, TokenizedPair, load_free, optimizer_of, updates
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
    """Return the checkpoint that all arms start from: `--init` after its training, if any.

    A training that was interrupted goes on, and one that is finished is not run again.
    """
    if not args.start_steps:
        return Path(args.init)
    config = train_seq.SequenceTrainingConfig(
        data=tuple(args.data),
        val=tuple(args.val),
        out=args.out / "start",
        init=(args.init,),
        # Validation is also where an interrupted training goes on.
        eval_steps=max(1, args.start_steps // 5),
        policy=PolicySettings(
            **ARMS["token"], steps=args.start_steps, batch_size=32, learning_rate=TOKEN_RATE
        ),
    )
    train_seq.train(config)
    return config.out


class Ablation:
    """The runs of one command, and the folder that keeps them.

    Args:
        args: The command line.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.start = make_start(args)
        data, val = read_training_data(args.data, args.val)
        self.pairs = data.pairs
        self.examples: list[TokenizedPair] = train_seq.subset(val.pairs, args.eval_size)
        self.identity = {
            "start": t5.origin(self.start)["weights"],
            "data": data.identity(),
            "validation_data": val.identity(),
            "n_examples": len(self.examples),
        }
        self.folder: Path = args.out / "runs"
        self.folder.mkdir(parents=True, exist_ok=True)

    def outcomes(self) -> list[AblationOutcome]:
        """The outcomes of the start and of all arms, seed by seed; missing ones are run."""
        runs = [(START, 0, PolicySettings(steps=0, failure=self.args.failure))]
        for seed in self.args.seeds:
            runs += [(arm, seed, self._settings(arm, seed)) for arm in ARMS]
        return [self._outcome(*run) for run in runs]

    def _settings(self, arm: str, seed: int) -> PolicySettings:
        names = ("steps", "estimator", "group", "batch_size", "learning_rate", "failure")
        common = {name: getattr(self.args, name) for name in names}
        return PolicySettings(**common, **ARMS[arm], seed=seed)

    def _outcome(self, arm: str, seed: int, settings: PolicySettings) -> AblationOutcome:
        path = self.folder / f"{arm}-{seed}.json"
        identity = {"settings": asdict(settings), **self.identity}
        record = cached_run(path, identity, lambda: self._run(f"{arm}, seed {seed}", settings))
        columns = {k: np.array(v, dtype=np.float64) for k, v in record["columns"].items()}
        return AblationOutcome(arm, seed, record["steps"], columns)

    def _run(self, name: str, settings: PolicySettings) -> dict[str, Any]:
        """Train and decode; None in a column means that there is no value."""
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
    add, default = parser.add_argument, PolicySettings()
    add("--data", action="append", help="training data; may be repeated (default: embedded)")
    add("--val", action="append", help="validation data; may be repeated (default: embedded)")
    add("--out", type=Path, default=Path("runs/ablation"))
    add("--init", type=Path, default=t5.CHECKPOINT, help="checkpoint")
    add("--start-steps", type=whole_number(0), default=0, help="of token loss before the arms")
    add("--seeds", type=seeds, default=(0, 1, 2), help="of the runs of each arm, as 0,1,2")
    add("--steps", type=whole_number(1), default=default.steps, help="of each run")
    add("--minutes", type=float, default=20.0, help="most time for the training of a run")
    add("--eval-size", type=whole_number(1), default=256, help="validation pairs that are decoded")
    add("--estimator", choices=sorted(ESTIMATORS), default=default.estimator)
    add("--group", type=whole_number(1), default=default.group, help="texts sampled for an input")
    add("--batch-size", type=whole_number(1), default=default.batch_size, help="inputs in a step")
    add("--learning-rate", type=float, default=default.learning_rate)
    add("--failure", type=float, default=default.failure, help="physical reward of no structure")
    args = parser.parse_args(argv)
    args.data, args.val = args.data or ["embedded"], args.val or ["embedded"]
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """The command: 0 when the report was written, 2 for a user's mistake, 130 interrupted."""
    args = parse(argv)

    def study() -> int:
        run = Ablation(args)
        sys.stdout.write(write_report(args.out, run.outcomes(), run.groups(), args.failure) + "\n")
        return 0

    goes_on = "interrupted: the same command goes on with the unfinished run"
    return run_command(study, interrupted=goes_on)


if __name__ == "__main__":
    sys.exit(main())
