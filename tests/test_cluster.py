"""A run on many workers is the run on one: every sample once, with the same answers."""

import contextlib
import errno
import itertools
import multiprocessing
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import scipy
from pymatgen.core import Lattice, Structure

from benchmarks.core import WHOLE, RelaxSettings, Shard
from benchmarks.engine import cluster, part, parts_run
from benchmarks.engine.execute import Task
from benchmarks.engine.part import DRIVER, Part, relax_part
from benchmarks.run import main
from benchmarks.store import RunWriter, read_run
from benchmarks.store.locking import FolderBusyError, FolderLock
from tests import toys
from tests.conftest import one_line
from tests.test_execute import toy

ROOT = Path(__file__).parent.parent
IDENTITY = {"model": "returnsinput", "dataset": "d", "revision": "0", "weights_sha256": None}


@pytest.fixture(autouse=True, scope="module")
def _without_board():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.run._publish", lambda _: None)
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(autouse=True)
def _nothing_idle():
    yield
    while part._idle:
        idle = part._idle.pop()
        idle.timer.cancel()
        idle.driver.close()


def some_part(where, sizes, cls="ReturnsInput", number=1, batch_size=4, **kwargs):
    """A part of structures with so many sites each, for a driver whose word stands."""
    where.mkdir(parents=True, exist_ok=True)
    (where / DRIVER).write_text("word")
    return Part(
        spec=replace(toy(cls, batch_size=batch_size, **kwargs), name="returnsinput"),
        settings=RelaxSettings(),
        folder=where,
        shard=Shard(number, 2),
        todo=[Task(f"s{size}", 0, toys.geometry(size)) for size in sizes],
        identity=IDENTITY,
        provenance={"aborted": None},
        word="word",
        log="worker.log",
    )


def statuses(folder):
    """The status by number of sites; every sample is there once."""
    records = list(read_run(folder).records)
    assert len({r.sample_id for r in records}) == len(records)
    return {int(r.sample_id[1:]): str(r.status) for r in records}


# --- a part --------------------------------------------------------------------------------------


def test_a_part_is_a_shard_and_its_model_is_loaded_once(tmp_path):
    folder, loads = tmp_path / "m", tmp_path / "loads"
    loads.mkdir()
    for number, sizes in ((1, [1, 2, 3]), (2, [4, 5])):
        asked = some_part(folder, sizes, "CountsLoads", number, folder=str(loads))
        report = relax_part(asked)
        assert report.statuses == {"ok": len(sizes)}
    assert statuses(folder) == dict.fromkeys([1, 2, 3, 4, 5], "ok")
    assert sorted(path.name for path in folder.glob("shard-*")) == ["shard-0001", "shard-0002"]
    assert len(list(loads.iterdir())) == 1
    assert read_run(folder).segments[1]["packages"]["numpy"] == np.__version__
    assert relax_part(asked).statuses == {"ok": 2}  # asked for again, nothing is computed
    assert len(read_run(folder).segments) == 2
    assert not list(folder.rglob("attempts.json"))


def test_a_worker_stops_when_another_driver_has_the_word(tmp_path):
    asked = some_part(tmp_path / "m", [1, 2, 3, 4], "TakesTheWord", batch_size=1)
    asked = replace(asked, spec=replace(asked.spec, kwargs={"file": str(tmp_path / "m" / DRIVER)}))
    report = relax_part(asked)
    assert report.statuses == {"ok": 1}
    assert statuses(tmp_path / "m") == {1: "ok"}


def test_a_shard_that_another_worker_writes_is_left_to_it(tmp_path):
    asked = some_part(tmp_path / "m", [1])
    lock = FolderLock(tmp_path / "m" / asked.shard.folder)
    assert relax_part(asked).busy
    lock.close()
    assert relax_part(asked).statuses == {"ok": 1}


def test_a_worker_with_other_weights_is_refused_and_writes_nothing(tmp_path):
    asked = some_part(tmp_path / "m", [1])
    asked = replace(asked, identity=IDENTITY | {"weights_sha256": "abc"}, word="other")
    report = relax_part(asked)
    assert "cannot take part: of the driver and of this worker: weights_sha256 differs" in (
        report.refused
    )
    assert not (tmp_path / "m" / "shard-0001").exists()


