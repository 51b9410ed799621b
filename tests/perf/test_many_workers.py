"""What Dask costs a run: time per structure in batches, and eight workers that sleep against one.

make perf
"""

import time
from collections import Counter
from dataclasses import replace

import psutil
import pytest

from benchmarks.core import WHOLE, RelaxSettings
from benchmarks.engine.cluster import connected
from benchmarks.engine.execute import Budget, Task, run_model
from benchmarks.engine.parts_run import governed, run_parts
from tests import toys
from tests.test_cluster import IDENTITY, some_part
from tests.test_execute import toy

pytestmark = pytest.mark.perf


def tasks(n):
    return [Task(f"s{i}", 0, toys.geometry(1 + i % 8)) for i in range(n)]


def cpu_seconds():
    """What this process and all that it started have used, also of what has ended."""
    here = psutil.Process()
    return sum(sum(p.cpu_times()[:4]) for p in (here, *here.children(recursive=True)))


def on_workers(n_workers, folder, spec, n, clock=time.perf_counter):
    """The time that workers take for n structures, their models loaded by a run before."""
    with connected(f"local:{n_workers}", "cpu", print) as workers:
        workers.client.wait_for_workers(n_workers)
        for name, size in (("warm", 8 * n_workers), ("timed", n)):
            counts = Counter()
            begin = clock()
            with governed(folder / name, print) as word:
                part = replace(some_part(folder / "any", []), spec=spec, folder=folder / name)
                part = replace(part, shard=WHOLE, todo=tasks(size), word=word, identity=IDENTITY)
                run_parts(workers, part, budget=Budget(), on_statuses=counts.update)
            seconds = clock() - begin
            assert counts["ok"] == size
    return seconds


def alone(spec, n):
    """The same in one process without a store."""
    begin = cpu_seconds()
    run_model(spec, tasks(n), settings=RelaxSettings(), on_records=list)
    return cpu_seconds() - begin


def test_dask_and_the_store_cost_less_than_a_millisecond_a_structure(benchmark, tmp_path):
    """CPU time, which a busy machine does not change, in batches of 64."""
    spec = replace(toy("ReturnsInput", batch_size=64), name=IDENTITY["model"])
    n = 64 * 100
    bare = alone(spec, n) - alone(spec, 64)
    on_one = benchmark.pedantic(on_workers, (1, tmp_path, spec, n, cpu_seconds), rounds=1)
    benchmark.extra_info |= {"alone_s": bare, "on_one_worker_s": on_one}
    benchmark.extra_info["overhead_ms_per_structure"] = 1000 * (on_one - bare) / n
    assert (on_one - bare) / n < 1e-3


def test_eight_workers_that_sleep_are_seven_times_one(benchmark, tmp_path):
    spec = replace(toy("Sleeps", batch_size=1, seconds=0.05), name=IDENTITY["model"])
    one = on_workers(1, tmp_path / "one", spec, 1600)
    eight = benchmark.pedantic(on_workers, (8, tmp_path / "eight", spec, 1600), rounds=1)
    benchmark.extra_info |= {"one_s": one, "eight_s": eight, "times_faster": one / eight}
    assert one / eight > 7
