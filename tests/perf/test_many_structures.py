"""What `identity` on a million structures takes of the driver, and how a killed run goes on.

    make perf
    T2_SAMPLES=1000000 python -m pytest tests/perf/test_many_structures.py -o addopts=-q -s

`T2_SAMPLES` (100,000) is the number of structures; a run on a tenth of them says whether time is
linear and memory flat. A million take 1 GB of the temporary folder. The board at the end, which is
no matter of the driver, is left out: `test_leaderboard.py` is about boards.
"""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.perf.test_harness import ROOT, cells

pytestmark = [pytest.mark.perf, pytest.mark.timeout(7200)]

N_SAMPLES = int(os.environ.get("T2_SAMPLES", "100_000"))
N_CELLS = 500
WITHOUT_BOARD = """
import sys
from benchmarks import run
run._publish = lambda _: None
sys.exit(run.main(sys.argv[1:]))
"""
MOST_MEMORY = 1500
"""MB of the driver."""
MOST_WAIT = 60
"""Seconds from the start of a run that goes on to its first new structure."""


def write(path, n, table):
    """Write `n` trajectories: the frames of `table` again and again, each time larger."""
    with pq.ParquetWriter(path, table.schema) as writer:
        for start in range(0, n, N_CELLS):
            ids = [f"mp-{i}" for i in range(start, start + N_CELLS) for _ in range(2)]
            frames = [f"{each}-0-pbe-{k % 2}" for k, each in enumerate(ids)]
            columns = {name: table[name] for name in table.column_names}
            columns |= {"immutable_id": pa.array(ids), "id": pa.array(frames)}
            for name in ("lattice_vectors", "cartesian_site_positions"):
                columns[name] = scaled(table[name].combine_chunks(), 1 + 1e-7 * start)
            writer.write_table(pa.table(columns, schema=table.schema).slice(0, 2 * (n - start)))


def scaled(vectors, factor):
    """A column of lists of vectors, each number times the factor."""
    inner = vectors.values
    numbers = pc.multiply(inner.values, factor)
    return pa.ListArray.from_arrays(
        vectors.offsets, pa.ListArray.from_arrays(inner.offsets, numbers)
    )


def stored(out):
    return sum(pq.read_metadata(part).num_rows for part in out.rglob("part-*.parquet"))


def driven(data, out, until=None):
    """Run `identity`, killed with all its processes once `until` structures are stored.

    Returns:
        Seconds, seconds to the first new structure, and the driver's largest memory [MB].
    """
    begin, before, first, peak, looked = time.perf_counter(), stored(out), None, 0, 0.0
    command = [sys.executable, "-c", WITHOUT_BOARD, "--models", "identity"]
    with subprocess.Popen(
        [*command, "--data", str(data), "--out", str(out)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        watch = psutil.Process(process.pid)
        while process.poll() is None:
            peak = max(peak, watch.memory_info().rss)
            if time.perf_counter() - looked > 1:
                now, looked = stored(out), time.perf_counter()
                if first is None and now > before:
                    first = looked - begin
                if until is not None and now >= until:
                    os.killpg(process.pid, signal.SIGKILL)
            time.sleep(0.05)
    assert process.returncode == (0 if until is None else -signal.SIGKILL)
    return time.perf_counter() - begin, first, peak / 1e6


def test_a_million_structures(benchmark, lemat_frame, lemat_table, tmp_path):
    pairs = cells(np.random.default_rng(0), N_CELLS)
    table = lemat_table([lemat_frame(each, "", k) for pair in pairs for k, each in enumerate(pair)])
    write(tmp_path / "few.parquet", N_SAMPLES // 10, table)
    write(tmp_path / "many.parquet", N_SAMPLES, table)
    few = driven(tmp_path / "few.parquet", tmp_path / "few")
    killed = driven(tmp_path / "many.parquet", tmp_path / "killed", until=N_SAMPLES // 2)
    half = stored(tmp_path / "killed")
    resumed = driven(tmp_path / "many.parquet", tmp_path / "killed")
    whole = benchmark.pedantic(driven, (tmp_path / "many.parquet", tmp_path / "whole"), rounds=1)
    for out in ("killed", "whole"):
        assert stored(tmp_path / out) == N_SAMPLES
    names = ("seconds", "seconds_to_first", "driver_mb")
    for label, found in (("tenth", few), ("killed", killed), ("resumed", resumed), ("", whole)):
        shown = {f"{label} {name}".strip(): found[k] for k, name in enumerate(names)}
        benchmark.extra_info |= {name: round(value, 1) for name, value in shown.items()}
    benchmark.extra_info |= {"structures": N_SAMPLES, "stored_when_killed": half}
    sys.stdout.write(f"{benchmark.extra_info}\n")
    assert max(killed[2], resumed[2], whole[2]) < MOST_MEMORY
    assert resumed[1] < MOST_WAIT
    assert whole[0] < 11 * few[0]
