"""Figures of a paper by sites, by training pairs and by element.

Each has two functions: one gives the data, or says in a sentence what is missing, and the other
draws these data.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from leaderboard.board.schema import IDENTITY
from leaderboard.paper.board_figures import interval_columns
from leaderboard.paper.paper_page import legend_below, line_styles, shown_name
from leaderboard.paper.sample_figures import binned, draw_curves
from leaderboard.paper.selection import PaperBoard

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from pymatgen.core import Element

IN_PERIODIC_TABLE: Final = 103
"""The last atomic number that is drawn."""


def cost_data(paper: PaperBoard) -> pd.DataFrame | str:
    """The median time by the number of sites."""
    import pandas as pd

    found = []
    for model in paper.models:
        table = paper.tables[model]
        timed = table[table["seconds_per_structure"].notna()]
        found += [
            {
                "model": model,
                "n_sites": mean,
                "seconds": float(group["seconds_per_structure"].median()),
                "n": len(group),
            }
            for mean, group in binned(timed, "n_sites", by_value=True)
        ]
    return pd.DataFrame(found) if found else "no times are stored"


def draw_cost(figure: Figure, table: pd.DataFrame, paper: PaperBoard, *, wide: bool) -> None:
    """A line for each model on logarithmic axes."""
    axes = figure.subplots()
    draw_curves(axes, table, paper, "n_sites", "seconds")
    axes.set(xlabel="number of sites" if wide else "sites", ylabel="median time per structure (s)")
    legend_below(figure, axes)


def learning_curves_data(paper: PaperBoard) -> pd.DataFrame | str:
    """The numbers of the study of learning curves, if it lies beside the board."""
    import pandas as pd

    if paper.learning_curves is None:
        return (
            "there is no curves.csv beside the board: python -m studies.learning_curves --out DIR "
            "writes it"
        )
    table = pd.read_csv(paper.learning_curves)
    wanted = {"student", "metric", "n_pairs", "value", "ci_low", "ci_high"}
    lacking = wanted - set(table)
    return f"{paper.learning_curves} lacks {', '.join(sorted(lacking))}" if lacking else table


def draw_learning_curves(figure: Figure, table: pd.DataFrame, _: PaperBoard, *, wide: bool) -> None:
    """Three panels: errors with intervals against the number of pairs, and levels beside."""
    metrics = {
        "lattice_mae": "lattice MAE (Å)",
        "volume_mape": "volume error (%)",
        "position_mae": "position MAE (Å)",
    }
    panels = figure.subplots(*((1, 3) if wide else (3, 1)), sharex=True)
    for axes, (metric, label) in zip(panels, metrics.items(), strict=True):
        part = table[table["metric"] == metric]
        trained = part[part["n_pairs"].notna()]
        for style, (student, group) in zip(
            line_styles(sorted(set(trained["student"]))).values(),
            trained.groupby("student"),
            strict=True,
        ):
            off = np.array([group["value"] - group["ci_low"], group["ci_high"] - group["value"]])
            axes.errorbar(
                group["n_pairs"], group["value"], off.clip(min=0), capsize=1.5, elinewidth=0.7,
                markersize=2.8, label=shown_name(str(student)), **style,
            )  # fmt: skip
        levels = part[part["n_pairs"].isna()]
        for k, (name, level) in enumerate(zip(levels["student"], levels["value"], strict=True)):
            dash = ((0, (1, 1)), (0, (4, 1)), (0, (4, 1, 1, 1)))[k % 3]
            axes.axhline(
                level, color="#777777", linestyle=dash, linewidth=0.7,
                label=shown_name(str(name)),
            )  # fmt: skip
        axes.set(ylabel=label, xlim=(0, None))
        axes.set_ylim(bottom=0)
        axes.grid(color="#eeeeee")
    for axes in panels if wide else panels[-1:]:
        axes.set_xlabel("training pairs")
    legend_below(figure, panels[0])


def reliability_data(paper: PaperBoard) -> pd.DataFrame | str:
    """True by expected errors in groups, and the errors of the shares that are trusted most."""
    import pandas as pd

    found: list[dict[str, Any]] = []
    for each in paper.board.reliability:
        if each.model not in paper.models:
            continue
        found += [
            {"model": each.model, "panel": "groups", "x": part.expected, "n": part.n}
            | interval_columns("error", part.error)
            for part in each.bins
        ]
        found += [
            {"model": each.model, "panel": "kept", "x": part.share, "n": part.n}
            | interval_columns("error", part.error)
            | interval_columns("unchanged", part.unchanged)
            for part in each.kept
        ]
    return pd.DataFrame(found) if found else "no row tells an expected error"


def draw_reliability(figure: Figure, table: pd.DataFrame, _: PaperBoard, *, wide: bool) -> None:
    """Two panels: a reliability diagram, and risk against coverage."""
    left, right = figure.subplots(*((1, 2) if wide else (2, 1)))
    styles = line_styles(sorted(set(table["model"])))
    for (model, panel), group in table.groupby(["model", "panel"]):
        axes = left if panel == "groups" else right
        off = np.array([group["error"] - group["error_low"], group["error_high"] - group["error"]])
        off = np.nan_to_num(off.clip(min=0))
        axes.errorbar(
            group["x"], group["error"], off, capsize=1.5, elinewidth=0.7, markersize=2.8,
            label=shown_name(str(model)), **styles[str(model)],
        )  # fmt: skip
        if panel == "kept":
            axes.plot(group["x"], group["unchanged"], color="#777777", linestyle=":",
                      linewidth=0.9)  # fmt: skip
    end = 1.05 * float(table[table["panel"] == "groups"][["x", "error"]].to_numpy().max())
    left.plot((0, end), (0, end), color="#777777", linestyle="--", linewidth=0.7)
    left.set(xlabel="expected error (Å)", ylabel="true error (Å)", xlim=(0, end))
    right.set(xlabel="share kept (dotted: no change)", ylabel="true error (Å)", xlim=(0, 1.02))
    for axes in (left, right):
        axes.set_ylim(bottom=0)
        axes.grid(color="#eeeeee")
    legend_below(figure, left)


def elements_data(paper: PaperBoard) -> pd.DataFrame | str:
    """The mean errors over the samples that contain each element."""
    import pandas as pd

    found = []
    for model in paper.models:
        table = paper.tables[model]
        symbols = table["group"].map(lambda formula: re.findall(r"[A-Z][a-z]?", str(formula)))
        by_element = table.assign(element=symbols).explode("element").groupby("element")
        for element, group in by_element:
            found.append(
                {
                    "model": model,
                    "element": element,
                    "n": len(group),
                    "scored": int((group["scored"] == 1).sum()),
                    "lattice_error": float(group["lattice_error"].mean()),
                    "position_error": float(group["position_error"].mean()),
                }
            )
    return pd.DataFrame(found) if found else "the board ranks no row"


def draw_elements(figure: Figure, table: pd.DataFrame, paper: PaperBoard, *, wide: bool) -> None:
    """Periodic tables of the lattice error: of doing nothing, and of the best other row."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm
    from matplotlib.patches import Rectangle
    from pymatgen.core import Element

    models = element_models(paper)
    grid = figure.subplots(*((1, len(models)) if wide else (len(models), 1)), squeeze=False)
    errors = table[table["model"].isin(models) & (table["lattice_error"] > 0)]["lattice_error"]
    low, high = (errors.min(), errors.max()) if len(errors) else (0.01, 1.0)
    norm = LogNorm(low, max(high, low * 1.01))
    colours = colormaps["cividis_r"]
    for axes, model in zip(grid.flat, models, strict=True):
        mine = table[table["model"] == model].set_index("element")["lattice_error"]
        for number in range(1, IN_PERIODIC_TABLE + 1):
            element = Element.from_Z(number)
            row, column = place_in_table(element)
            error = mine.get(element.symbol, np.nan)
            known = error > 0
            dark = known and norm(error) > 0.55
            axes.add_patch(
                Rectangle(
                    (column - 0.46, row - 0.46), 0.92, 0.92, linewidth=0.3,
                    facecolor=colours(norm(error)) if known else "white",
                    edgecolor="#777777" if element.symbol in mine else "#dddddd",
                )
            )  # fmt: skip
            grey = "black" if element.symbol in mine else "#bbbbbb"
            axes.text(
                column, row, element.symbol, ha="center", va="center_baseline",
                fontsize=6 if wide else 5, color="white" if dark else grey,
            )  # fmt: skip
        axes.set(xlim=(0.4, 18.6), ylim=(10.0, 0.4), title=shown_name(model), aspect="equal")
        axes.set_axis_off()
        axes.title.set_visible(True)
    bar = figure.colorbar(
        ScalarMappable(norm, colours),
        ax=list(grid.flat),
        orientation="horizontal",
        fraction=0.05,
        pad=0.02,
        aspect=40,
    )
    bar.set_label("mean lattice error of the structures with the element (Å)")


def element_models(paper: PaperBoard) -> list[str]:
    """The rows of the periodic tables: doing nothing, and the best of the others."""
    best = [model for model in paper.curves if model != IDENTITY][:1]
    return [*(model for model in paper.curves if model == IDENTITY), *best]


def place_in_table(element: Element) -> tuple[float, int]:
    """Row and column of an element in the table of 18 columns; lanthanoids and actinoids below."""
    if 57 <= element.Z <= 71:
        return 8.4, element.Z - 54
    if 89 <= element.Z <= 103:
        return 9.4, element.Z - 86
    return element.row, element.group
