"""Is text or a graph the better student? Learning curves of both on the same pairs.

    python -m studies.learning_curves --data TRAIN.parquet --val VAL.parquet --test TEST.parquet \
        --out DIR

Trains the T5 and `gnn-delta` from scratch on a part, on more (which holds the part), and on all of
the pairs, relaxes the test pairs with each, and writes `curves.md`, `.csv`, `.png`, `.svg`, and
`curves.json`, in which each training says how it was made, and `curves-differences.md` (paired).
What is there is not made again: the same command goes on with what is missing (a T5 that was
interrupted begins anew, a graph network with the epoch).
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.core import UserError
from benchmarks.core.cli import check_device, whole_number
from benchmarks.core.plotting import save_figure
from benchmarks.models.registry import resolve

if TYPE_CHECKING:
    import pandas as pd

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
    """One student on one share of the pairs."""

    student: str
    share: int
    """[%]"""
    n_pairs: int
    """Of the largest data set; of smaller ones at most as many."""
    folder: Path

    @property
    def label(self) -> str:
        """Its name on the board."""
        return f"{self.student}-{self.share}"

    @property
    def model(self) -> str:
        """As `benchmarks.run` takes it."""
        path = self.folder if self.student == "t5" else self.folder / "model.safetensors"
        return f"{self.label}={self.student}:{path}"

    @property
    def card(self) -> Path:
        """Written last: it is there when the training is done."""
        return self.folder / (_T5_CARD if self.student == "t5" else _GRAPH_CARD)

    def about(self) -> dict[str, Any]:
        """What its card says of the training."""
        card: dict[str, Any] = json.loads(self.card.read_text(encoding="utf-8"))
        return card["training"] if self.student == "t5" else card


def main(argv: Sequence[str] | None = None) -> int:
    """The command: 0 when all is written, 2 for a mistake of the user's, 130 when interrupted."""
    args = _parser().parse_args(argv)
    try:
        _curves(args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:  # which said what was wrong
        return int(error.returncode)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


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


def _curves(args: argparse.Namespace) -> None:
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
    missing = [training for training in trainings if not _done(training, args)]
    for training in missing:
        _run(*_command(training, args))
    models = ",".join([*beside, *(training.model for training in trainings)])
    limit = ["--limit", str(args.limit)] if args.limit else []
    runs = args.out / "runs"
    where = ["--out", str(runs), "--device", args.device]
    _run("benchmarks.run", "--models", models, "--data", args.test, *where, *limit)
    board = json.loads((runs / "leaderboard.json").read_text(encoding="utf-8"))
    shutil.copyfile(runs / "differences.md", args.out / "curves-differences.md")
    made = {training.label: training.about() for training in trainings}
    (args.out / "curves.json").write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    write(list(rows(board, trainings, list(beside.values()))), args.out, board["dataset"])


def _done(training: CurveTraining, args: argparse.Namespace) -> bool:
    """Whether it is there.

    Raises:
        UserError: Another one is.
    """
    if not training.card.is_file():
        return False
    asked = shlex.join(["python", "-m", *_command(training, args)])
    made = str(training.about()["command"])
    if made.rpartition(" --out ")[0] != asked.rpartition(" --out ")[0]:
        raise UserError(f"{training.folder} was trained otherwise: use another --out ({made})")
    return True


def _size(source: str) -> int:
    from benchmarks.data import load
    from benchmarks.data.folders import split_names

    return len(load(source, split="train" if split_names(source) else None))


def _command(training: CurveTraining, args: argparse.Namespace) -> list[str]:
    """The module and arguments that train it; goes on with one that was interrupted.

    What comes after `--out` is where and by how many it is done.
    """
    data = [part for source in args.data for part in ("--data", source)]
    if training.share < 100:
        data += ["--limit", str(training.n_pairs)]
    data += ["--val", args.val]
    seed = ["--seed", str(args.seed)]
    if training.student == "t5":
        size = ["--steps", str(args.steps), "--batch-size", str(args.batch_size)]
        # nothing is selected on the way, as for the graph
        size += ["--eval-steps", str(args.steps)]
        out = ["--out", str(training.folder), "--workers", str(args.workers)]
        return ["t2relax.train", *data, *size, *seed, *out]
    size = ["--epochs", str(args.epochs)]
    out = ["--out", str(training.folder / "model.safetensors"), "--device", args.device]
    return ["baselines.train", "gnn-delta", *data, *size, *seed, *out]


def _run(module: str, *arguments: str) -> None:
    """A command of ours in a process of its own, whose messages are seen.

    Raises:
        CalledProcessError: It failed.
    """
    command = [sys.executable, "-m", module, *arguments]
    with subprocess.Popen(command, stdout=sys.stderr) as process:  # noqa: S603 - our own
        try:
            status = process.wait()
        except KeyboardInterrupt:
            process.wait()  # it is interrupted too, and writes what it has
            raise
    if status:
        raise subprocess.CalledProcessError(status, command)


def rows(
    board: Mapping[str, Any], trainings: Sequence[CurveTraining], beside: Sequence[str] = ()
) -> Iterator[dict[str, Any]]:
    """One row per training and metric, and those beside, from a `leaderboard.json`."""
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
    return {name: metric[name] for name in ("value", "ci_low", "ci_high", "n")}


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
    print(f"wrote {out / 'curves.md'}, and .csv, .json, .png, .svg beside it")


def _markdown(table: pd.DataFrame, title: str) -> str:
    from benchmarks.core.markdown import markdown_table

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
    "[curves-differences.md](curves-differences.md)."
)


def _interval(row: Any) -> str:
    if row.ci_low != row.ci_low:
        return f"{row.value:.3f}"
    return f"{row.value:.3f} [{row.ci_low:.3f}, {row.ci_high:.3f}]"


def _draw(table: pd.DataFrame, out: Path, title: str) -> None:
    with save_figure(out / "curves", (9, 3.2), "curves") as figure:
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
