"""The table of a board as cells with their numbers, and the columns with their definitions.

Each cell has the text that is read and the number that the scripts sort by. A further metric
becomes a column by a line in `SHOWN`; the scripts can add every other metric of the board.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from typing import Final, NamedTuple

from markupsafe import Markup

from benchmarks.core.formatting import NOTHING, format_estimate, format_number
from benchmarks.core.statistics import Estimate, on_front
from benchmarks.metrics import METRICS, Reduce
from leaderboard.board.schema import Board, Hardware, Row
from leaderboard.site.drawing import Scale, interval, rank_range
from leaderboard.views.table_columns import (
    machine_mark,
    repeated,
    reseeded,
    rewritten,
    scored,
    training,
)

SHOWN: Final[dict[str, tuple[str, int]]] = {
    "score": ("Score", 3),
    "score_clean": ("Clean part", 3),
    "lattice_mae": ("Lattice MAE", 3),
    "volume_mape": ("Volume MAPE", 2),
    "strain": ("Strain", 4),
    "position_mae": ("Position MAE", 3),
    "skill_lattice": ("Skill lattice", 2),
    "skill_position": ("Skill position", 2),
    "element_preservation_rate": ("Elements kept", 3),
    "validity_rate": ("Valid", 3),
    "rmsd_normalized": ("Match RMSD", 3),
    "n_force_evals": ("Force evals", 0),
    "wall_time_median": ("Time", 3),
    "declared_time": ("Declared time", 3),
}
"""The metrics that are columns of the table: their headers, and their decimals."""
PLAIN: Final = {
    "rank": "Rank",
    "model": "Model",
    "ties": "Level with",
    "track": "Track",
    "functional": "Trained on",
    "scored": "Scored",
    "training": "Training",
    "front": "Front",
    "repeats": "Repeats differ by",
    "rewritten": "Written otherwise moves by",
    "seeds": "Seeds (n)",
}
"""The columns that are no metrics, and their headers."""
ORDER: Final = (
    "rank", "model", "score", "ties", "wall_time_median", "front", "declared_time", "lattice_mae",
    "volume_mape", "position_mae", "skill_lattice", "skill_position", "strain", "score_clean",
    "scored", "track", "functional", "training", "element_preservation_rate", "validity_rate",
    "rmsd_normalized", "n_force_evals", "repeats", "rewritten", "seeds",
)  # fmt: skip
"""The columns from left to right."""
OPTIONAL: Final = frozenset({"declared_time"})
"""Columns that are shown where a row has a number."""
PARTS: Final = ("adwt", "strain_awt")
"""The two halves of the score, which the reader can weigh."""
DRAWN: Final = frozenset(
    {"score", "lattice_mae", "volume_mape", "strain", "position_mae", "skill_lattice",
     "skill_position"}
)  # fmt: skip
"""The columns whose intervals are drawn."""
ABOUT: Final = {
    "rank": "Place by score; the bar spans the ranks that the bootstrap allows (95 %).",
    "model": "Name in this benchmark; its page has the card, the report and the failures.",
    "ties": "Ranks of the models from which this one is not told apart: the 95 % interval of the "
    "paired difference of scores contains 0.",
    "track": "Equal data: trained on this project's sets alone. Foundation: trained by others on "
    "more. Trivial: not trained.",
    "functional": "Functional of the DFT data that the model was trained on.",
    "training": "Computing time of the training, as its authors publish it or as our trainer "
    "measured it; of a hybrid for each part.",
    "repeats": "Where each structure was run several times, the largest difference between its "
    "errors: of the strain, and of the mean displacement.",
    "rewritten": "How far the answer moves when the same crystal is written with other order of "
    "sites, origin or axes, or as a supercell: strain of the cell, and mean displacement.",
    "seeds": "Lowest and highest score of n trainings that differ in nothing but the seed.",
    "scored": "Outcomes with a relaxed structure, of all outcomes.",
    "score": "Mean of two areas under curves: the share of structures whose mean displacement is "
    "below 0.01 to 0.50 Å, and whose strain is below 0.001 to 0.100. A failure earns 0.",
    "score_clean": "The score over the n samples that the model cannot have seen in training.",
    "front": "Yes where no other row of the same machine has a higher score in a shorter time.",
    "declared_time": "Median seconds per structure as the authors of a submission declare it, on "
    "their own machine.",
    "wall_time_median": "Median seconds per structure. A mark names the machine where the rows are "
    "from several; only times of one machine can be compared.",
}
"""Definitions of columns that say more than the description of the metric."""


class Column(NamedTuple):
    """The head of a column."""

    key: str
    label: str
    unit: str
    direction: str
    """`up` where more is better, `down` where less is, else empty."""
    about: str
    scale: Scale | None


class Cell(NamedTuple):
    """One cell: its text, the number that it is sorted by, and its drawing."""

    text: str
    value: float | None = None
    drawing: Markup = Markup()
    small: str = ""
    """Stands smaller behind the text: an interval, a count."""


class Line(NamedTuple):
    """One row of the table."""

    row: Row
    cells: dict[str, Cell]


def columns(board: Board) -> list[Column]:
    """The columns of a board's table, from left to right."""
    found = []
    for key in ORDER:
        if key == "repeats" and not any(row.spread for row in board.rows):
            continue
        if key == "rewritten" and not any(row.invariance for row in board.rows):
            continue
        if key == "seeds" and not any(row.seeds for row in board.rows):
            continue
        if key not in SHOWN:
            found.append(Column(key, PLAIN[key], "", "", ABOUT[key], None))
            continue
        if key in OPTIONAL and all(row.metrics[key].point is None for row in board.rows):
            continue
        metric = board.metrics[key]
        direction = "up" if metric.higher_is_better else "down"
        about = ABOUT.get(key, _sentence(metric.description))
        scale = Scale.of(row.metrics[key] for row in board.rows) if key in DRAWN else None
        found.append(Column(key, SHOWN[key][0], metric.unit, direction, about, scale))
    return found


