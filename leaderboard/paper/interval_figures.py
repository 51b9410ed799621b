"""Figures of a paper in which each row of a board is a line of points with intervals.

Each has two functions: one gives the data, or says in a sentence what is missing, and the other
draws these data.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from benchmarks.core.statistics import Estimate
from leaderboard.paper.board_figures import SHORT, bars, interval_columns
from leaderboard.paper.paper_page import COLOURS, shown_name
from leaderboard.paper.selection import PaperBoard

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_PARTS: Final = ("lattice", "volume", "position")


class ForestPanel(NamedTuple):
    """One panel of points with intervals, a line for each row."""

    title: str
    brief: str
    """The title at the width of a text column."""
    column: str
    """The columns of the point and, with `_low` and `_high`, of its interval."""
    mark: float | None
    """Where a vertical line says that nothing is gained."""
    clip: tuple[float, float]
    """The axis ends here at the latest; a point beyond is an arrow with its value."""


def skill_data(paper: PaperBoard) -> pd.DataFrame | str:
    """The three skills of each row with intervals."""
    import pandas as pd

    found = []
    for row in paper.rows:
        line: dict[str, Any] = {"model": row.model}
        for part in _PARTS:
            line |= interval_columns(f"skill_{part}", row.metrics[f"skill_{part}"])
        found.append(line)
    table = pd.DataFrame(found)
    unknown = not len(table) or table[[f"skill_{part}" for part in _PARTS]].isna().all(axis=None)
    return "doing nothing is already right, so that no skill is defined" if unknown else table


def draw_skill(figure: Figure, table: pd.DataFrame, _: PaperBoard, *, wide: bool) -> None:
    """Three panels of points with intervals."""
    panels = [
        ForestPanel(f"skill, {part}", f"{part}", f"skill_{part}", 0.0, (-1.0, 1.0))
        for part in _PARTS
    ]
    draw_forest(figure, table, panels, wide=wide)


def hybrids_data(paper: PaperBoard) -> pd.DataFrame | str:
    """What each hybrid needs relative to its last part alone, and how often both end alike."""
    import pandas as pd

    found = []
    for saving in paper.board.hybrids:
        if saving.model not in paper.models:
            continue
        line: dict[str, Any] = {
            "model": saving.model,
            "alone": saving.alone,
            "both_finished": saving.both_finished,
        }
        for name, cost in (("force_evals", saving.force_evals), ("seconds", saving.seconds)):
            nothing = Estimate.of(None, None, 0)
            line |= interval_columns(f"{name}_ratio", cost.ratio if cost else nothing)
            line |= interval_columns(f"{name}_saved", cost.saved if cost else nothing)
        rate = saving.minimum.rate if saving.minimum else Estimate.of(None, None, 0)
        found.append(line | interval_columns("same_minimum", rate))
    return pd.DataFrame(found) if found else "no row is a hybrid whose last part was run alone"


def draw_hybrids(figure: Figure, table: pd.DataFrame, _: PaperBoard, *, wide: bool) -> None:
    """Ratios of force evaluations and of time, and the share of equal ends."""
    panels = [
        ForestPanel(
            "force evaluations / those alone",
            "force evals\nratio",
            "force_evals_ratio",
            1.0,
            (0.0, 2.0),
        ),
        ForestPanel("time / time alone", "time\nratio", "seconds_ratio", 1.0, (0.0, 2.0)),
        ForestPanel("share in the same minimum", "same\nminimum", "same_minimum", None, (0.0, 1.0)),
    ]
    draw_forest(figure, table, panels, wide=wide)


def draw_forest(
    figure: Figure, table: pd.DataFrame, panels: Sequence[ForestPanel], *, wide: bool
) -> None:
    """A line for each row, and a panel for each number, which is a point with its interval."""
    heights = np.arange(len(table))[::-1]
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, panel in zip(grid, panels, strict=True):
        low, high = panel.clip
        values = table[panel.column].astype(float)
        inside = values.between(low, high)
        part, at = table[inside], heights[inside.to_numpy()]
        axes.errorbar(
            part[panel.column], at, xerr=bars(part, panel.column), fmt="o", color=COLOURS[0],
            markersize=2.8, elinewidth=0.8,
        )  # fmt: skip
        ends = [
            float(x) for end in ("", "_low", "_high") for x in part[panel.column + end].dropna()
        ]
        ends += [] if panel.mark is None else [panel.mark]
        beyond = values[~inside & values.notna()]
        ends += [low] * bool((beyond < low).any()) + [high] * bool((beyond > high).any())
        least, most = (max(low, min(ends)), min(high, max(ends))) if ends else (low, high)
        room = 0.06 * (most - least or 1.0)
        axes.set(xlim=(least - room, most + room), title=panel.title if wide else panel.brief)
        for position, value in zip(heights, values, strict=True):
            if np.isnan(value):
                axes.text((least + most) / 2, position, "—", ha="center", va="center", fontsize=6)
            elif value < low or value > high:
                edge, side = (least, "left") if value < low else (most, "right")
                mark = "<" if value < low else ">"
                axes.plot(edge, position, mark, color=COLOURS[1], markersize=3.2)
                gap = 0.07 * (most - least)
                axes.text(
                    edge + (gap if value < low else -gap), position, f"{value:.1f}", ha=side,
                    va="center", fontsize=5.5, color=COLOURS[1],
                )  # fmt: skip
        if panel.mark is not None:
            axes.axvline(panel.mark, color="#888888", linewidth=0.6, zorder=0)
        axes.grid(axis="y", color="#eeeeee", zorder=0)
        axes.set_axisbelow(True)
        axes.tick_params(axis="y", length=0)
        axes.locator_params(axis="x", nbins=5 if wide else 2)
        axes.xaxis.set_major_formatter("{x:g}")
    names = [shown_name(model, 32 if wide else SHORT) for model in table["model"]]
    grid[0].set_yticks(heights, names)
    grid[0].set_ylim(-0.7, len(table) - 0.3)
