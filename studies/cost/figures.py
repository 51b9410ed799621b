"""Rows as CSV, PNG and SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

import pandas as pd

from benchmarks.core.plotting import save_figure
from benchmarks.models.registry import ENGINES
from studies.cost.batching import BatchingRow
from studies.cost.sites import LARGE, Point, exponent

_SIZE: Final = (10, 4.5)
"""Two panels, time and memory [inch]."""


def cost(points: Sequence[Point], folder: Path) -> pd.DataFrame:
    """`cost.csv` with the exponents, `cost.png` and `cost.svg`; the table."""
    table = pd.DataFrame([asdict(point) for point in points])
    fits = {name: exponent(t.sites.tolist(), t.seconds.tolist()) for name, t in _models(table)}
    table["exponent"] = table.model.map(fits).astype(float)
    table.to_csv(folder / "cost.csv", index=False, float_format="%.4g")
    with save_figure(folder / "cost", _SIZE, "cost") as figure:
        axes = figure.subplots(1, 2)
        for axis, column in zip(axes, ("seconds", "peak_mb"), strict=True):
            for name, part in _models(table):
                axis.plot(part.sites, part[column], marker="o", label=_label(name, part))
            axis.set(xscale="log", xlabel="sites")
            axis.set_xticks(*[sorted(table.sites.unique())] * 2)
            axis.xaxis.minorticks_off()
        axes[0].set(yscale="log", ylabel="time (s)")
        axes[1].set(ylim=(0, None), ylabel=_memory(table))
        figure.legend(
            *axes[0].get_legend_handles_labels(),
            loc="outside lower center",
            ncols=2,
            title=f"{_where(table)}; power law: within a factor of {LARGE:g} of the largest",
        )
    return table


def _models(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    return [(str(name), part) for name, part in table.groupby("model", sort=False)]


def _where(table: pd.DataFrame) -> str:
    first = table.iloc[0]
    return f"{first.device}, {first.threads} thread{'s' if first.threads > 1 else ''}"


def _memory(table: pd.DataFrame) -> str:
    return f"peak memory{'' if table.device.iloc[0] == 'cpu' else ' of the GPU'} (MB)"


def _label(name: str, part: pd.DataFrame) -> str:
    """Model, engine, what is special about it, and its exponent."""
    first = part.iloc[0]
    engine = f", {first.engine}" if first.engine else ", whole answer"
    random = ", random weights" if first.weights == "random" else ""
    power = "" if pd.isna(first.exponent) else f": $n^{{{first.exponent:.2f}}}$"
    return f"{name}{engine}{random}{power}"


def batching(rows: Sequence[BatchingRow], folder: Path) -> pd.DataFrame:
    """`batching.csv`, `batching.png` and `batching.svg`; the table."""
    table = pd.DataFrame([asdict(row) for row in rows])
    table.to_csv(folder / "batching.csv", index=False, float_format="%.4g")
    loop, batched = (table[table.engine == engine] for engine in ENGINES)
    times = table.seconds_per_structure
    with save_figure(folder / "batching", _SIZE, "batching") as figure:
        axes = figure.subplots(1, 2)
        for axis, column in zip(axes, ("seconds_per_structure", "peak_mb"), strict=True):
            axis.plot(batched.batch, batched[column], marker="o", label="batched engine")
            axis.axhline(loop[column].iloc[0], color="C1", linestyle="--", label="ASE, one by one")
            axis.set_xscale("log", base=2)
            axis.set_xticks(batched.batch, batched.batch)
            axis.set(xlabel="structures per call", ylim=(0, 1.1 * table[column].max()))
        axes[0].set(ylabel="time per structure (s)")
        axes[1].set(ylabel=_memory(table))
        axes[0].set(yscale="log", ylim=(times.min() / 2, 2 * times.max()))
        axes[0].legend()
        first = table.iloc[0]
        figure.suptitle(f"{first.structures} relaxations with {first.model}, {_where(table)}")
    return table
