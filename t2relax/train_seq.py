"""Sequence-level fine-tuning: the model is rewarded for whole texts that it wrote freely.

    python -m t2relax.train_seq --data TRAIN.parquet --val VAL.parquet --out DIR

Each step samples a group of texts for each input, without any grammar, and raises or lowers the
probability of each text by its reward (`t2relax.reward`); the plain token loss beside it keeps the
model near the data. Validation decodes freely and greedily. The checkpoint with the best mean
reward there is kept; the start counts as a checkpoint. Interrupt the command and run it again: it
goes on from DIR/state.pt, if data and settings are the same.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from tqdm import tqdm
from transformers import T5ForConditionalGeneration

from benchmarks.core.cli import require_numbers, run_command
from benchmarks.core.training_identity import plain, read_state, require_same_training
from t2relax.data.training_pairs import Pair, PairData, read_training_data
from t2relax.lm import checkpoint, t5
from t2relax.lm.decoding import decode_free
from t2relax.lm.own_tokens import ROOM
from t2relax.lm.pretrained import average
from t2relax.policy import (
    Policy,
    PolicySettings,
    TokenizedPair,
    load_free,
    optimizer_of,
    tokenize_pair,
    updates,
)
from t2relax.reward import ESTIMATORS, Floats, Parts, Reward, means, score_decode
from t2relax.text.codec import CODEC_VERSION
from t2relax.text.tokens import Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceTrainingConfig:
    """The configuration of a sequence-level fine-tuning.

    Raises:
        UserError: A number makes no sense.
    """

    data: tuple[str, ...]
    """Sources of the training pairs, see `t2relax.data.training_pairs.read_pairs`."""
    val: tuple[str, ...]
    """Sources of the validation pairs."""
    out: Path
    """Folder of the model; OUT/state.pt holds what an interrupted training goes on from."""
    init: tuple[Path, ...] = (checkpoint.CHECKPOINT,)
    """Checkpoints to start from; the mean of their weights is the start."""
    limit: int | None = None
    """Largest number of relaxations of each source that is not an archive."""
    minutes: float = float("inf")
    """Time after which the training ends."""
    eval_steps: int = 50
    """Steps between two validations."""
    eval_size: int = 128
    """Number of validation pairs that are decoded."""
    policy: PolicySettings = field(default_factory=PolicySettings)

    def __post_init__(self) -> None:
        require_numbers(
            self, positive=("limit", "eval_steps", "eval_size"), not_negative=("minutes",)
        )


def validate(
    model: T5ForConditionalGeneration,
    examples: Sequence[TokenizedPair],
    reward: Reward,
    batch_size: int = 64,
) -> dict[str, Floats]:
    """The columns of `t2relax.reward.score_decode` for free, greedy decodes, in the order given."""
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].source))
    rows: dict[int, dict[str, float]] = {}
    for first in range(0, len(order), batch_size):
        chosen = order[first : first + batch_size]
        limits = [len(examples[i].target) + ROOM for i in chosen]
        decoded = decode_free(model, [examples[i].source for i in chosen], max(limits))
        for i, limit, ids in zip(chosen, limits, decoded, strict=True):
            rows[i] = score_decode(ids[:limit], examples[i].target, examples[i].pair, reward)
    return {name: np.array([rows[i][name] for i in range(len(rows))]) for name in rows[0]}


def subset(pairs: Sequence[Pair], count: int, tokenizer: Tokenizer) -> list[TokenizedPair]:
    """Choose `count` pairs, always the same ones; all pairs if there are fewer."""
    chosen = np.random.default_rng(0).permutation(len(pairs))[:count]
    return [tokenize_pair(pairs[i], tokenizer) for i in sorted(chosen)]


class SequenceTraining:
    """A fine-tuning with its validation, its best weights and its file of state.

    Args:
        config: The configuration.
        data: The pairs to train on.
        val: The pairs of which `config.eval_size` are validated on.

    Raises:
        UserError: A start is no checkpoint, or the starts have different shapes.
    """

    def __init__(self, config: SequenceTrainingConfig, data: PairData, val: PairData) -> None:
        self.config, self.data, self.val = config, data, val
        self.start = [checkpoint.origin(folder) for folder in config.init]
        device = "cuda" if torch.cuda.is_available() else "cpu"
        starts = [load_free(folder, device) for folder in config.init]
        self.model, tokenizer = average([each.model for each in starts]), starts[0].tokenizer
        self.policy = Policy(self.model, config.policy, Reward(config.policy.failure, tokenizer))
        self.examples = subset(val.pairs, config.eval_size, tokenizer)
        self.optimizer = optimizer_of(self.policy)
        self.step, self.seconds = 0, 0.0
        self.best: dict[str, Any] = {"reward": -np.inf}
        self.history: list[dict[str, float | None]] = []

    def identity(self) -> dict[str, Any]:
        """Return what must be equal for the training to go on; see `require_same_training`."""
        return {
            "data": self.data.identity(),
            "validation_data": self.val.identity(),
            "from": [start["weights"] for start in self.start],
            "limit": self.config.limit,
            "eval_steps": self.config.eval_steps,
            "eval_size": self.config.eval_size,
            **asdict(self.config.policy),
            "codec_version": CODEC_VERSION,
        }

    def go(self) -> None:
        """Train from the last state, or from the start, to the end.

        Raises:
            UserError: The state is of another training.
        """
        self._resume()
        if not self.history:
            self._validate()
        began = time.monotonic() - self.seconds
        steps = updates(self.policy, self.optimizer, self.data.pairs, self.step)
        with tqdm(total=self.config.policy.steps, initial=self.step, unit="step") as bar:
            for log in () if self._over() else steps:
                self.step, self.seconds = self.step + 1, time.monotonic() - began
                self.history.append({"step": self.step, **log})
                bar.update()
                bar.set_postfix(log)
                over = self._over()
                if over or self.step % self.config.eval_steps == 0:
                    self._validate()
                if over:
                    break

    def _over(self) -> bool:
        return self.step >= self.config.policy.steps or self.seconds >= 60 * self.config.minutes

    def _validate(self) -> None:
        """Validate, keep the weights if they are the best so far, and save the state."""
        rows = validate(self.model, self.examples, self.policy.reward)
        parts = np.stack([rows[name] for name in Parts._fields], axis=1)
        # Without rewards in the loss, the default ones choose the checkpoint.
        settings = self.config.policy
        value = (settings if settings.samples else PolicySettings()).value
        found = means(rows) | {"reward": float(np.mean([value(Parts(*p)) for p in parts]))}
        tqdm.write(f"step {self.step}: {json.dumps(found)}", file=sys.stderr)
        self.history.append({"step": self.step, **{f"val_{k}": v for k, v in found.items()}})
        if found["reward"] > self.best["reward"]:
            weights = {name: w.clone() for name, w in self.model.state_dict().items()}
            self.best = {"step": self.step, **found, "weights": weights}
        state = {
            "identity": self.identity(),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            **{name: getattr(self, name) for name in ("step", "seconds", "best", "history")},
        }
        self.config.out.mkdir(parents=True, exist_ok=True)
        torch.save(state, self.config.out / "state.new")
        (self.config.out / "state.new").replace(self.config.out / "state.pt")

    def _resume(self) -> None:
        path = self.config.out / "state.pt"
        if not path.is_file():
            return
        state = read_state(path, self.model.device)
        require_same_training(path, state.get("identity"), self.identity())
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        for name in ("step", "seconds", "best", "history"):
            setattr(self, name, state[name])

    def finish(self, command: str | None) -> dict[str, Any]:
        """Write the best checkpoint and the history; return the checkpoint's record."""
        self.model.load_state_dict(self.best.pop("weights"))
        record = {
            "data": self.data.origin,
            "validation_data": self.val.origin,
            "command": command,
            "config": plain(self.config),
            "identity": self.identity(),
            "from": self.start,
            "max_sites": max(start["training"]["max_sites"] for start in self.start),
            "n_pairs": len(self.data.pairs),
            "n_validation_pairs": len(self.examples),
            "n_parameters": self.model.num_parameters(),
            "settings": asdict(self.config.policy),
            "steps": self.step,
            "best_step": self.best.pop("step"),
            "minutes": round(self.seconds / 60, 1),
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
            "validation": self.best,
        }
        t5.save(self.model, self.policy.reward.tokenizer, self.config.out, record)
        (self.config.out / "history.json").write_text(json.dumps(self.history) + "\n")
        return record


