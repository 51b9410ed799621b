"""The command: what it leaves behind, what it says, and with which status it ends."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from benchmarks.core.cli import check_device
from benchmarks.engine import benchmark_run
from benchmarks.run import main
from benchmarks.store import read_run
from leaderboard.__main__ import main as render
from leaderboard.board.scores import scores
from tests.conftest import one_line

N = 12
SLOW = "slow=ase:tests.toys:slow_calculator"
ROOT = Path(__file__).parent.parent
SHARD = "shard-0000"


@pytest.fixture
def data(tmp_path, lemat_frame, write_lemat):
    """Twelve cells of silicon that expand, and one trajectory that changes its composition."""
    frames = []
    for i in range(N):
        for step, a in enumerate((3.8 + 0.01 * i, 3.9 + 0.01 * i)):
            cell = Structure(Lattice.cubic(a), ["Si"] * 2, [[0, 0, 0], [0.5, 0.5, 0.49]])
            frames.append(lemat_frame(cell, f"mp-{i}", step))
    other = Structure(Lattice.cubic(4), ["Ge"] * 2, [[0, 0, 0], [0.5, 0.5, 0.49]])
    frames += [lemat_frame(cell, "mp-99", 0), lemat_frame(other, "mp-99", 1)]
    return str(write_lemat(tmp_path / "cells.parquet", frames))


@pytest.fixture(autouse=True)
def _on_one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def ids(folder):
    return [(r.sample_id, r.repeat) for r in read_run(folder).records]


def provenance(folder):
    return read_run(folder).provenance


def test_a_run_leaves_records_and_a_board(data, tmp_path, capsys):
    out = tmp_path / "runs"
    assert main(["--models", "volume-scaling", "--data", data, "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("Leaderboard: ")
    assert "identity" in said.out  # runs without being asked for
    assert f"{N} samples; 1 quarantined (1 " in said.err
    assert str(out / "board.json") in said.err
    for model in ("identity", "volume-scaling"):
        assert len(set(ids(out / model))) == N
    facts = provenance(out / "identity")
    assert facts["n_samples"] == N
    assert facts["aborted"] is None
    assert facts["threads"] == 1
    assert facts["functional"] is None
    assert facts["redistributable"] is False
    assert [q["sample_id"] for q in facts["quarantined"]] == ["mp-99-0-pbe"]
    assert facts["command"].startswith("python -m benchmarks.run --models volume-scaling --data ")
    assert facts["started"] <= facts["ended"]
    assert facts["packages"]["numpy"] == np.__version__
    assert facts["load_seconds"] > 0
    assert not (out / "identity" / SHARD / "worker.log").exists()  # nothing was printed


def test_two_runs_agree(data, tmp_path):
    runs = []
    for name, size in (("a", "64"), ("b", "5")):
        out = tmp_path / name
        command = ["--models", "volume-scaling", "--data", data, "--out", str(out)]
        assert main([*command, "--batch-size", size]) == 0
        runs.append({r.sample_id: r for r in read_run(out / "volume-scaling").records})
    for sample_id, record in runs[0].items():
        other = runs[1][sample_id]
        assert np.abs(record.geometry.lattice - other.geometry.lattice).max() < 1e-6
        moved = (record.geometry.frac_coords - other.geometry.frac_coords) @ other.geometry.lattice
        assert np.abs(moved).max() < 1e-6


def test_a_larger_run_goes_on_from_a_smaller_one(data, tmp_path, capsys):
    out = tmp_path / "runs"
    command = ["--models", "identity", "--data", data, "--out", str(out)]
    assert main([*command, "--limit", "5"]) == 0
    few = set(ids(out / "identity"))
    assert len(few) == 5
    assert main([*command, "--repeats", "2"]) == 0
    stored = ids(out / "identity")
    assert len(stored) == len(set(stored)) == 2 * N
    assert few < set(stored)
    batches = [(r.batch_id, r.repeat) for r in read_run(out / "identity").records]
    assert len({batch for batch, _ in batches}) == 3  # numbers are not used twice
    capsys.readouterr()
    files = [path for path in (out / "identity").rglob("*") if path.is_file()]
    before = {path: path.read_bytes() for path in files}
    assert main([*command, "--repeats", "2"]) == 0
    assert f"identity: all {2 * N} there already" in capsys.readouterr().err
    files = [path for path in (out / "identity").rglob("*") if path.is_file()]
    assert before == {path: path.read_bytes() for path in files}


def table_without_times(text):
    """The cells of a printed board by column, without the times, which no two runs share."""
    lines = [re.split(r"  +", line.strip()) for line in text.splitlines() if "  " in line]
    return {
        name: cells
        for name, *cells in zip(*lines, strict=True)
        if not name.startswith(("Time", "Machine"))
    }


def test_shards_give_the_board_of_one_run(data, tmp_path, capsys):
    whole, out = tmp_path / "whole", tmp_path / "parts"
    command = ["--models", "identity,volume-scaling", "--data", data]
    assert main([*command, "--out", str(whole)]) == 0
    board = table_without_times(capsys.readouterr().out)
    assert "volume-scaling" in board["Model"]
    for part in ("1/2", "2/2"):
        capsys.readouterr()
        assert main([*command, "--out", str(out), "--shard", part]) == 0
    assert table_without_times(capsys.readouterr().out) == board
    folder = out / "volume-scaling"
    assert sorted(path.name for path in folder.glob("shard-*")) == ["shard-0001", "shard-0002"]
    sizes = [len(ids(shard)) for shard in sorted(folder.glob("shard-*"))]
    assert sum(sizes) == N
    assert min(sizes) > 0
    assert sorted(ids(folder)) == sorted(ids(whole / "volume-scaling"))
    assert main([*command, "--out", str(out)]) == 0  # nothing is left for the whole
    assert sorted(path.name for path in folder.glob("shard-*")) == ["shard-0001", "shard-0002"]


@pytest.mark.parametrize("part", ["0/2", "3/2", "1", "a/b", "1/", "-1/2"])
def test_a_part_that_is_none_is_an_error(part, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--models", "identity", "--shard", part])
    assert ended.value.code == 2
    assert "is not i/n" in capsys.readouterr().err or part.startswith("-")


def test_a_part_without_samples_is_one_line(data, tmp_path, capsys):
    command = ["--models", "identity", "--data", data, "--limit", "1", "--out", str(tmp_path)]
    codes = [main([*command, "--shard", part]) for part in ("1/2", "2/2")]
    assert sorted(codes) == [0, 2]
    assert "holds none of the samples" in capsys.readouterr().err


def test_the_board_shows_all_models_of_out(data, tmp_path, capsys, lemat_frame, write_lemat):
    """Also those of earlier commands, but not those on other data or in damaged folders."""
    out = tmp_path / "runs"
    command = ["--data", data, "--out", str(out)]
    assert main(["--models", "volume-scaling", *command]) == 0
    (out / "volume-scaling").rename(out / "mine")  # the name of the folder says nothing
    cells = [Structure(Lattice.cubic(a), ["Ge"], [[0, 0, 0]]) for a in (3.0, 3.1)]
    rows = [lemat_frame(cell, "nomad-x", step) for step, cell in enumerate(cells)]
    other = ["--data", str(write_lemat(tmp_path / "more.parquet", rows))]
    assert main(["--models", "identity", *other, "--out", str(tmp_path / "x")]) == 0
    (tmp_path / "x" / "identity").rename(out / "elsewhere")
    damaged = out / "damaged" / SHARD
    damaged.mkdir(parents=True)
    (damaged / "run.json").write_text("{")
    capsys.readouterr()
    assert main(["--models", "identity", *command]) == 0
    said = capsys.readouterr()
    assert "volume-scaling" in said.out
    first, second = (line for line in said.err.splitlines() if "left out" in line)
    assert f"left out of the board: {damaged.resolve()}/run.json: damaged" in first
    assert f"{out / 'elsewhere'} is of other data ({tmp_path.name}/more, sha256:" in second


def test_several_data_make_one_board(data, tmp_path, lemat_frame, write_lemat):
    cells = [Structure(Lattice.cubic(a), ["Ge"], [[0, 0, 0]]) for a in (3.0, 3.1)]
    rows = [lemat_frame(cell, "nomad-x", step) for step, cell in enumerate(cells)]
    more = ["--data", data, "--data", str(write_lemat(tmp_path / "more.parquet", rows))]
    out = tmp_path / "runs"
    assert main(["--models", "identity", *more, "--out", str(out)]) == 0
    assert len(ids(out / "identity")) == N + 1
    board = json.loads((out / "board.json").read_text())
    assert board["dataset"]["name"] == f"{tmp_path.name}/cells+{tmp_path.name}/more"
    assert render([str(out), *more, "--out", str(out), "--check"]) == 0


def test_another_policy_for_missing_ends_is_another_run(tmp_path, lemat_frame, write_lemat, capsys):
    def trajectory(material, listed):
        cells = [Structure(Lattice.cubic(a), ["Ge"], [[0, 0, 0]]) for a, _ in listed]
        return [
            lemat_frame(cell, material, step, relaxation_number=number)
            for step, (cell, (_, number)) in enumerate(zip(cells, listed, strict=True))
        ]

    backwards = [(5.5, 0), (5.53, 0), (5.0, 1), (5.45, 1)]  # the last frame of the first is gone
    rows = trajectory("mp-1", backwards) + trajectory("mp-2", [(5.2, 0), (5.4, 0)])
    out, data = tmp_path / "runs", str(write_lemat(tmp_path / "x.parquet", rows))
    command = ["--models", "identity", "--data", data, "--out", str(out)]
    assert main([*command, "--missing-final-frame", "keep", "--limit", "9"]) == 0
    facts = provenance(out / "identity")
    assert facts["missing_final_frame"] == {"policy": "keep", "sample_ids": ["mp-2-0-pbe"]}
    assert facts["limit"] == 9
    assert len(ids(out / "identity")) == 2
    capsys.readouterr()
    assert main(command) == 2
    assert "missing_final_frame differs ('keep' stored, now None)" in capsys.readouterr().err
    assert (
        render([str(out), "--data", data, "--missing-final-frame", "keep", "--out", str(tmp_path)])
        == 0
    )
    assert json.loads((tmp_path / "board.json").read_text())["dataset"]["n_samples"] == 2
    assert main([*command, "--out", str(tmp_path / "default")]) == 0
    assert len(ids(tmp_path / "default" / "identity")) == 1
    assert "missing_final_frame" not in read_run(tmp_path / "default" / "identity").identity


def start(command, *, flush=False):
    """The command in a process of its own; with `flush`, every batch is on disk at once."""
    # A shell's background job ignores SIGINT, and so would all that it starts.
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "signal.signal(signal.SIGHUP, signal.SIG_DFL); "
    code += "from benchmarks.run import main; "
    if flush:
        code += "from benchmarks.store import RunWriter as W; "
        code += "W.open.__func__.__kwdefaults__['flush_seconds'] = 0.0; "
    return subprocess.Popen(
        [sys.executable, "-c", code + f"sys.exit(main({command!r}))"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition, process, seconds=60):
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    pytest.fail("waited too long")


def worker_is_gone(folder):
    """Within a second or two: it hears of its driver's end by itself."""
    pid = int((folder / SHARD / "worker.log").read_text().split()[1])
    for _ in range(200):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return True
        time.sleep(0.02)
    return False


