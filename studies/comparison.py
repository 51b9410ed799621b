"""Compare the packaged recipe with others: the same small T5, trained from scratch in several ways.

    python -m studies.comparison --data TRAIN.parquet --val VAL.parquet --out DIR

All arms see the same data with the same seeds for the same number of steps, warm-up a tenth of
them, and write freely running text under the grammar of the target. `packaged-recipe` has the
defaults of `t2relax.train`; `plain-cross-entropy` forgets that number tokens are near each other;
`deep-encoder` has two layers moved from the decoder to the encoder, which is cheaper to decode;
`digits` reads and writes numbers digit by digit (`studies.digits`), as is usual. Without
--data and --val the embedded set serves, whose validation split is tiny.

The last weights of an arm count, none are selected, so that the structures of the comparison have
decided nothing. Writes DIR/comparison.md and .json. A finished run is DIR/runs/ARM-SEED.json and is
not run again.

The tables give means and, over seeds, ranges; differences to the packaged recipe have 95 %
intervals of the bootstrap of `studies.ablation`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from transformers import T5Config, set_seed

from benchmarks.core import UserError
from benchmarks.core.cli import parse_fields, run_command, whole_number
from benchmarks.core.formatting import markdown_table
from benchmarks.core.geometry import reduced_composition
from benchmarks.core.training_identity import plain
from studies.ablation import Draws, RewardEstimate
from studies.cached_runs import cached_run, seeds
from studies.digits import DigitStudent, decode_digits, digit_tokenizer
from t2relax import train
from t2relax.data.token_dataset import PairDataset
from t2relax.data.training_pairs import Augmentation, Pair, read_training_data
from t2relax.lm import t5
from t2relax.lm.decoding import Chosen, decode_constrained
from t2relax.loss import LossSettings, T5ForRelaxation
from t2relax.reward import Floats
from t2relax.text.codec import CODEC_VERSION, Delta, write_delta
from t2relax.text.tokens import Tokenizer
from t2relax.train_seq import subset

BASE: Final = "packaged-recipe"
NO_CHANGE: Final = "no-change"
TITLES: Final = {
    "lattice_mae": "lattice MAE (Å)",
    "volume_mape": "volume MAPE (%)",
    "strain": "strain",
    "position_mae": "displacement (Å)",
    "score": "score",
}

Records = Mapping[str, Sequence[Mapping[str, Any]]]
"""For each arm, and for each seed: `columns`, and of a training `steps`, `minutes`, ..."""


def write_report(
    folder: Path, records: Records, groups: Sequence[str], origin: Mapping[str, Any]
) -> str:
    """Write comparison.md and comparison.json; return the former.

    Args:
        folder: The folder of the files.
        records: over the same structures in the same order; `NO_CHANGE` has one, for all seeds.
        groups: the composition of each structure.
        origin: The origin of the data, for the JSON.
    """
    n_seeds = max(map(len, records.values()))
    found = {arm: [_means(run) for run in runs] for arm, runs in records.items()}
    apart = differences(records, groups)
    content = {
        **origin,
        "n_compositions": len(set(groups)),
        "n_seeds": n_seeds,
        "arms": {
            arm: {
                **{key: [run[key] for run in runs] for key in runs[0] if key in _OF_TRAINING},
                "means": found[arm],
                "difference": {k: e._asdict() for k, e in apart.get(arm, {}).items()},
            }
            for arm, runs in records.items()
        },
    }
    (folder / "comparison.json").write_text(json.dumps(content, indent=1) + "\n")
    text = _markdown(records, found, apart, content)
    (folder / "comparison.md").write_text(text)
    return text


_OF_TRAINING = ("n_parameters", "n_layer_parameters", "steps", "minutes")


def _means(run: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(np.mean(run["columns"][name])) for name in TITLES}


def differences(records: Records, groups: Sequence[str]) -> dict[str, dict[str, RewardEstimate]]:
    """The difference of each measure of each other arm to `BASE`; empty without `BASE`."""
    if BASE not in records:
        return {}
    n_seeds = len(records[BASE])
    draws = Draws.of(groups, n_seeds, np.random.default_rng(0))

    def replicates(arm: str, name: str) -> Floats:
        values = np.array([run["columns"][name] for run in records[arm]])
        return draws.mean(np.broadcast_to(values, (n_seeds, len(groups))))

    return {
        arm: {
            name: RewardEstimate.of(replicates(arm, name) - replicates(BASE, name))
            for name in TITLES
        }
        for arm in records
        if arm != BASE
    }


def _markdown(
    records: Records,
    found: Mapping[str, Sequence[Mapping[str, float]]],
    apart: Mapping[str, Mapping[str, RewardEstimate]],
    content: Mapping[str, Any],
) -> str:
    heads = ["arm", "parameters", "in layers", "steps", "minutes", *TITLES.values()]
    rows = [
        [arm, *_training(records[arm]), *(_spread([m[k] for m in means]) for k in TITLES)]
        for arm, means in found.items()
    ]
    gaps = [[arm, *(_difference(row[k]) for k in TITLES)] for arm, row in apart.items()]
    text = (
        f"{markdown_table(heads, rows)}\n\n"
        f"{content['n_structures']} validation structures ({content['n_compositions']} "
        f"compositions), {content['n_pairs']} for training, {content['n_seeds']} seeds; the last "
        "weights of each run. Means over structures and seeds; brackets: lowest and highest seed. "
        "A decode that is no cell counts as no change, with a score of 0.\n"
    )
    if gaps:
        text += (
            f"\nDifferences to {BASE}:\n\n{markdown_table(['arm', *TITLES.values()], gaps)}\n\n"
            "Brackets: 95 % intervals of a bootstrap over compositions and, independently, seeds, "
            "with the same draws for all arms.\n"
        )
    return text


def _training(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Parameters, steps and minutes; of no training dashes."""
    if "steps" not in runs[0]:
        return ["–"] * 4
    steps = "–".join(map(str, sorted({run["steps"] for run in runs})))
    minutes = np.mean([run["minutes"] for run in runs])
    sizes = (f"{runs[0][key]:,}" for key in ("n_parameters", "n_layer_parameters"))
    return [*sizes, steps, f"{minutes:.1f}"]


