"""Numbers with their intervals, and Markdown tables, as every report writes them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from benchmarks.core.statistics import Estimate

NOTHING: Final = "—"
"""Stands where there is no number."""


def format_number(number: float | None, digits: int, *, signed: bool = False) -> str:
    """Write a number with a fixed count of decimals; `NOTHING` if there is none.

    Args:
        number: The number.
        digits: Decimals to show.
        signed: Write a plus before a number that is not negative. A zero that rounding made has no
            minus.
    """
    if number is None:
        return NOTHING
    rounded = float(f"{number:.{digits}f}") + 0.0
    return f"{rounded:+.{digits}f}" if signed else f"{rounded:.{digits}f}"


def format_estimate(estimate: Estimate, digits: int, *, signed: bool = False) -> str:
    """Write `x [low, high]`; only `x` without an interval, `NOTHING` without a number.

    Args:
        estimate: The number with its interval.
        digits: Decimals to show.
        signed: As in `format_number`.
    """
    point, low, high = (
        format_number(x, digits, signed=signed)
        for x in (estimate.point, estimate.low, estimate.high)
    )
    return point if NOTHING in (point, low, high) else f"{point} [{low}, {high}]"


def inert(text: str) -> str:
    """Write a text for a cell of a CSV so that no spreadsheet takes it for a formula.

    A text that begins with `=`, `+`, `-`, `@`, a tab or a carriage return gets an apostrophe before
    it.
    """
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def markdown_table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Write a table in Markdown, without an end of line.

    Args:
        head: Headers of the columns.
        rows: Cells, which are written by `str`.
    """
    cells = [tuple(head)]
    cells += [tuple(str(cell).replace("|", "\\|") for cell in row) for row in rows]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "---|" * len(cells[0]), *lines[1:]])
