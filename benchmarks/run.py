"""Relax held-out structures with one or more models and print the leaderboard.

    python -m benchmarks.run --models t5,mace

Exit status: 0 when every model has a row, 1 when a model was given up (too many errors), 2 for a
mistake in the command or something missing, 130 when interrupted; then, and after any other end,
the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import math
import os
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.core import WHOLE, MissingFinalFrame, RelaxSettings, UserError
from benchmarks.core.cli import (
    check_device,
    gigapascals,
    positive,
    run_command,
    shard,
    whole_number,
)
from benchmarks.core.inert_text import single_line
from benchmarks.models.environments import interpreter, locate_model
from benchmarks.models.registry import ENGINES, forecasts, on_engine, resolve_all
from benchmarks.models.specs import MODELS, ModelSpec
from benchmarks.models.user_models import FORMS, plugin_models

if TYPE_CHECKING:
    from benchmarks.data import Dataset
    from benchmarks.engine.benchmark_run import BenchmarkRun, ModelRun

# Everything heavier is imported where it is used, so that listing the models stays instant.


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    args = _parser().parse_args(argv)
    if args.list_models:
        _print(_model_list())
        return 0
    command = shlex.join(["python", "-m", "benchmarks.run", *argv])
    interrupted = "interrupted; the same command goes on from here"
    if args.emit:
        return run_command(lambda: _emit(args, argv))
    return run_command(lambda: _run(args, command), interrupted=interrupted)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run",
        description="Relax held-out structures and print the leaderboard.",
        epilog=f"A model is a name of --list-models, A+B (B starts from A's structure), {FORMS}.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--models", default="", metavar="A,B,…", help="what to run; identity always runs")
    add("--data", action="append", metavar="embedded|PATH|hf://…", help=_DATA)
    add("--split", help="of the data; default: test, where there are splits")
    add("--limit", type=whole_number(1), metavar="N", help="N samples chosen by hash")
    add(
        "--missing-final-frame",
        default="if-relaxed",
        choices=[*map(str, MissingFinalFrame)],
        help=_LAST_FRAME,
    )
    add("--shard", type=shard, default=WHOLE, metavar="i/n", help=_SHARD)
    add("--cluster", metavar="local:N|tcp://…|FILE.yaml", help=_CLUSTER)
    add("--emit", metavar="slurm[:N]|pbs[:N]", help=_EMIT)
    add("--repeats", type=whole_number(1), default=1, metavar="R", help="default: 1")
    add("--seed", type=int, default=0, help="default: 0")
    add("--device", default="cpu", metavar="cpu|cuda", help="default: cpu")
    add("--engine", default=ENGINES[0], choices=ENGINES, help=_ENGINE)
    add("--batch-size", type=whole_number(1), metavar="N", help="default: the model's own")
    add("--fmax", type=positive, default=0.05, metavar="EV/Å", help="default: 0.05")
    add(
        "--max-stress",
        type=gigapascals,
        default=RelaxSettings().max_stress,
        metavar="GPA",
        help="default: 0.1",
    )
    add("--max-steps", type=whole_number(1), default=500, metavar="N", help="default: 500")
    add("--keep-symmetry", action="store_true", help=_SYMMETRY)
    add("--timeout", type=positive, default=600.0, metavar="S", help=_TIMEOUT)
    add("--offline", action="store_true", help="use nothing from the network")
    add(
        "--trust", action="store_true", help="of your own weights load also what could run any code"
    )
    asked = parser.add_argument_group("prompted models (LABEL=chat:MODEL[@URL])").add_argument
    asked("--shots", type=whole_number(1), metavar="K", help="solved examples; default: none")
    asked("--shots-from", metavar="DATA", help="whose training part has them; default: embedded")
    asked("--shots-by", choices=("nearest", "fixed"), help="in composition; default: nearest")
    asked("--temperature", type=_temperature, metavar="T|server", help="default: 0")
    asked("--max-tokens", type=whole_number(16), metavar="N", help="of an answer; default: 4096")
    asked("--requests", type=whole_number(1), metavar="N", help="at a time; default: 8")
    asked("--price", type=_price, metavar="IN,OUT", help="of a million tokens asked, answered")
    add("--out", type=Path, default=Path("runs"), metavar="DIR", help="default: runs/")
    add("--dry-run", action="store_true", help="check everything, say what would run")
    add("--list-models", action="store_true", help="name the models and leave")
    return parser


PROMPTING = (
    "shots", "shots_from", "shots_by", "temperature", "max_tokens", "requests", "price",
)  # fmt: skip
"""The options that say how a model of a server is asked."""
_SHARD = "run part i of n, chosen by a hash of the sample id; the parts can run side by side"
_CLUSTER = "run on many workers: N processes here, those of a Dask scheduler, or jobs of a queue"
_EMIT = "print the script of a job array of N parts for a queue, and run nothing"
_DATA = "default: embedded; several are read as one set"
_ENGINE = "of potentials: one structure after the other, or many at a time; default: ase"
_TIMEOUT = "for one structure; a batch has little more, and halves are tried; default: 600"
_SYMMETRY = "potentials keep the space group of what they start from"
_LAST_FRAME = "trajectories without their last frame; default: if-relaxed, those that are near it"


def _temperature(text: str) -> float | str:
    if text == "server":
        return text
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 2:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number from 0 to 2 nor 'server'")
    return value


def _price(text: str) -> tuple[float, float]:
    try:
        asked, answered = map(float, text.split(","))
    except ValueError:
        asked = answered = -1.0
    if not (0 <= asked < math.inf and 0 <= answered < math.inf):
        raise argparse.ArgumentTypeError(f"{text!r} is not IN,OUT, as 0.15,0.6")
    return asked, answered


def _model_list() -> str:
    rows = [("name", "track", "functional", "needs", "what it is")]
    for s in (*MODELS.values(), *plugin_models().values()):
        needs = f"[{s.extra}]" if s.extra else ""
        rows.append((s.name, s.track, s.functional or "", needs, s.label))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    lines = ("  ".join(c.ljust(w) for c, w in zip(row, (*widths, 0), strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _emit(args: argparse.Namespace, argv: Sequence[str]) -> int:
    from benchmarks.engine.job_array import job_array

    if args.cluster or args.shard != WHOLE:
        raise UserError("--emit makes the parts: leave out --shard and --cluster")
    resolve_all(["identity", *_names(args)], trust=args.trust, prompting={})
    _print(job_array(args.emit, "benchmarks.run", argv, device=args.device))
    return 0


def _run(args: argparse.Namespace, command: str) -> int:
    specs = _requested(args)
    # Imported after the names are known to be right, so that a slip is answered at once.
    from benchmarks.engine.benchmark_run import BenchmarkRun, ModelRun, run_all

    found = [locate_model(spec, offline=args.offline) for spec in specs]
    plans = [ModelRun(s, f.weights, f.versions) for s, f in zip(specs, found, strict=True)]
    names = [field.name for field in fields(RelaxSettings) if hasattr(args, field.name)]
    run = BenchmarkRun(
        dataset=_load(args),
        settings=RelaxSettings(**{name: getattr(args, name) for name in names}),
        repeats=args.repeats,
        out=args.out,
        command=command,
        log=_say,
        shard=args.shard,
        cluster=args.cluster,
    )
    if not run.positions:
        raise UserError(f"--shard {args.shard.number}/{args.shard.total} holds none of the samples")
    if args.dry_run:
        _print(_dry_run(plans, run))
        return 0
    given_up = run_all(plans, run)
    if n_left := _left_to_others(plans, run):
        _say(f"{n_left} structures are left to other parts; the last one prints the board")
    else:
        _publish(run)
    for reason in given_up:
        _say(reason)
    return 1 if given_up else 0


def _requested(args: argparse.Namespace) -> list[ModelSpec]:
    """Find the models, `identity` before all, and make sure that their dependencies are there."""
    prompting = {name: getattr(args, name) for name in PROMPTING if getattr(args, name) is not None}
    named = resolve_all(["identity", *_names(args)], trust=args.trust, prompting=prompting)
    prompted = [spec.name for spec in named if spec.remote_parts]
    if prompting and not prompted:
        option = next(iter(prompting)).replace("_", "-")
        raise UserError(f"--{option} is for prompted models, LABEL=chat:MODEL[@URL]: none is named")
    if args.cluster and prompted:
        raise UserError(f"--cluster: {prompted[0]} is asked of a server, which no worker speeds up")
    specs = [on_engine(spec, args.engine) for spec in named]
    for spec in specs:
        interpreter(spec)
    if args.cluster and args.shard != WHOLE:
        raise UserError("--cluster makes parts of its own: leave out --shard")
    if not args.cluster or args.cluster.startswith("local:"):
        check_device(args.device)
    return specs


def _names(args: argparse.Namespace) -> list[str]:
    names = [name.strip() for name in args.models.split(",") if name.strip()]
    if not names:
        raise UserError("say what to run: --models t5,mace (names: --list-models)")
    return names


def _load(args: argparse.Namespace) -> Dataset:
    from benchmarks.data import load

    dataset = load(
        args.data or "embedded",
        split=args.split,
        limit=args.limit,
        seed=args.seed,
        offline=args.offline,
        missing_final_frame=MissingFinalFrame(args.missing_final_frame),
    )
    where = f"{dataset.name}, {dataset.split}" if dataset.split else dataset.name
    reasons = Counter(str(entry.reason) for entry in dataset.quarantined)
    listed = ", ".join(f"{n} {reason}" for reason, n in sorted(reasons.items()))
    quarantined = f"; {reasons.total()} quarantined ({listed})" if reasons else ""
    _say(f"{where}: {len(dataset)} samples{quarantined}")
    return dataset


def _dry_run(plans: Sequence[ModelRun], run: BenchmarkRun) -> str:
    settings = run.settings
    times = f", {run.repeats} times each" if run.repeats > 1 else ""
    n_samples = len(run.positions)
    lines = [f"would run {n_samples} samples{times} on {settings.device} into {run.out}/:"]
    for plan in plans:
        weights = ", ".join(map(str, plan.weights)) or "no weights"
        size = settings.batch_size or plan.spec.batch_size
        lines.append(f"  {plan.spec.name}: {plan.spec.label}; {weights}; batches of {size}")
        if plan.spec.remote_parts:
            initial = [run.dataset.geometries(i)[0] for i in run.positions]
            lines += [f"    {line}" for line in forecasts(plan.spec, initial, run.repeats)]
    return "\n".join(lines)


def _left_to_others(plans: Sequence[ModelRun], run: BenchmarkRun) -> int:
    """Count what other parts have not stored yet; nothing is left to others by the whole."""
    from benchmarks.store import model_folder, read_outcomes

    if run.shard == WHOLE:
        return 0
    wanted = {(name, repeat) for name in run.dataset.ids for repeat in range(run.repeats)}
    mine = {(run.dataset.ids[i], repeat) for i in run.positions for repeat in range(run.repeats)}
    n_left = 0
    for plan in plans:
        table = read_outcomes(model_folder(run.out, plan.spec.name))
        stored = zip(table["sample_id"].to_pylist(), table["repeat"].to_pylist(), strict=True)
        n_left += len(wanted - mine - set(stored))
    return n_left


def _publish(run: BenchmarkRun) -> None:
    """Print the board of all runs on this data set in `--out`, also of earlier commands."""
    from benchmarks.store import read_runs, run_folders
    from leaderboard.publish import publish
    from leaderboard.views.markdown import table

    dataset = run.dataset
    policy = str(dataset.missing_final_frame)
    ours = (dataset.name, dataset.revision, dataset.split, policy)
    folders = []
    for folder in run_folders(run.out):
        try:
            identities = [stored.identity for stored in read_runs([folder])]
        except UserError as error:
            _say(f"left out of the board: {error}")
            continue
        default = {"missing_final_frame": str(MissingFinalFrame.IF_RELAXED)}
        keys = ("dataset", "revision", "split", "missing_final_frame")
        theirs = [tuple((default | identity).get(key) for key in keys) for identity in identities]
        if all(each == ours for each in theirs):
            folders.append(folder)
            continue
        other = next(each for each in theirs if each != ours)
        named = ", ".join(str(value) for value in other if value is not None)
        _say(f"left out of the board: {folder} is of other data ({named})")
    published = publish(folders, run.out, [dataset])
    for board in published.boards:
        _print(table(board))
    _say("wrote " + ", ".join(str(path) for path in (*folders, *published.files)))


def _say(line: str) -> None:
    print(single_line(line), file=sys.stderr, flush=True)


def _print(text: str) -> None:
    """Print to stdout. Its reader (`| head`) may have left; everything is on disk already."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # Python flushes once more at exit, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
