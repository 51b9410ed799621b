"""Figures of a paper that need the scores of each sample, or the structures themselves.

Each has two functions: one gives the data, or says in a sentence what is missing, and the other
draws these data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from benchmarks.core import Status
from benchmarks.core.geometry import Floats, cell_parameters
from benchmarks.metrics.columns import DISPLACEMENT_GRID, PARAMETERS, STRAIN_GRID
from benchmarks.metrics.validity import LADDER
from leaderboard.board.schema import IDENTITY
from leaderboard.paper.paper_page import (
    COLOURS,
    legend_below,
    line_styles,
    plain_logarithms,
    set_height,
    shown_name,
)
from leaderboard.paper.selection import PaperBoard

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_IN_PARITY: Final = 4
"""The number of models whose clouds of points can be told apart in one panel."""
BINS: Final = 8
"""The largest number of bins of equal counts by which errors and times are averaged."""
IN_A_BIN: Final = 12
"""A bin has at least about this many samples."""
_SYMBOLS: Final = {"alpha": "α", "beta": "β", "gamma": "γ"}
_REASONS: Final[dict[str, str]] = {
    Status.UNCONVERGED: "not converged (scored)",
    "valid_parsed": "no structure",
    "valid_n_sites": "atoms lost or added",
    "valid_composition": "composition changed",
    "valid_species_order": "species exchanged",
    "valid_cell": "cell implausible",
    "valid_distance": "atoms fused",
    Status.UNSUPPORTED: "declined",
    Status.RESOURCE: "time or memory",
    Status.ERROR: "raised an error",
}
"""The reasons of a failure; those of an invalid answer are the first rung that it fails."""
_ERRORS: Final = {
    "lattice": ("lattice error", "identity_lattice_error", "lattice_error"),
    "position": ("displacement", "identity_position_error", "position_error"),
}


def distributions_data(paper: PaperBoard) -> pd.DataFrame | str:
    """The share of the samples whose displacement, or strain, is below each threshold."""
    import pandas as pd

    found = []
    grids = {"displacement": DISPLACEMENT_GRID, "strain": STRAIN_GRID}
    columns = {"displacement": "position_error", "strain": "strain"}
    for model in paper.models:
        table = paper.tables[model]
        for quantity, grid in grids.items():
            errors = np.sort(table[columns[quantity]].to_numpy(dtype=float))
            below = np.searchsorted(errors[np.isfinite(errors)], grid, side="left") / len(table)
            found.append(
                pd.DataFrame(
                    {"quantity": quantity, "model": model, "threshold": grid, "share": below}
                )
            )
    return pd.concat(found, ignore_index=True) if found else "the board ranks no row"


def draw_distributions(
    figure: Figure, table: pd.DataFrame, paper: PaperBoard, *, wide: bool
) -> None:
    """Two panels of cumulative distributions."""
    labels = {"displacement": "mean displacement (Å)", "strain": "strain"}
    panels = figure.subplots(*((1, 2) if wide else (2, 1)))
    for axes, (quantity, label) in zip(panels, labels.items(), strict=True):
        part = table[table["quantity"] == quantity]
        for model, style in line_styles(paper.curves).items():
            mine = part[part["model"] == model]
            axes.plot(
                mine["threshold"], mine["share"], color=style["color"],
                linestyle=style["linestyle"], label=shown_name(model),
            )  # fmt: skip
        axes.set(xlabel=f"{label} below", ylabel="share of structures", xlim=(0, None))
        axes.set_ylim(top=1.005)
        axes.grid(color="#eeeeee")
    legend_below(figure, panels[0])


def parity_data(paper: PaperBoard) -> pd.DataFrame | str:
    """Initial, true and predicted cell of each sample, for the models that are drawn."""
    import pandas as pd

    models = [model for model in paper.curves if model != IDENTITY][:MOST_IN_PARITY]
    if paper.dataset is None:
        name = paper.board.dataset.name.split(" (")[0]  # a part is named in parentheses
        return f"the structures are not at hand: name {name} with --data"
    positions = {sample_id: i for i, sample_id in enumerate(paper.dataset.ids)}
    found = []
    for model in models:
        scored = paper.tables[model].query("scored == 1")
        wanted = set(zip(scored["sample_id"], scored["repeat"], strict=True))
        for record in paper.runs[model].records if wanted else ():
            if record.geometry is None or (record.sample_id, record.repeat) not in wanted:
                continue
            initial, final = paper.dataset.geometries(positions[record.sample_id])
            line: dict[str, Any] = {"model": model, "sample_id": record.sample_id}
            cells = {"initial": initial, "true": final, "predicted": record.geometry}
            for kind, geometry in cells.items():
                values = [*cell_parameters(geometry.lattice), abs(np.linalg.det(geometry.lattice))]
                names = [f"{name}_{kind}" for name in (*PARAMETERS, "volume")]
                line |= dict(zip(names, map(float, values), strict=True))
            found.append(line)
    return pd.DataFrame(found) if found else "no answer of a model other than identity is stored"


def draw_parity(figure: Figure, table: pd.DataFrame, _: PaperBoard, *, wide: bool) -> None:
    """A panel for each parameter: the predicted change against the true one, and the diagonal."""
    grid = figure.subplots(*((2, 4) if wide else (4, 2)))
    models = list(dict.fromkeys(table["model"]))
    styles = line_styles(models)
    for axes, name in zip(grid.flat, (*PARAMETERS, "volume"), strict=False):
        scale = 100 / table["volume_initial"] if name == "volume" else 1.0
        true, predicted = (
            (table[f"{name}_{kind}"] - table[f"{name}_initial"]) * scale
            for kind in ("true", "predicted")
        )
        for model in models:
            mine = (table["model"] == model).to_numpy()
            axes.plot(
                true[mine], predicted[mine], ".", color=styles[model]["color"], alpha=0.6,
                markersize=4 if len(table) < 500 else 2, markeredgewidth=0,
                label=shown_name(model), rasterized=len(table) > 2000,
            )  # fmt: skip
        reach = np.nanpercentile(np.abs(true), 98)
        reach = max(float(reach) * 1.08, 1e-3)
        axes.plot([-reach, reach], [-reach, reach], color="#333333", linewidth=0.5, zorder=3)
        axes.axhline(0, color="#999999", linewidth=0.4, linestyle=(0, (2, 2)), zorder=0)
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach))
        axes.set_box_aspect(1)
        symbol = _SYMBOLS.get(name, "V" if name == "volume" else name)
        unit = "%" if name == "volume" else "Å" if len(name) == 1 else "°"
        axes.set(xlabel=f"true Δ{symbol} ({unit})", ylabel=f"predicted Δ{symbol} ({unit})")
        axes.locator_params(nbins=4)
    last = grid.flat[7]
    last.set_axis_off()
    handles, labels = grid.flat[0].get_legend_handles_labels()
    last.legend(handles, labels, loc="center", markerscale=3)


def failures_data(paper: PaperBoard) -> pd.DataFrame | str:
    """The share of the outcomes of each row by the reason of its failure."""
    import pandas as pd

    found = []
    for model in paper.models:
        table = paper.tables[model]
        failed = table[table["status"] != Status.OK]
        invalid = (failed["status"] == Status.INVALID).to_numpy()
        rungs = failed[list(LADDER)].to_numpy(dtype=float) == 0
        first = np.array(LADDER)[rungs.argmax(axis=1)]
        reasons = np.where(invalid & rungs.any(axis=1), first, failed["status"].astype(str))
        counts = pd.Series(reasons, dtype=str).value_counts()
        found += [
            {
                "model": model,
                "reason": _REASONS.get(str(reason), str(reason)),
                "n": int(count),
                "outcomes": len(table),
                "share": count / len(table),
            }
            for reason, count in counts.items()
        ]
    return pd.DataFrame(found) if found else "no model failed on any sample"


def draw_failures(figure: Figure, table: pd.DataFrame, paper: PaperBoard, *, wide: bool) -> None:
    """A bar for each row that has failures, in parts by the reason."""
    models = [model for model in paper.models if model in set(table["model"])]
    reasons = [each for each in [*_REASONS.values(), "invalid"] if each in set(table["reason"])]
    matrix = table.pivot_table(index="model", columns="reason", values="share").fillna(0.0)
    matrix = matrix.loc[models[::-1], reasons]
    axes = figure.subplots()
    left: Floats = np.zeros(len(models))
    for k, reason in enumerate(reasons):
        quiet = reason == _REASONS[Status.UNCONVERGED]
        shares = matrix[reason].to_numpy(dtype=float)
        axes.barh(
            range(len(models)), shares, left=left, height=0.7, label=reason, linewidth=0.3,
            color="#d9d9d9" if quiet else COLOURS[k % len(COLOURS)], edgecolor="white",
            hatch="" if k < len(COLOURS) else "////",
        )  # fmt: skip
        left = left + shares
    names = [shown_name(model, 32 if wide else 24) for model in models[::-1]]
    axes.set_yticks(range(len(models)), names)
    axes.set(xlabel="share of the outcomes", xlim=(0, min(1.0, max(left) * 1.08)))
    axes.tick_params(axis="y", length=0)
    legend_below(figure, axes)


def against_change_data(paper: PaperBoard) -> pd.DataFrame | str:
    """The mean error by the size of the true change, in bins of equal counts."""
    import pandas as pd

    found = []
    for part, (_, change, error) in _ERRORS.items():
        for model in paper.models:
            table = paper.tables[model]
            moved = table[(table[change] > 1e-4) & table[error].notna()]
            for mean, group in binned(moved, change, by_value=False):
                found.append(
                    {
                        "part": part,
                        "model": model,
                        "true_change": mean,
                        "error": float(group[error].mean()),
                        "n": len(group),
                    }
                )
    table = pd.DataFrame(found, columns=["part", "model", "true_change", "error", "n"])
    return table if _drawn_parts(table) else f"fewer than {2 * IN_A_BIN} samples change"


def _drawn_parts(table: pd.DataFrame) -> list[str]:
    """The parts of which a model has more than one bin."""
    counts = table.groupby(["part", "model"]).size()
    several = {str(part) for part, _ in counts[counts > 1].index}
    return [part for part in _ERRORS if part in several]


def binned(table: pd.DataFrame, column: str, *, by_value: bool) -> list[tuple[float, pd.DataFrame]]:
    """Bins of about equal counts by a column, with its mean in each.

    Args:
        table: Scores.
        column: The column.
        by_value: Whether a column of few values has a bin for each instead.
    """
    import pandas as pd

    if not len(table):
        return []
    values = table[column]
    if by_value and values.nunique() <= BINS:
        groups = table.groupby(values)
    else:
        count = min(BINS, max(1, len(table) // IN_A_BIN))
        groups = table.groupby(pd.qcut(values, count, duplicates="drop"), observed=True)
    return [(float(group[column].mean()), group) for _, group in groups]


def draw_against_change(
    figure: Figure, table: pd.DataFrame, paper: PaperBoard, *, wide: bool
) -> None:
    """A panel for each part; on the diagonal a model is as wrong as doing nothing."""
    parts = _drawn_parts(table)
    shape = (1, len(parts)) if wide else (len(parts), 1)
    set_height(figure, figure.get_figheight() if wide else 2.2 * len(parts))
    panels = figure.subplots(*shape, squeeze=False).flat
    for axes, part in zip(panels, parts, strict=True):
        label = _ERRORS[part][0]
        mine = table[table["part"] == part]
        draw_curves(axes, mine, paper, "true_change", "error")
        axes.set(xlabel=f"{label} of the start (Å)", ylabel=f"mean {label} (Å)")
        ends = [mine["true_change"].min(), mine["true_change"].max()]
        axes.plot(ends, ends, color="#333333", linewidth=0.5, zorder=0)
    legend_below(figure, panels[0])


def draw_curves(axes: Axes, table: pd.DataFrame, paper: PaperBoard, x: str, y: str) -> None:
    """A line with markers for each model that is drawn, on logarithmic axes."""
    axes.set(xscale="log", yscale="log")
    for model, style in line_styles(paper.curves).items():
        mine = table[(table["model"] == model) & (table[y] > 0)]
        axes.plot(mine[x], mine[y], markersize=2.5, label=shown_name(model), **style)
    axes.grid(color="#eeeeee")
    axes.margins(0.04)
    plain_logarithms(axes)
