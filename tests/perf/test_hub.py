"""What `--limit` of a data set of the Hub asks of a server: bytes, requests, seconds, memory.

    make perf

150,000 trajectories of 8 sites (825,000 frames) in 40 files, from a server on this machine in the
process that measures; the reading is in one of its own. A whole download is the comparison, and is
what the share of bytes refers to. The share falls with the size of the data set.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hub_server import REPO, lemat_files, serving

pytestmark = pytest.mark.perf

ROOT = Path(__file__).parents[2]
_READ = """
import json, time
from pathlib import Path
from benchmarks.data import load
started = time.monotonic()
n = len(load({address!r}, limit={limit}))
status = Path("/proc/self/status").read_text()
memory = int(status.split("VmHWM:")[1].split()[0]) / 1024
print(json.dumps([n, memory, time.monotonic() - started]))
"""


@pytest.mark.parametrize(("limit", "rows"), [(1000, 400), (200, 4000)])
def test_a_limit_reads_under_five_percent(benchmark, tmp_path, limit, rows):
    files = lemat_files(150_000, 40, rows)
    with serving(files) as server:
        environment = {"HF_ENDPOINT": server.url, "HF_ASSETS_CACHE": str(tmp_path)}

        def read():
            code = _READ.format(address=f"hf://{REPO}", limit=limit)
            done = subprocess.run(
                [sys.executable, "-c", code],
                env=os.environ | environment,
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=True,
            )
            return json.loads(done.stdout)

        n, memory, seconds = benchmark.pedantic(read, rounds=1)
        share, requests = server.served / server.size, server.asked["store"]
        cached = read()[2]
    benchmark.extra_info |= {
        "megabytes": round(server.size / 1e6),
        "share_of_bytes": round(share, 4),
        "requests": requests,
        "peak_memory_mb": round(memory),
        "seconds": round(seconds, 1),
        "seconds_from_cache": round(cached, 1),
    }
    assert n == limit
    assert share < 0.05
