"""Learning curves of the T5 and of a graph network that are trained on the same pairs.

    python -m studies.learning_curves --data TRAIN.parquet --val VAL.parquet --test TEST.parquet \
        --out DIR

The study trains the T5 and `gnn-delta` from scratch on a part of the pairs, on more (which holds
the part), and on all, and relaxes the test pairs with each model. It writes `curves.md`,
`curves.csv` and `curves.svg`, the cards of the trainings in `curves.json`, and the board with its
paired differences in `curves-board.md`. A model that is there already, of the same data and
settings, is not trained again. After an interruption the same command goes on with the missing
models: a T5 begins anew, a graph network goes on with the next epoch.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from baselines.delta.train_delta import DeltaTrainingConfig, read_geometries
from baselines.delta.train_delta import train as train_graph
from baselines.delta.train_delta import training_identity as graph_identity
from baselines.training.model_card import training_sets
from benchmarks.core.cli import check_device, run_command, whole_number
from benchmarks.core.training_identity import require_same_training
from benchmarks.models.registry import resolve
from benchmarks.run import main as run_models
from leaderboard.views.figures import save_figure
from t2relax.data.training_pairs import read_training_data
from t2relax.train import T5TrainingConfig
from t2relax.train import train as train_text
from t2relax.train import training_identity as text_identity

if TYPE_CHECKING:
    import pandas as pd

Config = T5TrainingConfig | DeltaTrainingConfig

STUDENTS: Final = {"t5": "text (T5)", "gnn-delta": "graph (gnn-delta)"}
SHOWN: Final = {
    "score": ("score", ""),
    "lattice_mae": ("lattice MAE", "Å"),
    "volume_mape": ("volume error", "%"),
    "position_mae": ("position MAE", "Å"),
}
"""Metric, and its name and unit in table and figure."""
_T5_CARD, _GRAPH_CARD = "t2relax.json", "model.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveTraining:
    """The training of one student on one share of the pairs."""

    student: str
    share: int
    """Share of the pairs [%]."""
    n_pairs: int
    """Number of pairs of the largest data set; of smaller ones at most as many are used."""
    folder: Path

    @property
    def label(self) -> str:
        """The name of the model on the board."""
        return f"{self.student}-{self.share}"

    @property
    def model(self) -> str:
        """The model as `benchmarks.run` takes it."""
        path = self.folder if self.student == "t5" else self.folder / "model.safetensors"
        return f"{self.label}={self.student}:{path}"

    @property
    def card(self) -> Path:
        """The card, which is written last: it is there when the training is done."""
        return self.folder / (_T5_CARD if self.student == "t5" else _GRAPH_CARD)

    def about(self) -> dict[str, Any]:
        """The record of the training in its card."""
        card: dict[str, Any] = json.loads(self.card.read_text(encoding="utf-8"))
        return card["training"] if self.student == "t5" else card


def main(argv: Sequence[str] | None = None) -> int:
    """The command: 0 when all is written, 2 for a mistake of the user's, 130 when interrupted."""
    argv = list(sys.argv[1:] if argv is None else argv)
    args = _parser().parse_args(argv)
    command = shlex.join(["python", "-m", "studies.learning_curves", *argv])
    goes_on = "interrupted: the same command goes on from here"
    return run_command(lambda: _curves(args, command), interrupted=goes_on)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m studies.learning_curves", description=(__doc__ or "").split("\n", 1)[0]
    )
    add = parser.add_argument
    add("--data", action="append", required=True, help="training pairs; the largest is shared out")
    add("--val", required=True, help="validation pairs")
    add("--test", required=True, help="test pairs")
    add("--out", type=Path, required=True, metavar="DIR")
    add("--shares", type=_shares, default=(25, 50, 100), metavar="%,…", help="default: 25,50,100")
    add("--students", type=_students, default=tuple(STUDENTS), help="default: t5,gnn-delta")
    add("--steps", type=whole_number(1), default=1000, help="of each T5; default: 1000")
    add("--batch-size", type=whole_number(1), default=64, help="of the T5; default: 64")
    add("--epochs", type=whole_number(1), default=24, help="of each graph network; default: 24")
    add("--beside", default="t5,gnn-delta", metavar="MODELS", help="also shown; default: packaged")
    add("--limit", type=whole_number(1), metavar="N", help="test pairs, at most")
    add("--seed", type=int, default=0)
    add("--device", default="cpu", choices=("cpu", "cuda"), help="a T5 trains on a GPU anyway")
    add("--workers", type=whole_number(0), default=0, help="that write texts for a T5; default: 0")
    return parser


