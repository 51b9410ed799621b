"""The figure of error against time, with intervals: it shows what a second of computing buys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.core.files import atomic_write
from benchmarks.core.inert_text import single_line, with_texts
from benchmarks.metrics import METRICS
from leaderboard.board.schema import Board, Row
from leaderboard.views.markdown import title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@contextmanager
def save_figure(path: Path, size: tuple[float, float], name: str) -> Iterator[Figure]:
    """Give a figure to draw on, and write it when the block ends.

    Args:
        path: The SVG.
        size: Width and height [inch].
        name: Name of the subject; the ids in the SVG are made from it.
    """
    import matplotlib as mpl
    import seaborn as sns
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # text stays text, and neither ids nor metadata depend on the time
    style = {**sns.axes_style("whitegrid"), "svg.fonttype": "none", "svg.hashsalt": name}
    with mpl.rc_context(style):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        with atomic_write(path) as svg:
            figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})


ERROR: Final = "lattice_mae"
TIME: Final = "wall_time_median"
FAMILIES: Final[Mapping[str, tuple[str, str]]] = {
    "llm": ("language models", "o"),
    "gnn": ("graph networks", "X"),
    "trivial": ("trivial", "s"),
    "hybrid": ("hybrids", "P"),
    "other": ("other", "D"),
}
"""What each family is called, and its marker."""
MOSTLY_SCORED: Final = 0.95
"""A model that scored fewer of the samples is hollow and on no front: errors are over the scored
samples, and a model that fails on the hard ones would look good."""
_LINE: Final = 0.135
"""The height of a line of the key [inch]."""
_DIRECTIONS: Final = ((1, 1), (1, -1), (-1, 1), (-1, -1), (0, 1), (0, -1), (1, 0), (-1, 0))
_DISTANCES: Final = (5, 9, 14, 20, 27)
"""Where a number may stand beside its point [points], in order of preference."""


def error_against_time(board: Board, path: Path) -> list[Path]:
    """Draw lattice error against time per structure, both on logarithmic axes, and the front.

    The points are numbered, and the names stand in a key beside them.

    Args:
        board: Rows without a time or with an error of 0 cannot be drawn and are left out.
        path: The SVG; the same board gives the same bytes.

    Returns:
        The file, or none if there is nothing to draw.
    """
    board = with_texts(board, single_line)
    order = list(FAMILIES)
    rows = sorted(
        (row for row in board.rows if row.metrics[ERROR].point and row.metrics[TIME].point),
        key=lambda row: (order.index(row.family), row.metrics[ERROR].point),
    )
    if not rows:
        return []
    lines = max(30.0, len(rows) + 1.3 * len({row.family for row in rows}) + 4)
    front = pareto_front(rows)
    with save_figure(path, (7.2, _LINE * lines + 0.5), board.name) as figure:
        axes, key = figure.subplots(1, 2, width_ratios=(2.4, 1))
        _draw(axes, rows, front)
        key.set(ylim=(lines, 0))
        _write_key(key, rows, front)
        figure.suptitle(
            f"{title(board)}: error against time, 95 % intervals", fontsize=10, parse_math=False
        )
        figure.draw_without_rendering()  # fixes the layout, which the numbers need
        _number(axes, rows, front)
    return [path]


def pareto_front(rows: Sequence[Row]) -> list[Row]:
    """The rows that no other one equals or beats in both error and time, by time.

    Only rows on the machine of most of them are compared, and only those that scored nearly all
    samples (`MOSTLY_SCORED`).
    """
    machine = _machine(rows)
    able = [row for row in rows if row.hardware == machine and _scored(row) >= MOSTLY_SCORED]
    front: list[Row] = []
    for row in sorted(able, key=_point):
        if not front or _point(row)[1] < _point(front[-1])[1]:
            front.append(row)
    return front


def _machine(rows: Sequence[Row]) -> Any:
    return Counter(row.hardware for row in rows).most_common(1)[0][0]


def _scored(row: Row) -> float:
    return row.n_scored / sum(row.coverage.values())


def _colour(row: Row) -> Any:
    import seaborn as sns

    return sns.color_palette("colorblind")[list(FAMILIES).index(row.family)]


def _draw(axes: Axes, rows: Sequence[Row], front: Sequence[Row]) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set(xscale="log", yscale="log", autoscale_on=False)
    axes.set(xlim=_limits(rows, TIME), ylim=_limits(rows, ERROR))
    for row in rows:
        colour = _colour(row)
        axes.errorbar(
            *_point(row), xerr=_bars(row, TIME), yerr=_bars(row, ERROR), fmt="none",
            ecolor=colour, elinewidth=0.8, alpha=0.45, zorder=1,
        )  # fmt: skip
        _mark(axes, row, *_point(row), hollow=_scored(row) < MOSTLY_SCORED)
    if front:
        times, errors = zip(*map(_point, front), strict=True)
        # the last is the best at any longer time, too
        ends = (*times, axes.get_xlim()[1]), (*errors, errors[-1])
        axes.step(*ends, where="post", color="0.25", linewidth=0.9, linestyle=(0, (4, 2)), zorder=2)
    axes.set(xlabel="median time per structure (s)", ylabel=f"lattice MAE ({METRICS[ERROR].unit})")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def _mark(axes: Axes, row: Row, x: float, y: float, *, hollow: bool) -> None:
    """Draw the marker of the row's family."""
    colour = _colour(row)
    axes.plot(
        x, y, FAMILIES[row.family][1], color=colour, markerfacecolor="white" if hollow else colour,
        markersize=5.5, markeredgewidth=0.9, zorder=3, clip_on=False,
    )  # fmt: skip


