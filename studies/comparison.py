"""Compare the packaged recipe with others: the same small T5, trained from scratch in several ways.

    python -m studies.comparison --data TRAIN.parquet --val VAL.parquet --out DIR

All arms see the same data with the same seeds for the same number of steps, warm-up a tenth of
them, and write freely running text under the grammar of the target. `packaged-recipe` has loss and
changes of starts of the packaged T5, and each other arm differs from it in one thing. Text:
`plain-text` does not say where sites would balance their bonds, `digits` reads and writes numbers
digit by digit (`studies.digits`), as is usual. Data: `undisplaced` starts keep their sites,
`unstrained` ones their cell, and with `no-relaxed-starts` no start is already relaxed. Loss:
`light-positions` weigh a fifth, and `plain-cross-entropy` forgets that number tokens are near each
other. Shape: `deep-encoder` has two layers moved from the decoder to the encoder, which is cheaper
to decode. Without --data and --val the embedded set serves, whose validation split is tiny. With
--init all arms go on from one checkpoint. Several --val have tables of their own: the pairs of
`perturbed` say what a text or a change of starts does to atoms that must move.

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
from dataclasses import replace
from functools import partial
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
from t2relax.data.training_pairs import (
    Augmentation,
    Pair,
    PairData,
    read_pairs,
    read_training_data,
)
from t2relax.lm import t5
from t2relax.lm.checkpoint import origin
from t2relax.lm.decoding import Chosen, decode_constrained
from t2relax.lm.pretrained import from_pretrained
from t2relax.loss import LossSettings, T5ForRelaxation
from t2relax.reward import Floats
from t2relax.text.codec import CODEC_VERSION, Delta, write_delta
from t2relax.text.tokens import PLAIN_VOCABULARY, Tokenizer
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
    parts: Mapping[str, int] = origin.get("parts") or {"": len(groups)}
    content: dict[str, Any] = {**origin, "n_seeds": n_seeds, "by_part": {}}
    texts, first = [], 0
    for name, count in parts.items():
        chosen = slice(first, first + count)
        first += count
        some = {arm: [_cut(run, chosen) for run in runs] for arm, runs in records.items()}
        part = _part(some, groups[chosen])
        content["by_part"][name] = part
        title = f"## {Path(name).stem}\n\n" if len(parts) > 1 else ""
        texts.append(title + _markdown(some, part, content | {"n_structures": count}))
    (folder / "comparison.json").write_text(json.dumps(content, indent=1) + "\n")
    text = "\n".join(texts)
    (folder / "comparison.md").write_text(text)
    return text


def _cut(run: Mapping[str, Any], chosen: slice) -> dict[str, Any]:
    """The record of a run over some of the structures."""
    columns = {name: values[chosen] for name, values in run["columns"].items()}
    return {**run, "columns": columns}


def _part(records: Records, groups: Sequence[str]) -> dict[str, Any]:
    """What the JSON says of the structures of one source."""
    apart = differences(records, groups)
    return {
        "n_compositions": len(set(groups)),
        "arms": {
            arm: {
                **{key: [run[key] for run in runs] for key in runs[0] if key in _OF_TRAINING},
                "means": [_means(run) for run in runs],
                "difference": {k: e._asdict() for k, e in apart.get(arm, {}).items()},
            }
            for arm, runs in records.items()
        },
    }


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


def _markdown(records: Records, part: Mapping[str, Any], content: Mapping[str, Any]) -> str:
    """The two tables of one source."""
    arms = part["arms"]
    heads = ["arm", "parameters", "in layers", "steps", "minutes", *TITLES.values()]
    rows = [
        [arm, *_training(records[arm]), *(_spread([m[k] for m in row["means"]]) for k in TITLES)]
        for arm, row in arms.items()
    ]
    gaps = [
        [arm, *(_difference(row["difference"][k]) for k in TITLES)]
        for arm, row in arms.items()
        if row["difference"]
    ]
    text = (
        f"{markdown_table(heads, rows)}\n\n"
        f"{content['n_structures']} validation structures ({part['n_compositions']} "
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


def _difference(estimate: Mapping[str, float]) -> str:
    return "{:+.4f} [{:+.4f}, {:+.4f}]".format(*estimate.values())


LOSS: Final = LossSettings(position=0.5, forced=0.3, number=0.3)
"""The loss of the packaged T5; its model card has the command."""
STARTS: Final = Augmentation(displacement=0.6, strain=0.3, relaxed=0.15)
"""The changes of its starts."""


class Arm(NamedTuple):
    """The parts of a training in which an arm may differ from the packaged recipe."""

    shape: Mapping[str, Any] = MappingProxyType({})
    """Fields of `T5Config`."""
    loss: LossSettings = LOSS
    starts: Augmentation = STARTS
    """The changes of the training pairs."""
    tokenizer: Callable[[], Tokenizer] = Tokenizer
    student: type[T5ForRelaxation] = T5ForRelaxation
    decoder: Callable[..., Sequence[Chosen]] = decode_constrained


ARMS: Final[Mapping[str, Arm]] = MappingProxyType(
    {
        BASE: Arm(),
        "plain-text": Arm(tokenizer=partial(Tokenizer, PLAIN_VOCABULARY)),
        "undisplaced": Arm(starts=replace(STARTS, displacement=0.0)),
        "unstrained": Arm(starts=replace(STARTS, strain=0.0)),
        "no-relaxed-starts": Arm(starts=replace(STARTS, relaxed=0.0)),
        "light-positions": Arm(loss=replace(LOSS, position=0.1)),
        "plain-cross-entropy": Arm(loss=replace(LOSS, distance=0.0, smoothing=0.0)),
        "deep-encoder": Arm(shape={"num_layers": 4, "num_decoder_layers": 1}),
        "digits": Arm(tokenizer=digit_tokenizer, student=DigitStudent, decoder=decode_digits),
    }
)


def _parts(names: Sequence[str], val: PairData) -> dict[str, list[Pair]]:
    """The validation pairs by their sources; together if there is one source."""
    if len(names) == 1:
        return {names[0]: val.pairs}
    return {name: read_pairs([name], "val").pairs for name in names}


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
        own = [
            name
            for name in args.arms
            if ARMS[name].shape or ARMS[name].student is not T5ForRelaxation
        ]
        if args.init and (own or args.set):
            made = " and ".join(own) or "--set"
            raise UserError(f"--init: {made} shapes a new model: leave it out with --arms")
        self.args = args
        self.shape = parse_fields(args.set, "--set", T5Config().to_dict())
        self.data, val = read_training_data(args.data, args.val)
        self.parts = {
            name: [example.pair for example in subset(pairs, args.eval_size, Tokenizer())]
            for name, pairs in _parts(args.val, val).items()
        }
        self.val_pairs = [pair for pairs in self.parts.values() for pair in pairs]
        self.origin = {
            "codec_version": CODEC_VERSION,
            "data": self.data.origin,
            "validation_data": val.origin,
            "n_pairs": len(self.data.pairs),
            "parts": {name: len(pairs) for name, pairs in self.parts.items()},
            "n_structures": len(self.val_pairs),
        }
        self.pairs_identity = {"data": self.data.identity(), "validation_data": val.identity()}
        if args.init:
            self.pairs_identity["from"] = origin(args.init)["weights"]
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
            augmentation=given.starts,
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
        if self.args.init:
            model = from_pretrained(str(self.args.init), tokenizer)
        else:
            model = t5.new_model(tokenizer, config.seed, arm.student, **config.shape)
        language_model = t5.T5LanguageModel(model, tokenizer, loss=config.loss, decoder=arm.decoder)
        encode = language_model.encode
        trainer = train.RelaxationTrainer(
            model=model,
            args=train.training_arguments(config, select=False),
            data_collator=language_model.collate,
            train_dataset=PairDataset(self.data.pairs, arm.starts, encode, config.seed),
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
    add("--init", type=Path, metavar="DIR", help="a checkpoint of a T5 from which all arms go on")
    add("--out", type=Path, default=Path("runs/comparison"))
    add("--arms", type=_names, default=tuple(ARMS), help=f"of {','.join(ARMS)} (default: all)")
    add("--seeds", type=seeds, default=(0, 1), help="of the runs of each arm, as 0,1,2")
    add("--steps", type=whole_number(1), default=600, help="of each run")
    add("--batch-size", type=whole_number(1), default=32)
    add("--learning-rate", type=float, default=3e-3)
    add("--minutes", type=float, default=float("inf"), help="most time for the training of a run")
    add("--eval-size", type=whole_number(1), default=256, help="pairs of each --val, at most")
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
