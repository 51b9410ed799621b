"""Figures of a paper that the numbers of a board suffice for.

Each has two functions: one gives the data, or says in a sentence what is missing, and the other
draws these data.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from benchmarks.core.statistics import Estimate, on_front
from leaderboard.board.rows import RANKED_BY
from leaderboard.paper.paper_page import (
    COLOURS,
    legend_below,
    line_styles,
    place_names,
    plain_logarithms,
    set_height,
    shown_name,
)
from leaderboard.paper.selection import PaperBoard
from leaderboard.views.figures import FAMILIES, MOSTLY_SCORED, TIME

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_ERRORS: Final = {"lattice_mae": "lattice MAE (Å)", "position_mae": "position MAE (Å)"}
SHORT: Final = 24
"""The length of a name beside narrow panels."""
_CELL_TEXT: Final = 0.27
"""The width of a cell of the matrix [inch] that holds a number."""


def error_against_time_data(paper: PaperBoard) -> pd.DataFrame | str:
    """Time and errors of each row with intervals, and whether it is on a Pareto front."""
    import pandas as pd

    found = []
    for row in paper.rows:
        line: dict[str, Any] = {
            "model": row.model,
            "family": row.family,
            "machine": "; ".join(f"{m.cpu}, {m.device}, {m.threads}" for m in row.hardware),
            "scored": row.n_scored / max(1, sum(row.coverage.values())),
        }
        for name in (TIME, *_ERRORS):
            line |= interval_columns(name, row.metrics[name])
        found.append(line)
    table = pd.DataFrame(found)
    if not len(table) or not (table[TIME].fillna(0) > 0).any():
        return "no row has a time"
    machine = Counter(table["machine"]).most_common(1)[0][0]
    for error in _ERRORS:
        able = (table["machine"] == machine) & (table["scored"] >= MOSTLY_SCORED)
        able &= (table[TIME] > 0) & (table[error] > 0)
        table[f"{error}_on_front"] = False
        table.loc[able, f"{error}_on_front"] = on_front(
            table.loc[able, TIME], table.loc[able, error]
        )
    return table


def interval_columns(name: str, found: Estimate) -> dict[str, float | None]:
    """The columns of an estimate: its point and, with `_low` and `_high`, its interval."""
    return {name: found.point, f"{name}_low": found.low, f"{name}_high": found.high}


def draw_error_against_time(
    figure: Figure, table: pd.DataFrame, paper: PaperBoard, *, wide: bool
) -> None:
    """Points with intervals on logarithmic axes; the front is a line of steps, and is named."""
    errors = list(_ERRORS)[: 2 if wide else 1]
    families = [family for family in FAMILIES if family in set(table["family"])]
    panels = figure.subplots(1, len(errors), squeeze=False)[0]
    for axes, error in zip(panels, errors, strict=True):
        axes.set(xscale="log", yscale="log")
        shown = table[(table[TIME] > 0) & (table[error] > 0)]
        for k, family in enumerate(families):
            part = shown[shown["family"] == family]
            hollow = np.where(part["scored"] < MOSTLY_SCORED, "white", COLOURS[k % len(COLOURS)])
            axes.errorbar(
                part[TIME], part[error], xerr=bars(part, TIME), yerr=bars(part, error),
                fmt="none", zorder=1,
                ecolor=COLOURS[k % len(COLOURS)], elinewidth=0.5, alpha=0.6,
            )  # fmt: skip
            axes.scatter(
                part[TIME], part[error], s=11, marker=FAMILIES[family][1], c=list(hollow),
                edgecolors=COLOURS[k % len(COLOURS)], linewidths=0.6, zorder=3,
                label=FAMILIES[family][0],
            )  # fmt: skip
        front = shown[shown[f"{error}_on_front"]].sort_values(TIME)
        axes.step(
            front[TIME], front[error], where="post", color="#333333", linewidth=0.7,
            linestyle=(0, (3, 1)), label="Pareto front", zorder=2,
        )  # fmt: skip
        axes.set(xlabel="median time per structure (s)", ylabel=_ERRORS[error])
        axes.margins(0.08)
        plain_logarithms(axes)
    legend_below(figure, panels[0])
    figure.draw_without_rendering()
    for axes, error in zip(panels, errors, strict=True):
        shown = table[(table[TIME] > 0) & (table[error] > 0)]
        first = shown.sort_values(f"{error}_on_front", ascending=False, kind="stable")
        names = (
            first if wide else first[first[f"{error}_on_front"] | first["model"].isin(paper.curves)]
        )
        place_names(
            axes,
            zip(names[TIME], names[error], map(shown_name, names["model"]), strict=True),
        )


def bars(table: pd.DataFrame, name: str) -> Any:
    """Lengths of error bars: none is negative, though an interval need not contain its point."""
    low = (table[name] - table[f"{name}_low"]).fillna(0).clip(lower=0)
    high = (table[f"{name}_high"] - table[name]).fillna(0).clip(lower=0)
    return np.array([low, high], dtype=float)


def slices_data(paper: PaperBoard) -> pd.DataFrame | str:
    """The score of each row in each slice."""
    import pandas as pd

    found = [
        {"property": table.title, "slice": each.label, "n": each.n, "model": row.model}
        | interval_columns(RANKED_BY, each.scores[row.model])
        for table in paper.board.slices
        for each in table.slices
        for row in paper.rows
    ]
    return pd.DataFrame(found) if found else "all samples are alike in every property"


def draw_slices(figure: Figure, table: pd.DataFrame, paper: PaperBoard, *, wide: bool) -> None:
    """One panel for each property; in each slice a point with its interval for each curve."""
    titles = list(dict.fromkeys(table["property"]))
    columns = min(2, len(titles)) if wide else 1
    rows = -(-len(titles) // columns)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    styles = line_styles(paper.curves)
    for axes, title in zip(panels, titles, strict=False):
        part = table[table["property"] == title]
        names = list(dict.fromkeys(part["slice"]))
        for k, (model, style) in enumerate(styles.items()):
            mine = part[part["model"] == model].set_index("slice").loc[names]
            offset = ((k + 0.5) / len(styles) - 0.5) * 0.75
            axes.errorbar(
                np.arange(len(names)) + offset, mine[RANKED_BY], yerr=bars(mine, RANKED_BY),
                fmt=style["marker"], color=style["color"], markersize=2.6, elinewidth=0.6,
                label=shown_name(model),
            )  # fmt: skip
        sizes = part.drop_duplicates("slice").set_index("slice")["n"]
        ticks = [f"{name}\n{sizes[name]}" for name in names]
        crowded = sum(map(len, names)) > (48 if wide else 42)
        axes.set_xticks(
            range(len(names)), ticks, fontsize=5 if crowded else 6, rotation=30 if crowded else 0
        )
        for edge in range(1, len(names)):
            axes.axvline(edge - 0.5, color="#dddddd", linewidth=0.4, zorder=0)
        axes.set(title=title, ylabel=RANKED_BY, xlim=(-0.5, len(names) - 0.5))
    for axes in panels[len(titles) :]:
        axes.set_axis_off()
    legend_below(figure, figure.axes[0])


def differences_data(paper: PaperBoard) -> pd.DataFrame | str:
    """Every paired difference of the score between two chosen rows."""
    import pandas as pd

    found = [
        {"model": model, "rival": rival} | interval_columns("difference", cells[rival])
        for table in paper.board.differences
        if table.metric == RANKED_BY
        for model, cells in table.cells.items()
        for rival in table.rivals
        if rival in cells and {model, rival} <= set(paper.models)
    ]
    return pd.DataFrame(found) if found else "fewer than two rows can be compared"


def draw_differences(figure: Figure, table: pd.DataFrame, paper: PaperBoard, *, wide: bool) -> None:
    """A matrix of colours; a dot says that the interval contains 0, and there is no difference."""
    shown = paper.models if wide else paper.in_column
    models = [model for model in shown if model in set(table["model"])]
    rivals = [model for model in shown if model in set(table["rival"])]
    matrix = table.pivot_table(index="model", columns="rival", values="difference")
    matrix = matrix.loc[models, rivals]
    tied = (table["difference_low"] <= 0) & (table["difference_high"] >= 0)
    tie = table.assign(tied=tied).pivot_table(index="model", columns="rival", values="tied")
    tie = tie.loc[models, rivals]
    largest = float(np.nanpercentile(np.abs(matrix.to_numpy(dtype=float)), 95)) or 1.0
    axes = figure.subplots()
    image = axes.imshow(
        matrix.to_numpy(dtype=float), cmap="RdBu", vmin=-largest, vmax=largest, aspect="auto"
    )
    numbers = wide and (figure.get_figwidth() - 1.6) / len(rivals) > _CELL_TEXT
    for (i, j), value in np.ndenumerate(matrix.to_numpy(dtype=float)):
        if np.isnan(value):
            continue
        colour = "white" if abs(value) > 0.6 * largest else "black"
        if numbers:
            text = f"{value:+.2f}".replace("0.", ".")
            axes.text(j, i, text, ha="center", va="center", fontsize=5, color=colour,
                      alpha=0.55 if tie.iloc[i, j] else 1)  # fmt: skip
        if tie.iloc[i, j]:
            axes.plot(j, i + (0.36 if numbers else 0), ".", color=colour, markersize=1.6)
    small = 6 if max(len(models), len(rivals)) <= 25 else 5
    most = 32 if wide else SHORT
    names = [[shown_name(model, most) for model in each] for each in (rivals, models)]
    set_height(figure, 0.5 + 0.13 * max(len(models), 6) + 0.05 * max(map(len, names[0])))
    axes.set_xticks(range(len(rivals)), names[0], rotation=90, fontsize=small)
    axes.set_yticks(range(len(models)), names[1], fontsize=small)
    axes.set(xlabel="rival", facecolor="#e8e8e8")
    axes.tick_params(length=0)
    bar = figure.colorbar(image, ax=axes, extend="both", fraction=0.05, pad=0.02)
    bar.set_label("row − rival")