def test_a_worker_with_other_packages_is_a_segment_that_says_so(tmp_path, monkeypatch):
    assert relax_part(some_part(tmp_path / "m", [1, 2])).statuses == {"ok": 2}
    metadata = tmp_path / "site" / "scipy-0.0.1.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: scipy\nVersion: 0.0.1\n")
    monkeypatch.syspath_prepend(metadata.parents[1])
    part._machine.cache_clear()
    asked = some_part(tmp_path / "m", [3], number=2)
    (asked.folder / DRIVER).write_text("next")
    assert relax_part(replace(asked, word="next")).statuses == {"ok": 1}
    part._machine.cache_clear()
    versions = [segment["packages"]["scipy"] for segment in read_run(tmp_path / "m").segments]
    assert versions == [scipy.__version__, "0.0.1"]


def test_a_full_disk_is_one_line_and_what_is_stored_stays(tmp_path, monkeypatch):
    asked = some_part(tmp_path / "m", [1, 2, 3, 4], batch_size=1)
    asked = replace(asked, flush_seconds=0.0)
    write_table, written = pq.write_table, []

    def until_full(table, where, **options):
        if len(written) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(where)
        write_table(table, where, **options)

    with monkeypatch.context() as patch:
        patch.setattr(pq, "write_table", until_full)
        one_line(lambda: relax_part(asked), "m/shard-0001/part-00002.parquet", "No space left")
    assert statuses(tmp_path / "m") == {1: "ok", 2: "ok"}
    assert relax_part(asked).statuses == {"ok": 4}
    assert statuses(tmp_path / "m") == dict.fromkeys([1, 2, 3, 4], "ok")


def test_a_model_that_cannot_be_loaded_costs_no_structure(tmp_path):
    asked = some_part(tmp_path / "m", [1, 2], "CannotLoad", batch_size=1)
    report = relax_part(asked)
    assert "cannot be loaded: ValueError: weights of another model" in report.aborted
    assert report.statuses == {}
    assert not list((tmp_path / "m").rglob("attempts.json"))


def test_a_structure_that_kills_whoever_touches_it_is_given_up_alone(tmp_path):
    """It kills the Dask worker above the model's process: first in its batch, then alone."""
    asked = some_part(tmp_path / "m", [1, 2, 3, 4, 5, 6], "KillsItsDriver", bad=3)
    ends = []
    while 0 not in ends:
        assert len(ends) < 6
        worker = multiprocessing.get_context("fork").Process(target=relax_part, args=(asked,))
        worker.start()
        worker.join()
        ends.append(worker.exitcode)
    assert ends == [-signal.SIGKILL] * part.DEATHS + [0]
    assert statuses(tmp_path / "m") == {1: "ok", 2: "ok", 3: "resource", 4: "ok", 5: "ok", 6: "ok"}
    (given_up,) = (r for r in read_run(tmp_path / "m").records if r.status == "resource")
    assert given_up.detail == "3 workers died at it, the last alone with it"
    assert not list((tmp_path / "m").rglob("attempts.json"))


def test_samples_are_cut_into_parts_for_all_workers():
    todo = [Task(f"s{i}", 0, toys.geometry(1)) for i in range(640)]
    for batch_size, n_parts in ((1, 16), (64, 10), (128, 5), (1000, 2)):
        parts = parts_run.cut(todo, 2, batch_size)
        assert len(parts) == n_parts
        assert all(shard.holds(task.sample_id) for shard, tasks in parts for task in tasks)
        assert sorted(t.sample_id for _, tasks in parts for t in tasks) == sorted(
            t.sample_id for t in todo
        )
        assert len(parts[0][1]) == max(len(tasks) for _, tasks in parts)
    dear = Task("dear", 0, toys.geometry(64))
    first = parts_run.cut([*todo, dear], 2, 1)[0][1]
    assert "dear" in {task.sample_id for task in first}


# --- one writer for a sample ---------------------------------------------------------------------


@pytest.mark.parametrize(("first", "second"), [(WHOLE, Shard(1, 2)), (Shard(1, 2), WHOLE)])
def test_the_whole_and_a_part_exclude_each_other(tmp_path, first, second):
    with RunWriter.open(tmp_path / "m", IDENTITY, {}, shard=first):
        one_line(
            lambda: RunWriter.open(tmp_path / "m", IDENTITY, {}, shard=second),
            f"{tmp_path / 'm' / first.folder}: another process is writing to it",
        )
        with RunWriter.open(tmp_path / "m", IDENTITY, {}, shard=Shard(2, 2), driven=True):
            pass
    assert not (tmp_path / "m").exists()


