"""Sequence-level fine-tuning: the model is paid for whole texts that it wrote freely.

    python -m t2relax.train_seq --data TRAIN.parquet --val VAL.parquet --out DIR

Each step samples a group of texts for each input, without any grammar, and raises or lowers the
probability of each by what it earned (`t2relax.reward`); the plain token loss beside it keeps the
model near the data. Validation decodes freely and greedily; the checkpoint with the best mean
reward there, the start included, is kept. Interrupt it and run the same command again: it resumes
from DIR/state.pt.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from tqdm import tqdm
from transformers import T5ForConditionalGeneration

from benchmarks.core import UserError
from t2relax.data.pairs import Pair, read_pairs
from t2relax.lm import t5
from t2relax.lm.decoding import decode_free
from t2relax.lm.pretrained import average
from t2relax.policy import Example, Policy, Settings, example, load_free, optimizer_of, updates
from t2relax.reward import ESTIMATORS, Floats, Parts, Reward, means, score_decode
from t2relax.text.tokens import Tokenizer

INIT_HELP: Final = "start: the packaged checkpoint by default, of several the mean of their weights"
ROOM: Final = 32
"""Tokens that a greedy decode may be longer than its target, as in `t2relax.relaxer`."""


def validate(
    model: T5ForConditionalGeneration,
    examples: Sequence[Example],
    reward: Reward,
    batch_size: int = 64,
) -> dict[str, Floats]:
    """The columns of `t2relax.reward.judge` for free, greedy decodes, in the order given."""
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].source))
    rows: dict[int, dict[str, float]] = {}
    for first in range(0, len(order), batch_size):
        chosen = order[first : first + batch_size]
        limits = [len(examples[i].target) + ROOM for i in chosen]
        decoded = decode_free(model, [examples[i].source for i in chosen], max(limits))
        for i, limit, ids in zip(chosen, limits, decoded, strict=True):
            rows[i] = score_decode(ids[:limit], examples[i].target, examples[i].pair, reward)
    return {name: np.array([rows[i][name] for i in range(len(rows))]) for name in rows[0]}


def subset(pairs: Sequence[Pair], count: int) -> list[Example]:
    """The same `count` pairs at every call, all if there are fewer."""
    chosen = np.random.default_rng(0).permutation(len(pairs))[:count]
    return [example(pairs[i], Tokenizer()) for i in sorted(chosen)]


class Run:
    """A fine-tuning with its validation, its best weights and its file of state.

    Args:
        args: the command line.
        settings: from it.
        pairs: to train on.
        examples: to validate on.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        settings: Settings,
        pairs: Sequence[Pair],
        examples: Sequence[Example],
    ) -> None:
        self.args, self.settings, self.pairs, self.examples = args, settings, pairs, examples
        inits = args.init or [t5.CHECKPOINT]
        self.start = [t5.origin(folder) for folder in inits]
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = average([load_free(folder, device) for folder in inits])
        self.policy = Policy(self.model, settings, Reward(settings.failure))
        self.optimizer = optimizer_of(self.policy)
        self.step, self.seconds = 0, 0.0
        self.best: dict[str, Any] = {"reward": -np.inf}
        self.history: list[dict[str, float | None]] = []

    def go(self) -> None:
        """From the last state, or the start, to the end."""
        self._resume()
        if not self.history:
            self._validate()
        began = time.monotonic() - self.seconds
        steps = updates(self.policy, self.optimizer, self.pairs, self.step)
        with tqdm(total=self.settings.steps, initial=self.step, unit="step") as bar:
            for log in () if self._over() else steps:
                self.step, self.seconds = self.step + 1, time.monotonic() - began
                self.history.append({"step": self.step, **log})
                bar.update()
                bar.set_postfix(log)
                over = self._over()
                if over or self.step % self.args.eval_steps == 0:
                    self._validate()
                if over:
                    break

    def _over(self) -> bool:
        over: bool = self.step >= self.settings.steps or self.seconds >= 60 * self.args.minutes
        return over

    def _validate(self) -> None:
        rows = validate(self.model, self.examples, self.policy.reward)
        parts = np.stack([rows[name] for name in Parts._fields], axis=1)
        # Without rewards in the loss, the default ones choose the checkpoint.
        value = (self.settings if self.settings.samples else Settings()).value
        found = means(rows) | {"reward": float(np.mean([value(Parts(*p)) for p in parts]))}
        tqdm.write(f"step {self.step}: {json.dumps(found)}", file=sys.stderr)
        self.history.append({"step": self.step, **{f"val_{k}": v for k, v in found.items()}})
        if found["reward"] > self.best["reward"]:
            weights = {name: w.clone() for name, w in self.model.state_dict().items()}
            self.best = {"step": self.step, **found, "weights": weights}
        self._save()

    def _identity(self) -> dict[str, Any]:
        return asdict(self.settings) | {"start": [start["weights"] for start in self.start]}

    def _save(self) -> None:
        """Where the run stands, replaced in one go."""
        state = {
            "identity": self._identity(),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            **{name: getattr(self, name) for name in ("step", "seconds", "best", "history")},
        }
        self.args.out.mkdir(parents=True, exist_ok=True)
        torch.save(state, self.args.out / "state.new")
        (self.args.out / "state.new").replace(self.args.out / "state.pt")

    def _resume(self) -> None:
        path = self.args.out / "state.pt"
        if not path.is_file():
            return
        state = torch.load(path, map_location=self.model.device, weights_only=True)
        if state["identity"] != self._identity():
            raise UserError(f"{path} is of a run with other settings: give another --out")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        for name in ("step", "seconds", "best", "history"):
            setattr(self, name, state[name])

    def finish(self, card: dict[str, Any]) -> dict[str, Any]:
        """Write the best checkpoint and the history; returns the checkpoint's record."""
        self.model.load_state_dict(self.best.pop("weights"))
        record = card | {
            "from": self.start,
            "max_sites": max(start["training"]["max_sites"] for start in self.start),
            "n_pairs": len(self.pairs),
            "n_validation_pairs": len(self.examples),
            "n_parameters": self.model.num_parameters(),
            "settings": asdict(self.settings),
            "steps": self.step,
            "best_step": self.best.pop("step"),
            "minutes": round(self.seconds / 60, 1),
            "validation": self.best,
        }
        t5.save(self.model, Tokenizer(), self.args.out, record)
        (self.args.out / "history.json").write_text(json.dumps(self.history) + "\n")
        return record


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m t2relax.train_seq", description=__doc__)
    add = parser.add_argument
    add("--data", action="append", required=True, help="training data; may be repeated")
    add("--val", action="append", required=True, help="validation data; may be repeated")
    add("--out", type=Path, required=True)
    add("--limit", type=int, help="relaxations of each --data that is not an archive, at most")
    add("--init", action="append", type=Path, default=[], metavar="DIR", help=INIT_HELP)
    add("--steps", type=int, default=Settings().steps)
    add("--minutes", type=float, default=float("inf"), help="stop after this long")
    add("--eval-steps", type=int, default=50)
    add("--eval-size", type=int, default=128, help="validation pairs that are decoded")
    add("--estimator", choices=sorted(ESTIMATORS), default=Settings().estimator)
    add("--group", type=int, default=Settings().group, help="texts sampled for an input")
    add("--batch-size", type=int, default=Settings().batch_size, help="inputs in a step")
    add("--learning-rate", type=float, default=Settings().learning_rate)
    add("--seed", type=int, default=0)
    for part in ("rouge", "bleu", "physical", "token"):
        default = getattr(Settings(), part)
        add(f"--{part}", type=float, default=default, help=f"weight (default {default})")
    add("--failure", type=float, default=Settings().failure, help="physical reward of no structure")
    return parser.parse_args(argv)


def train(args: argparse.Namespace, command: Sequence[str]) -> dict[str, Any]:
    """Fine-tune, keep the best checkpoint, write it with its record; return the record.

    Args:
        args: the parsed command line.
        command: the command line as given, for the record.
    """
    settings = Settings(**{field.name: getattr(args, field.name) for field in fields(Settings)})
    if settings.samples and settings.group < 2 and settings.estimator != "self-critical":
        raise UserError(f"--estimator {settings.estimator} compares texts: --group 2 or more")
    pairs, origin = read_pairs(args.data, "train", limit=args.limit)
    val_pairs, val_origin = read_pairs(args.val, "val")
    if not pairs or not val_pairs:
        raise UserError("no pairs to train or to validate on")
    run = Run(args, settings, pairs, subset(val_pairs, args.eval_size))
    run.go()
    command = shlex.join(["python", "-m", "t2relax.train_seq", *command])
    return run.finish({"data": origin, "validation_data": val_origin, "command": command})


def main(argv: Sequence[str] | None = None) -> int:
    """The command: 0 when a model was written, 2 for a mistake of the user's, 130 interrupted."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        record = train(parse(argv), argv)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: the same command resumes from the last validation\n")
        return 130
    sys.stdout.write(json.dumps(record["validation"]) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
