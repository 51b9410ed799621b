"""A board as Markdown, as a terminal table and as CSV, by templates. One board gives one text."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

from benchmarks.core.formatting import NOTHING, format_estimate, format_number
from benchmarks.core.statistics import Estimate
from leaderboard.board.rows import RANKED_BY
from leaderboard.board.schema import Board, Hardware, Row

if TYPE_CHECKING:
    from jinja2 import Environment

_MARKS: Final = "¹²³⁴⁵⁶⁷⁸⁹"


@dataclass(frozen=True, slots=True)
class BoardColumn:
    """A column of the short table; `board.json` and the CSV hold every metric."""

    header: str
    brief: str
    """The header on a terminal."""
    cell: Callable[[Row, Board], str]


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


def _scored(row: Row, _: Board) -> str:
    return f"{row.coverage['ok'] + row.coverage['unconverged']}/{sum(row.coverage.values())}"


def _seconds(row: Row, board: Board) -> str:
    """The median time; marked with the machine if the board has rows of several machines."""
    value = row.metrics["wall_time_median"].point
    if value is None:
        return NOTHING
    marks = "".join(_mark(each, board) for each in row.hardware) if len(board.hardware) > 1 else ""
    return f"{value:.2g} {marks}".rstrip()


def _mark(hardware: Hardware, board: Board) -> str:
    position = board.hardware.index(hardware)
    return _MARKS[position] if position < len(_MARKS) else f"({position + 1})"


COLUMNS: Final = (
    BoardColumn("Rank", "Rank", _rank),
    BoardColumn("Model", "Model", lambda row, _: row.model),
    BoardColumn("Track", "Track", lambda row, _: row.track),
    BoardColumn("Score ↑", "Score ↑", lambda row, _: format_estimate(row.metrics[RANKED_BY], 3)),
    BoardColumn("Clean part ↑ (n)", "Clean ↑ (n)", _clean),
    BoardColumn("Scored", "Scored", _scored),
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
)
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
    structure (batch time over batch size).""",
)


def title(board: Board) -> str:
    """Data set, split and number of samples."""
    split = f", split {board.dataset.split}" if board.dataset.split else ""
    count = board.dataset.n_samples
    return f"{board.dataset.name}{split}, {count} {'sample' if count == 1 else 'samples'}"


def notes(board: Board) -> list[str]:
    """The notes under the table: the data, the comparison, the columns."""
    quarantined = ", ".join(f"{n} {reason}" for reason, n in board.dataset.quarantined.items())
    return [
        *([board.about] if board.about else []),
        *([f"Samples left out by the audit: {quarantined}."] if quarantined else []),
        *comparison(board),
        *(" ".join(note.split()) for note in COLUMN_NOTES),
    ]


def comparison(board: Board) -> list[str]:
    """The notes on what can be compared: samples, machines, models that are not told apart."""
    listed = list(board.notes)
    machines = [
        f"{each.cpu or 'unknown'}, device {each.device or 'unknown'}, "
        f"{each.threads or 'unknown'} {'thread' if each.threads == 1 else 'threads'}"
        for each in board.hardware
    ]
    if len(machines) == 1:
        listed.append(f"Times and memory were measured on one machine: {machines[0]}.")
    elif machines:
        marked = "; ".join(
            f"{_mark(each, board)} {machine}"
            for each, machine in zip(board.hardware, machines, strict=True)
        )
        listed.append(
            "Times and memory were measured on different machines, and only those of one machine "
            f"can be compared: {marked}."
        )
    if board.ties:
        rivals: dict[str, list[str]] = {}
        for first, second in board.ties:
            rivals.setdefault(first, []).append(second)
        pairs = "; ".join(f"{first} and {', '.join(others)}" for first, others in rivals.items())
        listed.append(
            f"Not told apart at 95 % (the interval of the difference contains 0): {pairs}."
        )
    return listed


def markdown(board: Board) -> str:
    """The page of a board: table, notes, tracks, differences, slices, hybrids."""
    return _environment().get_template("board.md.j2").render(board=board)


def section(board: Board, heading: str, *, with_notes: bool) -> str:
    """The table of a board for another page.

    Args:
        board: The board.
        heading: Stands before the title: `### `.
        with_notes: Whether the notes stand under the table.
    """
    template = _environment().get_template("section.md.j2")
    return template.render(board=board, heading=heading, with_notes=with_notes)


def table(board: Board) -> str:
    """The short table and its notes on the comparison, for a terminal."""
    return _environment().get_template("terminal.txt.j2").render(board=board)


def _lines(rows: Sequence[Row], board: Board) -> list[str]:
    """The short table in columns of equal width."""
    cells = [[column.brief for column in COLUMNS], *(_cells(row, board) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    return [
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]


def _cells(row: Row, board: Board) -> list[str]:
    return [column.cell(row, board) for column in COLUMNS]


def _difference(found: Estimate, digits: int, n_samples: int) -> str:
    """A paired difference: bold if its interval excludes 0, with n if some samples do not count."""
    text = format_estimate(found, digits, signed=True)
    if found.point is None:
        return text
    if found.low is not None and found.high is not None:
        text = f"**{text}**" if found.low > 0 or found.high < 0 else text
    return text if found.n == n_samples else f"{text}, n = {found.n}"


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("leaderboard.views"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - Markdown and plain text, no HTML
    )
    environment.globals |= {
        "columns": COLUMNS,
        "cells": _cells,
        "lines": _lines,
        "title": title,
        "notes": notes,
        "comparison": comparison,
    }
    environment.filters |= {
        "number": format_number,
        "estimate": format_estimate,
        "difference": _difference,
        "escaped": lambda text: text.replace("|", "\\|"),
        "row_of": lambda model, board: next(r for r in board.rows if r.model == model),
        "unit_of": lambda name, board: (
            f" ({board.metrics[name].unit})" if board.metrics[name].unit else ""
        ),
    }
    return environment


def to_csv(board: Board) -> str:
    """One line per model with every metric, its interval and its n."""
    header = ["dataset", "model", "label", "family", "rank", "rank_low", "rank_high", "n_samples"]
    rows = (*board.rows, *board.apart)
    statuses = list(rows[0].coverage) if rows else []
    parts = ("", "_ci_low", "_ci_high", "_n")
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(
        [*header, *statuses, *(name + part for name in board.metrics for part in parts)]
    )
    for row in rows:
        about = [board.name, row.model, row.label, row.family]
        ranks = [row.rank, row.rank_low, row.rank_high, row.n_samples]
        found = [row.metrics[name] for name in board.metrics]
        numbers = [x for each in found for x in (each.point, each.low, each.high, each.n)]
        writer.writerow([*about, *ranks, *row.coverage.values(), *numbers])
    return stream.getvalue()
