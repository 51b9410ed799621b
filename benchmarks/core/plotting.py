"""Figures are written as SVG and PNG, with the same bytes each time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.core.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@contextmanager
def save_figure(path: Path, size: tuple[float, float], name: str) -> Iterator[Figure]:
    """Give a figure to draw on, and write it when the block ends.

    Args:
        path: The file, if it ends with .svg or .png; else both are written.
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
        suffixes = [path.suffix] if path.suffix in (".svg", ".png") else [".svg", ".png"]
        if ".svg" in suffixes:
            with atomic_write(path.with_suffix(".svg")) as svg:
                figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
        if ".png" in suffixes:
            with atomic_write(path.with_suffix(".png")) as png:
                figure.savefig(png, format="png", dpi=160, metadata={"Software": None})
