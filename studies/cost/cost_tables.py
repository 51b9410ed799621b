"""Tables and figure of what models cost, from the measurements of a folder.

`cost.csv` has a line for each model and size, `models.csv` one for each model with the cost of its
training beside that of its use, `cost.md` shows the latter, and `cost.svg` the former.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from benchmarks.core.files import atomic_write
from benchmarks.core.formatting import NOTHING, format_number, markdown_table
from benchmarks.core.training_cost import TrainingCost
from leaderboard.views.figures import save_figure
from leaderboard.views.table_columns import training_time
from studies.cost.sites import LARGE, exponent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZE: Final = (10, 4.5)
"""Two panels, time and memory [inch]."""
_LINE: Final = 0.19
"""The height of a line of the legend [inch]."""
_COLUMNS: Final = 3
"""Columns of the legend."""
SHOWN: Final = (2, 32, 200)
"""The sizes whose times stand in `cost.md`."""


def write_cost_tables(measurements: Iterable[Mapping[str, Any]], folder: Path) -> pd.DataFrame:
    """Write the tables and the figure; return the table of models.

    Args:
        measurements: Those of a folder, see `studies.cost.measurements`.
        folder: Where the files go.
    """
    stored = list(measurements)
    sizes = [each for each in stored if "sites" in each["measured"]]
    points = pd.DataFrame(
        {**each["measured"], "load": max(each["load_average"][:1], default=math.nan)}
        for each in sizes
    ).sort_values(["model", "sites"], kind="stable")
    points["exponent"] = points.model.map(
        {name: exponent(t.sites.tolist(), t.seconds.tolist()) for name, t in _models(points)}
    ).astype(float)
    points.to_csv(folder / "cost.csv", index=False, float_format="%.4g")
    models = pd.DataFrame(_model_row(name, part, stored) for name, part in _models(points))
    models = models.sort_values("relaxation_seconds", kind="stable", ignore_index=True)
    models.to_csv(folder / "models.csv", index=False, float_format="%.4g")
    with atomic_write(folder / "cost.md") as partial:
        partial.write_text(_page(models, points, stored), encoding="utf-8")
    legend = _LINE * (math.ceil(len(models) / _COLUMNS) + 1)
    with save_figure(folder / "cost.svg", (SIZE[0], SIZE[1] + legend), "cost") as figure:
        _draw(figure, points)
    return models


def _models(points: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    return [(str(name), part) for name, part in points.groupby("model", sort=False)]


def _model_row(
    name: str, points: pd.DataFrame, stored: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    """The line of a model: training, evaluation at the shown sizes, memory, relaxation."""
    mine = [each for each in stored if each["model"] == name]
    relaxed: dict[str, Any] = {}
    for each in mine:
        relaxed |= each["measured"] if "structures" in each["measured"] else {}
    last = points.iloc[-1]
    costs = [cost and TrainingCost(**cost) for cost in mine[-1]["training_cost"]]
    seconds = dict(zip(points.sites, points.seconds, strict=True))
    return {
        "model": name,
        "label": mine[0]["about"]["label"],
        "engine": last.engine,
        "weights": last.weights,
        "training": training_time(costs),
        "training_stated": training_time(costs, whole=True),
        **{f"seconds_{n}_sites": seconds.get(n) for n in SHOWN},
        "exponent": last.exponent,
        "largest": last.sites,
        "peak_mb": last.peak_mb,
        "loaded_mb": last.loaded_mb,
        "relaxation_seconds": relaxed.get("seconds_per_structure"),
        "relaxation_evaluations": relaxed.get("evaluations_per_structure"),
        "finished": relaxed.get("finished"),
        "structures": relaxed.get("structures"),
    }


_NOTES: Final = f"""\
Evaluation: energy, forces and stress of a supercell of rocksalt, the median of several; of a model
that answers in one pass its whole answer. Exponent: of the growth with the sites, within a factor
of {LARGE:g} of the largest size. Relaxation: median per structure of the embedded test split, one
at a time, and its evaluations. Training: the computing time, as its authors publish it or as our
trainer measured it ([sources](models.csv))."""


def _page(models: pd.DataFrame, points: pd.DataFrame, stored: Iterable[Mapping[str, Any]]) -> str:
    """The table of models as Markdown, the machine above it and the versions below."""
    memory = f"P{memory_label(points)[1:]}, at sites"
    head = ["Model", "Training", *(f"Evaluation, {n} sites (ms)" for n in SHOWN), "Exponent"]
    head += [memory, "Relaxation (s)", "Evaluations", "Finished"]
    rows = []
    for row in models.astype(object).where(models.notna(), None).to_dict("records"):
        times = [row[f"seconds_{n}_sites"] for n in SHOWN]
        relaxed = row["relaxation_seconds"]
        rows.append(
            [
                row["model"] + (" (random weights)" if row["weights"] == "random" else ""),
                row["training"],
                *(NOTHING if x is None else f"{1000 * x:.{0 if x >= 0.1 else 1}f}" for x in times),
                format_number(row["exponent"], 2),
                f"{row['peak_mb']:.0f}, {row['largest']}",
                NOTHING if relaxed is None else f"{relaxed:.2g}",
                format_number(row["relaxation_evaluations"], 0),
                NOTHING if relaxed is None else f"{row['finished']:.0f}/{row['structures']:.0f}",
            ]
        )
    environments: dict[str, dict[str, None]] = {}
    for each in stored:
        packages = ", ".join(" ".join(pair) for pair in each["about"]["packages"].items())
        versions = f"Python {each['about']['python']}, {packages}"
        environments.setdefault(versions, {})[each["model"]] = None
    lines = [f"- {', '.join(names)}: {versions}." for versions, names in environments.items()]
    machine = f"Measured on one machine: {points.cpu.iloc[0]}, {where(points)}; the load before a"
    return f"""\