def lines(board: Board, rows: Sequence[Row]) -> list[Line]:
    """The rows of a board's table, or of the runs on other samples."""
    scales = {column.key: column.scale for column in columns(board)}
    tied: dict[str, list[int]] = {row.model: [] for row in board.rows}
    rank = {row.model: row.rank or 0 for row in board.rows}
    for first, second in board.ties:
        tied[first].append(rank[second])
        tied[second].append(rank[first])
    found = [_line(board, row, scales, tied.get(row.model, [])) for row in rows]
    front = pareto_front(board)
    for line in found:
        line.cells["front"] = Cell("yes" if line.row.model in front else NOTHING)
    return found


def pareto_front(board: Board) -> set[str]:
    """The models that no other row of the same machine beats in both score and time."""
    known: dict[tuple[Hardware, ...], list[tuple[str, float, float]]] = {}
    for row in board.rows:
        score, seconds = row.metrics["score"].point, row.metrics["wall_time_median"].point
        if score is not None and seconds is not None:
            known.setdefault(row.hardware, []).append((row.model, seconds, -score))
    front: set[str] = set()
    for of_machine in known.values():
        models, seconds_of, losses = zip(*of_machine, strict=True)
        front |= set(compress(models, on_front(seconds_of, losses)))
    return front


def _line(board: Board, row: Row, scales: dict[str, Scale | None], tied: list[int]) -> Line:
    cells = {
        "rank": Cell(NOTHING),
        "ties": Cell(_ranges(tied) or NOTHING, len(tied)),
        "track": Cell(str(row.track)),
        "functional": Cell(row.functional or NOTHING),
        "training": Cell(training(row)),
        "repeats": Cell(repeated(row), row.spread.strain if row.spread else None),
        "rewritten": Cell(rewritten(row), row.invariance.strain.point if row.invariance else None),
        "seeds": Cell(reseeded(row), row.seeds.lowest if row.seeds else None),
    }
    if row.rank is not None and row.rank_low is not None and row.rank_high is not None:
        spread = f"{row.rank_low}–{row.rank_high}" if row.rank_low < row.rank_high else ""
        drawn = rank_range(row.rank_low, row.rank_high, row.rank, len(board.rows))
        cells["rank"] = Cell(str(row.rank), row.rank, drawn, spread)
    total = sum(row.coverage.values())
    cells["scored"] = Cell(scored(row), row.n_scored / total if total else None)
    for name, (_, digits) in SHOWN.items():
        found = row.metrics[name]
        drawn = interval(found, scales.get(name)) if name in DRAWN else Markup()
        small, text = "", format_number(found.point, digits)
        if name == "score":
            small = format_interval(found, digits)
        elif name == "score_clean":
            small = f"({found.n})" if found.n else ""
        elif name in ("wall_time_median", "declared_time") and found.point is not None:
            text = f"{found.point:.2g}"
            if name == "wall_time_median" and len(board.hardware) > 1:
                small = "".join(machine_mark(each, board) for each in row.hardware)
        cells[name] = Cell(text, found.point, drawn, small)
    return Line(row, cells)


def format_interval(found: Estimate, digits: int) -> str:
    """The interval alone: `[0.789, 0.816]`; empty without one."""
    return format_estimate(found, digits).partition(" ")[2]


def recomputable(name: str) -> bool:
    """Whether the scripts can compute a metric again on the structures that a filter keeps."""
    return METRICS[name].reduce is not Reduce.PER_RUN


def _ranges(ranks: Sequence[int]) -> str:
    """Ranks in few characters: 1, 2, 3, 6 -> `1–3, 6`."""
    runs: list[list[int]] = []
    for rank in sorted(set(ranks)):
        if runs and rank == runs[-1][-1] + 1:
            runs[-1].append(rank)
        else:
            runs.append([rank])
    return ", ".join(f"{run[0]}–{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."