def test_two_parts_are_written_side_by_side(tmp_path):
    with (
        RunWriter.open(tmp_path / "m", IDENTITY, {}, shard=Shard(1, 2)),
        RunWriter.open(tmp_path / "m", IDENTITY, {}, shard=Shard(2, 2)),
    ):
        pass


def test_a_driver_waits_for_workers_of_an_earlier_one(tmp_path):
    folder, said = tmp_path / "m", []
    lock = FolderLock(folder / "shard-0003")
    (folder / DRIVER).write_text("earlier")

    def log(line):
        said.append(line)
        assert (folder / DRIVER).read_text() != "earlier"
        lock.close()

    parts_run.PATIENCE, patience = 0.1, parts_run.PATIENCE
    try:
        with parts_run.governed(folder, log) as word:
            assert (folder / DRIVER).read_text() == word
            held = FolderLock(folder / WHOLE.folder)
            with pytest.raises(FolderBusyError), parts_run.governed(folder, log):
                pass
            assert (folder / DRIVER).read_text() == word
            held.close()
    finally:
        parts_run.PATIENCE = patience
    assert said == [f"waiting: {folder / 'shard-0003'}: another process is writing to it"]
    assert not (folder / DRIVER).exists()


# --- an array of jobs ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "device", "lines"),
    [
        ("slurm:3", "cuda", ("#SBATCH --array=1-3", "#SBATCH --gres=gpu:1")),
        ("slurm", "cpu", ("#SBATCH --array=1-16", "#SBATCH --signal=B:TERM@120")),
        ("pbs:3", "cuda", ("#PBS -J 1-3", "#PBS -l select=1:ncpus=1:mem=8gb:ngpus=1")),
        ("pbs:3", "cpu", ("#PBS -J 1-3", "#PBS -l select=1:ncpus=1:mem=8gb")),
    ],
)
def test_the_script_of_a_queue(kind, device, lines, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(["--models", "identity", "--emit", kind, "--device", device, "--out", "a b"]) == 0
    script = capsys.readouterr().out.splitlines()
    assert set(lines) <= set(script)
    assert sum("gpu" in line for line in script) == (device == "cuda")
    assert f"cd {tmp_path} || exit 2" in script
    number = "SLURM_ARRAY_TASK_ID/" if kind.startswith("slurm") else "PBS_ARRAY_INDEX/"
    command = script[-1]
    assert command.startswith(f"exec {sys.executable} -m benchmarks.run --models identity ")
    assert "--emit" not in command
    assert "--out 'a b'" in command
    assert f'--shard "${number}{kind.partition(":")[2] or 16}"' in command


def test_the_jobs_of_an_array_leave_one_whole_run(data, undisturbed, tmp_path, capsys, monkeypatch):
    out, published = tmp_path / "runs", []
    monkeypatch.setattr("benchmarks.run._publish", published.append)
    command = ["--models", MODEL, "--data", data, "--out", str(out)]
    assert main([*command, "--emit=slurm:2"]) == 0
    script = tmp_path / "job.sh"
    script.write_text(capsys.readouterr().out)
    subprocess.run(
        ["sh", str(script)],
        cwd=ROOT,
        env=os.environ | {"SLURM_ARRAY_TASK_ID": "2"},
        capture_output=True,
        check=True,
    )
    assert 0 < len(answers(out)) < N
    assert main([*command, "--shard", "1/2"]) == 0
    assert answers(out) == undisturbed
    assert len(published) == 1


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--emit", "lsf"], "--emit lsf: write slurm, pbs, slurm:N or pbs:N, with N parts"),
        (["--emit", "slurm:0"], "--emit slurm:0: write slurm"),
        (["--emit", "slurm", "--shard", "1/2"], "leave out --shard and --cluster"),
        (["--cluster", "local:2", "--shard", "1/2"], "--cluster makes parts of its own"),
        (["--cluster", "locl:2"], "--cluster locl:2: write local:N, tcp://HOST:PORT or a file"),
        (["--cluster", "local:0"], "--cluster local:0: write local:N"),
        (["--cluster", "none.yaml"], "none.yaml: cannot be read (No such file or directory)"),
    ],
)
def test_a_slip_is_one_line(more, said, data, tmp_path, capsys):
    assert main(["--models", "identity", "--data", data, "--out", str(tmp_path / "r"), *more]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert said in error
    assert not list((tmp_path / "r").rglob("*"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "is no YAML"),
        ("cluster: 1", "'jobqueue' is not there or not known; kinds: "),
        (
            "jobqueue: {slrm: {cores: 1}}",
            "'slrm' is not there or not known; kinds: htcondor, local",
        ),
        ("jobqueue: {local: {cores: 1}}", "is not `jobqueue: {slurm: {cores: …, memory: …}}`"),
    ],
)
def test_a_file_that_describes_no_queue_is_one_line(text, said, tmp_path):
    path = tmp_path / "queue.yaml"
    path.write_text(text)
    one_line(lambda: cluster._queued_cluster(path, "cpu"), str(path), said)


