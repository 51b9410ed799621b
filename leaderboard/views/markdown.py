"""A board as Markdown, as a terminal table and as CSV, by templates. One board gives one text."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Final

from benchmarks.core.formatting import format_estimate, format_number, inert
from benchmarks.core.inert_text import markdown_text, single_line, with_texts
from benchmarks.core.statistics import Estimate
from leaderboard.board.comparisons import power
from leaderboard.board.schema import Board, Conclusion, Row
from leaderboard.views.table_columns import (
    COLUMN_NOTES,
    columns_of,
    machine_mark,
    reseeding,
    rewriting,
    training,
)

if TYPE_CHECKING:
    from jinja2 import Environment

SHOWN: Final = 5
"""Pairs of models that a note names, at most."""


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
        *rewriting(board),
        *reseeding(board),
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
            f"{machine_mark(each, board)} {machine}"
            for each, machine in zip(board.hardware, machines, strict=True)
        )
        listed.append(
            "Times and memory were measured on different machines, and only those of one machine "
            f"can be compared: {marked}."
        )
    listed += _concluded(board.conclusions)
    if board.ties:
        rivals: dict[str, list[str]] = {}
        for first, second in board.ties:
            rivals.setdefault(first, []).append(second)
        pairs = "; ".join(f"{first} and {', '.join(others)}" for first, others in rivals.items())
        listed.append(
            f"Not told apart at 95 % (the interval of the difference contains 0): {pairs}."
        )
    return listed


def _concluded(conclusions: Sequence[Conclusion]) -> list[str]:
    """What the samples can show, and what the samples that no training shows say of it."""
    told = power(conclusions)
    apart = [each for each in conclusions if each.everywhere.sign]
    if told is None or not apart:
        return []
    by_verdict: dict[str, list[str]] = {}
    for each in apart:
        pair = f"{each.better} and {each.worse}"
        by_verdict.setdefault(each.verdict, []).append(pair)
    stay = len(by_verdict.pop("stays", []))
    text = (
        f"A difference in score is told from 0 where it exceeds about {told.median:.2g}, the "
        f"median over pairs. {stay} of {len(apart)} differences that are told from 0 stay so on "
        "the samples alone that neither model can have seen in training"
    )
    for verdict, pairs in by_verdict.items():
        shown = "; ".join(pairs[:SHOWN])
        more = f"; and {len(pairs) - SHOWN} more" if len(pairs) > SHOWN else ""
        text += f"; {verdict}: {shown}{more}"
    return [f"{text}."]


def markdown(board: Board) -> str:
    """The page of a board: table, notes, tracks, differences, slices, hybrids."""
    shown = with_texts(board, markdown_text)
    return _environment().get_template("board.md.j2").render(board=shown)


def section(board: Board, heading: str, *, with_notes: bool) -> str:
    """The table of a board for another page.

    Args:
        board: The board.
        heading: Stands before the title: `### `.
        with_notes: Whether the notes stand under the table.
    """
    template = _environment().get_template("section.md.j2")
    shown = with_texts(board, markdown_text)
    return template.render(board=shown, heading=heading, with_notes=with_notes)


def table(board: Board) -> str:
    """The short table and its notes on the comparison, for a terminal."""
    shown = with_texts(board, single_line)
    return _environment().get_template("terminal.txt.j2").render(board=shown)


def _lines(rows: Sequence[Row], board: Board) -> list[str]:
    """The short table in columns of equal width."""
    cells = [[column.brief for column in columns_of(board)], *(_cells(row, board) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    return [
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]


def _cells(row: Row, board: Board) -> list[str]:
    return [column.cell(row, board) for column in columns_of(board)]


def _difference(found: Estimate, digits: int, n_samples: int) -> str:
    """A paired difference: bold if its interval excludes 0, with n if some samples do not count."""
    text = format_estimate(found, digits, signed=True)
    if found.point is None:
        return text
    text = f"**{text}**" if found.sign else text
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
        "columns": columns_of,
        "cells": _cells,
        "lines": _lines,
        "title": title,
        "notes": notes,
        "comparison": comparison,
    }
    environment.filters |= {
        "number": format_number,
        "estimate": format_estimate,
        "training": training,
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
    board = with_texts(board, single_line)
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
        about = [inert(text) for text in (board.name, row.model, row.label, row.family)]
        ranks = [row.rank, row.rank_low, row.rank_high, row.n_samples]
        found = [row.metrics[name] for name in board.metrics]
        numbers = [x for each in found for x in (each.point, each.low, each.high, each.n)]
        writer.writerow([*about, *ranks, *row.coverage.values(), *numbers])
    return stream.getvalue()