def _shares(text: str) -> tuple[int, ...]:
    shares = tuple(sorted({int(part) for part in text.split(",") if part.isdecimal()}))
    if not shares or shares[0] < 1 or shares[-1] > 100 or len(shares) != len(text.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of different shares from 1 to 100")
    return shares


def _students(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if unknown := set(names) - STUDENTS.keys():
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: choose from {', '.join(STUDENTS)}")
    return names


def _curves(args: argparse.Namespace, command: str) -> int:
    check_device(args.device)
    n_all = max(map(_size, args.data))
    trainings = [
        CurveTraining(
            student=student,
            share=share,
            n_pairs=max(1, n_all * share // 100),
            folder=args.out / f"{student}-{share}",
        )
        for share in args.shares
        for student in args.students
    ]
    beside = {name: resolve(name).name for name in args.beside.split(",") if name}
    for source in (args.val, args.test):
        _size(source)
    configs = [configuration(training, args) for training in trainings]
    # All that is there is compared before anything is trained.
    missing = [c for t, c in zip(trainings, configs, strict=True) if not is_done(t, c)]
    runs = args.out / "runs"
    models = ",".join([*beside, *(training.model for training in trainings)])
    with redirect_stdout(sys.stderr):  # the trainers print their logs
        for config in missing:
            if isinstance(config, T5TrainingConfig):
                train_text(config, command)
            else:
                train_graph(config, command)
        argv = ["--models", models, "--data", args.test, "--out", str(runs)]
        argv += ["--device", args.device, *(["--limit", str(args.limit)] if args.limit else [])]
        if status := run_models(argv):
            return status  # the run said what was wrong
    board = json.loads((runs / "board.json").read_text(encoding="utf-8"))
    shutil.copyfile(runs / "board.md", args.out / "curves-board.md")
    made = {training.label: training.about() for training in trainings}
    (args.out / "curves.json").write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    write(list(rows(board, trainings, list(beside.values()))), args.out, board["dataset"])
    return 0


def is_done(training: CurveTraining, config: Config) -> bool:
    """Return True if the model of a training is there already.

    Raises:
        UserError: A model is there, but of another training.
    """
    if not training.card.is_file():
        return False
    if isinstance(config, T5TrainingConfig):
        data, val = read_training_data(config.data, config.val, limit=config.limit)
        identity = text_identity(config, data, val)
    else:
        pairs = read_geometries(training_sets(config.data, config.limit))
        identity = graph_identity(config, pairs)
    require_same_training(training.folder, training.about().get("identity"), identity)
    return True


def _size(source: str) -> int:
    from benchmarks.data import load
    from benchmarks.data.folders import split_names

    return len(load(source, split="train" if split_names(source) else None))


def configuration(training: CurveTraining, args: argparse.Namespace) -> Config:
    """The configuration of a training; an interrupted graph network goes on where it stopped."""
    limit = training.n_pairs if training.share < 100 else None
    if training.student == "t5":
        return T5TrainingConfig(
            data=tuple(args.data),
            val=(args.val,),
            out=training.folder,
            limit=limit,
            steps=args.steps,
            batch_size=args.batch_size,
            eval_steps=args.steps,  # nothing is selected on the way, as for the graph
            workers=args.workers,
            seed=args.seed,
        )
    return DeltaTrainingConfig(
        data=tuple(args.data),
        val=(args.val,),
        out=training.folder / "model.safetensors",
        limit=limit,
        epochs=args.epochs,
        seed=args.seed,
        device=args.device,
    )


def rows(
    board: Mapping[str, Any], trainings: Sequence[CurveTraining], beside: Sequence[str] = ()
) -> Iterator[dict[str, Any]]:
    """One row per training and metric, and those beside, from a `board.json`."""
    found = {row["model"]: row["metrics"] for row in board["rows"]}
    labels = {"identity": "no change", **{model: f"{model}, packaged" for model in beside}}
    for name in SHOWN:
        for model, label in labels.items():
            yield {"student": label, "metric": name, **_numbers(found[model][name])}
        for training in trainings:
            yield {
                "student": STUDENTS[training.student],
                "share": training.share,
                "metric": name,
                **_numbers(found[training.label][name]),
                **_effort(training.about()),
            }


def _numbers(metric: Mapping[str, Any]) -> dict[str, Any]:
    names = {"value": "point", "ci_low": "low", "ci_high": "high", "n": "n"}
    return {name: metric[field] for name, field in names.items()}


def _effort(card: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "n_pairs": card["n_pairs"] if "n_pairs" in card else card["n"],
        "steps": card["steps"],
        "epochs": card["epochs"] if "epochs" in card else card["settings"]["epochs"],
        "parameters": card["n_parameters"],
    }


def write(found: Sequence[Mapping[str, Any]], out: Path, dataset: Mapping[str, Any]) -> None:
    """Table, numbers and figure."""
    import pandas as pd

    table = pd.DataFrame(found)
    table.to_csv(out / "curves.csv", index=False, float_format="%.6g")
    title = f"{dataset['name']}, {dataset['n_samples']} samples"
    (out / "curves.md").write_text(_markdown(table, title), encoding="utf-8")
    _draw(table, out, title)
    print(f"wrote {out / 'curves.md'}, and .csv, .json, .svg beside it")


def _markdown(table: pd.DataFrame, title: str) -> str:
    from benchmarks.core.formatting import markdown_table

    head = ["pairs", "student", "steps", "epochs", "parameters"]
    head += [f"{name} ({unit})" if unit else name for name, unit in SHOWN.values()]
    keys = ["n_pairs", "student", "steps", "epochs", "parameters"]
    lines = []
    for key, group in table.groupby(keys, dropna=False, sort=True):
        numbers = group.set_index("metric")
        about = ["" if x != x else f"{x:.0f}" if isinstance(x, float) else x for x in key]
        lines.append([*about, *(_interval(numbers.loc[name]) for name in SHOWN)])
    return f"# Learning curves on {title}\n\n{markdown_table(head, lines)}\n\n{_NOTE}\n"


_NOTE: Final = (
    "Brackets: 95 % of a bootstrap over the compositions of the test pairs. Each is one training, "
    "so how far another seed would be off is not in them. Paired differences: "
    "[curves-board.md](curves-board.md)."
)


def _interval(row: Any) -> str:
    if row.ci_low != row.ci_low:
        return f"{row.value:.3f}"
    return f"{row.value:.3f} [{row.ci_low:.3f}, {row.ci_high:.3f}]"


def _draw(table: pd.DataFrame, out: Path, title: str) -> None:
    with save_figure(out / "curves.svg", (9, 3.2), "curves") as figure:
        metrics = [name for name in SHOWN if name != "score"]
        for axes, name in zip(figure.subplots(1, len(metrics)), metrics, strict=True):
            part = table[table.metric == name]
            for student, group in part[part.n_pairs.notna()].groupby("student", sort=False):
                off = [group.value - group.ci_low, group.ci_high - group.value]
                axes.errorbar(group.n_pairs, group.value, off, marker="o", capsize=3, label=student)
            levels = part[part.n_pairs.isna()].itertuples()
            for row, line in zip(levels, cycle(("--", ":", "-.")), strict=False):
                axes.axhline(row.value, color="gray", linestyle=line, label=row.student)
            label, unit = SHOWN[name]
            axes.set(xlabel="training pairs", ylabel=f"{label} ({unit})", xlim=(0, None))
            axes.set_ylim(bottom=0)
        axes.legend(fontsize=8)
        figure.suptitle(f"{title}, 95 % intervals", fontsize=10)


if __name__ == "__main__":
    sys.exit(main())
