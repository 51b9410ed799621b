"""Measure the time and memory of the T5 by the number of sites and by the size of the batch.

    python -m studies.t5_scaling --out DIR

Every point is measured in a process of its own, so that its peak memory is its own: after a warm-up
the median of three relaxations counts. The limit on sites is lifted, because this is a measurement
of cost and not of quality. The study writes `scaling.csv` and `scaling.svg`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.core import Lattice, Structure
from tqdm import tqdm

from benchmarks.engine.worker import peak_memory_mb
from leaderboard.views.figures import save_figure

SITES = (1, 2, 4, 8, 16, 30, 60)
BATCHES = (1, 4, 16, 64, 256)
FIXED_BATCH, FIXED_SITES = 16, 4
ROUNDS = 3


def crystal(n_sites: int, rng: np.random.Generator) -> Structure:
    """A cubic cell with sites on a grid and four species, 20 Å^3 per site."""
    edge = int(np.ceil(n_sites ** (1 / 3)))
    grid = np.stack(np.unravel_index(np.arange(n_sites), (edge,) * 3), axis=1) / edge
    species = rng.choice(["Na", "Ti", "O", "S"], n_sites)
    return Structure(Lattice.cubic((20 * n_sites) ** (1 / 3)), species, grid)


def measure(n_sites: int, batch: int) -> dict[str, float]:
    """Measure seconds per structure, and the memory that the relaxations add to the peak [MB].

    Args:
        n_sites: Number of sites of each structure.
        batch: Number of structures that are relaxed together.
    """
    from benchmarks.core import RelaxSettings
    from t2relax.relaxer import TextRelaxer

    relaxer = TextRelaxer(settings=RelaxSettings(batch_size=batch))
    relaxer.max_sites = n_sites
    rng = np.random.default_rng(0)
    structures = [crystal(n_sites, rng) for _ in range(batch)]
    relaxer.relax(structures[:1])
    before, seconds = peak_memory_mb(), []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        relaxer.relax(structures)
        seconds.append(time.perf_counter() - began)
    return {
        "sites": n_sites,
        "batch": batch,
        "seconds_per_structure": float(np.median(seconds)) / batch,
        "memory_mb": peak_memory_mb() - before,
    }


def points() -> list[tuple[int, int]]:
    """(sites, batch) along both axes."""
    along_sites = [(n, FIXED_BATCH) for n in SITES]
    return along_sites + [(FIXED_SITES, n) for n in BATCHES if n != FIXED_BATCH]


def draw(rows: Sequence[dict[str, float]], folder: Path) -> None:
    """Table and figure."""
    import pandas as pd
    import seaborn as sns

    table = pd.DataFrame(rows)
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / "scaling.csv", index=False, float_format="%.4g")
    sweeps: dict[str, Any] = {
        "sites": table[table.batch == FIXED_BATCH],
        "batch": table[table.sites == FIXED_SITES],
    }
    labels = {"sites": f"sites (batch {FIXED_BATCH})", "batch": f"batch ({FIXED_SITES} sites)"}
    with save_figure(folder / "scaling.svg", (8, 6), "scaling") as figure:
        axes = figure.subplots(2, 2, sharey="row")
        for column, (name, part) in enumerate(sweeps.items()):
            for row, y in enumerate(("seconds_per_structure", "memory_mb")):
                axis = axes[row, column]
                sns.lineplot(part, x=name, y=y, marker="o", ax=axis)
                axis.set(xscale="log", yscale="log", xlabel=labels[name])
                axis.set_ylabel(("time per structure (s)", "memory (MB)")[row])


def main(argv: Sequence[str] | None = None) -> int:
    """Measure all points and write table and figure."""
    parser = argparse.ArgumentParser(prog="python -m studies.t5_scaling", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, max_tasks_per_child=1) as pool:
        found = pool.map(measure, *zip(*points(), strict=True))
        rows = list(tqdm(found, total=len(points()), desc="sites x batch", file=sys.stderr))
    draw(rows, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