def _limits(rows: Sequence[Row], name: str) -> tuple[float, float]:
    """The axis contains all points and bars, with room for numbers; it is never empty."""
    found = [row.metrics[name] for row in rows]
    ends = [x for each in found for x in (each.point, each.low, each.high) if x]
    return min(ends) / 1.6, max(ends) * 1.6


def _point(row: Row) -> tuple[float, float]:
    return row.metrics[TIME].point or 0.0, row.metrics[ERROR].point or 0.0


def _bars(row: Row, name: str) -> list[list[float]] | None:
    found = row.metrics[name]
    if found.point is None or found.low is None or found.high is None:
        return None
    # a point estimate may lie outside of its percentile interval; a bar cannot be negative
    return [[max(0.0, found.point - found.low)], [max(0.0, found.high - found.point)]]


def _write_key(axes: Axes, rows: Sequence[Row], front: Sequence[Row]) -> None:
    """List number and name of each row under its family, and say what the signs mean.

    The vertical axis counts lines from the top.
    """
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    line = 0.0
    machine = _machine(rows)
    for number, row in enumerate(rows, 1):
        if number == 1 or row.family != rows[number - 2].family:
            line += 1.3
            _mark(axes, row, 0.04, line, hollow=False)
            axes.text(
                0.12, line, FAMILIES[row.family][0], fontsize=7.5, va="center", style="italic"
            )
        line += 1
        name = row.model + ("" if row.hardware == machine else " †")
        weight = "bold" if row in front else "normal"
        axes.text(0.08, line, str(number), fontsize=6.5, va="center", ha="right", weight=weight)
        axes.text(0.12, line, name, fontsize=6.5, va="center", weight=weight, parse_math=False)
    signs = ["bold: on the front (dashed)"]
    if any(_scored(row) < MOSTLY_SCORED for row in rows):
        signs.append(f"hollow: scored < {MOSTLY_SCORED:.0%}")
    if any(row.hardware != machine for row in rows):
        signs.append("†: on another machine")
    for sign in signs:
        line += 1.3 if sign == signs[0] else 1
        axes.text(0.0, line, sign, fontsize=6.5, va="center", color="0.3")


def _number(axes: Axes, rows: Sequence[Row], front: Sequence[Row]) -> None:
    """Write the number of each point beside it, at the first place where it covers nothing."""
    from matplotlib.transforms import Bbox

    figure = axes.get_figure()
    assert figure is not None
    half = 3.5 * figure.dpi / 72
    taken = [
        Bbox.from_extents(x - half, y - half, x + half, y + half)
        for x, y in axes.transData.transform([_point(row) for row in rows])
    ]
    for number, row in enumerate(rows, 1):
        text = axes.annotate(
            str(number), _point(row), (0, 0), textcoords="offset points", fontsize=7, zorder=4,
            ha="center", va="center", weight="bold" if row in front else "normal",
        )  # fmt: skip
        for distance in _DISTANCES:
            for dx, dy in _DIRECTIONS:
                text.set_position((dx * (distance + 2), dy * (distance + 1)))
                box = text.get_window_extent().padded(1)
                inside = axes.bbox.containsx(box.x0) and axes.bbox.containsx(box.x1)
                inside = inside and axes.bbox.containsy(box.y0) and axes.bbox.containsy(box.y1)
                if inside and not any(box.overlaps(other) for other in taken):
                    break
            else:
                continue
            if distance > _DISTANCES[0]:  # not at its point: a line leads to it
                axes.annotate(
                    "", _point(row), text.get_position(), textcoords="offset points", zorder=2,
                    arrowprops={"arrowstyle": "-", "linewidth": 0.4, "color": "0.4"},
                )  # fmt: skip
            break
        taken.append(text.get_window_extent())