# What the models cost

{machine} measurement was {points.load.max():.1f} at most.

{markdown_table(head, rows)}

{_NOTES}

{chr(10).join(lines)}
"""


def _draw(figure: Figure, points: pd.DataFrame) -> None:
    """Time and memory by the number of sites; a colour is an architecture, a marker a model."""
    import seaborn as sns

    axes = figure.subplots(1, 2)
    kinds = dict.fromkeys(name.split("-")[0] for name, _ in _models(points))
    colours = dict(zip(kinds, cycle(sns.color_palette("colorblind")), strict=False))
    markers = {kind: cycle("os^Dv<>pP") for kind in kinds}
    for name, part in _models(points):
        kind = name.split("-")[0]
        style = {"color": colours[kind], "marker": next(markers[kind])}
        style |= {"linestyle": "--" if part.weights.iloc[0] == "random" else "-"}
        for axis, column in zip(axes, ("seconds", "peak_mb"), strict=True):
            axis.plot(
                part.sites, part[column], **style, markersize=4.5, linewidth=1,
                label=label(name, part),
            )  # fmt: skip
    for axis in axes:
        axis.set(xscale="log", xlabel="sites")
        axis.set_xticks(*[sorted(points.sites.unique())] * 2)
        axis.xaxis.minorticks_off()
    axes[0].set(yscale="log", ylabel="time (s)")
    axes[1].set(ylim=(0, None), ylabel=memory_label(points))
    figure.legend(
        *axes[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=_COLUMNS,
        fontsize=8,
        title=f"{where(points)}; power law: within a factor of {LARGE:g} of the largest",
    )


def where(table: pd.DataFrame) -> str:
    """Device and threads of a table's first line."""
    first = table.iloc[0]
    return f"{first.device}, {first.threads} thread{'s' if first.threads > 1 else ''}"


def memory_label(table: pd.DataFrame) -> str:
    """Whose memory a table has."""
    return f"peak memory{'' if table.device.iloc[0] == 'cpu' else ' of the GPU'} (MB)"


def label(name: str, part: pd.DataFrame) -> str:
    """Model, engine, what is special about it, and its exponent."""
    first = part.iloc[0]
    engine = f", {first.engine}" if first.engine else ", whole answer"
    random = ", random weights" if first.weights == "random" else ""
    power = "" if pd.isna(first.exponent) else f": $n^{{{first.exponent:.2f}}}$"
    return f"{name}{engine}{random}{power}"
