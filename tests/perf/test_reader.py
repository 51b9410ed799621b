"""What finding the pairs of a data set of LeMat-Traj's size costs, on a generated table.

    make scale        (part of make perf)
    T2_FRAMES=300000 python -m pytest tests/perf/test_reader.py --override-ini addopts=-q -s

`T2_FRAMES` (10 million; they take about 7 GB of the temporary folder) is the size. Each stage runs
in a process of its own, whose peak memory is part of the result; times are wall time.

- pass one: all of it, and a tenth, which says whether it is linear;
- pass two: structures of 10,000 chosen samples, without what pass one took;
- pandas over the same columns of that tenth: group by trajectory and choose the same pairs; and,
  for what it is worth, the bare group-by that takes the lowest and the highest step.

The last line is all of it as JSON, extrapolated to the 113 million frames of LeMat-Traj.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.perf.lemat_table import write

pytestmark = [pytest.mark.perf, pytest.mark.timeout(3600)]

N_FRAMES = int(os.environ.get("T2_FRAMES", "10_000_000"))
LEMAT_FRAMES = 113_000_000
CHOSEN = 10_000
FULL_SIZE = 10_000_000
"""Frames below which fixed costs (imports, buffers) hide what is compared on a tenth of them."""
ROOT = Path(__file__).parents[2]
TIME = ("relaxation_number", "relaxation_step")
LIGHT = (
    *TIME,
    "id",
    "immutable_id",
    "functional",
    "nsites",
    "species_at_sites",
    "energy",
    "stress_tensor",
    "lattice_vectors",
)


def pass_one(*paths):
    """Number of frames of each trajectory, steps of the initial and of the relaxed frame."""
    from benchmarks.data.lemat.reader import FrameFiles
    from benchmarks.data.lemat.trajectories import survey

    begin = time.perf_counter()
    files = FrameFiles([Path(path) for path in paths])
    found = survey(files)
    seconds = time.perf_counter() - begin
    t = found.trajectories
    pairs = np.stack([t.n_frames, t.chosen.initial_step, t.chosen.relaxed_step], axis=1)
    return {"seconds": seconds, "frames": files.n_rows, "faults": len(found.faults)}, pairs


def pass_two(*paths):
    from benchmarks.core import MissingFinalFrame
    from benchmarks.data.lemat.coordinates import read_coordinates
    from benchmarks.data.lemat.reader import FrameFiles
    from benchmarks.data.lemat.trajectories import find_trajectories

    files = FrameFiles([Path(path) for path in paths])
    trajectories, _ = find_trajectories(files)
    order = np.random.default_rng(0).permutation(len(trajectories))
    begin = time.perf_counter()
    pairs, _ = read_coordinates(files, trajectories, order, CHOSEN, MissingFinalFrame.KEEP)
    return {"seconds": time.perf_counter() - begin, "samples": len(pairs.trajectory)}, None


def group_by(*paths):
    """The same in plain pandas: group, sort, try both orders of the calculations by their cells."""
    import pandas as pd

    begin = time.perf_counter()
    frames = pd.concat([pd.read_parquet(path, columns=list(LIGHT)) for path in paths])
    frames["key"] = frames["id"].str.rsplit("-", n=1).str[0]
    pairs = []
    for _, group in frames.groupby("key", sort=False):
        parts = [part for _, part in group.sort_values(list(TIME)).groupby("relaxation_number")]
        if mismatch(parts[::-1]) < mismatch(parts):
            parts.reverse()
        first, last = parts[0]["relaxation_step"].iloc[0], parts[-1]["relaxation_step"].iloc[-1]
        pairs.append((len(group), first, last))
    return {"seconds": time.perf_counter() - begin}, np.array(pairs)


def mismatch(parts):
    """How badly each calculation goes on from the one before."""
    ends = [np.stack(part["lattice_vectors"].iloc[-1]) for part in parts[:-1]]
    starts = [np.stack(part["lattice_vectors"].iloc[0]) for part in parts[1:]]
    return sum(np.linalg.norm(a - b) for a, b in zip(ends, starts, strict=True))


def bare_group_by(*paths):
    """Only the rows with the lowest and the highest step, which are not the pairs."""
    import pandas as pd

    begin = time.perf_counter()
    frames = pd.concat([pd.read_parquet(path, columns=list(LIGHT)) for path in paths])
    frames["key"] = frames["id"].str.rsplit("-", n=1).str[0]
    ordered = frames.sort_values(["key", "relaxation_step"]).groupby("key", sort=False)
    ends = ordered.first(), ordered.last(), ordered.size()
    return {"seconds": time.perf_counter() - begin, "trajectories": len(ends[0])}, None


def stage(name, *paths):
    """Run a stage of this module in a process of its own: its report and its result."""
    begin = (
        "import sys, json; from pathlib import Path; import numpy as np; "
        "import tests.perf.test_reader as module; "
        "from benchmarks.engine.worker import peak_memory_mb; "
        "report, pairs = getattr(module, sys.argv[1])(*sys.argv[3:]); "
        "None if pairs is None else np.save(sys.argv[2], pairs); "
        "print(json.dumps({**report, 'peak_memory_mb': peak_memory_mb()}))"
    )
    saved = Path(paths[0]).parent / f"{name}.npy"
    done = subprocess.run(
        [sys.executable, "-c", begin, name, str(saved), *map(str, paths)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout), np.load(saved) if saved.exists() else None


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lemat")
    truth = write(folder, N_FRAMES)
    yield sorted(folder.glob("*.parquet")), truth
    for path in folder.glob("*.parquet"):
        path.unlink()


def test_pairs_of_a_table_of_lemat_size(benchmark, table):
    paths, truth = table
    whole, pairs = benchmark.pedantic(stage, ("pass_one", *paths), rounds=1, iterations=1)
    assert np.array_equal(pairs, truth), "a wrong pair"
    tenth, _ = stage("pass_one", paths[0])
    chosen, _ = stage("pass_two", *paths)
    plain, same = stage("group_by", paths[0])
    bare, _ = stage("bare_group_by", paths[0])
    assert np.mean((same == truth[: len(same)]).all(axis=1)) > 0.9, "pandas does another job"
    per_minute = 60 * whole["frames"] / whole["seconds"]
    grows = (whole["peak_memory_mb"] - tenth["peak_memory_mb"]) / (
        whole["frames"] - tenth["frames"]
    )
    figures = {
        "frames": whole["frames"],
        "frames_per_minute": round(per_minute),
        "peak_memory_mb": round(whole["peak_memory_mb"]),
        "seconds_per_frame_against_a_tenth": round(
            whole["seconds"] / whole["frames"] / (tenth["seconds"] / tenth["frames"]), 2
        ),
        "pass_two_seconds": round(chosen["seconds"], 1),
        "pass_two_samples": chosen["samples"],
        "pass_two_peak_memory_mb": round(chosen["peak_memory_mb"]),
        "times_faster_than_pandas": round(plain["seconds"] / tenth["seconds"], 1),
        "times_faster_than_a_bare_group_by": round(bare["seconds"] / tenth["seconds"], 1),
        "memory_of_pandas": round(tenth["peak_memory_mb"] / plain["peak_memory_mb"], 2),
        "minutes_at_113_million": round(LEMAT_FRAMES / per_minute, 1),
        "memory_gb_at_113_million": round(
            (whole["peak_memory_mb"] + grows * (LEMAT_FRAMES - whole["frames"])) / 1000, 1
        ),
    }
    benchmark.extra_info |= figures
    sys.stdout.write(json.dumps(figures) + "\n")
    assert per_minute >= 2_000_000
    assert chosen["seconds"] < 180
    if whole["frames"] >= FULL_SIZE:
        assert whole["peak_memory_mb"] < 2000
        assert figures["times_faster_than_pandas"] >= 5
        assert figures["memory_of_pandas"] <= 0.25
        assert figures["seconds_per_frame_against_a_tenth"] < 1.3