def _spread(values: Sequence[float]) -> str:
    mean = f"{np.mean(values):.4f}"
    return f"{mean} [{min(values):.4f}, {max(values):.4f}]" if len(values) > 1 else mean


def _difference(estimate: RewardEstimate) -> str:
    return "{:+.4f} [{:+.4f}, {:+.4f}]".format(*estimate)


class Arm(NamedTuple):
    """The parts of a training in which an arm differs from the packaged recipe."""

    shape: Mapping[str, Any] = MappingProxyType({})
    """Fields of `T5Config`."""
    loss: LossSettings = LossSettings()
    tokenizer: Callable[[], Tokenizer] = Tokenizer
    student: type[T5ForRelaxation] = T5ForRelaxation
    decoder: Callable[..., Sequence[Chosen]] = decode_constrained


ARMS: Final[Mapping[str, Arm]] = MappingProxyType(
    {
        BASE: Arm(),
        "plain-cross-entropy": Arm(loss=LossSettings(distance=0.0, smoothing=0.0)),
        "deep-encoder": Arm(shape={"num_layers": 4, "num_decoder_layers": 1}),
        "digits": Arm(tokenizer=digit_tokenizer, student=DigitStudent, decoder=decode_digits),
    }
)


def unchanged(pair: Pair) -> str:
    """Write the target text of a pair of which nothing changes."""
    nothing = Delta(np.zeros(6), np.zeros_like(pair.delta.frac_coords))
    return write_delta(nothing, pair.initial)


