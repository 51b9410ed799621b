"""How much the score of a trained model depends on the seed of its training.

    python -m benchmarks.run --models gbr,gbr-1=gbr:seed1.skops --data TEST.parquet --out runs/seeds
    python -m studies.seeds gbr,gbr-1 --runs runs/seeds --data TEST.parquet --out DIR

The first of the names is the packaged model, the others are trainings of it that differ in nothing
but the seed. Each of them has a line in DIR/seeds.csv, which a board beside it shows as a column;
lines of other models that are there already stay.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.core import UserError
from benchmarks.core.cli import run_command
from benchmarks.core.files import atomic_write
from benchmarks.core.formatting import inert
from benchmarks.data import load
from leaderboard.board.schema import Board, Row
from leaderboard.scoring import SEEDS, score_runs

MEASURES: Final = ("score", "skill_lattice", "skill_position")
COLUMNS: Final = ("model", "weights_sha256", "training", "trained_sha256", "n", *MEASURES)


def lines(board: Board, names: Sequence[str]) -> list[dict[str, object]]:
    """One line for each training.

    Args:
        board: A board of all of them.
        names: The packaged model, then the others.

    Raises:
        UserError: One is not on the board, or two have the same weights.
    """
    rows = {row.model: row for row in board.rows}
    if absent := [name for name in names if name not in rows]:
        raise UserError(f"{absent[0]}: no run of it over the samples of the others is there")
    found = [rows[name] for name in names]
    weights = [row.weights_sha256 for row in found]
    if len(set(weights)) < len(weights) or None in weights:
        raise UserError(f"{', '.join(names)}: the weights of each training have to be others")
    return [_line(found[0], row) for row in found]


def _line(packaged: Row, row: Row) -> dict[str, object]:
    measures = {name: row.metrics[name].point for name in MEASURES}
    return {
        "model": inert(packaged.model),
        "weights_sha256": packaged.weights_sha256,
        "training": inert(row.model),
        "trained_sha256": row.weights_sha256,
        "n": row.metrics["score"].n,
        **{name: "" if value is None else f"{value:.6g}" for name, value in measures.items()},
    }


def write(path: Path, new: Sequence[dict[str, object]]) -> None:
    """Write the lines, and those of other models that are there."""
    old = []
    if path.is_file():
        old = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    kept = [line for line in old if line.get("model") != new[0]["model"]]
    table.writerows(sorted([*kept, *new], key=lambda line: str(line["model"])))
    with atomic_write(path) as partial:
        partial.write_text(text.getvalue(), encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Score the trainings and write their lines."""
    parser = argparse.ArgumentParser(prog="python -m studies.seeds", description=__doc__)
    add = parser.add_argument
    add("models", metavar="NAME,OTHER,…", help="the packaged model, then its other trainings")
    add("--runs", type=Path, nargs="+", required=True, metavar="RUN", help="folders, archives")
    add("--data", metavar="PATH", help="what the runs were made on; embedded sets are found")
    add("--out", type=Path, required=True, metavar="DIR")
    args = parser.parse_args(argv)
    names = args.models.split(",")
    if len(names) < 2:
        raise UserError("name the packaged model and at least one other training of it")
    scored = score_runs(args.runs, [load(args.data)] if args.data else [], store=False)
    boards = [each.board() for each in scored]
    with_all = [each for each in boards if {row.model for row in each.rows} >= set(names)]
    found = lines((with_all or boards)[0], names)
    write(args.out / SEEDS, found)
    for line in found:
        print(*(line[name] for name in ("training", *MEASURES)))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
