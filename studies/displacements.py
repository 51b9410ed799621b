"""Which displacements a model takes back: those of the starts, or others of the same size.

    python -m studies.displacements --models t5,gnn-delta --data embedded-v3 --out DIR

The crystals are those of the test part whose atoms are away from their relaxed places by more than
0.02 Å on average. Each is given four times: as its start is; with the sites of the start in the
relaxed cell; relaxed, with its sites moved as far as those of the start, in random directions; and
these in the cell of the start. A model that takes back random displacements alone has learned
noise. Writes DIR/displacements.md and .csv.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from benchmarks.core import Geometry, UserError
from benchmarks.core.cli import run_command
from benchmarks.core.files import atomic_write
from benchmarks.core.formatting import format_estimate, markdown_table
from benchmarks.core.geometry import displacements
from benchmarks.core.statistics import Estimate, Resampling
from benchmarks.data import load
from benchmarks.models.registry import import_target, resolve_all
from leaderboard.paper.paper_figures import write_csv

LEAST: Final = 0.02
"""Mean displacement of the starts that are taken is above it [Å]."""
REPLICATES: Final = 1000
NO_CHANGE: Final = "no change"
INPUTS: Final = (
    "start",
    "start, relaxed cell",
    "random displacements, relaxed cell",
    "random displacements, cell of the start",
)


def moved(reference: Geometry, geometry: Geometry) -> float:
    """Mean displacement of the sites [Å], without a common translation."""
    return float(np.linalg.norm(displacements(reference, geometry), axis=1).mean())


def inputs(name: str, initial: Geometry, final: Geometry) -> Iterator[Geometry]:
    """The structures of `INPUTS`; the random directions follow from the name."""
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"))
    moves = rng.normal(0, 1, final.frac_coords.shape)
    moves -= moves.mean(axis=0)
    moves *= moved(final, initial) / np.linalg.norm(moves, axis=1).mean()
    away = final.frac_coords + moves @ np.linalg.inv(final.lattice)
    yield initial
    yield Geometry(final.lattice, initial.frac_coords, final.numbers)
    yield Geometry(final.lattice, away, final.numbers)
    yield Geometry(initial.lattice, away, final.numbers)


def measure(models: Sequence[str], source: str) -> pd.DataFrame:
    """The distance that is left [Å]: a row for each input, crystal and model.

    Raises:
        UserError: No start of the test part has its atoms away from their places.
    """
    dataset = load(source)
    pairs = {name: dataset.geometries(i) for i, name in enumerate(dataset.ids)}
    pairs = {name: pair for name, pair in pairs.items() if moved(*pair[::-1]) > LEAST}
    if not pairs:
        raise UserError(f"{dataset.name}: no start has its atoms {LEAST} Å away from their places")
    given = {name: list(inputs(name, *pair)) for name, pair in pairs.items()}
    rows = [
        {"input": kind, "id": name, "model": NO_CHANGE, "left": moved(pairs[name][1], geometry)}
        for name, each in given.items()
        for kind, geometry in zip(INPUTS, each, strict=True)
    ]
    for spec in resolve_all(models):
        relaxer = import_target(spec.target)(**spec.kwargs)
        for k, kind in enumerate(INPUTS):
            answers = relaxer.relax([each[k].structure() for each in given.values()])
            for name, answer in zip(given, answers, strict=True):
                ended = given[name][k]
                if answer.structure is not None:
                    ended = Geometry.of(answer.structure)
                left = moved(pairs[name][1], ended)
                rows.append({"input": kind, "id": name, "model": spec.name, "left": left})
    return pd.DataFrame(rows)


def page(table: pd.DataFrame) -> str:
    """The means over the crystals, and the share that is taken back, as Markdown."""
    wide = table.pivot_table(index=["input", "id"], columns="model", values="left")
    models = [name for name in dict.fromkeys(table.model) if name != NO_CHANGE]
    rows = []
    for kind in INPUTS:
        part = wide.loc[kind]
        draws = Resampling.of([*map(str, part.index)], REPLICATES, np.random.default_rng(0))
        before = part[NO_CHANGE].to_numpy()
        cells = [kind, f"{part[NO_CHANGE].mean():.3f}"]
        for name in models:
            share = Estimate.mean(1 - part[name].to_numpy() / before, before, draws)
            cells.append(f"{part[name].mean():.3f}, {format_estimate(share, 2)}")
        rows.append(tuple(cells))
    n = wide.index.get_level_values("id").nunique()
    head = ("Input", NO_CHANGE, *models)
    return (
        f"# Displacements that are taken back\n\n{n} crystals: the mean displacement that is left "
        "(Å), and the share of it that is taken back, with its 95 % interval over the crystals."
        f"\n\n{markdown_table(head, rows)}\n"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and write both files."""
    parser = argparse.ArgumentParser(prog="python -m studies.displacements", description=__doc__)
    add = parser.add_argument
    add("--models", required=True, metavar="A,B,…", help="models without settings")
    add("--data", default="embedded-v3", metavar="SOURCE", help="default: embedded-v3")
    add("--out", type=Path, required=True, metavar="DIR")
    args = parser.parse_args(argv)
    table = measure(args.models.split(","), args.data)
    write_csv(table, args.out / "displacements.csv")
    text = page(table)
    with atomic_write(args.out / "displacements.md") as partial:
        partial.write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