def test_a_killed_run_is_resumed_without_loss_or_repetition(data, tmp_path):
    folder = tmp_path / "runs" / "slow"
    command = ["--models", SLOW, "--data", data, "--out", str(tmp_path / "runs")]
    process = start(command, flush=True)
    wait_for(lambda: len(list(folder.rglob("part-*.parquet"))) >= 3, process)
    process.kill()
    process.communicate()
    assert worker_is_gone(folder)
    survived = ids(folder)
    assert 3 <= len(survived) < N
    assert main(command) == 0
    stored = ids(folder)
    assert len(stored) == len(set(stored)) == N
    assert stored[: len(survived)] == survived


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_an_interrupted_run_says_so_and_keeps_what_it_has(number, status, data, tmp_path):
    folder = tmp_path / "runs" / "slow"
    process = start(["--models", SLOW, "--data", data, "--out", str(tmp_path / "runs")])
    log = folder / SHARD / "worker.log"
    wait_for(log.exists, process)
    wait_for(lambda: "worker" in log.read_text(), process)
    time.sleep(1)
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == status
    assert out == ""
    assert err.splitlines()[-1] == "interrupted; the same command goes on from here"
    assert worker_is_gone(folder)
    assert 1 <= len(ids(folder)) < N


def test_other_settings_are_refused_before_any_model_runs(data, tmp_path, capsys):
    command = [
        "--models",
        "zero=ase:benchmarks.testing:ZeroForce",
        "--data",
        data,
        "--out",
        str(tmp_path / "runs"),
    ]
    assert main([*command, "--fmax", "0.05"]) == 0
    capsys.readouterr()
    assert main([*command, "--fmax", "0.01"]) == 2
    said = capsys.readouterr()
    assert "settings.fmax differs (0.05 stored, now 0.01)" in said.err
    assert said.out == ""


