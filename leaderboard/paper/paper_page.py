"""The page of a paper: widths, type, colours, and a figure's files in three formats."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.core.files import atomic_write
from leaderboard.board.schema import IDENTITY

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTHS: Final = {"column": 3.35, "page": 7.0}
"""The widths at which a figure is printed [inch]: 85 mm and 178 mm."""
TALLEST: Final = 9.0
"""The height of a printed page [inch]; a figure is not higher."""
COLOURS: Final = ("#0173b2", "#d55e00", "#029e73", "#cc78bc", "#de8f05", "#56b4e9", "#ca9161")
"""Seven colours of seaborn's palette `colorblind` that are dark enough for thin lines."""
DASHES: Final = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)))
"""With each round through the colours the next style of line is taken."""
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X")
UNCHANGED: Final = {"color": "#555555", "linestyle": (0, (2, 1.5)), "marker": "x"}
"""The style of the model that changes nothing."""
_LAST_LETTER: Final = "\u2c00"
"""The font has signs for most characters before this one."""
_TYPE: Final[dict[str, Any]] = {
    "font.size": 7,
    "axes.labelsize": 7,
    "axes.titlesize": 7,
    "xtick.labelsize": 6,
    "ytick.labelsize": 6,
    "legend.fontsize": 6,
    "legend.title_fontsize": 6,
    "axes.linewidth": 0.6,
    "grid.linewidth": 0.4,
    "lines.linewidth": 1.0,
    "lines.markersize": 3.5,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.major.width": 0.5,
    "ytick.major.width": 0.5,
    "axes.edgecolor": "#333333",
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "legend.borderaxespad": 0.2,
    "figure.constrained_layout.w_pad": 0.05,
    "figure.constrained_layout.h_pad": 0.035,
}
"""Sizes of type [points] at the printed width: none is below 5."""


@contextmanager
def paper_figure(stem: Path, width: float, height: float) -> Iterator[Figure]:
    """Give a figure to draw on; when the block ends it is written as PDF, SVG and PNG.

    The fonts are embedded in the PDF as TrueType, and the SVG has the outlines of its letters. The
    same drawing gives the same bytes.

    Args:
        stem: The path without a suffix.
        width: Printed width [inch].
        height: Printed height [inch].
    """
    import matplotlib as mpl
    import seaborn as sns
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    embedded: dict[str, Any] = {
        "pdf.fonttype": 42,
        "svg.fonttype": "path",
        "svg.hashsalt": stem.name,
    }
    with mpl.rc_context(sns.axes_style("ticks") | _TYPE | embedded):
        figure = Figure(figsize=(width, min(height, TALLEST)), dpi=300, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        for _ in range(2):  # the second time with the sizes that the first one found
            figure.draw_without_rendering()
        figure.set_layout_engine("none")  # the layout is done: no format does it again
        for path in paths_of(stem):
            no_date: dict[str, Any] = {
                ".pdf": {"CreationDate": None, "Producer": None, "Creator": None},
                ".svg": {"Date": None, "Creator": None},
                ".png": {"Software": None},
            }[path.suffix]
            with atomic_write(path) as partial:
                figure.savefig(partial, format=path.suffix[1:], metadata=no_date, dpi="figure")


def paths_of(stem: Path) -> list[Path]:
    """The files of a figure."""
    return [stem.with_name(stem.name + suffix) for suffix in (".pdf", ".svg", ".png")]


def line_styles(models: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour, line and marker of each model; they differ in two ways, so that grey print works."""
    styles: dict[str, dict[str, Any]] = {}
    others = [model for model in models if model != IDENTITY]
    for k, model in enumerate(others):
        turn, place = divmod(k, len(COLOURS))
        styles[model] = {
            "color": COLOURS[place],
            "linestyle": DASHES[turn % len(DASHES)],
            "marker": MARKERS[(place + turn) % len(MARKERS)],
        }
    return styles | {model: dict(UNCHANGED) for model in models if model == IDENTITY}


def shown_name(model: str, most: int = 32) -> str:
    """A model's name as matplotlib shows it verbatim: no mathematics, no control characters.

    Args:
        model: The name.
        most: A name of more characters is cut.
    """
    printable = "".join(
        c if c.isprintable() and c < _LAST_LETTER else "\N{REPLACEMENT CHARACTER}" for c in model
    )
    short = printable if len(printable) <= most else printable[: most - 1] + "…"
    return short.replace("$", r"\$")


def plain_logarithms(axes: Axes) -> None:
    """Label logarithmic axes with plain numbers, so many that they do not touch."""
    from matplotlib.ticker import LogLocator, NullFormatter

    for axis in (axes.xaxis, axes.yaxis):
        low, high = axis.get_view_interval()
        decades = math.log10(high / low) if 0 < low < high else 1.0
        if decades > 4:
            continue  # powers of ten are short there
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 2.2 else (1,)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())


def legend_below(figure: Figure, axes: Axes) -> None:
    """Place the legend of one panel under the figure, which grows by its height.

    It has as many columns as fit beside one another.
    """
    handles, labels = axes.get_legend_handles_labels()
    if not handles:
        return
    width, height = figure.get_size_inches()
    longest = max(map(len, labels))
    columns = max(1, min(len(labels), int(width / (0.32 + 0.052 * longest))))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)
    set_height(figure, height + 0.1 + 0.13 * math.ceil(len(labels) / columns))


def set_height(figure: Figure, height: float) -> None:
    """Give a figure another height [inch], at most that of a page."""
    figure.set_size_inches(figure.get_figwidth(), min(height, TALLEST))


def place_names(axes: Axes, points: Iterable[tuple[float, float, str]]) -> list[str]:
    """Write names beside their points, the first ones first, and leave out what finds no place.

    Args:
        axes: The panel; its limits are final and the figure has been laid out.
        points: x, y and name of each point.

    Returns:
        The names that were left out.
    """
    from matplotlib.patheffects import withStroke
    from matplotlib.text import Text

    points = list(points)
    renderer = axes.get_figure(root=True).canvas.get_renderer()  # type: ignore[union-attr]
    frame = axes.get_window_extent(renderer)
    scale = axes.get_figure(root=True).dpi / 72  # type: ignore[union-attr]
    marks: Any = axes.transData.transform([(x, y) for x, y, _ in points]) if points else []
    taken: list[Any] = []
    left_out = []
    offsets = [(dx, dy) for dy in (0, 6, -6, 12, -12, 18, -18) for dx in (5, -5)]
    for x, y, name in points:
        for dx, dy in offsets:
            text = axes.annotate(
                name, (x, y), (dx, dy), textcoords="offset points", fontsize=5.5, va="center",
                ha="left" if dx > 0 else "right",
                arrowprops={"arrowstyle": "-", "linewidth": 0.3, "shrinkA": 0, "shrinkB": 1}
                if abs(dy) > 6 else None,
                path_effects=[withStroke(linewidth=1.5, foreground="white")], zorder=5,
            )  # fmt: skip
            text.update_positions(renderer)
            box = Text.get_window_extent(text, renderer)  # without the line to the point
            inside = frame.contains(box.x0, box.y0) and frame.contains(box.x1, box.y1)
            covered = any(
                box.x0 - 2 * scale < px < box.x1 + 2 * scale
                and box.y0 - scale < py < box.y1 + scale
                for px, py in marks
            )
            if inside and not covered and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            text.remove()
        else:
            left_out.append(name)
    return left_out
