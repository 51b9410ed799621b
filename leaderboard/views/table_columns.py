"""The columns of the leaderboard's table, and the notes that explain them.

To add a column, add a `BoardColumn` to `COLUMNS`. Every other metric stands in the board's
section of all metrics.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.core.formatting import NOTHING, format_estimate, format_number
from benchmarks.core.training_cost import TrainingCost
from benchmarks.core.training_data import Track
from leaderboard.board.rows import RANKED_BY
from leaderboard.board.schema import Board, Hardware, Row

_MARKS: Final = "¹²³⁴⁵⁶⁷⁸⁹"
ROUNDING: Final = 1e-6
"""Differences below are those of rounding in single precision."""


@dataclass(frozen=True, slots=True)
class BoardColumn:
    """A column of the short table; `board.json` and the CSV hold every metric."""

    header: str
    brief: str
    """The header on a terminal."""
    cell: Callable[[Row, Board], str]
    optional: bool = False
    """Whether a board of whose rows none has a value leaves the column out."""


def _metric(name: str, digits: int = 3) -> Callable[[Row, Board], str]:
    return lambda row, _: format_number(row.metrics[name].point, digits)


def _rank(row: Row, _: Board) -> str:
    if row.rank is None or row.rank_low is None or row.rank_high is None:
        return NOTHING
    spread = f" ({row.rank_low}–{row.rank_high})" if row.rank_low < row.rank_high else ""
    return f"{row.rank}{spread}"


def _clean(row: Row, _: Board) -> str:
    part = row.metrics["score_clean"]
    return f"{format_number(part.point, 3)} ({part.n})" if part.n else NOTHING


def scored(row: Row) -> str:
    """Outcomes with a relaxed structure, of all outcomes: `52/53`."""
    return f"{row.n_scored}/{sum(row.coverage.values())}"


def _seconds(row: Row, board: Board) -> str:
    """The median time; marked with the machine if the board has rows of several machines."""
    value = row.metrics["wall_time_median"].point
    if value is None:
        return NOTHING
    marks = (
        "".join(machine_mark(each, board) for each in row.hardware)
        if len(board.hardware) > 1
        else ""
    )
    return f"{value:.2g} {marks}".rstrip()


def training(row: Row, *, whole: bool = False) -> str:
    """Write what the trainings of a row cost; `whole` as in `training_time`."""
    return "none" if row.track is Track.TRIVIAL else training_time(row.training_cost, whole=whole)


def training_time(costs: Sequence[TrainingCost | None], *, whole: bool = False) -> str:
    """Write what trainings cost: `14 min H100 + 280 h A100`.

    Args:
        costs: One of each training; None if it is not known.
        whole: With the whole name of the device and the source: `280 h NVIDIA A100 (https://…)`.
    """
    cells = []
    for cost in costs:
        if cost is None:
            cells.append(NOTHING)
            continue
        minutes = round(60 * cost.hours)
        time = f"{cost.hours:,.0f} h" if minutes >= 120 else f"{minutes or '< 1'} min"
        model = re.search(r"[A-Z]{1,2}\d+\S*", cost.device)
        device = model.group() if model else cost.device.upper()
        cells.append(f"{time} {cost.device} ({cost.source})" if whole else f"{time} {device}")
    return " + ".join(cells) or NOTHING


def repeated(row: Row) -> str:
    """How far the repeats of a sample are apart, at most: in strain, and of the positions."""
    if row.spread is None:
        return NOTHING
    return f"{row.spread.strain:.1g}, {row.spread.position:.1g} Å ({row.spread.repeats} repeats)"


def rewritten(row: Row) -> str:
    """How far the answers to other writings of a crystal are apart: in strain, and of the sites."""
    found = row.invariance
    if found is None or found.strain.point is None or found.displacement.point is None:
        return NOTHING
    strain, moved = (
        f"{x:.2g}" if x == 0 or x >= ROUNDING else f"< {ROUNDING:g}"
        for x in (found.strain.point, found.displacement.point)
    )
    return f"{strain}, {moved} Å"


def reseeded(row: Row) -> str:
    """The scores that trainings with other seeds reach."""
    found = row.seeds
    if found is None:
        return NOTHING
    return f"{found.lowest:.3f}–{found.highest:.3f} ({found.trainings})"


def reseeding(board: Board) -> list[str]:
    """The note on the column of `reseeded`; none where no row has it."""
    if not any(row.seeds for row in board.rows):
        return []
    note = (
        "Seeds (n): lowest and highest score of n trainings that differ in nothing but the seed, "
        "the one that is ranked among them. The interval of a score is that of the samples alone."
    )
    return [note]


def rewriting(board: Board) -> list[str]:
    """The note on the column of `rewritten`; none where no row has it."""
    rows = [row for row in (*board.rows, *board.apart) if row.invariance]
    sets = dict.fromkeys(
        f"{each.structures} structures of {each.dataset}"
        for row in rows
        if (each := row.invariance) is not None
    )
    if not sets:
        return []
    changed = ", ".join(
        f"{row.model} {row.invariance.status_changed}"
        for row in rows
        if row.invariance is not None and row.invariance.status_changed
    )
    return [
        "Written otherwise: how far the answer moves when the same crystal is written with its "
        "sites in another order, from another origin, with exchanged axes, and as a supercell: "
        "mean strain between the cells, and mean displacement of the sites, over these four "
        f"writings of {' and '.join(sets)}; 0 is right."
        + (f" Structures whose status one of them changes: {changed}." if changed else "")
    ]


def _declared(row: Row, _: Board) -> str:
    """The median time that the authors of a submission declared, on their machine."""
    value = row.metrics["declared_time"].point
    return NOTHING if value is None else f"{value:.2g}"


def machine_mark(hardware: Hardware, board: Board) -> str:
    """Return the mark of a machine in the table of a board: ¹ for its first machine."""
    position = board.hardware.index(hardware)
    return _MARKS[position] if position < len(_MARKS) else f"({position + 1})"


COLUMNS: Final = (
    BoardColumn("Rank", "Rank", _rank),
    BoardColumn("Model", "Model", lambda row, _: row.model),
    BoardColumn("Track", "Track", lambda row, _: row.track),
    BoardColumn("Score ↑", "Score ↑", lambda row, _: format_estimate(row.metrics[RANKED_BY], 3)),
    BoardColumn("Clean part ↑ (n)", "Clean ↑ (n)", _clean),
    BoardColumn("Scored", "Scored", lambda row, _: scored(row)),
    BoardColumn("Lattice MAE (Å) ↓", "Latt. Å ↓", _metric("lattice_mae")),
    BoardColumn("Volume MAPE (%) ↓", "Vol. % ↓", _metric("volume_mape", 2)),
    BoardColumn("Strain ↓", "Strain ↓", _metric("strain", 4)),
    BoardColumn("Position MAE (Å) ↓", "Pos. Å ↓", _metric("position_mae")),
    BoardColumn("Skill lattice ↑", "Skill l. ↑", _metric("skill_lattice", 2)),
    BoardColumn("Skill position ↑", "Skill p. ↑", _metric("skill_position", 2)),
    BoardColumn("Elements kept ↑", "Elem. ↑", _metric("element_preservation_rate")),
    BoardColumn("Valid ↑", "Valid ↑", _metric("validity_rate")),
    BoardColumn("Match RMSD ↓", "RMSD ↓", _metric("rmsd_normalized")),
    BoardColumn("Force evals", "Evals", _metric("n_force_evals", 0)),
    BoardColumn("Time (s)", "Time s", _seconds),
    BoardColumn("Training", "Training", lambda row, _: training(row)),
    BoardColumn("Repeats differ by", "Repeats", lambda row, _: repeated(row), optional=True),
    BoardColumn(
        "Written otherwise moves by", "Rewritten", lambda row, _: rewritten(row), optional=True
    ),
    BoardColumn("Seeds (n)", "Seeds (n)", lambda row, _: reseeded(row), optional=True),
    BoardColumn("Declared time (s)", "Declared s", _declared, optional=True),
)


def columns_of(board: Board) -> list[BoardColumn]:
    """The columns that the table of a board has."""
    rows = (*board.rows, *board.apart)
    return [
        column
        for column in COLUMNS
        if not column.optional or any(column.cell(row, board) != NOTHING for row in rows)
    ]


COLUMN_NOTES: Final = (
    """Score: mean of two areas under curves, the share of structures whose mean displacement is
    below 0.01 to 0.50 Å and the share whose strain is below 0.001 to 0.100; a failure earns 0. In
    brackets its 95 % interval (paired bootstrap over compositions), in parentheses the ranks
    that the bootstrap allows. Time does not enter.""",
    f"""Clean part: the score over the n samples that the model cannot have seen in training, told
    by the source and the chemical system of a sample, and {NOTHING} where there are none. That the
    relaxation was not seen does not say that no compound like it was.""",
    f"""Lattice, volume, strain and position errors are over the scored samples (ok or unconverged,
    and valid), whose number stands beside them. Elements kept and Valid are rates over the samples
    that the model answered, not those that it refused or failed on. Skill is 1 - error / error of
    doing nothing (`identity`) over all samples, where a failed one counts as doing nothing;
    {NOTHING} where doing nothing is already right.""",
    """Match RMSD is pymatgen's StructureMatcher over all samples, 1 without a match or without a
    prediction. It does not see the cell (a
    crystal stretched by 19 % scores 0.000): read it beside the strain.""",
    """Force evals: evaluations of the potential per structure, the median. Time: median seconds per
    structure (batch time over batch size). A time that others declare for what they submitted
    stands in a column of its own: it was not measured here.""",
    f"""Training: the computing time of the training, number of GPUs times hours as its authors
    publish it, or as our trainer measured it (of a CPU the time on the clock); a hybrid's for each
    part, and {NOTHING} where nothing is published. What it cost to compute the training data, and
    of a distilled model the training of its teacher, is not in it.""",
)
