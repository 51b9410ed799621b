"""Small drawings that stand in the HTML as SVG, so that they need no script."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Final, NamedTuple, Self

from markupsafe import Markup, escape

from benchmarks.core.statistics import Estimate

WIDTH: Final = 64
"""Width of an interval in a table [px]; `assets/board.js` draws the same after filtering."""


class Scale(NamedTuple):
    """The numbers at the ends of a column's intervals."""

    low: float
    high: float
    logarithmic: bool

    @classmethod
    def of(cls, estimates: Iterable[Estimate]) -> Self | None:
        """A scale for all intervals of a column; None where all numbers are equal.

        It is logarithmic where all are above 0 and the largest is 20 times the smallest or more.
        """
        ends = [
            end
            for each in estimates
            for end in (each.point, each.low, each.high)
            if end is not None and math.isfinite(end)
        ]
        if not ends or min(ends) == max(ends):
            return None
        low, high = min(ends), max(ends)
        return cls(low, high, low > 0 and high / low >= 20)

    def place(self, value: float) -> float:
        """The distance of a number from the left edge [px]; numbers beyond the ends stand there."""
        value = min(max(value, self.low), self.high)
        if self.logarithmic:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return round(3 + share * (WIDTH - 6), 1)


def interval(found: Estimate, scale: Scale | None) -> Markup:
    """An estimate with its interval, as a dot on a line; nothing without a number or a scale."""
    if scale is None or found.point is None:
        return Markup()
    line = ""
    if found.low is not None and found.high is not None:
        line = f'<path d="M{scale.place(found.low)} 4H{scale.place(found.high)}"/>'
    return Markup(  # noqa: S704 - numbers alone
        f'<svg class="iv" viewBox="0 0 {WIDTH} 8" aria-hidden="true">{line}'
        f'<circle cx="{scale.place(found.point)}" cy="4" r="2.2"/></svg>'
    )


def rank_range(low: int, high: int, rank: int, count: int) -> Markup:
    """The ranks that the bootstrap allows, as a bar on 1 … count."""
    scale = Scale(1, max(count, 2), logarithmic=False)
    left, right = scale.place(low) - 2, scale.place(high) + 2
    return Markup(  # noqa: S704 - numbers alone
        f'<svg class="iv" viewBox="0 0 {WIDTH} 8" aria-hidden="true">'
        f'<rect x="{left:g}" y="2.5" width="{right - left:g}" height="3"/>'
        f'<circle cx="{scale.place(rank)}" cy="4" r="2.2"/></svg>'
    )


class DiagramLine(NamedTuple):
    """A line of a diagram."""

    label: str
    style: str
    """Its class in the stylesheet: `own` or `other`."""
    points: Sequence[tuple[float, float]]


def diagram(
    title: str, x_label: str, curves: Sequence[DiagramLine], x_end: float, y_end: float = 1.0
) -> Markup:
    """Lines over x from 0 to x_end and y from 0 to y_end, as shares against a threshold.

    Args:
        title: What is drawn; read aloud in place of the drawing.
        x_label: The quantity and its unit.
        curves: Each is drawn in the style that its name has in the stylesheet.
        x_end: The largest x; points beyond stand there.
        y_end: The largest y.
    """
    left, top, width, height = 34, 8, 300, 150

    def at(x: float, y: float) -> str:
        height_of = height * (1 - min(y / y_end, 1))
        return f"{left + width * min(x / x_end, 1):.1f} {top + height_of:.1f}"

    parts = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        level = top + height * (1 - share)
        parts.append(f'<path class="grid" d="M{left} {level:g}h{width}"/>')
        parts.append(
            f'<text x="{left - 4}" y="{level + 3.5:g}" class="end">{y_end * share:.3g}</text>'
        )
    for share in (0, 0.25, 0.5, 0.75, 1):
        x = left + width * share
        parts.append(
            f'<text x="{x:g}" y="{top + height + 14}" class="mid">{x_end * share:g}</text>'
        )
    for curve in curves:
        line = "L".join(at(x, y) for x, y in curve.points)
        parts.append(f'<path class="curve {escape(curve.style)}" d="M{line}"/>')
    middle, under = left + width / 2, top + height + 30
    parts.append(f'<text x="{middle:g}" y="{under}" class="mid">{escape(x_label)}</text>')
    box = f"0 0 {left + width + 14} {top + height + 36}"
    return Markup(  # noqa: S704 - the texts are escaped
        f'<svg class="diagram" viewBox="{box}" role="img" aria-label="{escape(title)}">'
        f"{''.join(parts)}</svg>"
    )


@cache
def element_places() -> list[tuple[str, int, int]]:
    """Symbol, row and column (from 1) of each element.

    The lanthanides and the actinides stand below the others, in rows 8 and 9.
    """
    from pymatgen.core import Element

    places = []
    for number in range(1, 119):
        element = Element.from_Z(number)
        row, column = int(element.row), int(element.group)
        for first in (57, 89):  # lanthanum, actinium
            if first <= number < first + 15:
                row, column = row + 2, 3 + number - first
        places.append((str(element.symbol), row, column))
    return places
