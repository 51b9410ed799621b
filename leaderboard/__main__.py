"""Make boards of stored runs.

python -m leaderboard RUNS... --out DIR [--data PATH] [--csv] [--figures] [--tables] [--check]
python -m leaderboard --published [--data PATH] [--check]
python -m leaderboard RUNS... --against leaderboard/boards/embedded-v1-test/board.json
python -m leaderboard --published --out DIR --figures --tables [--models A,B]
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
from leaderboard.paper import PAPER_FOLDERS, PaperParts
from leaderboard.publish import (
    departures,
    differing,
    documents,
    make_boards,
    publish,
    publish_listed,
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
    add(
        "--published",
        action="store_true",
        help=f"write the boards of {PUBLISHED.name}, and their tables in README.md and docs; with "
        "--out DIR only a folder of DIR for each board",
    )
    target = parser.add_mutually_exclusive_group()
    target.add_argument("--out", type=Path, metavar="DIR", help="where the files go")
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
    add(
        "--figures",
        action="store_true",
        help="also draw error against time; with --out also figures/: those of a paper as PDF, SVG "
        "and PNG, their data as CSV",
    )
    add(
        "--tables",
        action="store_true",
        help="with --out: also tables/: those of a paper as LaTeX and Markdown, and references",
    )
    add("--models", metavar="A,B", help="with --figures or --tables: the rows that a paper shows")
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
    about_boards = options.check or options.csv or options.figures or options.tables
    for name in ("archive", "site", "against"):
        if getattr(options, name) and about_boards:
            raise UserError(
                f"--check, --csv, --figures and --tables are about boards, not about --{name}"
            )
    if options.published and (options.archive or options.against):
        raise UserError("--archive and --against are about RUNS, not about --published")
    if (options.csv or options.tables) and not options.out:
        raise UserError("--csv and --tables are about the boards of --out DIR")
    if options.models is not None and not (options.out and (options.figures or options.tables)):
        raise UserError("--models is about --figures and --tables of --out DIR")
    if options.check and options.published and options.out:
        raise UserError("--check compares the published files themselves: leave --out DIR out")


def _run(options: argparse.Namespace) -> int:
    _check_options(options)
    datasets = load_datasets(options)
    if options.site:
        return _site(options, datasets)
    if options.published and not options.out:
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

        paper = _paper_parts(options)
        flags = {"csv": options.csv, "figures": options.figures, "paper": paper}
        published = (
            publish_listed(options.out, datasets, **flags)
            if options.published
            else publish(options.runs, options.out, datasets, **flags)
        )
        for board in published.boards:
            print(table(board))
        for line in published.left_out:
            print(line)
        # a paper's files are many: their folder is named
        named = (f.parent if f.parent.name in PAPER_FOLDERS else f for f in published.files)
        files = list(dict.fromkeys(named))
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
    from leaderboard.site import packages
    from leaderboard.site.pages import write_site

    if options.published:
        listed = [(entry.name, runs) for entry, runs in score_published(datasets, store=False)]
    else:
        listed = [("", runs) for runs in score_runs(options.runs, datasets)]
    files = write_site(listed, options.site)
    print(f"wrote {len(files)} files: open {options.site / 'index.html'}")
    if lacking := packages.missing():
        print(f"without {', '.join(lacking)}: python -m leaderboard.site.packages fetches them")
    return 0


def _paper_parts(options: argparse.Namespace) -> PaperParts | None:
    """What `--figures`, `--tables` and `--models` ask for; None without the first two.

    Raises:
        UserError: `--models` names none.
    """
    if not (options.figures or options.tables):
        return None
    models = [name.strip() for name in (options.models or "").split(",") if name.strip()]
    if options.models is not None and not models:
        raise UserError("--models names no model: give names of rows, as A,B")
    return PaperParts(figures=options.figures, tables=options.tables, models=tuple(models))


def _published(datasets: Sequence[Dataset], *, check: bool, figures: bool) -> int:
    made = published_documents(datasets, store=not check)
    if check:
        return _checked([*made.stale, *differing(made.texts)])
    write(made.texts)
    files = list(made.texts)
    if figures:
        from leaderboard.views.figures import error_against_time

        for entry, board in made.boards:
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
