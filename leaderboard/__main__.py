"""Render stored runs again.

python -m leaderboard RUNS... --out DIR [--data PATH] [--readme README.md] [--check]
python -m leaderboard RUNS... --strip DIR [--data PATH] [--functional NAME] [--unseen-in DATA]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.core import MissingFinalFrame, UserError
from benchmarks.core.cli import run_command
from leaderboard.publish import find_dataset, outdated_files, publish

if TYPE_CHECKING:
    from benchmarks.data import Dataset


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; exit status 1: `--check` found differences, 2: a mistake of the user's."""
    options = _parser().parse_args(arguments)
    return run_command(lambda: _run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m leaderboard",
        description="Score stored runs; write leaderboard.md, .json, .csv, .svg, .png, slices.md "
        "and differences.md.",
    )
    add = parser.add_argument
    add("runs", nargs="+", type=Path, help="model folders, or folders of them")
    add_data_arguments(parser)
    add("--readme", action="append", default=[], type=Path, metavar="FILE", help=_README)
    add("--check", action="store_true", help="write nothing; exit 1 naming files that would change")
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--out", type=Path, metavar="DIR", help="where the files go")
    target.add_argument("--strip", type=Path, metavar="DIR", help=_STRIP)
    add("--functional", metavar="NAME", help="with --strip: keep its samples only")
    add("--unseen-in", action="append", default=[], metavar="DATA", help=_UNSEEN)
    return parser


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say on which data the runs were made; `load_datasets` reads them."""
    add = parser.add_argument
    add("--data", action="append", default=[], metavar="PATH|hf://…", help=_DATA)
    add("--split", help="split of --data, where it has splits")
    add("--limit", type=int, metavar="N", help=_LIMIT)
    add("--seed", type=int, default=0, help="that --limit was drawn with; default: 0")
    add(
        "--missing-final-frame", default="if-relaxed", choices=_MISSING_FINAL_FRAME, help=_LIKE_RUNS
    )
    add("--offline", action="store_true", help="of hf:// data use the cache only")


_DATA = "data that the runs were made on; the embedded set is found without; may be repeated"
_LIMIT = "as the runs were made; of hf:// data no more is read"
_LIKE_RUNS = "as the runs were made"
_MISSING_FINAL_FRAME = [str(policy) for policy in MissingFinalFrame]
_README = "also write the tables between its <!-- leaderboard:NAME --> markers; may be repeated"
_UNSEEN = "with --strip: leave out the compositions of this training data; may be repeated"
_STRIP = "instead copy the runs as scores without structures, to commit where the data are not ours"


def _run(options: argparse.Namespace) -> int:
    if options.out is None and (options.check or options.readme):
        raise UserError("--check and --readme are about what --out DIR holds: give it")
    datasets = load_datasets(options)
    if options.strip is not None:
        _strip(options, datasets)
        return 0
    if options.functional or options.unseen_in:
        raise UserError("--functional and --unseen-in choose what --strip DIR writes: give it")
    if options.check:
        different = outdated_files(options.runs, options.out, datasets, pages=options.readme)
        for path in different:
            print(f"{path} differs from what the runs give")
        return 1 if different else 0
    from leaderboard.views.markdown import table

    published = publish(options.runs, options.out, datasets, pages=options.readme)
    for board in published.boards:
        print(table(board))
    print("wrote " + ", ".join(map(str, published.files)))
    return 0


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


def _strip(options: argparse.Namespace, datasets: Sequence[Dataset]) -> None:
    from benchmarks.data import load
    from benchmarks.store import read_runs
    from leaderboard.board.hybrids import with_ends
    from leaderboard.board.scores import scores, strip
    from leaderboard.board.subset import Subset

    # a single file has no splits to choose from
    parts = [None if source.endswith(".parquet") else "train" for source in options.unseen_in]
    unseen = [load(x, split=part) for x, part in zip(options.unseen_in, parts, strict=True)]
    subset = Subset(functional=options.functional, unseen_in=unseen)
    runs = read_runs(options.runs)
    tables = [scores(run, find_dataset(run, datasets), store=False) for run in runs]
    for run, table in zip(runs, with_ends(runs, tables), strict=True):
        print(f"wrote {strip(*subset.of(run, table), options.strip)}")


if __name__ == "__main__":
    sys.exit(main())