class Comparison:
    """The runs of one command, and the folder that keeps them.

    Args:
        args: The command line.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        if unknown := sorted(set(args.arms) - set(ARMS)):
            raise UserError(f"no arm {', '.join(unknown)}: there are {', '.join(ARMS)}")
        self.args = args
        self.shape = parse_fields(args.set, "--set", T5Config().to_dict())
        self.data, val = read_training_data(args.data, args.val)
        self.val_pairs = [
            example.pair for example in subset(val.pairs, args.eval_size, Tokenizer())
        ]
        self.origin = {
            "codec_version": CODEC_VERSION,
            "data": self.data.origin,
            "validation_data": val.origin,
            "n_pairs": len(self.data.pairs),
            "n_structures": len(self.val_pairs),
        }
        self.pairs_identity = {"data": self.data.identity(), "validation_data": val.identity()}
        self.folder: Path = args.out / "runs"
        self.folder.mkdir(parents=True, exist_ok=True)

    def records(self) -> dict[str, list[dict[str, Any]]]:
        """The records of each arm, one for each seed; the first record is that of no change."""
        rows = [train.score_text(pair, unchanged(pair)) for pair in self.val_pairs]
        columns = {name: [float(row[name]) for row in rows] for name in rows[0]}
        runs = [(arm, seed) for seed in self.args.seeds for arm in self.args.arms]
        found: dict[str, list[dict[str, Any]]] = {arm: [] for arm in self.args.arms}
        for arm, seed in runs:
            found[arm].append(self._record(arm, seed))
        return {NO_CHANGE: [{"columns": columns}], **found}

    def _record(self, arm: str, seed: int) -> dict[str, Any]:
        given, args = ARMS[arm], self.args
        config = train.T5TrainingConfig(
            data=tuple(args.data),
            val=tuple(args.val),
            out=self.folder,
            steps=args.steps,
            batch_size=args.batch_size,
            learning_rate=args.learning_rate,
            warmup=args.steps // 10,
            minutes=args.minutes,
            workers=args.workers,
            seed=seed,
            shape=self.shape | dict(given.shape),
            loss=given.loss,
        )
        identity = {
            **self.origin,
            **self.pairs_identity,
            **config.settings(),
            "minutes": plain(args.minutes),
            "student": given.student.__name__,
            "vocabulary_sha256": given.tokenizer().sha256,
        }
        path = self.folder / f"{arm}-{seed}.json"
        return cached_run(path, identity, lambda: self._run(arm, config))

    def _run(self, name: str, config: train.T5TrainingConfig) -> dict[str, Any]:
        """Train and decode."""
        arm = ARMS[name]
        set_seed(config.seed)
        tokenizer = arm.tokenizer()
        model = t5.new_model(tokenizer, config.seed, arm.student, **config.shape)
        language_model = t5.T5LanguageModel(model, tokenizer, loss=config.loss, decoder=arm.decoder)
        encode = language_model.encode
        trainer = train.RelaxationTrainer(
            model=model,
            args=train.training_arguments(config, select=False),
            data_collator=language_model.collate,
            train_dataset=PairDataset(self.data.pairs, Augmentation(), encode, config.seed),
            callbacks=[train.StopAfter(config.minutes)],
        )
        trainer.language_model = language_model
        sys.stderr.write(f"{name}, seed {config.seed}\n")
        began = time.monotonic()
        with redirect_stdout(sys.stderr):  # the trainer prints its log
            trainer.train()
        minutes = (time.monotonic() - began) / 60
        model.eval()
        columns = train.validate(language_model, self.val_pairs)
        return {
            "steps": trainer.state.global_step,
            "minutes": round(minutes, 2),
            "n_parameters": model.num_parameters(),
            "n_layer_parameters": model.num_parameters(exclude_embeddings=True),
            "columns": _lists(columns),
        }

    def groups(self) -> list[str]:
        """The reduced composition of each structure."""
        return [reduced_composition(pair.initial.numbers) for pair in self.val_pairs]


def _lists(columns: Mapping[str, NDArray[Any]]) -> dict[str, list[float]]:
    return {name: values.tolist() for name, values in columns.items()}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m studies.comparison",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--data", action="append", help="training data; may be repeated (default: embedded)")
    add("--val", action="append", help="validation data; may be repeated (default: embedded)")
    add("--out", type=Path, default=Path("runs/comparison"))
    add("--arms", type=_names, default=tuple(ARMS), help=f"of {','.join(ARMS)} (default: all)")
    add("--seeds", type=seeds, default=(0, 1), help="of the runs of each arm, as 0,1,2")
    add("--steps", type=whole_number(1), default=600, help="of each run")
    add("--batch-size", type=whole_number(1), default=32)
    add("--learning-rate", type=float, default=3e-3)
    add("--minutes", type=float, default=float("inf"), help="most time for the training of a run")
    add("--eval-size", type=whole_number(1), default=256, help="validation pairs that are decoded")
    add("--workers", type=whole_number(0), default=2, help="processes that write and tokenise text")
    add("--set", action="append", default=[], metavar="FIELD=VALUE", help="of T5Config in all arms")
    args = parser.parse_args(argv)
    args.data, args.val = args.data or ["embedded"], args.val or ["embedded"]
    return args


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text.split(",")))


def main(argv: Sequence[str] | None = None) -> int:
    """The command: 0 when the report was written, 2 for a user's mistake, 130 interrupted."""
    args = parse(argv)

    def study() -> int:
        run = Comparison(args)
        sys.stdout.write(write_report(args.out, run.records(), run.groups(), run.origin))
        return 0

    goes_on = "interrupted: the same command goes on with the unfinished run"
    return run_command(study, interrupted=goes_on)


if __name__ == "__main__":
    sys.exit(main())
