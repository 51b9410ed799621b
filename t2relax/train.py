"""Token-level training of a language model on relaxations: a T5, or a decoder-only model.

    python -m t2relax.train --data embedded --data TRAIN.parquet --val VAL.parquet --out DIR

The loss is that of `t2relax.loss`; Hugging Face's trainer runs the steps, so that `accelerate
launch` trains on several GPUs. Validation decodes freely running text under the grammar and scores
it with `benchmarks.metrics.score`, the function of the leaderboard; the checkpoint with the best
score is kept. Interrupt the command and run it again: it goes on from DIR/state, if data and
settings are the same. The model lands in DIR.
"""

from __future__ import annotations

import argparse
import json
import pickle
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Sampler
from transformers import (
    EarlyStoppingCallback,
    GraniteConfig,
    T5Config,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_pt_utils import LengthGroupedSampler, get_length_grouped_indices
from transformers.trainer_utils import get_last_checkpoint

from benchmarks.core import Status, UserError
from benchmarks.core.cli import parse_fields, require_numbers, run_command
from benchmarks.core.files import atomic_write
from benchmarks.core.geometry import strain
from benchmarks.core.training_identity import plain, require_same_training, unreadable_state
from benchmarks.metrics import score
from t2relax.confidence import calibrate
from t2relax.data.token_dataset import PairDataset
from t2relax.data.training_pairs import (
    NO_AUGMENTATION,
    Augmentation,
    Pair,
    PairData,
    read_training_data,
    supercells,
)
from t2relax.lm import causal, t5
from t2relax.lm.base import LanguageModel, decode_all
from t2relax.lm.checkpoint import CODEC_FILE, origin, read_record
from t2relax.lm.pretrained import (
    LoraSettings,
    add_lora,
    average,
    causal_start,
    from_pretrained,
    is_causal,
)
from t2relax.loss import LossSettings
from t2relax.muon import MuonAdamW
from t2relax.text.codec import CODEC_VERSION, CodecError
from t2relax.text.tokens import PLAIN_VOCABULARY, VOCABULARY, Tokenizer

NOT_IDENTITY: Final = ("data", "val", "init", "out", "minutes", "workers")
"""Fields of the configuration that the identity of a training does not hold as they are: sources
and starts are in it by their hashes, and the others do not say what is trained."""


ADDED_LATER: Final = {"architecture": "t5", "lora": None}
"""Fields that older trainings did not record; with these values they are left out, so that an older
training goes on."""
Architecture = Literal["t5", "causal"]


@dataclass(frozen=True, slots=True, kw_only=True)
class T5TrainingConfig:
    """The configuration of a token-level training.

    Raises:
        UserError: A number makes no sense, or a shape is given for a start that has one.
    """

    data: tuple[str, ...]
    """Sources of the training pairs, see `t2relax.data.training_pairs.read_pairs`."""
    val: tuple[str, ...]
    """Sources of the validation pairs."""
    out: Path
    """Folder of the model; OUT/state holds what an interrupted training goes on from."""
    init: tuple[str, ...] = ()
    """Pretrained models to start from: folders, or names on the hub. The mean of their weights is
    the start; without any the model starts from scratch."""
    limit: int | None = None
    """Largest number of relaxations of each source that is not an archive."""
    every_frame: bool = False
    """If true, each frame of a trajectory is a start, not only the first."""
    even_sizes: float = 0.0
    """Share of the draws, 0 to 1, that take every number of sites equally often, because large
    crystals are rare."""
    supercells: float = 0.0
    """Number of pairs with a larger cell that are added, as a share of the number of pairs; see
    `t2relax.data.training_pairs.supercells`."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    plain_text: bool = False
    """The text of a crystal lacks the columns of `benchmarks.core.bonds.balancing_shifts`."""
    steps: int = 20_000
    batch_size: int = 64
    learning_rate: float = 3e-3
    warmup: int = 200
    """Steps over which the learning rate rises."""
    eval_steps: int = 1000
    """Steps between two validations."""
    patience: int = 10
    """Validations without improvement before the training ends."""
    minutes: float = float("inf")
    """Time after which the training ends."""
    workers: int = 2
    """Processes that write and tokenise text."""
    seed: int = 0
    shape: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `T5Config` that differ from those of `t2relax.lm.t5.new_model`, or of
    `GraniteConfig` that differ from those of `t2relax.lm.causal.new_model`."""
    loss: LossSettings = field(default_factory=LossSettings)
    architecture: Architecture = "t5"
    """The architecture of a model from scratch; a start has its own."""
    lora: LoraSettings | None = None
    """The low-rank changes that are trained; None to train all weights."""

    def __post_init__(self) -> None:
        positive = ("limit", "steps", "batch_size", "learning_rate", "eval_steps", "patience")
        not_negative = ("supercells", "warmup", "minutes", "workers", "seed")
        require_numbers(self, positive=positive, not_negative=not_negative)
        if self.init and (self.shape or self.architecture != "t5"):
            raise UserError("--set and --architecture shape a new model; one of --init has its own")

    def settings(self) -> dict[str, Any]:
        """The settings that decide what is trained, as plain JSON values; see `NOT_IDENTITY`."""
        values: dict[str, Any] = plain(self)
        if not values["augmentation"]["together"]:
            del values["augmentation"]["together"]
        left_out = {*NOT_IDENTITY, *(n for n, v in ADDED_LATER.items() if values[n] == v)}
        return {name: value for name, value in values.items() if name not in left_out}


def training_identity(config: T5TrainingConfig, data: PairData, val: PairData) -> dict[str, Any]:
    """Return what must be equal for a training to go on; see `require_same_training`.

    Args:
        config: The configuration.
        data: The pairs to train on.
        val: The pairs to validate on.
    """
    starts = [start_of(name) for name in config.init]
    return {
        "data": data.identity(),
        "validation_data": val.identity(),
        "from": [start if isinstance(start, str) else start["weights"] for start in starts],
        **config.settings(),
        "codec_version": CODEC_VERSION,
        "vocabulary_sha256": tokenizer_of(config).sha256,
    }


def validate(
    language_model: LanguageModel, pairs: Sequence[Pair]
) -> dict[str, NDArray[np.float64]]:
    """Score freely running, constrained decodes with the function of the leaderboard.

    A decode that fails the validity ladder of `benchmarks.metrics.score` earns 0 in `adwt`,
    `strain_awt` and `score`, and takes the errors of predicting no change.

    Returns:
        (n_pairs,) of each measure: `score`, `adwt`, `strain_awt`, `strain`, `lattice_mae` [Å],
        `volume_mape` [%] and `position_mae` [Å].
    """
    texts = decode_all(language_model, pairs)
    rows = [score_text(pair, each.text) for pair, each in zip(pairs, texts, strict=True)]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def means(columns: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
    """Return the mean of each column of `validate`."""
    return {name: float(values.mean()) for name, values in columns.items()}


def score_text(pair: Pair, text: str) -> dict[str, float]:
    """Score one decode; see `validate`."""
    initial, reference = pair.start(), pair.reference()
    row = score(initial, reference, pair.read(text), Status.OK)
    if row["scored"]:
        values = [row[name] for name in _COLUMNS]
    else:
        lattice, volume, position = (
            row[f"identity_{name}_error"] for name in ("lattice", "volume", "position")
        )
        stretch = strain(reference.lattice, initial.lattice)
        values = [lattice, volume, stretch, position, 0.0, 0.0, 0.0]
    return dict(zip(MEASURES, values, strict=True))


MEASURES: Final = (
    *("lattice_mae", "volume_mape", "strain", "position_mae"),
    *("adwt", "strain_awt", "score"),
)
"""The measures that `validate` returns."""
_COLUMNS: Final = (
    *("lattice_error", "volume_error", "strain", "position_error"),
    *("adwt", "strain_awt", "score"),
)
"""The columns of `benchmarks.metrics.score` that they are."""


MINUTES: Final = "minutes"
"""The entry of the trainer's log that says how long the training has taken."""


class EvenSampler(Sampler[int]):
    """Draws with replacement, in batches of similar length.

    Args:
        batch_size: Pairs in a batch.
        n_sites: Number of sites of each pair.
        share: Share of the draws that take every number of sites equally often; the other draws
            take every pair equally often.
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
    """A trainer that validates by decoding instead of by the loss."""

    language_model: LanguageModel
    """The model that learns, with its loss and its decoding."""
    even_sizes = 0.0
    """The share of `EvenSampler`."""
    minutes_before = 0.0
    """What earlier processes of the same training took, as far as they were gone on from."""
    began = 0.0
    """When this process began, `time.monotonic`."""
    control: TrainerControl
    optimizer: torch.optim.Optimizer | None

    def create_optimizer(self, *_: Any) -> torch.optim.Optimizer:
        """Return the optimizer of `t2relax.muon`, or that of the trainer."""
        if not self.language_model.muon:
            optimizer: torch.optim.Optimizer = super().create_optimizer()
            return optimizer
        if self.optimizer is None:
            named = self.model.named_parameters()
            self.optimizer = MuonAdamW(named, self.args.learning_rate, self.args.weight_decay)
        return self.optimizer

    def compute_loss(self, model: Any, inputs: Mapping[str, Tensor], *_: Any, **__: Any) -> Tensor:
        """Return the loss of the language model on a batch."""
        return self.language_model.loss(model, inputs)

    def _get_train_sampler(self, train_dataset: PairDataset) -> Sampler[int]:
        """Draw batches of similar length; the number of sites tells the length."""
        lengths = [len(pair.initial.numbers) for pair in train_dataset.pairs]
        if self.even_sizes:
            return EvenSampler(self.args.train_batch_size, lengths, self.even_sizes)
        sampler: Sampler[int] = LengthGroupedSampler(self.args.train_batch_size, lengths=lengths)
        return sampler

    def minutes(self) -> float:
        """Give the minutes that all processes of the training have taken."""
        return round(self.minutes_before + (time.monotonic() - self.began) / 60, 1)

    def evaluate(self, *_: Any, metric_key_prefix: str = "eval", **__: Any) -> dict[str, float]:
        """Decode the validation pairs and log their metrics."""
        self.model.eval()
        with torch.autocast(self.args.device.type, torch.bfloat16, enabled=self.args.bf16):
            found = means(validate(self.language_model, self.eval_dataset.pairs))
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in found.items()}
        metrics[MINUTES] = self.minutes()
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        self.model.train()
        return metrics


class StopAfter(TrainerCallback):
    """Ends the training after a stated time, with a validation if there is any."""

    def __init__(self, minutes: float) -> None:
        self.deadline = time.monotonic() + 60 * minutes

    def on_step_end(
        self, args: TrainingArguments, _: TrainerState, control: TrainerControl, **__: Any
    ) -> None:
        """Evaluate, save and stop once the time is over."""
        if time.monotonic() > self.deadline:
            control.should_training_stop = True
            control.should_evaluate = control.should_save = args.do_eval


def training_arguments(config: T5TrainingConfig, select: bool = True) -> TrainingArguments:
    """Translate the configuration to Hugging Face's.

    Args:
        config: The configuration.
        select: Whether to validate and save on the way, and to end with the best weights instead
            of the last.
    """
    when = "steps" if select else "no"
    on_cpu = not torch.cuda.is_available() and _amx()
    return TrainingArguments(
        output_dir=str(config.out / "state"),
        max_steps=config.steps,
        per_device_train_batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=config.warmup,
        weight_decay=0.01,
        max_grad_norm=1.0,
        bf16=torch.cuda.is_available() or on_cpu,
        use_cpu=on_cpu,
        tf32=torch.cuda.is_available() or None,
        eval_strategy=when,
        eval_steps=config.eval_steps,
        save_strategy=when,
        save_steps=config.eval_steps,
        save_total_limit=2,
        load_best_model_at_end=select,
        metric_for_best_model="eval_score",
        greater_is_better=True,
        logging_steps=100,
        dataloader_pin_memory=torch.cuda.is_available(),
        dataloader_num_workers=config.workers,
        dataloader_persistent_workers=config.workers > 0,
        remove_unused_columns=False,
        report_to=[],
        seed=config.seed,
    )


def _amx() -> bool:
    """Whether the processor multiplies matrices of bfloat16 faster than those of float32."""
    return bool(torch.cpu.get_capabilities().get("amx_bf16", False))


def train(config: T5TrainingConfig, command: str | None = None) -> dict[str, Any]:
    """Train, keep the best checkpoint, and write it with its training record.

    Args:
        config: The configuration.
        command: The command line, for the record; None if there is none.

    Returns:
        The training record.

    Raises:
        UserError: The data cannot be read, or OUT/state is of another training.
    """
    set_seed(config.seed)
    data, val = read_training_data(config.data, config.val, config.every_frame, config.limit)
    identity = training_identity(config, data, val)
    state = config.out / "state"
    checkpoint = get_last_checkpoint(state) if state.is_dir() else None
    stored = state / "identity.json"
    if checkpoint:
        there = json.loads(stored.read_text(encoding="utf-8")) if stored.is_file() else None
        require_same_training(state, there, identity)
        # Hugging Face's trainer takes another step where the last one did not end an epoch.
        if (config.out / CODEC_FILE).is_file():
            record: dict[str, Any] = read_record(config.out)["training"]
            if record["identity"] == identity and record["steps"] >= config.steps:
                return record
    with atomic_write(stored) as partial:
        partial.write_text(json.dumps(identity, indent=1) + "\n", encoding="utf-8")
    large = supercells(data.pairs, round(config.supercells * len(data.pairs)), config.seed)
    pairs = [*data.pairs, *large]
    language_model = starting_model(config, [*pairs, *val.pairs])
    model, encode = language_model.model, language_model.encode
    model.config.use_cache = False
    trainer = RelaxationTrainer(
        model=model,
        args=training_arguments(config),
        data_collator=language_model.collate,
        train_dataset=PairDataset(pairs, config.augmentation, encode, config.seed),
        eval_dataset=PairDataset(val.pairs, NO_AUGMENTATION, encode),
        callbacks=[StopAfter(config.minutes), EarlyStoppingCallback(config.patience)],
    )
    trainer.language_model, trainer.even_sizes = language_model, config.even_sizes
    trainer.minutes_before, trainer.began = _minutes(checkpoint), time.monotonic()
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
    except pickle.UnpicklingError as error:  # more than tensors and plain data, which is not read
        raise unreadable_state(Path(checkpoint or state)) from error
    model.eval().config.use_cache = True
    record = {
        "from": [start_of(name) for name in config.init] or "scratch",
        "data": data.origin,
        "validation_data": val.origin,
        "n_pairs": len(data.pairs),
        "n_validation_pairs": len(val.pairs),
        "max_sites": max(len(pair.initial.numbers) for pair in pairs),
        "n_parameters": model.num_parameters(),
        "command": command,
        "config": plain(config),
        "identity": identity,
        "seed": config.seed,
        "steps": trainer.state.global_step,
        "epochs": round(trainer.state.epoch or 0.0, 2),
        "best_step": trainer.state.best_global_step,
        "minutes": trainer.minutes(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "validation": means(validate(language_model, val.pairs)),
    }
    if (confidence := calibrate(language_model, val.pairs)) is not None:
        record["confidence"] = asdict(confidence)
    (config.out / "history.json").write_text(json.dumps(trainer.state.log_history) + "\n")
    language_model.save(config.out, record)
    return record


def _minutes(checkpoint: str | None) -> float:
    """Read what a training took until a state that it goes on from; 0 from the start."""
    if checkpoint is None:
        return 0.0
    history = json.loads((Path(checkpoint) / TRAINER_STATE_NAME).read_text())["log_history"]
    return max((float(entry.get(MINUTES, 0.0)) for entry in history), default=0.0)


def starting_model(config: T5TrainingConfig, pairs: Sequence[Pair]) -> LanguageModel:
    """Make the model that a training starts with.

    Args:
        config: The configuration.
        pairs: All that the model is to read.

    Raises:
        UserError: A start cannot be loaded, or a crystal is too large for it.
    """
    tokenizer, causal_init = tokenizer_of(config), any(map(is_causal, config.init))
    if config.lora and not causal_init:
        raise UserError("--lora changes a published decoder-only model: name it with --init")
    found: LanguageModel
    if causal_init:
        found = causal_start(config.init, config.loss)
        found = add_lora(found, config.lora) if config.lora else found
    elif config.architecture == "causal":
        model = causal.new_model(tokenizer, config.seed, **config.shape)
        found = causal.own_model(model, tokenizer, loss=config.loss)
    else:
        inits = [from_pretrained(name, tokenizer) for name in config.init]
        model = average(inits) if inits else t5.new_model(tokenizer, config.seed, **config.shape)
        found = t5.T5LanguageModel(model, tokenizer, loss=config.loss)
    largest = max(pairs, key=lambda pair: len(pair.initial.numbers))
    try:
        found.prompt(largest.initial)
    except CodecError as error:
        raise UserError(f"the largest crystal of --data and --val does not fit: {error}") from error
    return found


def tokenizer_of(config: T5TrainingConfig) -> Tokenizer:
    """The tokenizer of a model with our vocabulary."""
    return Tokenizer(PLAIN_VOCABULARY if config.plain_text else VOCABULARY)


def start_of(init: str) -> str | dict[str, Any]:
    """The start of a training: a name on the hub, or the record of one of our checkpoints."""
    return origin(Path(init)) if (Path(init) / CODEC_FILE).is_file() else init


def parse(argv: Sequence[str] | None) -> T5TrainingConfig:
    """Read the command line.

    Raises:
        UserError: A number makes no sense, or a field that is set does not exist.
    """
    parser = argparse.ArgumentParser(prog="python -m t2relax.train", description=__doc__)
    add = parser.add_argument
    add("--data", action="append", required=True, help="training data; may be repeated")
    add("--val", action="append", required=True, help="validation data; may be repeated")
    add("--out", type=Path, required=True)
    add("--init", action="append", default=[], metavar="MODEL", help=_INIT_HELP)
    add("--limit", type=int, help="relaxations of each --data that is not an archive, at most")
    add("--every-frame", action="store_true", help="start from each frame of a trajectory")
    add("--even-sizes", type=_share, default=0.0, metavar="SHARE", help=_EVEN_HELP)
    add("--steps", type=int, default=20_000)
    add("--batch-size", type=int, default=64)
    add("--learning-rate", type=float, default=3e-3)
    add("--warmup", type=int, default=200, help="steps")
    add("--eval-steps", type=int, default=1000, help="steps between two validations")
    add("--patience", type=int, default=10, help="evaluations without improvement before the end")
    add("--minutes", type=float, default=float("inf"), help="stop after this long")
    add("--workers", type=int, default=2, help="processes that write and tokenise text")
    add("--seed", type=int, default=0)
    add("--set", action="append", default=[], metavar="FIELD=VALUE", help=_SET_HELP)
    add("--architecture", choices=get_args(Architecture), default="t5", help=_ARCHITECTURE_HELP)
    add("--lora", action="append", default=[], metavar="FIELD=VALUE", help=_LORA_HELP)
    add("--loss", action="append", default=[], metavar="FIELD=VALUE", help="field of LossSettings")
    add("--plain-text", action="store_true", help=_PLAIN_HELP)
    add("--augment", action="append", default=[], metavar="FIELD=VALUE", help=_AUGMENT_HELP)
    add("--supercells", type=float, default=0.0, metavar="SHARE", help=_SUPERCELLS_HELP)
    given = vars(parser.parse_args(argv))
    augment = parse_fields(given.pop("augment"), "--augment", asdict(Augmentation()))
    new = T5Config() if given["architecture"] == "t5" else GraniteConfig()
    shape = parse_fields(given.pop("set"), "--set", new.to_dict())
    lora = parse_fields(given.pop("lora"), "--lora", asdict(LoraSettings()))
    loss = LossSettings(**parse_fields(given.pop("loss"), "--loss", asdict(LossSettings())))
    for name in ("data", "val", "init"):
        given[name] = tuple(given[name])
    given["lora"] = LoraSettings(**lora) if lora else None
    return T5TrainingConfig(**given, augmentation=Augmentation(**augment), shape=shape, loss=loss)


_INIT_HELP: Final = (
    "pretrained T5 or decoder-only model: a folder, or a name on the hub; several of one shape: "
    "the mean of their weights (default: from scratch)"
)
_PLAIN_HELP: Final = "a text that does not say where the sites would balance their bonds"
_AUGMENT_HELP: Final = (
    "probability of a change of the pairs, a field of Augmentation, e.g. displacement=0.6"
)
_SUPERCELLS_HELP: Final = "larger cells to add (17 to 64 sites), as a share of the number of pairs"
_SET_HELP: Final = "field of T5Config, or of GraniteConfig with --architecture causal"
_ARCHITECTURE_HELP: Final = "of a model from scratch (default: t5)"
_LORA_HELP: Final = "train low-rank changes alone: r (16), alpha (32), dropout (0)"
_EVEN_HELP: Final = (
    "share of the draws, 0 to 1, that take every number of sites equally often: large crystals are "
    "rare"
)


def _share(text: str) -> float:
    if not 0 <= float(text) <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return float(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0 when a model was written, 2 after a mistake of the user's."""
    argv = list(sys.argv[1:] if argv is None else argv)

    def command() -> int:
        record = train(parse(argv), shlex.join(["python", "-m", "t2relax.train", *argv]))
        print(json.dumps(record["validation"]))
        return 0

    resumes = "interrupted: the same command resumes from the last checkpoint"
    return run_command(command, interrupted=resumes)


if __name__ == "__main__":
    sys.exit(main())