def train(config: SequenceTrainingConfig, command: str | None = None) -> dict[str, Any]:
    """Fine-tune, keep the best checkpoint, and write it with its training record.

    Args:
        config: The configuration.
        command: The command line, for the record; None if there is none.

    Returns:
        The training record.

    Raises:
        UserError: The data or a start cannot be read, or OUT/state.pt is of another training.
    """
    data, val = read_training_data(config.data, config.val, limit=config.limit)
    training = SequenceTraining(config, data, val)
    training.go()
    return training.finish(command)


def parse(argv: Sequence[str] | None) -> SequenceTrainingConfig:
    """Read the command line.

    Raises:
        UserError: A number makes no sense.
    """
    parser = argparse.ArgumentParser(prog="python -m t2relax.train_seq", description=__doc__)
    add, default = parser.add_argument, PolicySettings()
    add("--data", action="append", required=True, help="training data; may be repeated")
    add("--val", action="append", required=True, help="validation data; may be repeated")
    add("--out", type=Path, required=True)
    add("--limit", type=int, help="relaxations of each --data that is not an archive, at most")
    add("--init", action="append", type=Path, default=[], metavar="DIR", help=_INIT_HELP)
    add("--steps", type=int, default=default.steps)
    add("--minutes", type=float, default=float("inf"), help="stop after this long")
    add("--eval-steps", type=int, default=50, help="steps between two validations")
    add("--eval-size", type=int, default=128, help="validation pairs that are decoded")
    add("--estimator", choices=sorted(ESTIMATORS), default=default.estimator)
    add("--group", type=int, default=default.group, help="texts sampled for an input")
    add("--batch-size", type=int, default=default.batch_size, help="inputs in a step")
    add("--learning-rate", type=float, default=default.learning_rate)
    add("--seed", type=int, default=0)
    for part in ("rouge", "bleu", "physical", "token"):
        weight = getattr(default, part)
        add(f"--{part}", type=float, default=weight, help=f"weight (default {weight})")
    add("--failure", type=float, default=default.failure, help="physical reward of no structure")
    given = vars(parser.parse_args(argv))
    policy = PolicySettings(**{each.name: given.pop(each.name) for each in fields(default)})
    for name in ("data", "val", "init"):
        given[name] = tuple(given[name])
    given["init"] = given["init"] or (checkpoint.CHECKPOINT,)
    return SequenceTrainingConfig(**given, policy=policy)


_INIT_HELP: Final = (
    "start: a checkpoint, or several, whose weights are averaged (default: the packaged one)"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0 when a model was written, 2 after a mistake of the user's."""
    argv = list(sys.argv[1:] if argv is None else argv)

    def command() -> int:
        record = train(parse(argv), shlex.join(["python", "-m", "t2relax.train_seq", *argv]))
        print(json.dumps(record["validation"]))
        return 0

    resumes = "interrupted: the same command resumes from the last validation"
    return run_command(command, interrupted=resumes)


if __name__ == "__main__":
    sys.exit(main())
