"""Draw the shift of the target by the functional, and the models' errors on the same materials."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from benchmarks.core.plotting import save_figure
from benchmarks.core.statistics import Floats
from benchmarks.metrics import METRICS
from studies.dft_settings.findings import Findings
from studies.dft_settings.materials import DIFFERENCES
from studies.dft_settings.tables import PAIR, TARGET, SettingEstimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SPREAD: Final = 0.6
"""Height that the points of one pair of functionals take up, of 1."""


def differences_and_errors(found: Findings, path: Path) -> list[Path]:
    """Draw a panel for each metric: means with their intervals, by pair of functionals.

    Args:
        found: Data sets without any pair are not drawn.
        path: Written with the suffixes .svg and .png; the same findings give the same bytes.

    Returns:
        The files, none if there is nothing to draw.
    """
    moved = [each for each in found.estimates if each.by == PAIR]
    if not moved:
        return []
    labels = list(dict.fromkeys(each.label for each in moved))
    with save_figure(path, (10, 2.4 + 0.9 * len(labels)), found.name) as figure:
        panels = figure.subplots(2, 2, sharey=True)
        for axes, metric in zip(panels.flat, DIFFERENCES, strict=True):
            _draw(axes, [each for each in moved if each.metric == metric], labels, found.models)
        panels[0, 0].set_yticks(range(len(labels)), [_with_n(label, moved) for label in labels])
        title = "how far the target moves, and the errors of what each model scored"
        figure.suptitle(f"{found.name}: {title}", size=11)
        handles, names = panels.flat[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=5, frameon=False)
    return [path.with_suffix(".svg"), path.with_suffix(".png")]


def _draw(
    axes: Axes, moved: list[SettingEstimate], labels: list[str], models: tuple[str, ...]
) -> None:
    import seaborn as sns

    names = (TARGET, *models)
    colours = ["black", *sns.color_palette("colorblind", len(models))]
    for k, (name, colour) in enumerate(zip(names, colours, strict=True)):
        mine = [each for each in moved if each.model == name and each.mean is not None]
        heights = [labels.index(each.label) + SPREAD * (k / len(models) - 0.5) for each in mine]
        axes.errorbar(
            [each.mean or 0.0 for each in mine], heights, xerr=_bars(mine), color=colour,
            fmt="D" if name == TARGET else "o", ms=5, elinewidth=1, label=name,
        )  # fmt: skip
    axes.set_ylim(len(labels) - 0.5, -0.5)
    unit = METRICS[moved[0].metric].unit if moved else ""
    axes.set_xlabel(f"{moved[0].metric} ({unit})" if unit else moved[0].metric)


def _with_n(label: str, moved: list[SettingEstimate]) -> str:
    """A volume can be compared where cells cannot: n need not be the same in all panels."""
    counts = {each.n for each in moved if each.label == label and each.model == TARGET}
    few, many = min(counts), max(counts)
    return f"{label} (n = {many if few == many else f'{few}–{many}'})"


def _bars(mine: list[SettingEstimate]) -> Floats:
    """(2, n) lengths below and above each mean; 0 where there is no interval."""
    ends = [
        (each.mean - each.ci_low, each.ci_high - each.mean)
        if each.ci_low is not None and each.ci_high is not None and each.mean is not None
        else (0.0, 0.0)
        for each in mine
    ]
    bars: Floats = np.maximum(np.array(ends).reshape(-1, 2).T, 0.0)
    return bars
