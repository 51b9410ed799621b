"""Submit a model's predictions to the board, without sending the model.

    python -m leaderboard.submit template FOLDER [--data TEST.parquet]
    python -m leaderboard.submit from-run runs/mine/MODEL FOLDER --author "A. Name" --link https://…
    python -m leaderboard.submit check FOLDER [--data TEST.parquet] [--run OUT]

`check` scores the submission and prints its row beside no change. It ends with 0 if nothing is to
be said against it, with 1 if it is flagged (a person should look at it), with 2 if it cannot be
scored. `--run` keeps the run, for `python -m leaderboard`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.core import UserError
from benchmarks.core.cli import run_command
from leaderboard.__main__ import add_data_arguments, load_datasets

if TYPE_CHECKING:
    from benchmarks.data import Dataset


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; exit status 1: the submission is flagged, 2: a mistake of the user's."""
    parser = argparse.ArgumentParser(
        prog="python -m leaderboard.submit", description=(__doc__ or "").split("\n", 1)[0]
    )
    commands = parser.add_subparsers(dest="command", required=True)
    template = commands.add_parser("template", help="write an empty submission to fill")
    template.add_argument("folder", type=Path)
    from_run = commands.add_parser("from-run", help="make a submission of a stored run")
    from_run.add_argument("run", type=Path, help="the folder of one model's run")
    from_run.add_argument("folder", type=Path)
    from_run.add_argument("--author", action="append", default=[], metavar="NAME")
    from_run.add_argument("--link", default="", metavar="https://…")
    check = commands.add_parser("check", help="check and score a submission")
    check.add_argument("folder", type=Path)
    check.add_argument("--run", type=Path, metavar="OUT", help="keep the run in this folder")
    for command in (template, check):
        add_data_arguments(command)
    options = parser.parse_args(arguments)
    return run_command(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    from benchmarks.data import load
    from benchmarks.store import read_runs
    from leaderboard.submission import write_from_run, write_template

    if options.command == "from-run":
        runs = read_runs([options.run])
        if len(runs) != 1:
            names = ", ".join(run.name for run in runs)
            raise UserError(f"{options.run}: holds {len(runs)} models: name the folder of {names}")
        write_from_run(runs[0], options.folder, options.author, options.link)
    elif options.command == "template":
        datasets = load_datasets(options) or [load("embedded", split=options.split or "test")]
        write_template(options.folder, datasets[-1])
    else:
        return _check(options.folder, load_datasets(options), options.run)
    print(f"wrote {options.folder}")
    return 0


def _check(folder: Path, datasets: Sequence[Dataset], out: Path | None) -> int:
    """Check a submission, print its row, its flags and what the card leaves open."""
    from leaderboard.scoring import find_dataset, score_runs
    from leaderboard.submission import flags, read_submission, records_of, write_run
    from leaderboard.views.markdown import table

    submission = read_submission(folder)
    card = submission.card
    dataset = find_dataset(submission.run, datasets)
    if dataset is None:
        raise UserError(
            f"{folder}: is of {card['dataset']}, split {card['split']}, revision "
            f"{card['revision'][:20]}…, which is not at hand: name the data with --data"
        )
    records = records_of(submission, dataset)
    with tempfile.TemporaryDirectory() as scratch:
        run_folder = write_run(submission, records, out or Path(scratch))
        (scored,) = score_runs([run_folder], [dataset])
        print(table(scored.board()))
        found = flags(scored.tables[0], dataset, card["training_data"])
    for name in ("hardware", "authors", "link"):
        if not card[name]:
            print(f"note: card.yaml: {name} is empty")
    for line in found:
        print(f"flag: {line}")
    if out is not None:
        print(f"wrote {run_folder}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