# --- Dask ----------------------------------------------------------------------------------------

N = 24
MODEL = "slow=relaxer:tests.toys:SlowlyStretches"


@pytest.fixture(scope="module")
def data(tmp_path_factory, lemat_frame, write_lemat):
    """Cells of silicon that expand."""
    frames = []
    for i in range(N):
        for step, a in enumerate((3.8 + 0.01 * i, 3.9 + 0.01 * i)):
            cell = Structure(Lattice.cubic(a), ["Si"] * 2, [[0, 0, 0], [0.5, 0.5, 0.49]])
            frames.append(lemat_frame(cell, f"mp-{i}", step))
    return str(write_lemat(tmp_path_factory.mktemp("data") / "cells.parquet", frames))


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    """The answers of one process that nobody disturbs."""
    out = tmp_path_factory.mktemp("undisturbed")
    assert main(["--models", MODEL, "--data", data, "--out", str(out)]) == 0
    found = answers(out)
    assert len(found) == N
    assert len(set(found.values())) == N
    return found


def answers(out):
    """Status and bytes of each answer; every sample is there once."""
    records = list(read_run(out / "slow").records)
    found = {
        (r.sample_id, r.repeat): (str(r.status), r.geometry.lattice.tobytes()) for r in records
    }
    assert len(found) == len(records)
    return found


