"""Draw what the embedded sets hold: how far crystals relax, their elements and prototypes.

    python -m studies.embedded_sets --out DIR

Writes DIR/embedded_sets.pdf, .svg, .png and .csv, in which each crystal is a row. The displacement
is the mean over the sites, from the first frame to the last, without what the whole crystal moves;
the strain is that of the boards. Prototypes are those of the last frame at 0.1 Å
(`benchmarks.data.splits.prototypes`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from benchmarks.core.cli import run_command
from benchmarks.core.geometry import displacements, strain
from benchmarks.data import load
from benchmarks.data.folders import split_names
from benchmarks.data.splits.prototypes import prototype
from leaderboard.paper.paper_figures import write_csv
from leaderboard.paper.paper_page import COLOURS, WIDTHS, paper_figure

VERSIONS: Final = {"embedded": "version 1", "embedded-v2": "version 2", "embedded-v3": "version 3"}
LEAST: Final = 1e-3
"""Smaller displacements and strains are drawn here: [Å], and without unit."""
NAMED: Final = 16
"""Number of prototypes that have a bar of their own."""


def crystals() -> pd.DataFrame:
    """Describe every crystal of the embedded sets, one a row."""
    return pd.DataFrame([row for source in VERSIONS for row in _crystals_of(source)])


def _crystals_of(source: str) -> Iterator[dict[str, Any]]:
    for split in split_names(source):
        dataset = load(source, split=split)
        for i, name in enumerate(dataset.ids):
            initial, final = dataset.geometries(i)
            moved = np.linalg.norm(displacements(final, initial), axis=1).mean()
            yield {
                "id": name,
                "version": VERSIONS[source],
                "split": split,
                "displacement": float(moved),
                "strain": strain(final.lattice, initial.lattice),
                "elements": " ".join(sorted(initial.structure().symbol_set)),
                "prototype": prototype(final) or "none found",
            }


def draw(table: pd.DataFrame, stem: Path) -> None:
    """Draw cumulative distributions above, and counts of elements and prototypes below."""
    import seaborn as sns

    colours = dict(zip(VERSIONS.values(), COLOURS, strict=False))
    with paper_figure(stem, WIDTHS["page"], 6.2) as figure:
        grid = figure.add_gridspec(3, 2, height_ratios=[1, 1, 1.25])
        labels = {"displacement": "mean displacement (Å)", "strain": "strain"}
        for column, (name, label) in enumerate(labels.items()):
            axes = figure.add_subplot(grid[0, column])
            drawn = table.assign(**{name: table[name].clip(lower=LEAST)})
            sns.ecdfplot(drawn, x=name, hue="version", palette=colours, ax=axes, legend=not column)
            axes.set(xscale="log", xlabel=label, ylabel="share of crystals")
            if not column:
                sns.move_legend(axes, "lower right", title=None)
        elements = table.assign(element=table.elements.str.split()).explode("element")
        order = elements.element.value_counts().index.tolist()
        _bars(figure.add_subplot(grid[1, :]), elements, "element", order, colours)
        common = table.prototype.value_counts().index[:NAMED].tolist()
        shown = table.assign(prototype=table.prototype.where(table.prototype.isin(common), "other"))
        axes = figure.add_subplot(grid[2, :])
        _bars(axes, shown, "prototype", [*common, "other"], colours)
        axes.tick_params(axis="x", rotation=35)
        for text in axes.get_xticklabels():
            text.set_horizontalalignment("right")
            text.set_rotation_mode("anchor")


def _bars(
    axes: Any, table: pd.DataFrame, column: str, order: list[str], colours: dict[str, str]
) -> None:
    """Stacked counts of crystals, the versions one on the other."""
    counts = pd.crosstab(table[column], table.version).reindex(order)
    counts = counts.reindex(columns=list(colours), fill_value=0)
    below = np.zeros(len(counts))
    for version, colour in colours.items():
        axes.bar(order, counts[version], bottom=below, color=colour, width=0.8)
        below += counts[version].to_numpy()
    axes.set(ylabel="crystals", xlim=(-0.6, len(order) - 0.4))
    if column == "element":
        axes.tick_params(axis="x", labelsize=5, rotation=90)


def main(argv: Sequence[str] | None = None) -> int:
    """Write table and figure."""
    parser = argparse.ArgumentParser(prog="python -m studies.embedded_sets", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out: Path = parser.parse_args(argv).out
    table = crystals()
    write_csv(table, out / "embedded_sets.csv")
    draw(table, out / "embedded_sets")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
