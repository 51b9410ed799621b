"""Figures as SVG and PNG, the same bytes each time."""

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
    """A figure to draw on; it is written when the block ends.

    Args:
        path: Gets the suffixes .svg and .png.
        size: Width and height [inch].
        name: Of what it shows; the ids in the SVG are made from it.
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
        with (
            atomic_write(path.with_suffix(".svg")) as svg,
            atomic_write(path.with_suffix(".png")) as png,
        ):
            figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
            figure.savefig(png, format="png", dpi=160, metadata={"Software": None})