class Site:
    """A scheduler, two workers with their nannies, and a driver, each of which may be killed."""

    def __init__(self, data, out, folder, where=None):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        self.folder, self.processes = folder, {}
        command = ["--models", MODEL, "--data", data, "--out", str(out)]
        self.command = [*command, "--cluster", where or self.address]
        self.kinds = ["driver"] if where else ["scheduler", "nanny-0", "nanny-1", "driver"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for kind in list(self.processes):
            self.kill(kind)

    def arguments(self, kind):
        if kind == "driver":
            code = "import sys; from benchmarks import run; run._publish = lambda _: None; "
            return ["-c", f"{code}sys.exit(run.main({self.command!r}))"]
        if kind == "scheduler":
            port = self.address.rsplit(":", 1)[1]
            where = ["--host", "127.0.0.1", "--port", port, "--no-dashboard"]
            return ["-m", "dask", "scheduler", *where]
        own = ["--nthreads", "1", "--local-directory", str(self.folder), "--no-dashboard"]
        return ["-m", "dask", "worker", self.address, *own]

    def program(self, _):
        return [sys.executable]

    def start(self):
        """Start whatever is not there; the workers of a scheduler that is gone leave with it."""
        for kind in self.kinds:
            process = self.processes.get(kind)
            if process and process.poll() is None:
                continue
            if kind == "scheduler":
                for other in [other for other in self.processes if other.startswith("nanny")]:
                    self.kill(other)
            self.processes[kind] = subprocess.Popen(
                [*self.program(kind), *self.arguments(kind)],
                cwd=ROOT,
                stdout=subprocess.DEVNULL,
                stderr=(self.folder / f"{kind}.err").open("ab"),
                start_new_session=True,
            )

    def kill(self, kind):
        """Kill one process, or with `worker` and `model` one that a nanny or a worker started."""
        if kind in self.processes:
            process = self.processes[kind]
            processes = [process] if process.poll() is None else []
        else:
            mark = "spawn_main" if kind == "worker" else "benchmarks.engine.worker"
            processes = [
                child
                for parent in self.processes.values()
                if psutil.pid_exists(parent.pid)
                for child in psutil.Process(parent.pid).children(recursive=True)
                if mark in " ".join(child.cmdline())
            ]
        for process in processes[:1]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        if kind in self.processes:
            self.processes[kind].wait()
        return bool(processes)

    def finish(self):
        """Run the command until it ends by itself, with nobody disturbing it any more."""
        for _ in range(3):
            self.start()
            if self.processes["driver"].wait(timeout=300) == 0:
                return
        pytest.fail((self.folder / "driver.err").read_text())


class Hosts(Site):
    """The same on three hosts, which are network namespaces that a bridge connects.

    The scheduler and the driver are on the first. All see the same file system.
    """

    count = itertools.count()

    def __init__(self, data, out, folder):
        super().__init__(data, out, folder, where="tcp://10.231.7.1:8786")
        self.address = "tcp://10.231.7.1:8786"
        self.kinds = ["scheduler", "nanny-0", "nanny-1", "driver"]
        self.host = {"scheduler": 0, "driver": 0, "nanny-0": 1, "nanny-1": 2}
        # what the kernel takes down late must not be met again
        self.own = f"t2{next(Hosts.count)}x{os.getpid() % 10_000}"
        self.names = [f"{self.own}h{number}" for number in range(3)]

    def __enter__(self):
        bridge = f"{self.own}b"
        try:
            ip("link", "add", bridge, "type", "bridge")
            ip("link", "set", bridge, "up")
            for number, name in enumerate(self.names):
                ip("netns", "add", name)
                ip("link", "add", self.port(number), "type", "veth", "peer", "eth0", "netns", name)
                ip("link", "set", self.port(number), "master", bridge, "up")
                ip("-n", name, "address", "add", f"10.231.7.{number + 1}/24", "dev", "eth0")
                for device in ("lo", "eth0"):
                    ip("-n", name, "link", "set", device, "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        super().__exit__()
        devices = [self.port(number) for number in range(3)] + [f"{self.own}b"]
        for command in (
            *(("link", "delete", device) for device in devices),
            *(("netns", "delete", name) for name in self.names),
        ):
            subprocess.run(["ip", *command], check=False, capture_output=True)

    def port(self, number):
        return f"{self.own}p{number}"

    def arguments(self, kind):
        if kind == "scheduler":
            return ["-m", "dask", "scheduler", "--host", "10.231.7.1", "--no-dashboard"]
        return super().arguments(kind)

    def program(self, kind):
        return ["ip", "netns", "exec", self.names[self.host[kind]], sys.executable]

    def cable(self, number, state):
        """Pull the cable of a host (`down`), or put it back (`up`)."""
        ip("link", "set", self.port(number), state)


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def stored(out):
    return len(list(out.glob("slow/shard-*/part-*.parquet")))


def wait_until(condition, seconds=300):
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        time.sleep(0.02)
    pytest.fail("waited too long")


def test_two_workers_answer_as_one_process_does(data, undisturbed, tmp_path, capsys):
    out = tmp_path / "runs"
    command = ["--models", MODEL, "--data", data, "--out", str(out)]
    assert main([*command, "--cluster", "local:2"]) == 0
    said = capsys.readouterr()
    assert answers(out) == undisturbed
    assert "dashboard: http://127.0.0.1:" in said.err
    assert f"slow: {N} structures in " in said.err
    assert f"({N} ok)" in said.err
    parts = {
        Shard.of(sample_id, 2 * parts_run.PARTS_PER_WORKER).folder for sample_id, _ in undisturbed
    }
    assert {path.name for path in (out / "slow").glob("shard-*")} == parts
    assert not (out / "slow" / DRIVER).exists()
    run = read_run(out / "slow")
    assert run.provenance["aborted"] is None
    assert {segment["threads"] for segment in run.segments} == {1}
    assert main(command) == 0  # nothing is left for one process
    assert f"slow: all {N} there already" in capsys.readouterr().err
    assert {path.name for path in (out / "slow").glob("shard-*")} == parts


def test_jobs_of_a_queue_come_with_the_work(data, undisturbed, tmp_path, capsys):
    """dask-jobqueue's local queue: jobs are processes, started when there is something to do."""
    queue = tmp_path / "queue.yaml"
    own = f"cores: 1, memory: 1GB, local-directory: {tmp_path}, worker-extra-args: [--no-dashboard]"
    queue.write_text(f"jobqueue: {{local: {{{own}}}}}\nadapt: {{maximum_jobs: 2}}\n")
    command = ["--models", MODEL, "--data", data, "--out", str(tmp_path / "runs")]
    assert main([*command, "--cluster", str(queue)]) == 0
    assert answers(tmp_path / "runs") == undisturbed
    parts = {
        Shard.of(sample_id, 2 * parts_run.PARTS_PER_WORKER).folder for sample_id, _ in undisturbed
    }
    assert {path.name for path in (tmp_path / "runs" / "slow").glob("shard-*")} == parts


def test_whatever_is_killed_every_sample_is_there_once(data, undisturbed, tmp_path):
    out = tmp_path / "runs"
    with Site(data, out, tmp_path) as site:
        for number, kind in enumerate(("worker", "model", "driver", "nanny-0", "scheduler")):
            site.start()
            wait_until(lambda seen=number: stored(out) > seen)
            assert site.kill(kind)
        site.finish()
    assert answers(out) == undisturbed


def test_a_second_driver_ends_with_one_line(data, tmp_path, capsys):
    out = tmp_path / "runs"
    with parts_run.governed(out / "identity", print):
        with RunWriter.open(out / "identity", IDENTITY | {"model": "identity"}, {}):
            command = ["--models", MODEL, "--data", data, "--out", str(out)]
            assert main([*command, "--cluster", "local:2"]) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert (
            error == f"error: {out / 'identity' / 'shard-0000'}: another process is writing to it"
        )
    assert not list(out.rglob("*"))


def test_a_folder_that_is_removed_ends_the_run_with_one_line(data, tmp_path, capsys):
    out, mark = tmp_path / "runs", tmp_path / "mark"
    os.environ["REMOVES"] = f"{out / 'removes'}:{mark}"
    command = ["--models", "removes=relaxer:tests.toys:removes_a_folder", "--data", data]
    command += ["--out", str(out), "--cluster", "local:1"]
    try:
        assert main(command) == 2
    finally:
        del os.environ["REMOVES"]
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: {out / 'removes'}")
    assert mark.exists()
    assert main(command) == 0
    records = list(read_run(out / "removes").records)
    assert len(records) == len({r.sample_id for r in records}) == N
    assert {str(r.status) for r in records} == {"ok"}


def may_make_hosts():
    if os.geteuid() or not shutil.which("ip"):
        return False
    made = subprocess.run(["ip", "netns", "add", "t2probe"], check=False, capture_output=True)
    return (
        not made.returncode
        and not subprocess.run(["ip", "netns", "delete", "t2probe"], check=False).returncode
    )


@pytest.mark.skipif(not may_make_hosts(), reason="only root makes network namespaces (iproute2)")
@pytest.mark.parametrize("comes_back", [True, False])
def test_a_host_that_is_cut_off_loses_nothing_and_writes_nothing_twice(
    data, undisturbed, tmp_path, monkeypatch, comes_back
):
    """It goes on with its shard, which is its own as long as it lives."""
    monkeypatch.setenv("DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP", "12s")
    monkeypatch.setenv("DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT", "5s")
    out = tmp_path / "runs"
    with Hosts(data, out, tmp_path) as site:
        site.start()
        wait_until(lambda: stored(out) > 1)
        site.cable(1, "down")
        time.sleep(20)  # the scheduler takes it for lost
        if comes_back:
            site.cable(1, "up")
        assert site.processes["driver"].wait(timeout=300) == 0
        assert site.processes["nanny-1"].poll() is None
    assert answers(out) == undisturbed


@pytest.mark.full
def test_fifty_kills_at_random_moments(data, undisturbed, tmp_path):
    chance = random.Random(0)
    kills = Counter()
    for number in itertools.count():
        out = tmp_path / str(number)
        with Site(data, out, tmp_path) as site:
            while kills.total() < 50 and stored(out) < 8:
                site.start()
                time.sleep(chance.uniform(0, 12))
                kind = chance.choice(["worker", "model", *site.kinds])
                kills[kind] += site.kill(kind)
            site.finish()
        assert answers(out) == undisturbed
        if kills.total() >= 50:
            break
    print(dict(kills), number + 1)  # noqa: T201 - how often each was killed, in how many runs
