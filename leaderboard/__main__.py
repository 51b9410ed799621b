"""Make boards of stored runs.

python -m leaderboard RUNS... --out DIR [--data PATH] [--csv] [--figures] [--check]
python -m leaderboard --published [--data PATH] [--check]
python -m leaderboard RUNS... --against leaderboard/boards/embedded-v1-test/board.json
python -m leaderboard RUNS... --archive DIR [--data PATH]
python -m leaderboard RUNS... --site DIR [--data PATH]
python -m leaderboard --published --site DIR [--data PATH]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.core import MissingFinalFrame, UserError
from benchmarks.core.cli import run_command
from leaderboard.publish import (
    departures,
    differing,
    documents,
    make_boards,
    publish,
    published_documents,
    write,
    write_archive_of,
)
from leaderboard.scoring import PUBLISHED, score_published, score_runs

if TYPE_CHECKING:
    from benchmarks.data import Dataset


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; exit status 1: `--check` found differences, 2: a mistake of the user's."""
    parser = argparse.ArgumentParser(
        prog="python -m leaderboard",
        description="Score stored runs and write board.json, and board.md as a view of it.",
    )
    add = parser.add_argument
    add("runs", nargs="*", type=Path, help="model folders, archives, or folders of them")
    target = parser.add_mutually_exclusive_group()
    target.add_argument("--out", type=Path, metavar="DIR", help="where the files go")
    target.add_argument(
        "--published",
        action="store_true",
        help=f"write the boards of {PUBLISHED.name}, and their tables in README.md and docs",
    )
    target.add_argument(
        "--archive",
        type=Path,
        metavar="DIR",
        help="write the runs of one data set as an archive: what each model changed, no structures",
    )
    target.add_argument(
        "--against",
        type=Path,
        metavar="BOARD",
        help="write nothing; exit 1 naming what is farther from this board.json than tolerated",
    )
    add("--site", type=Path, metavar="DIR", help="write the boards as a site, and nothing else")
    add_data_arguments(parser)
    add("--csv", action="store_true", help="with --out: also write board.csv")
    add("--figures", action="store_true", help="also draw error against time")
    add("--check", action="store_true", help="write nothing; exit 1 naming cells that would change")
    options = parser.parse_args(arguments)
    return run_command(lambda: _run(options))


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say on which data the runs were made; `load_datasets` reads them."""
    add = parser.add_argument
    add(
        "--data",
        action="append",
        default=[],
        metavar="PATH|hf://…",
        help="data that the runs were made on; embedded sets are found without; may be repeated",
    )
    add("--split", help="split of --data, where it has splits")
    add(
        "--limit",
        type=int,
        metavar="N",
        help="as the runs were made; of hf:// data no more is read",
    )
    add("--seed", type=int, default=0, help="that --limit was drawn with; default: 0")
    add(
        "--missing-final-frame",
        default="if-relaxed",
        choices=[str(policy) for policy in MissingFinalFrame],
        help="as the runs were made",
    )
    add("--offline", action="store_true", help="of hf:// data use the cache only")


def load_datasets(options: argparse.Namespace) -> list[Dataset]:
    """The data of `add_data_arguments`: each source, and all of them as one."""
    from benchmarks.data import load

    sources: list[str] = options.data
    sets = [[source] for source in sources] + ([sources] if len(sources) > 1 else [])
    return [
        load(
            each,
            split=options.split,
            limit=options.limit,
            seed=options.seed,
            offline=options.offline,
            missing_final_frame=MissingFinalFrame(options.missing_final_frame),
        )
        for each in sets
    ]


def _check_options(options: argparse.Namespace) -> None:
    """Refuse options that do not go together."""
    if bool(options.runs) == options.published:
        raise UserError("name the folders of runs, or give --published, not both")
    targets = ("out", "published", "archive", "site", "against")
    if not any(getattr(options, name) for name in targets):
        raise UserError("name what is made: --out DIR, --published, --archive DIR or --site DIR")
    if options.site and (options.out or options.archive):
        raise UserError("--site is made alone, of RUNS or of --published")
    for name in ("archive", "site", "against"):
        if getattr(options, name) and (options.check or options.csv or options.figures):
            raise UserError(
                f"--check, --csv and --figures are about boards, not about --{name} DIR"
            )
    if options.csv and options.published:
        raise UserError("--csv is about the boards of --out DIR, not about --published")


def _run(options: argparse.Namespace) -> int:
    _check_options(options)
    datasets = load_datasets(options)
    if options.site:
        return _site(options, datasets)
    if options.published:
        return _published(datasets, check=options.check, figures=options.figures)
    if options.against:
        return _against(options, datasets)
    if options.archive:
        files = write_archive_of(options.runs, options.archive, datasets)
    elif options.check:
        boards = make_boards(options.runs, datasets, store=False)
        return _checked(differing(documents(boards, options.out, csv=options.csv)))
    else:
        from leaderboard.views.markdown import table

        published = publish(
            options.runs, options.out, datasets, csv=options.csv, figures=options.figures
        )
        for board in published.boards:
            print(table(board))
        files = published.files
    print("wrote " + ", ".join(map(str, files)))
    return 0


def _against(options: argparse.Namespace, datasets: Sequence[Dataset]) -> int:
    from leaderboard.board.schema import Board

    try:
        text = options.against.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{options.against}: cannot be read ({type(error).__name__})") from error
    boards = make_boards(options.runs, datasets, store=False)
    if len(boards) != 1:
        raise UserError(f"--against is for runs on one data set, not on {len(boards)}")
    return _checked(departures(boards[0], Board.from_json(text, str(options.against))))


def _site(options: argparse.Namespace, datasets: Sequence[Dataset]) -> int:
    from leaderboard.site import packages, write_site

    if options.published:
        listed = [(entry.name, runs) for entry, runs in score_published(datasets, store=False)]
    else:
        listed = [("", runs) for runs in score_runs(options.runs, datasets)]
    files = write_site(listed, options.site)
    print(f"wrote {len(files)} files: open {options.site / 'index.html'}")
    if lacking := packages.missing():
        print(f"without {', '.join(lacking)}: python -m leaderboard.site.packages fetches them")
    return 0


def _published(datasets: Sequence[Dataset], *, check: bool, figures: bool) -> int:
    texts, made = published_documents(datasets, store=not check)
    if check:
        return _checked(differing(texts))
    write(texts)
    files = list(texts)
    if figures:
        from leaderboard.views.figures import error_against_time

        for entry, board in made:
            if entry.figures:
                path = PUBLISHED.parent / "boards" / entry.name / "leaderboard.svg"
                files += error_against_time(board, path)
    print("wrote " + ", ".join(map(str, files)))
    return 0


def _checked(lines: Sequence[str]) -> int:
    for line in lines:
        print(line)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
