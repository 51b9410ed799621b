"""What a board and a site of 20 models cost, each in a process of its own and with stored scores.

    make perf
    T2_SAMPLES=100000 python -m pytest tests/perf/test_leaderboard.py -o addopts=-q -s

`T2_SAMPLES` (10,000) is the number of structures of the generated table. The runs are written by
the store, and their scores are stored before, as they are of every run that was shown once.
"""

import os
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from tqdm import tqdm

from benchmarks.core import Geometry, Status
from benchmarks.data import load
from benchmarks.metrics import columns
from benchmarks.store import read_run
from leaderboard.board import scores
from tests.conftest import LEMAT_SCHEMA
from tests.perf.test_harness import cells
from tests.test_leaderboard import Answer, write

pytestmark = [pytest.mark.perf, pytest.mark.timeout(3600)]

N_MODELS = 20
N_SAMPLES = int(os.environ.get("T2_SAMPLES", "10_000"))
LIMITS = {10_000: {"site": (60, 1000), "board": (60, 1000)}, 100_000: {"board": (300, 3000)}}
"""Seconds and MB of what is made, by the number of structures."""
KEPT = ("n_sites", "identity_", "valid_", "scored")
"""Columns that say nothing of how far a model went."""
ROOT = Path(__file__).parents[2]


def toward(share):
    """A model that goes this share of the way to the reference, and refuses every 50th sample."""

    def relax(initial, final, i):
        if i % 50 == 0:
            return Answer(Status.UNSUPPORTED, None)
        shift = final.frac_coords - initial.frac_coords
        shift -= np.round(shift)
        lattice = initial.lattice + share * (final.lattice - initial.lattice)
        return Answer(
            Status.OK, Geometry(lattice, initial.frac_coords + share * shift, initial.numbers)
        )

    return relax


@pytest.fixture(scope="module")
def runs(tmp_path_factory, lemat_frame, lemat_table):
    """The folder of the runs and the file of their data."""
    folder = tmp_path_factory.mktemp("boards")
    data = folder / "cells.parquet"
    pairs = enumerate(cells(np.random.default_rng(0), N_SAMPLES))
    with pq.ParquetWriter(data, LEMAT_SCHEMA) as writer:
        while some := list(islice(pairs, 1000)):
            frames = [
                lemat_frame(each, f"mp-{i}", k) for i, pair in some for k, each in enumerate(pair)
            ]
            writer.write_table(lemat_table(frames))
    dataset = load(str(data))
    assert len(dataset) == N_SAMPLES
    started = {}
    for k in tqdm(range(N_MODELS), desc=f"runs of {N_SAMPLES} structures"):
        run = write(folder / "runs", f"model-{k}", toward(k / N_MODELS), dataset, seconds=0.01)
        store_scores(run, dataset, k / N_MODELS, started)
    return folder / "runs", data


def store_scores(run, dataset, share, started):
    """Scores that are as far from those of no change as the model went; not computed 20 times."""

    def score(initial, reference, prediction, status):
        key = reference.lattice.tobytes()
        if key not in started:
            started[key] = columns.score(initial, reference, initial, Status.OK)
        if status != Status.OK:
            return columns.score(initial, reference, prediction, status)
        return {
            name: value if name.startswith(KEPT) else value * (1 - share)
            for name, value in started[key].items()
        }

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scores, "score", score)
        patch.setattr(scores, "score_slow", lambda *_: dict.fromkeys(scores.SLOW_COLUMNS, 0.0))
        scores.scores(read_run(run), dataset)


def watched(*arguments):
    """Seconds, and the largest memory [MB] of a command and its children together."""
    begin, peak = time.perf_counter(), 0
    with subprocess.Popen(
        [sys.executable, "-m", "leaderboard", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    ) as process:
        watch = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                family = (watch, *watch.children(recursive=True))
                peak = max(peak, sum(each.memory_info().rss for each in family))
            except psutil.NoSuchProcess:
                pass
            time.sleep(0.05)
    assert process.returncode == 0
    return time.perf_counter() - begin, peak / 1e6


@pytest.mark.parametrize("made", ["board", "site"])
def test_twenty_models(benchmark, made, runs, tmp_path):
    folder, data = runs
    target = "--out" if made == "board" else "--site"
    seconds, memory = benchmark.pedantic(
        watched, (folder, "--data", data, target, tmp_path / made), rounds=1
    )
    size = sum(path.stat().st_size for path in (tmp_path / made).rglob("*") if path.is_file())
    benchmark.extra_info |= {
        "models": N_MODELS,
        "structures": N_SAMPLES,
        "seconds": round(seconds, 1),
        "peak_memory_mb": round(memory),
        "written_mb": round(size / 1e6, 1),
    }
    sys.stdout.write(f"{benchmark.extra_info}\n")
    if made in LIMITS.get(N_SAMPLES, {}):
        most_seconds, most_memory = LIMITS[N_SAMPLES][made]
        assert seconds < most_seconds
        assert memory < most_memory
