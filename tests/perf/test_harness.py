"""What the harness costs: `identity`, which costs nothing, on 10,000 structures and one core.

    make perf

Reading, executing, storing and the vectorised errors are measured together, in a process of their
own (its peak memory is part of the result); structure matching and symmetry apart. Files are made
here, in the layout of LeMat-Traj. Numbers go into pytest-benchmark's table as `extra_info`.
"""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from pymatgen.core import Lattice, Structure

pytestmark = pytest.mark.perf

MANY, FEW = 10_000, 2_000
MEMORY = ("peak_memory_mb", "worker_memory_mb")
ROOT = Path(__file__).parents[2]


def cells(rng, n):
    """Pairs (start, end) of 2 to 16 sites, cubic to triclinic."""
    for _ in range(n):
        lengths, angles = rng.uniform(4, 9, 3), rng.uniform(75, 105, 3)
        lattice = Lattice.from_parameters(*lengths, *angles)
        grid = rng.permutation(27)[: rng.integers(2, 17)]
        frac = np.stack(np.unravel_index(grid, (3, 3, 3)), axis=1) / 3
        species = rng.choice(["Na", "Cl", "Ti", "O", "Si", "Fe"], len(grid))
        moved = frac + rng.normal(0, 0.005, frac.shape)
        strained = Lattice(lattice.matrix @ (np.eye(3) + rng.normal(0, 0.01, (3, 3))))
        yield Structure(lattice, species, frac), Structure(strained, species, moved)


@pytest.fixture(scope="module")
def files(tmp_path_factory, lemat_frame, lemat_table):
    """`{n: file with n trajectories}`: 200 pairs, repeated under other names and stretched."""
    folder = tmp_path_factory.mktemp("perf")
    pairs = list(cells(np.random.default_rng(0), 200))
    base = [(lemat_frame(a, "mp-0", 0), lemat_frame(b, "mp-0", 1)) for a, b in pairs]
    paths = {}
    for n in (FEW, MANY):
        frames = [row for i in range(n) for row in renamed(base[i % 200], i)]
        paths[n] = folder / f"cells-{n}.parquet"
        pq.write_table(lemat_table(frames), paths[n], row_group_size=4096)
    return paths


