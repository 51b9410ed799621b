"""The figure of error against time, with intervals: it shows what a second of computing buys."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.core.files import atomic_write
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
FAMILIES: Final = ("llm", "gnn", "trivial", "hybrid")
_OFFSETS: Final = ((6, 5), (6, -11), (-6, 5), (-6, -11), (6, 16), (6, -22), (-6, 16), (-6, -22))
"""Places of a label beside its point [points], in order of preference."""


def error_against_time(board: Board, path: Path) -> list[Path]:
    """Draw lattice error against time per structure, both on logarithmic axes.

    Args:
        board: Rows without a time or with an error of 0 cannot be drawn and are left out.
        path: The SVG; the same board gives the same bytes.

    Returns:
        The file, or none if there is nothing to draw.
    """
    rows = [row for row in board.rows if _drawable(row)]
    if not rows:
        return []
    with save_figure(path, (7.2, 4.5), board.name) as figure:
        axes = figure.add_subplot()
        _draw(axes, rows)
        axes.set_title(f"{title(board)}: error against time, 95 % intervals", fontsize=10)
        figure.draw_without_rendering()  # fixes the layout, which the labels need
        _label(axes, rows)
    return [path]


def _drawable(row: Row) -> bool:
    return bool(row.metrics[ERROR].point) and bool(row.metrics[TIME].point)


def _draw(axes: Axes, rows: list[Row]) -> None:
    import seaborn as sns
    from matplotlib.ticker import LogLocator, NullFormatter

    times, errors = zip(*map(_point, rows), strict=True)
    families = [row.family for row in rows]
    used = [family for family in FAMILIES if family in families]
    palette = dict(zip(FAMILIES, sns.color_palette("colorblind"), strict=False))
    axes.set(xscale="log", yscale="log")
    axes.set(xlim=_limits(rows, TIME), ylim=_limits(rows, ERROR), autoscale_on=False)
    for row in rows:
        axes.errorbar(
            *_point(row), xerr=_bars(row, TIME), yerr=_bars(row, ERROR), fmt="none",
            ecolor=palette[row.family], elinewidth=1.2, zorder=1,
        )  # fmt: skip
    sns.scatterplot(
        x=times, y=errors, hue=families, style=families, hue_order=used, style_order=used,
        palette={family: palette[family] for family in used}, s=60, ax=axes, zorder=2,
    )  # fmt: skip
    axes.set(xlabel="median time per structure (s)", ylabel=f"lattice MAE ({METRICS[ERROR].unit})")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def _limits(rows: list[Row], name: str) -> tuple[float, float]:
    """The axis contains all points and bars, with room for labels; it is never empty."""
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


def _label(axes: Axes, rows: list[Row]) -> None:
    """Write each name beside its point, at the first place where it covers no other."""
    taken: list[Any] = []
    for row in rows:
        for dx, dy in _OFFSETS:
            text = axes.annotate(
                row.model, _point(row), (dx, dy), textcoords="offset points", fontsize=8,
                ha="left" if dx > 0 else "right",
            )  # fmt: skip
            box = text.get_window_extent()
            inside = axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1
            if inside and not any(box.overlaps(other) for other in taken):
                break
            text.set_visible(False)
        text.set_visible(True)  # the last place, where all are taken
        taken.append(box)
