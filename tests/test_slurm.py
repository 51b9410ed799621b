"""Runs as jobs of a real Slurm with two nodes of one core on this machine (Debian: slurm-wlm)."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from benchmarks.run import main
from benchmarks.store import read_run

ROOT = Path(__file__).parent.parent
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "squeue", "sinfo")
MISSING = [name for name in PROGRAMS if shutil.which(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"no {', '.join(MISSING)} (Debian: slurm-wlm munge)"),
    pytest.mark.skipif(
        not MISSING and os.geteuid() != 0, reason="slurmd of the test runs as root only"
    ),
]
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}
SlurmctldAddr=127.0.0.1
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmctldPort={ports[0]}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmdSpoolDir={folder}/spool-%n
StateSaveLocation={folder}/state
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,batch_sched_delay=0
SchedulerType=sched/builtin
MinJobAge=2
KillWait=2
ReturnToService=2
MpiDefault=none
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 RealMemory=8192
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 RealMemory=8192
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""
NAPPER = """
import os, time
from benchmarks.core import Relaxed, Status

class Naps:
    def relax(self, structures):
        time.sleep(float(os.environ.get("NAP", "0.01")) * len(structures))
        return [Relaxed(status=Status.OK, structure=each) for each in structures]
"""


def wait_for(happened, what, seconds=90):
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until, f"no {what} within {seconds} s"
        time.sleep(0.2)


def free_ports(count):
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in held]
    for each in held:
        each.close()
    return ports


@pytest.fixture(scope="module")
def slurm():
    """A Slurm of its own; its programs run in the foreground and end with the test."""
    folder = Path(tempfile.mkdtemp(prefix="slurm"))  # a socket's path is short
    for name in ("state", "spool-n1", "spool-n2"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    folder.chmod(0o755)  # munged asks for that
    host = socket.gethostname().partition(".")[0]
    text = CONFIGURATION.format(host=host, folder=folder, ports=free_ports(3))
    (folder / "slurm.conf").write_text(text)
    files = [f"--{name}={folder}/munge.{suffix}" for name, suffix in (
        ("key-file", "key"), ("socket", "socket"), ("pid-file", "pid"), ("log-file", "log"),
        ("seed-file", "seed"),
    )]  # fmt: skip
    started = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{folder}")
        for command in (
            ["munged", "--foreground", "--force", *files],
            ["slurmctld", "-D", "-c"],
            *(["slurmd", "-D", "-c", "-N", node] for node in ("n1", "n2")),
        ):
            with (folder / f"{command[0]}.out").open("ab") as out:
                started.append(subprocess.Popen(command, stdout=out, stderr=out))
            if command[0] == "munged":
                wait_for((folder / "munge.socket").exists, "munge")
        (folder / "nap.py").write_text(NAPPER)
        try:
            nodes = ("sinfo", "-h", "-N", "-o", "%t")
            wait_for(lambda: asked(*nodes).split() == ["idle"] * 2, "nodes")
            yield folder
        finally:
            asked("scancel", "--user", "root")
            for process in reversed(started):
                process.terminate()
            for process in reversed(started):
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
            shutil.rmtree(folder, ignore_errors=True)


def asked(*command):
    found = subprocess.run(command, check=False, capture_output=True, text=True)
    return found.stdout


def script(folder, out, capsys, *more, parts=3):
    """The script that the command prints, in a file."""
    models = ["--models", "nap=relaxer:nap:Naps", "--trust", "--data", "embedded"]
    sys.path.insert(0, str(folder))
    try:
        command = [*models, "--out", str(out), *more, "--emit", f"slurm:{parts}"]
        assert main(command) == 0
    finally:
        sys.path.remove(str(folder))
    text = capsys.readouterr().out.replace("--mem=8G", "--mem=2G")
    (out.parent / "job.sh").write_text(text)
    return out.parent / "job.sh"


def submit(job, *more):
    found = subprocess.run(
        ["sbatch", "--parsable", *more, str(job)], cwd=job.parent, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    return found.stdout.strip()


def ended(number):
    return lambda: not asked("squeue", "-h", "-j", number).strip()


def answers(folder):
    return {
        r.sample_id: (str(r.status), r.geometry.lattice.tolist()) for r in read_run(folder).records
    }


@pytest.fixture(scope="module")
def undisturbed(slurm, tmp_path_factory):
    out = tmp_path_factory.mktemp("alone") / "r"
    command = ["-m", "benchmarks.run", "--models", "nap=relaxer:nap:Naps", "--trust"]
    subprocess.run([sys.executable, *command, "--data", "embedded", "--out", str(out)],
                   check=True, capture_output=True)  # fmt: skip
    return out / "nap"


def test_an_array_on_two_nodes_is_the_run_on_one(slurm, undisturbed, tmp_path, capsys):
    out = tmp_path / "r"
    number = submit(script(slurm, out, capsys))
    wait_for(ended(number), "end of the array", 300)
    logs = [path.read_text() for path in sorted(tmp_path.glob("part-*.log"))]
    assert len(logs) == 3
    records = list(read_run(out / "nap").records)
    assert len(records) == len({r.sample_id for r in records}) == 53, logs
    assert answers(out / "nap") == answers(undisturbed)
    assert sum("the last one prints the board" in log for log in logs) == 2
    assert (out / "board.json").is_file()


def test_a_killed_job_is_submitted_again_and_goes_on(slurm, undisturbed, tmp_path, capsys):
    out = tmp_path / "r"
    job = script(slurm, out, capsys, parts=2)
    number = submit(job, "--export=ALL,NAP=0.5")
    stored = lambda: len(list(out.glob("nap/shard-*/part-*.parquet"))) > 2  # noqa: E731
    wait_for(stored, "stored part", 120)
    asked("scancel", "--signal=KILL", "--full", number)
    wait_for(ended(number), "end of the killed array", 60)
    before = answers(out / "nap")
    assert 0 < len(before) < 53
    again = submit(job, "--export=ALL,NAP=0.01")
    wait_for(ended(again), "end of the array", 300)
    records = list(read_run(out / "nap").records)
    assert len(records) == len({r.sample_id for r in records}) == 53
    assert answers(out / "nap") == answers(undisturbed)


def test_dask_asks_the_queue_for_its_workers(slurm, undisturbed, tmp_path):
    pytest.importorskip("dask_jobqueue")
    settings = tmp_path / "slurm.yaml"
    settings.write_text(
        "jobqueue:\n  slurm:\n    cores: 1\n    memory: 2GB\n    walltime: '00:10:00'\n"
        f"    log-directory: {tmp_path}\nadapt:\n  minimum_jobs: 2\n  maximum_jobs: 2\n"
    )
    command = ["-m", "benchmarks.run", "--models", "nap=relaxer:nap:Naps", "--trust"]
    out = tmp_path / "r"
    found = subprocess.run(
        [sys.executable, *command, "--data", "embedded", "--cluster", str(settings), "--out",
         str(out)], cwd=tmp_path, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr[-3000:]
    assert answers(out / "nap") == answers(undisturbed)
    wait_for(lambda: not asked("squeue", "-h").strip(), "empty queue")