def test_a_broken_model_ends_with_1_and_the_others_have_their_rows(data, tmp_path, capsys):
    out = tmp_path / "runs"
    command = ["--models", "bad=ase:tests.toys:broken_calculator", "--data", data]
    command += ["--out", str(out)]
    assert main(command) == 1
    said = capsys.readouterr()
    assert "identity" in said.out
    assert "bad given up: 6 of 6 structures ended in error, the last with KeyError" in said.err
    assert provenance(out / "bad")["aborted"].startswith("6 of 6 structures")
    assert "Traceback" not in said.err
    assert "KeyError" in (out / "bad" / SHARD / "worker.log").read_text()
    assert main(command) == 1  # going on with it does not make it good
    assert len(ids(out / "bad")) == 6


@pytest.mark.parametrize(("device", "there"), [("cuda", 0), ("cuda:1", 1)])
def test_a_gpu_that_is_not_there_is_one_line(device, there, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    one_line(lambda: check_device(device), f"--device {device}")
    check_device("cpu")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "say what to run: --models t5,mace (names: --list-models)"),
        (["--models", "chgnt"], "unknown model 'chgnt': did you mean chgnet?"),
        (["--models", "x=ase:no.such:thing"], "x needs no.such"),
        (
            ["--models", "x=ase:tests.toys:nothing"],
            "'tests.toys:nothing': tests.toys has no nothing",
        ),
        (["--models", "identity", "--data", "no/such.parquet"], "no/such.parquet: no such file"),
        (["--models", "identity", "--split", "tset"], "no split 'tset'"),
        (["--models", "identity", "--device", "tpu"], "--device tpu: cpu or cuda"),
        (["--models", "mace-mp-0", "--offline"], "mace-mp-0"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(arguments, message, tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert main([*arguments, "--limit", "1", "--out", str(tmp_path / "runs")]) == 2
    said = capfd.readouterr()
    assert said.out == ""
    assert message in said.err.splitlines()[-1]
    assert said.err.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in said.err


@pytest.mark.parametrize(
    "arguments",
    [["--modles", "t5"], ["--model", "t5"], ["--limit", "0"], ["--fmax", "nan"], ["--fmax", "x"]],
)
def test_unknown_flags_and_values_are_errors(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


def test_a_dry_run_checks_everything_and_writes_nothing(data, tmp_path, capsys):
    out = tmp_path / "runs"
    command = ["--models", "volume-scaling", "--data", data, "--out", str(out), "--dry-run"]
    assert main(command) == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        f"would run {N} samples on cpu into {out}/:",
        "  identity: Identity (does nothing); no weights; batches of 64",
        "  volume-scaling: DLS volume (pymatgen); no weights; batches of 64",
    ]
    assert "1 quarantined" in said.err
    assert not out.exists()


def test_a_reader_that_leaves_is_no_error():
    process = start(["--list-models"])
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 0


def test_an_interrupt_while_scoring_is_130_too(monkeypatch, data, tmp_path):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(benchmark_run, "run_all", interrupt)
    assert main(["--models", "identity", "--data", data, "--out", str(tmp_path / "runs")]) == 130


def test_a_clock_that_goes_back_changes_no_answer(data, tmp_path, monkeypatch):
    """The wall clock is written down only; what is waited for is told by one that cannot."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    command = ["--models", "volume-scaling", "--data", data, "--out"]
    assert main([*command, str(whole)]) == 0
    assert main([*command, str(cut), "--shard", "1/2"]) == 0
    monkeypatch.setattr("time.time", lambda: 1.0)
    monkeypatch.setattr("benchmarks.engine.benchmark_run.now", lambda: "1970-01-01T00:00:01+00:00")
    assert main([*command, str(cut)]) == 0
    runs = [read_run(out / "volume-scaling") for out in (whole, cut)]
    ids = [sorted(run.table["sample_id"].to_pylist()) for run in runs]
    assert ids[0] == ids[1]
    assert {segment["started"][:4] for segment in runs[1].segments} >= {"1970"}
    tables = [scores(run).set_index("sample_id").sort_index()["score"] for run in runs]
    assert tables[0].equals(tables[1])


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no file system that nobody may write")
def test_a_store_that_may_not_be_written_is_one_line(data, capsys):
    assert main(["--models", "identity", "--data", data, "--out", "/proc/runs"]) == 2
    assert "cannot be written" in capsys.readouterr().err.splitlines()[-1]
