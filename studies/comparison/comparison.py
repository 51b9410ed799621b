"""What the packaged recipe is good for: the same small T5, trained from scratch in several ways.

    python -m studies.comparison.comparison --data TRAIN.parquet --val VAL.parquet --out DIR

All arms see the same data with the same seeds for the same number of steps, warm-up a tenth of
them, and write freely running text under the grammar of the target. `packaged-recipe` has the
defaults of `t2relax.train`; `plain-cross-entropy` forgets that number tokens are near each other;
`deep-encoder` has two layers moved from the decoder to the encoder, which is cheaper to decode;
`digits` reads and writes numbers digit by digit (`studies.comparison.digits`), as is usual. Without
--data and --val the embedded set serves, whose validation split is tiny.

The last weights of an arm count, none are selected, so that the structures of the comparison have
decided nothing. Writes DIR/comparison.md and .json. A finished run is DIR/runs/ARM-SEED.json and is
not run again.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from numpy.typing import NDArray
from transformers import set_seed

from benchmarks.core import UserError
from benchmarks.core.geometry import reduced_composition
from studies.cached_runs import cached_run, exit_code, positive, seeds
from studies.comparison.comparison_report import BASE, NO_CHANGE, write_report
from studies.comparison.digits import DigitStudent, decode_digits, digit_tokenizer
from t2relax import train
from t2relax.data.pairs import Augmentation, PairDataset, collate, read_pairs
from t2relax.lm import t5
from t2relax.lm.decoding import decode_constrained
from t2relax.objective import Objective, T5ForRelaxation
from t2relax.text.codec import CODEC_VERSION
from t2relax.text.tokens import Template, Tokenizer
from t2relax.train_seq import subset


class Arm(NamedTuple):
    """What a training of the comparison has of its own."""

    flags: tuple[str, ...] = ()
    """Of `t2relax.train`."""
    tokenizer: Callable[[], Tokenizer] = Tokenizer
    student: type[T5ForRelaxation] = T5ForRelaxation
    decode: train.Decode = decode_constrained


ARMS: Final[Mapping[str, Arm]] = MappingProxyType(
    {
        BASE: Arm(),
        "plain-cross-entropy": Arm(("--loss", "distance=0", "--loss", "smoothing=0")),
        "deep-encoder": Arm(("--set", "num_layers=4", "--set", "num_decoder_layers=1")),
        "digits": Arm((), digit_tokenizer, DigitStudent, decode_digits),
    }
)


def unchanged(
    _model: object, _sources: object, templates: Sequence[Template]
) -> list[NDArray[Any]]:
    """A `train.Decode` without a model: every number as the template has it, zero."""
    return [each.ids[None] for each in templates]


class Comparison:
    """The runs of one command and where they are kept.

    Args:
        args: the command line.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        if unknown := sorted(set(args.arms) - set(ARMS)):
            raise UserError(f"no arm {', '.join(unknown)}: there are {', '.join(ARMS)}")
        self.args = args
        self.pairs, origin = read_pairs(args.data, "train")
        val_pairs, val_origin = read_pairs(args.val, "val")
        if not self.pairs or not val_pairs:
            raise UserError("no pairs to train or to compare on")
        self.val_pairs = [example.pair for example in subset(val_pairs, args.eval_size)]
        self.origin = {
            "codec_version": CODEC_VERSION,
            "data": origin,
            "validation_data": val_origin,
            "n_pairs": len(self.pairs),
            "n_structures": len(self.val_pairs),
        }
        self.folder: Path = args.out / "runs"
        self.folder.mkdir(parents=True, exist_ok=True)

    def records(self) -> dict[str, list[dict[str, Any]]]:
        """Of each arm a record for each seed, run where there is none; first that of no change."""
        columns = train.validate(None, self.val_pairs, decode=unchanged)
        runs = [(arm, seed) for seed in self.args.seeds for arm in self.args.arms]
        found: dict[str, list[dict[str, Any]]] = {arm: [] for arm in self.args.arms}
        for arm, seed in runs:
            found[arm].append(self._record(arm, seed))
        return {NO_CHANGE: [{"columns": _plain(columns)}], **found}

    def _record(self, arm: str, seed: int) -> dict[str, Any]:
        command = self._command(arm, seed)
        vocabulary = ARMS[arm].tokenizer().sha256
        identity = {"command": command, "vocabulary_sha256": vocabulary, **self.origin}
        paths = ["--data", "", "--val", "", "--out", str(self.folder)]
        run = train.parse([*paths, *command])
        return cached_run(self.folder / f"{arm}-{seed}.json", identity, lambda: self._run(arm, run))

    def _command(self, arm: str, seed: int) -> list[str]:
        """The flags of `t2relax.train` but for data and folder."""
        names = ("steps", "batch_size", "learning_rate", "minutes", "workers")
        settings = {name: getattr(self.args, name) for name in names}
        settings |= {"warmup": self.args.steps // 10, "seed": seed}
        flags = [x for k, v in settings.items() for x in (f"--{k.replace('_', '-')}", str(v))]
        shape = [x for field in self.args.set for x in ("--set", field)]
        return [*flags, *shape, *ARMS[arm].flags]

    def _run(self, name: str, args: argparse.Namespace) -> dict[str, Any]:
        """Train and decode."""
        arm = ARMS[name]
        set_seed(args.seed)
        tokenizer, objective = arm.tokenizer(), Objective(**train.fields_of(args.loss, "--loss"))
        shape = train.fields_of(args.set, "--set")
        model = t5.new_model(tokenizer, args.seed, arm.student, **shape)
        model.set_objective(objective)
        weights = objective.weights
        trainer = train.RelaxationTrainer(
            model=model,
            args=train.training_arguments(args, select=False),
            data_collator=collate,
            train_dataset=PairDataset(self.pairs, Augmentation(), weights, args.seed, tokenizer),
            callbacks=[train.StopAfter(args.minutes)],
        )
        sys.stderr.write(f"{name}, seed {args.seed}\n")
        began = time.monotonic()
        with redirect_stdout(sys.stderr):  # the trainer prints its log
            trainer.train()
        minutes = (time.monotonic() - began) / 60
        columns = train.validate(model.eval(), self.val_pairs, tokenizer, arm.decode)
        return {
            "steps": trainer.state.global_step,
            "minutes": round(minutes, 2),
            "n_parameters": model.num_parameters(),
            "n_layer_parameters": model.num_parameters(exclude_embeddings=True),
            "columns": _plain(columns),
        }

    def groups(self) -> list[str]:
        """The reduced composition of each structure."""
        return [reduced_composition(pair.initial.numbers) for pair in self.val_pairs]


def _plain(columns: Mapping[str, NDArray[Any]]) -> dict[str, list[float]]:
    return {name: values.tolist() for name, values in columns.items()}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m studies.comparison.comparison",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--data", action="append", help="training data; may be repeated (default: embedded)")
    add("--val", action="append", help="validation data; may be repeated (default: embedded)")
    add("--out", type=Path, default=Path("runs/comparison"))
    add("--arms", type=_names, default=tuple(ARMS), help=f"of {','.join(ARMS)} (default: all)")
    add("--seeds", type=seeds, default=(0, 1), help="of the runs of each arm, as 0,1,2")
    add("--steps", type=positive, default=600, help="of each run")
    add("--batch-size", type=positive, default=32)
    add("--learning-rate", type=float, default=3e-3)
    add("--minutes", type=float, default=float("inf"), help="most time for the training of a run")
    add("--eval-size", type=positive, default=256, help="validation pairs that are decoded")
    add("--workers", type=int, default=2, help="processes that write and tokenise text")
    add("--set", action="append", default=[], metavar="FIELD=VALUE", help="of T5Config in all arms")
    args = parser.parse_args(argv)
    args.data, args.val = args.data or ["embedded"], args.val or ["embedded"]
    return args


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text.split(",")))


def main(argv: Sequence[str] | None = None) -> int:
    """The command: 0 when the report was written, 2 for a user's mistake, 130 interrupted."""
    args = parse(argv)

    def study() -> str:
        run = Comparison(args)
        return write_report(args.out, run.records(), run.groups(), run.origin)

    return exit_code(study)


if __name__ == "__main__":
    sys.exit(main())
