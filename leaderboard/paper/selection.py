"""The board of a paper: the rows that it shows, and the scores of each sample behind them.

A board may have more rows than a figure of curves can hold. `PaperBoard.curves` are the few models
that such a figure draws; the CSV beside it has every row that was chosen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from benchmarks.core import UserError
from leaderboard.board.schema import IDENTITY, Board, Row

if TYPE_CHECKING:
    import pandas as pd

    from benchmarks.data import Dataset
    from benchmarks.store import StoredRun
    from leaderboard.scoring import ScoredRuns

MOST_CURVES: Final = 8
"""The number of curves that a reader can tell apart in one panel."""
MOST_IN_COLUMN: Final = 16
"""The number of columns of a matrix whose names can be read at the width of a text column."""
LEARNING_CURVES: Final = "curves.csv"
"""`python -m studies.learning_curves --out DIR` writes it; beside a board, it is drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperParts:
    """What a paper takes from a board."""

    figures: bool = False
    tables: bool = False
    models: tuple[str, ...] = ()
    """The models to show; none means every row."""


class PaperFiles(NamedTuple):
    """The files that were written, and a line for each part whose data are missing."""

    files: list[Path]
    left_out: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperBoard:
    """The part of a board that a paper shows."""

    board: Board
    rows: tuple[Row, ...]
    """The ranked rows that were chosen, best first."""
    curves: tuple[str, ...]
    """The models that a figure of curves draws, best first."""
    in_column: tuple[str, ...]
    """The models of a matrix at the width of a text column, best first."""
    tables: Mapping[str, pd.DataFrame]
    """The scores of each row's model, of the board's samples only."""
    runs: Mapping[str, StoredRun]
    """The run of each row's model."""
    dataset: Dataset | None
    """The data, whose structures some figures need; None if they are not at hand."""
    learning_curves: Path | None = None
    """`LEARNING_CURVES`; None if nobody has made it."""

    @classmethod
    def of(cls, scored: ScoredRuns, board: Board, models: Sequence[str], studies: Path) -> Self:
        """Choose the rows of a board.

        Args:
            scored: The runs that the board was made from.
            board: The board.
            models: The models to show; those that this board does not rank are passed over, and
                none at all means every row.
            studies: The folder that may hold `LEARNING_CURVES`.
        """
        pairs = zip(scored.runs, scored.tables, strict=True)
        by_model = {run.name: (run, table) for run, table in pairs}
        ranked = [set(by_model[row.model][1]["sample_id"]) for row in board.rows]
        ids = reduce(set.intersection, ranked) if ranked else set()
        rows = tuple(row for row in board.rows if not models or row.model in models)
        tables = {}
        for row in rows:
            table = by_model[row.model][1]
            tables[row.model] = table[table["sample_id"].isin(ids)].reset_index(drop=True)
        curves = studies / LEARNING_CURVES
        few, more = (
            tuple(row.model for row in (rows if models else representatives(rows, most)))
            for most in (MOST_CURVES, MOST_IN_COLUMN)
        )
        return cls(
            board=board,
            rows=rows,
            curves=few,
            in_column=more,
            tables=tables,
            runs={row.model: by_model[row.model][0] for row in rows},
            dataset=scored.dataset,
            learning_curves=curves if curves.is_file() else None,
        )

    @property
    def models(self) -> tuple[str, ...]:
        """The models that were chosen, best first."""
        return tuple(row.model for row in self.rows)


def representatives(rows: Sequence[Row], most: int) -> list[Row]:
    """A few rows that stand for all: no change, the best of each family, then the best others.

    Args:
        rows: Ranked rows, best first.
        most: The number of rows to keep.

    Returns:
        At most `most` rows, best first.
    """
    first_of_family = {row.family: row for row in reversed(rows)}.values()
    identity = [row for row in rows if row.model == IDENTITY]
    wanted = dict.fromkeys(
        row.model for row in [*identity, *(row for row in rows if row in first_of_family), *rows]
    )
    kept = list(wanted)[:most]
    return [row for row in rows if row.model in kept]


def require_known_models(models: Sequence[str], boards: Sequence[Board]) -> None:
    """Raise if a model that a user named has no ranked row on any of the boards.

    Raises:
        UserError: It names the model, and the names that come near.
    """
    known = {row.model for board in boards for row in board.rows}
    for model in models:
        if model not in known:
            near = get_close_matches(model, known, n=3) or sorted(known)
            raise UserError(f"--models: no ranked row is called '{model}'; rows: {', '.join(near)}")
