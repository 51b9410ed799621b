"""The figures of a paper: names, captions, data, drawings, and their files.

Each figure is drawn from a table that lies beside it as CSV. A figure whose data are not there is
left out, with a line that says what is missing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.core.files import atomic_write
from benchmarks.core.formatting import inert
from leaderboard.paper import board_figures, interval_figures, property_figures, sample_figures
from leaderboard.paper.paper_page import WIDTHS, paper_figure, paths_of
from leaderboard.paper.selection import PaperBoard, PaperFiles
from leaderboard.paper.table_text import escape_markdown

if TYPE_CHECKING:
    import pandas as pd

CAPTIONS: Final = "captions.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperFigure:
    """A figure of a paper."""

    name: str
    caption: str
    data: Callable[[PaperBoard], pd.DataFrame | str]
    """The table behind the figure, or a sentence that says what is missing."""
    draw: Callable[..., None]
    """Draws the table on a figure: `(figure, table, paper, wide=...)`."""
    heights: tuple[float, float] = (2.6, 2.6)
    """Height at column and at page width [inch], without what grows; a drawing may change it."""
    per_row: float = 0.0
    """Further height for each line of the table [inch]."""
    curves_only: bool = True
    """Whether the figure shows only some of the models, and its CSV all."""

    def height(self, table: pd.DataFrame, *, wide: bool) -> float:
        """The height [inch] with which a drawing begins, at one of the two widths."""
        lines = table["model"].nunique() if "model" in table else len(table)
        return self.heights[wide] + self.per_row * lines


FIGURES: Final = (
    PaperFigure(
        name="error-against-time",
        caption="Error against the median time per structure, with 95 % intervals. Dashed: the "
        "Pareto front of the models that scored at least 95 % of the samples and were measured on "
        "the machine of most rows. Hollow: fewer of the samples were scored.",
        data=board_figures.error_against_time_data,
        draw=board_figures.draw_error_against_time,
        heights=(2.45, 2.6),
        curves_only=False,
    ),
    PaperFigure(
        name="distributions",
        caption="Share of the structures whose mean displacement (strain) from the reference is "
        "below a threshold. A failure is below none. The areas under the curves are `adwt` and "
        "`strain_awt`.",
        data=sample_figures.distributions_data,
        draw=sample_figures.draw_distributions,
        heights=(4.0, 2.2),
    ),
    PaperFigure(
        name="parity",
        caption="Predicted against true change of the lattice parameters and of the volume, from "
        "the start to the relaxed structure, of the scored samples. Solid: equal; dashed: no "
        "change. The axes hold 98 % of the true changes; the CSV has all, and the parameters "
        "themselves.",
        data=sample_figures.parity_data,
        draw=sample_figures.draw_parity,
        heights=(6.4, 3.6),
    ),
    PaperFigure(
        name="slices",
        caption="The score by properties of the samples, with 95 % intervals; below each slice its "
        "number of samples.",
        data=board_figures.slices_data,
        draw=board_figures.draw_slices,
        heights=(6.4, 4.2),
    ),
    PaperFigure(
        name="skill",
        caption="Skill: 1 − error / error of no change, over all samples, with 95 % intervals. At "
        "0 a model is as good as doing nothing. Arrows: values outside of the axis.",
        data=interval_figures.skill_data,
        draw=interval_figures.draw_skill,
        heights=(0.6, 0.6),
        per_row=0.13,
        curves_only=False,
    ),
    PaperFigure(
        name="differences",
        caption="Mean paired difference of the score, the row minus the rival. A dot: its 95 % "
        "interval contains 0. At column width at most 16 of the models.",
        data=board_figures.differences_data,
        draw=board_figures.draw_differences,
        curves_only=False,
    ),
    PaperFigure(
        name="failures",
        caption="Share of the outcomes that failed, or did not converge, by reason. Models that "
        "are not shown had neither.",
        data=sample_figures.failures_data,
        draw=sample_figures.draw_failures,
        heights=(0.65, 0.65),
        per_row=0.14,
        curves_only=False,
    ),
    PaperFigure(
        name="error-against-change",
        caption="Mean error of the scored samples by the size of the true change, in bins of equal "
        "counts. On the diagonal a model is as wrong as doing nothing.",
        data=sample_figures.against_change_data,
        draw=sample_figures.draw_against_change,
        heights=(4.4, 2.5),
    ),
    PaperFigure(
        name="cost-against-sites",
        caption="Median time per structure by the number of sites, each model on its own machine.",
        data=property_figures.cost_data,
        draw=property_figures.draw_cost,
        heights=(2.3, 2.6),
    ),
    PaperFigure(
        name="hybrids",
        caption="A+B relaxes with B from A's structure. Ratio of the force evaluations and of the "
        "time to those of B alone, with 95 % intervals, over the samples that both finished; share "
        "of the samples on which both end in the same minimum.",
        data=interval_figures.hybrids_data,
        draw=interval_figures.draw_hybrids,
        heights=(0.75, 0.75),
        per_row=0.14,
        curves_only=False,
    ),
    PaperFigure(
        name="reliability",
        caption="True against expected error (a, b and c plus mean displacement) in equal groups, "
        "and the mean error of the share of the structures with the smallest expected "
        "errors, with 95 % intervals; dotted: that of no change over the same structures. Only "
        "models that say how wrong they may be.",
        data=property_figures.reliability_data,
        draw=property_figures.draw_reliability,
        heights=(4.2, 2.4),
        curves_only=False,
    ),
    PaperFigure(
        name="learning-curves",
        caption="Errors on the test samples by the number of training pairs, with 95 % intervals; "
        "each point is one training.",
        data=property_figures.learning_curves_data,
        draw=property_figures.draw_learning_curves,
        heights=(4.4, 2.0),
        curves_only=False,
    ),
    PaperFigure(
        name="error-by-element",
        caption="Mean lattice error over the scored structures that contain an element, of doing "
        "nothing and of the best other model that is shown. White: none was scored.",
        data=property_figures.elements_data,
        draw=property_figures.draw_elements,
        heights=(3.9, 2.3),
    ),
)
"""Every figure of a paper."""


def write_figures(paper: PaperBoard, folder: Path) -> PaperFiles:
    """Write every figure at both widths as PDF, SVG and PNG, its data as CSV, and the captions.

    Args:
        paper: The board, its rows and their scores.
        folder: The folder of the figures.

    Returns:
        The files, and a line for each figure whose data are missing.
    """
    files: list[Path] = []
    left_out = []
    captions = [f"# Figures of {escape_markdown(paper.board.name)}", ""]
    for each in FIGURES:
        table = each.data(paper)
        if isinstance(table, str):
            left_out.append(f"figure {each.name} is left out: {table}")
            continue
        files.append(write_csv(table, folder / f"{each.name}.csv"))
        for kind, width in WIDTHS.items():
            wide = kind == "page"
            stem = folder / f"{each.name}-{kind}"
            with paper_figure(stem, width, each.height(table, wide=wide)) as figure:
                each.draw(figure, table, paper, wide=wide)
            files += paths_of(stem)
        some = each.curves_only and len(paper.curves) < len(paper.rows)
        more = " Some of the models are shown; the CSV has all." if some else ""
        captions += [f"**{each.name}** {each.caption}{more}", ""]
    captions += [f"- {escape_markdown(line)}" for line in left_out]
    with atomic_write(folder / CAPTIONS) as partial:
        partial.write_text("\n".join(captions).rstrip() + "\n", encoding="utf-8")
    return PaperFiles([*files, folder / CAPTIONS], left_out)


def write_csv(table: pd.DataFrame, path: Path) -> Path:
    """Write a table as CSV; no cell of text is a formula to a spreadsheet."""
    texts = table.select_dtypes(exclude=["number", "bool"]).columns
    safe = table.assign(**{name: table[name].map(lambda x: inert(str(x))) for name in texts})
    with atomic_write(path) as partial:
        safe.to_csv(partial, index=False, float_format="%.6g", lineterminator="\n")
    return path
