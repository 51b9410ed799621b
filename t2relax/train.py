"""Token-level training of the T5 on relaxations.

    python -m t2relax.train --data embedded --data TRAIN.parquet --val VAL.parquet --out DIR

The objective of `t2relax.objective`, Hugging Face's trainer (so `accelerate launch` gives several
GPUs). Validation decodes freely running text under the grammar and scores it with
`benchmarks.metrics`; the checkpoint with the best score is kept. Interrupt it and run the same
command again: it resumes. The model lands in DIR, the trainer's state in DIR/state.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Sampler
from transformers import (
    EarlyStoppingCallback,
    T5ForConditionalGeneration,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_pt_utils import LengthGroupedSampler, get_length_grouped_indices
from transformers.trainer_utils import get_last_checkpoint

from benchmarks.core import Geometry, UserError
from benchmarks.core.geometry import cell_parameters, displacements, strain
from benchmarks.metrics.columns import DISPLACEMENT_GRID, STRAIN_GRID
from t2relax.data.pairs import (
    NO_AUGMENTATION,
    Augmentation,
    Pair,
    PairDataset,
    collate,
    encode_pair,
    read_pairs,
)
from t2relax.lm import t5
from t2relax.lm.decoding import decode_constrained
from t2relax.lm.pretrained import average, from_pretrained
from t2relax.muon import MuonAdamW
from t2relax.objective import Objective
from t2relax.text.codec import CodecError, apply_delta, geometry_of, read_delta
from t2relax.text.tokens import Template, Tokenizer, template

Decode = Callable[
    [T5ForConditionalGeneration, Sequence[Sequence[int]], Sequence[Template]],
    Sequence[NDArray[np.int64]],
]
"""Of sources and grammars as `decode_constrained`: (1, length) ids for each."""


def validate(
    model: T5ForConditionalGeneration,
    pairs: Sequence[Pair],
    tokenizer: Tokenizer | None = None,
    decode: Decode = decode_constrained,
    batch_size: int = 256,
) -> dict[str, NDArray[np.float64]]:
    """(n_pairs,) errors of freely running, constrained decodes, by the reported definitions.

    A decode that is no cell takes the errors of predicting no change, and 0 in `adwt` and
    `strain_awt`. `score` is the mean of the latter two, as on the leaderboard.
    """
    tokenizer = tokenizer or Tokenizer()
    order = sorted(range(len(pairs)), key=lambda i: len(pairs[i].initial.numbers))
    rows: dict[int, dict[str, float]] = {}
    for first in range(0, len(order), batch_size):
        chosen = order[first : first + batch_size]
        sources = [encode_pair(pairs[i], tokenizer)[0] for i in chosen]
        templates = [template(pairs[i].initial.numbers, tokenizer) for i in chosen]
        for i, ids in zip(chosen, decode(model, sources, templates), strict=True):
            rows[i] = _score(pairs[i], tokenizer.decode(ids[0].tolist()))
    columns = {name: np.array([rows[i][name] for i in range(len(rows))]) for name in rows[0]}
    return columns | {"score": (columns["adwt"] + columns["strain_awt"]) / 2}


def means(columns: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
    """The mean of each column of `validate`."""
    return {name: float(values.mean()) for name, values in columns.items()}


def _score(pair: Pair, text: str) -> dict[str, float]:
    initial = geometry_of(pair.initial)
    reference = apply_delta(initial, pair.delta, initial.numbers)
    try:
        return _errors(reference, apply_delta(initial, *read_delta(text, pair.initial)))
    except CodecError:
        return _errors(reference, initial) | {"adwt": 0.0, "strain_awt": 0.0}


def _errors(reference: Geometry, prediction: Geometry) -> dict[str, float]:
    off = cell_parameters(prediction.lattice) - cell_parameters(reference.lattice)
    moved = float(np.linalg.norm(displacements(reference, prediction), axis=1).mean())
    stretch = strain(reference.lattice, prediction.lattice)
    volume = np.linalg.det(prediction.lattice) / np.linalg.det(reference.lattice)
    return {
        "lattice_mae": float(np.abs(off[:3]).mean()),
        "volume_mape": float(abs(volume - 1) * 100),
        "strain": stretch,
        "position_mae": moved,
        "adwt": float((moved < DISPLACEMENT_GRID).mean()),
        "strain_awt": float((stretch < STRAIN_GRID).mean()),
    }


class EvenSampler(Sampler[int]):
    """Draws with replacement, in batches of similar length.

    Args:
        batch_size: pairs in a batch.
        n_sites: of each pair.
        share: of the draws that take every number of sites as often; the others take every pair.
    """

    def __init__(self, batch_size: int, n_sites: Sequence[int], share: float) -> None:
        self.batch_size, self.n_sites = batch_size, torch.tensor(n_sites)
        counts = torch.bincount(self.n_sites)
        even = 1 / (counts[self.n_sites] * (counts > 0).sum())
        self.weights = share * even + (1 - share) / len(n_sites)

    def __len__(self) -> int:
        return len(self.n_sites)

    def __iter__(self) -> Iterator[int]:
        drawn = torch.multinomial(self.weights, len(self), replacement=True)
        order = get_length_grouped_indices(self.n_sites[drawn].tolist(), self.batch_size)
        yield from drawn[order].tolist()


class RelaxationTrainer(Trainer):
    """Validates by decoding instead of by the loss."""

    even_sizes = 0.0
    """See `EvenSampler`."""
    control: TrainerControl
    optimizer: torch.optim.Optimizer | None

    def create_optimizer(self, *_: Any) -> torch.optim.Optimizer:
        """See `MuonAdamW`."""
        if self.optimizer is None:
            named = self.model.named_parameters()
            self.optimizer = MuonAdamW(named, self.args.learning_rate, self.args.weight_decay)
        return self.optimizer

    def _get_train_sampler(self, train_dataset: PairDataset) -> Sampler[int]:
        """Batches of similar length; the number of sites tells the length."""
        lengths = [len(pair.initial.numbers) for pair in train_dataset.pairs]
        if self.even_sizes:
            return EvenSampler(self.args.train_batch_size, lengths, self.even_sizes)
        sampler: Sampler[int] = LengthGroupedSampler(self.args.train_batch_size, lengths=lengths)
        return sampler

    def evaluate(self, *_: Any, metric_key_prefix: str = "eval", **__: Any) -> dict[str, float]:
        """Decode the validation pairs and log their metrics."""
        self.model.eval()
        with torch.autocast(self.args.device.type, torch.bfloat16, enabled=self.args.bf16):
            found = means(validate(self.model, self.eval_dataset.pairs))
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in found.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        self.model.train()
        return metrics


class StopAfter(TrainerCallback):
    """Ends the training after a stated time, validated where it is at all."""

    def __init__(self, minutes: float) -> None:
        self.deadline = time.monotonic() + 60 * minutes

    def on_step_end(
        self, args: TrainingArguments, _: TrainerState, control: TrainerControl, **__: Any
    ) -> None:
        """Evaluate, save and stop once the time is over."""
        if time.monotonic() > self.deadline:
            control.should_training_stop = True
            control.should_evaluate = control.should_save = args.do_eval


INIT_HELP = (
    "pretrained T5: a folder, or a name on the hub; several of one shape: the mean of their "
    "weights (default: from scratch)"
)
EVEN_HELP = (
    "of the draws, 0 to 1, that take every number of sites as often: large crystals are rare"
)


def _share(text: str) -> float:
    if not 0 <= float(text) <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return float(text)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m t2relax.train", description=__doc__)
    add = parser.add_argument
    add("--data", action="append", required=True, help="training data; may be repeated")
    add("--val", action="append", required=True, help="validation data; may be repeated")
    add("--out", type=Path, required=True)
    add("--init", action="append", default=[], metavar="T5", help=INIT_HELP)
    add("--limit", type=int, help="relaxations of each --data that is not an archive, at most")
    add("--every-frame", action="store_true", help="start from each frame of a trajectory")
    add("--even-sizes", type=_share, default=0.0, metavar="SHARE", help=EVEN_HELP)
    add("--steps", type=int, default=20_000)
    add("--batch-size", type=int, default=64)
    add("--learning-rate", type=float, default=3e-3)
    add("--warmup", type=int, default=200, help="steps")
    add("--eval-steps", type=int, default=1000)
    add("--patience", type=int, default=10, help="evaluations without improvement before the end")
    add("--minutes", type=float, default=float("inf"), help="stop after this long")
    add("--workers", type=int, default=2, help="processes that write and tokenise text")
    add("--seed", type=int, default=0)
    add("--set", action="append", default=[], metavar="FIELD=VALUE", help="field of T5Config")
    add("--loss", action="append", default=[], metavar="FIELD=VALUE", help="field of Objective")
    return parser.parse_args(argv)


def training_arguments(args: argparse.Namespace, select: bool = True) -> TrainingArguments:
    """Hugging Face's arguments for ours.

    Args:
        args: the parsed command line.
        select: validate and save on the way, and end with the best weights, not the last.
    """
    when = "steps" if select else "no"
    return TrainingArguments(
        output_dir=str(args.out / "state"),
        max_steps=args.steps,
        per_device_train_batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=args.warmup,
        weight_decay=0.01,
        max_grad_norm=1.0,
        bf16=torch.cuda.is_available(),
        tf32=torch.cuda.is_available() or None,
        eval_strategy=when,
        eval_steps=args.eval_steps,
        save_strategy=when,
        save_steps=args.eval_steps,
        save_total_limit=2,
        load_best_model_at_end=select,
        metric_for_best_model="eval_score",
        greater_is_better=True,
        logging_steps=100,
        dataloader_pin_memory=torch.cuda.is_available(),
        dataloader_num_workers=args.workers,
        dataloader_persistent_workers=args.workers > 0,
        remove_unused_columns=False,
        report_to=[],
        seed=args.seed,
    )


def train(args: argparse.Namespace, command: Sequence[str]) -> dict[str, Any]:
    """Train, keep the best checkpoint, write it with its training record; return the record.

    Args:
        args: the parsed command line.
        command: the command line as given, for the record.
    """
    set_seed(args.seed)
    pairs, origin = read_pairs(args.data, "train", args.every_frame, args.limit)
    val_pairs, val_origin = read_pairs(args.val, "val")
    if not pairs or not val_pairs:
        raise UserError("no pairs to train or to validate on")
    tokenizer = Tokenizer()
    objective = Objective(**fields_of(args.loss, "--loss"))
    if args.init and args.set:
        raise UserError("--set shapes a new model; that of --init has its shape")
    if args.init:
        model = average([from_pretrained(name, tokenizer) for name in args.init])
    else:
        model = t5.new_model(tokenizer, args.seed, **fields_of(args.set, "--set"))
    model.set_objective(objective)
    model.config.use_cache = False
    trainer = RelaxationTrainer(
        model=model,
        args=training_arguments(args),
        data_collator=collate,
        train_dataset=PairDataset(pairs, Augmentation(), objective.weights, args.seed),
        eval_dataset=PairDataset(val_pairs, NO_AUGMENTATION, objective.weights),
        callbacks=[StopAfter(args.minutes), EarlyStoppingCallback(args.patience)],
    )
    trainer.even_sizes = args.even_sizes
    began = time.monotonic()
    state = args.out / "state"
    trainer.train(resume_from_checkpoint=get_last_checkpoint(state) if state.is_dir() else None)
    model.config.use_cache = True
    record = {
        "from": [start_of(name) for name in args.init] or "scratch",
        "data": origin,
        "validation_data": val_origin,
        "n_pairs": len(pairs),
        "n_validation_pairs": len(val_pairs),
        "max_sites": max(len(pair.initial.numbers) for pair in pairs),
        "n_parameters": model.num_parameters(),
        "command": shlex.join(["python", "-m", "t2relax.train", *command]),
        "seed": args.seed,
        "steps": trainer.state.global_step,
        "epochs": round(trainer.state.epoch or 0.0, 2),
        "best_step": trainer.state.best_global_step,
        "minutes": round((time.monotonic() - began) / 60, 1),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "validation": means(validate(trainer.model.eval(), val_pairs)),
    }
    (args.out / "history.json").write_text(json.dumps(trainer.state.log_history) + "\n")
    t5.save(trainer.model, tokenizer, args.out, record)
    return record


def start_of(init: str) -> str | dict[str, Any]:
    """What a training began with, for the record: one of our checkpoints with its own record."""
    return t5.origin(Path(init)) if (Path(init) / t5.CODEC_FILE).is_file() else init


def fields_of(settings: Sequence[str], flag: str) -> dict[str, Any]:
    """Values by field of `FIELD=VALUE`, each given after `flag`."""
    fields = {}
    for text in settings:
        name, separator, value = text.partition("=")
        if not separator:
            raise UserError(f"{flag} wants FIELD=VALUE, not {text!r}")
        try:
            fields[name] = json.loads(value)
        except json.JSONDecodeError:
            fields[name] = value
    return fields


def main(argv: Sequence[str] | None = None) -> int:
    """The command: 0 when a model was written, 2 for a mistake of the user's, 130 interrupted."""
    argv = list(sys.argv[1:] if argv is None else argv)
    args = parse(argv)
    try:
        record = train(args, argv)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: the same command resumes from the last checkpoint", file=sys.stderr)
        return 130
    print(json.dumps(record["validation"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