def renamed(pair, i):
    scale = 1 + 1e-4 * (i // 200)
    for step, frame in enumerate(pair):
        yield frame | {
            "immutable_id": f"mp-{i}",
            "id": f"mp-{i}-0-pbe-{step}",
            "lattice_vectors": (np.array(frame["lattice_vectors"]) * scale).tolist(),
            "cartesian_site_positions": (
                np.array(frame["cartesian_site_positions"]) * scale
            ).tolist(),
        }


def harness(path, out):
    """Everything but slow scores, and its report: CPU seconds per stage, peak memory [MB].

    CPU time, the worker's included, is what one core that has nothing else to do would take.
    """
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    from benchmarks.core import RelaxSettings
    from benchmarks.data import load
    from benchmarks.engine.benchmark_run import BenchmarkRun, ModelRun, run_all
    from benchmarks.engine.worker import peak_memory_mb
    from benchmarks.models.registry import MODELS
    from benchmarks.store import read_run
    from leaderboard.board import scores

    clock, begin = [cpu_seconds()], time.perf_counter()
    dataset = load(str(path))
    clock.append(cpu_seconds())
    run = BenchmarkRun(
        dataset=dataset,
        settings=RelaxSettings(),
        repeats=1,
        out=Path(out),
        command="",
        log=lambda line: None,
    )
    run_all([ModelRun(MODELS["identity"], ())], run)
    clock.append(cpu_seconds())
    scores.score_slow = lambda *_: dict.fromkeys(scores.SLOW_COLUMNS, np.nan)
    table = scores.scores(read_run(Path(out) / "identity"), dataset, store=False)
    clock.append(cpu_seconds())
    wall = time.perf_counter() - begin
    assert len(table) == len(dataset)
    assert (table["strain"] > 0).all()
    stages = dict(zip(("read", "run_and_store", "errors"), np.diff(clock), strict=True))
    worker = read_run(Path(out) / "identity").provenance["peak_memory_mb"]
    memory = {"peak_memory_mb": peak_memory_mb(), "worker_memory_mb": worker}
    return {**stages, **memory, "wall": wall}


def cpu_seconds():
    """Of this process and of its children that have ended."""
    return sum(os.times()[:4])


def harness_apart(path, out):
    code = "import sys, json; from tests.perf.test_harness import harness; "
    done = subprocess.run(
        [sys.executable, "-c", code + "print(json.dumps(harness(*sys.argv[1:])))", path, out],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_harness_on_one_core_with_flat_memory(benchmark, files, tmp_path):
    few = harness_apart(files[FEW], tmp_path / "few")
    many = benchmark.pedantic(
        harness_apart, (files[MANY], tmp_path / "many"), rounds=1, iterations=1
    )
    seconds = many["read"] + many["run_and_store"] + many["errors"]
    benchmark.extra_info |= {
        "structures_per_second": round(MANY / seconds),
        "structures_per_second_wall": round(MANY / many["wall"]),
        **{f"{k}_per_second": round(MANY / many[k]) for k in ("read", "run_and_store", "errors")},
        **{name: round(many[name]) for name in MEMORY},
        **{f"{name}_ratio": round(many[name] / few[name], 2) for name in MEMORY},
    }
    assert MANY / seconds >= 500
    # Of five times the structures: what grows are arrays of ids, coordinates and scores.
    assert many["peak_memory_mb"] / few["peak_memory_mb"] < 1.5
    assert many["worker_memory_mb"] / few["worker_memory_mb"] < 1.05


def per_frame(path):
    """The obvious way to read pairs: rows of pandas, a pymatgen Structure of each frame."""
    import pandas as pd

    frames = {}
    for _, row in pd.read_parquet(path).iterrows():
        structure = Structure(
            np.stack(row["lattice_vectors"]),
            row["species_at_sites"],
            np.stack(row["cartesian_site_positions"]),
            coords_are_cartesian=True,
        )
        frames.setdefault(row["id"].rsplit("-", 1)[0], []).append(
            (row["relaxation_step"], structure)
        )
    ordered = {name: sorted(steps, key=lambda step: step[0]) for name, steps in frames.items()}
    return {name: (steps[0][1], steps[-1][1]) for name, steps in ordered.items()}


def test_reading_against_a_structure_per_frame(benchmark, files):
    from benchmarks.data import load

    begin = time.perf_counter()
    alternative = per_frame(files[FEW])
    seconds = time.perf_counter() - begin
    dataset = benchmark.pedantic(load, (str(files[FEW]),), rounds=3, warmup_rounds=1)
    for sample in (dataset[0], dataset[FEW - 1]):
        for ours, theirs in zip(
            (sample.initial, sample.final), alternative[sample.sample_id], strict=True
        ):
            assert np.allclose(ours.lattice.matrix, theirs.lattice.matrix)
            assert np.allclose(ours.cart_coords, theirs.cart_coords, atol=1e-6)
    ratio = seconds / benchmark.stats.stats.median
    benchmark.extra_info["times_faster"] = round(ratio, 1)
    assert ratio > 3


def test_matching_and_symmetry_apart(benchmark):
    from benchmarks.core import Geometry
    from benchmarks.metrics import score_slow

    pairs = [
        (Geometry.of(a), Geometry.of(b)) for a, b in cells(np.random.default_rng(1), 50)
    ]  # fmt: skip

    def slow():
        return Counter(len(score_slow(start, end, start)) for start, end in pairs)

    assert benchmark.pedantic(slow, rounds=3).total() == 50
    per_second = len(pairs) / benchmark.stats.stats.median
    benchmark.extra_info["structures_per_second"] = round(per_second)
