"""The run folder: round trip, kills, resume, damage, merging."""

import errno
import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from benchmarks.core import Geometry, Shard, Status, UserError
from benchmarks.store import SCHEMA, Record, RunWriter, model_folder, read_run, read_runs
from benchmarks.store.locking import FolderLock

IDENTITY = {
    "dataset": "embedded-v1",
    "revision": "sha256:0",
    "split": "test",
    "model": "t5+chgnet",
    "settings": {"fmax": 0.05, "max_steps": 500},
    "seed": 0,
}


SHARD = "shard-0000"


def record(sample_id="a", repeat=0, status=Status.OK, geometry=None, **columns):
    base = {"model": "t5+chgnet", "batch_id": 0, "batch_size": 1, "batch_seconds": 0.5}
    return Record(
        sample_id=sample_id, repeat=repeat, status=status, geometry=geometry, **base | columns
    )


def geometry(n=2):
    return Geometry(np.eye(3) * 4.1, np.full((n, 3), 1 / 3), np.full(n, 22, dtype=np.int16))


def write(folder, records, identity=IDENTITY, provenance=None, **kwargs):
    with RunWriter.open(folder, identity, provenance or {}, **kwargs) as writer:
        writer.append(records)


def same(a, b):
    """Equal bit for bit, NaN included."""
    if isinstance(a, float) and isinstance(b, float):
        return np.float64(a).tobytes() == np.float64(b).tobytes() or (a != a and b != b)
    return a == b and type(a) is type(b)


def assert_same(a, b):
    for name in SCHEMA.names:
        if name not in ("lattice", "frac_coords", "numbers"):
            assert same(getattr(a, name), getattr(b, name)), name
    assert (a.geometry is None) == (b.geometry is None)
    for x, y in zip(a.geometry or (), b.geometry or (), strict=True):
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        np.testing.assert_array_equal(x, y)


# --- round trip -----------------------------------------------------------------------------------


@st.composite
def geometries(draw):
    n = draw(st.integers(0, 5))
    anything = st.floats(allow_nan=True, allow_infinity=True)
    return Geometry(
        draw(hnp.arrays(np.float64, (3, 3), elements=anything)),
        draw(hnp.arrays(np.float64, (n, 3), elements=anything)),
        draw(hnp.arrays(np.int16, (n,), elements=st.integers(-1, 118))),
    )


records = st.builds(
    Record,
    model=st.just("t5+chgnet"),
    sample_id=st.text(st.characters(codec="utf-8"), max_size=8),
    repeat=st.integers(0, 3),
    status=st.sampled_from(Status),
    geometry=st.none() | geometries(),
    energy=st.none() | st.floats(),
    max_force=st.none() | st.floats(),
    max_stress=st.none() | st.floats(),
    n_force_evals=st.none() | st.integers(0, 2**40),
    n_tokens=st.none() | st.integers(0, 2**40),
    batch_id=st.integers(0, 2**40),
    batch_size=st.integers(1, 1000),
    batch_seconds=st.floats(0, 1e9),
    detail=st.none() | st.text(st.characters(codec="utf-8")),
)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(records, max_size=8, unique_by=lambda r: (r.sample_id, r.repeat)),
    flush_every=st.integers(1, 9),
)
def test_what_is_written_is_read_bit_for_bit(tmp_path_factory, rows, flush_every):
    folder = tmp_path_factory.mktemp("run")
    write(folder, rows[: len(rows) // 2], flush_every=flush_every)
    with RunWriter.open(folder, IDENTITY, {}, flush_every=flush_every) as writer:
        assert writer.done == {(r.sample_id, r.repeat) for r in rows[: len(rows) // 2]}
        for row in rows[len(rows) // 2 :]:
            writer.append([row])
    if not rows:
        assert not folder.exists()
        return
    run = read_run(folder)
    assert len(run.records) == run.table.num_rows == len(rows)
    for stored, row in zip(run.records, rows, strict=True):
        assert_same(stored, row)
    for i, row in enumerate(rows):
        assert_same(run.records[i], row)


@pytest.mark.parametrize(
    "nonsense",
    [
        None,
        Geometry(np.zeros((3, 3)), np.zeros((0, 3)), np.zeros(0, np.int16)),
        Geometry(np.full((3, 3), np.nan), np.full((1, 3), np.inf), np.ones(1, np.int16)),
        Geometry(np.eye(3)[[0, 0, 1]], np.array([[7.5, -3.25, 0.1]]), np.ones(1, np.int16)),
    ],
    ids=["nothing parsed", "no sites", "not finite", "singular"],
)
def test_nonsense_of_an_invalid_outcome_is_kept(tmp_path, nonsense):
    rows = [
        record("a", geometry=geometry()),
        record("b", status=Status.INVALID, geometry=nonsense, detail="data_\n…"),
        record("c", geometry=geometry(3)),
    ]
    write(tmp_path, rows)
    for stored, row in zip(read_run(tmp_path).records, rows, strict=True):
        assert_same(stored, row)


def test_stored_geometry_is_a_structure_again(tmp_path):
    write(tmp_path, [record(geometry=geometry())])
    (row,) = read_run(tmp_path).records
    assert row.geometry.structure().composition.formula == "Ti2"
    assert row.geometry.structure() == geometry().structure()


def test_columns_are_those_of_the_design(tmp_path):
    write(tmp_path, [record(geometry=geometry())])
    assert read_run(tmp_path).table.schema.names == [
        "model",
        "sample_id",
        "repeat",
        "status",
        "lattice",
        "frac_coords",
        "numbers",
        "energy",
        "max_force",
        "max_stress",
        "n_force_evals",
        "n_tokens",
        "batch_id",
        "batch_size",
        "batch_seconds",
        "detail",
        "expected_error",
    ]
    row = pq.read_table(tmp_path / SHARD / "part-00000.parquet").to_pylist()[0]
    assert row["lattice"] == [[4.1, 0, 0], [0, 4.1, 0], [0, 0, 4.1]]
    assert row["frac_coords"] == [[1 / 3] * 3] * 2
    assert row["numbers"] == [22, 22]


def test_geometry_with_more_atoms_than_positions_is_our_bug(tmp_path):
    wrong = Geometry(np.eye(3), np.zeros((1, 3)), np.ones(2, np.int16))
    writer = RunWriter.open(tmp_path, IDENTITY, {})
    writer.append([record(geometry=wrong)])
    with pytest.raises(ValueError, match="atomic numbers"):
        writer.flush()


def test_records_are_a_sequence(tmp_path):
    write(tmp_path, [record(str(i), geometry=geometry(i % 3)) for i in range(2500)])
    rows = read_run(tmp_path).records
    assert rows[-1].sample_id == "2499"
    assert [r.sample_id for r in rows[1:4]] == ["1", "2", "3"]
    assert [r.sample_id for r in rows] == [str(i) for i in range(2500)]
    assert [len(r.geometry.numbers) for r in rows] == [i % 3 for i in range(2500)]
    with pytest.raises(IndexError):
        rows[2500]


# --- appending and resuming -----------------------------------------------------------------------


def test_parts_are_written_when_enough_is_buffered(tmp_path):
    folder = tmp_path / SHARD
    with RunWriter.open(tmp_path, IDENTITY, {}, flush_every=3) as writer:
        writer.append([record("a"), record("b")])
        assert list(folder.iterdir()) == []
        writer.append([record("c")])
        assert sorted(p.name for p in folder.iterdir()) == ["part-00000.parquet", "run.json"]
        writer.append([record("d")])
        writer.flush()
        writer.flush()
        assert len(list(folder.glob("part-*"))) == 2
    assert len(list(folder.glob("part-*"))) == 2


def test_slow_model_does_not_keep_its_records_in_memory(tmp_path):
    writer = RunWriter.open(tmp_path, IDENTITY, {}, flush_seconds=0.0)
    writer.append([record("a")])
    assert read_run(tmp_path).table.num_rows == 1


def test_a_process_that_is_killed_early_has_stored_something(tmp_path, monkeypatch):
    now = 100.0
    monkeypatch.setattr("benchmarks.store.writing.time.monotonic", lambda: now)
    writer = RunWriter.open(tmp_path, IDENTITY, {})
    seen = []
    for second in range(100):
        now += 1
        n_parts = len(list((tmp_path / SHARD).glob("part-*")))
        writer.append([record(f"s{second}")])
        if len(list((tmp_path / SHARD).glob("part-*"))) > n_parts:
            seen.append(second + 1)
    assert seen == [1, 3, 7, 15, 31, 61, 91]


def test_resume_knows_what_is_present(tmp_path):
    write(tmp_path, [record("a", 0, batch_id=6), record("a", 1, batch_id=7)])
    with RunWriter.open(tmp_path, IDENTITY, {}) as writer:
        assert writer.done == {("a", 0), ("a", 1)}
        assert writer.next_batch_id == 8
        with pytest.raises(ValueError, match="already recorded"):
            writer.append([record("a", 1)])
        writer.append([record("b", 0)])
    assert [r.sample_id for r in read_run(tmp_path).records] == ["a", "a", "b"]


def test_record_of_another_model_is_our_bug(tmp_path):
    with (
        RunWriter.open(tmp_path, IDENTITY, {}) as writer,
        pytest.raises(ValueError, match="a record of mace"),
    ):
        writer.append([record(model="mace")])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 1}, "seed differs (0 stored, now 1)"),
        ({"settings": {"fmax": 0.03, "max_steps": 500}}, "settings.fmax differs (0.05 stored, now"),
        ({"settings": {"fmax": 0.05}}, "settings.max_steps differs (500 stored, now None)"),
        ({"extra": "x"}, "extra differs (None stored, now 'x')"),
        ({"schema_version": 3}, "schema_version differs (2 stored, now 3)"),
    ],
)
def test_header_that_differs_is_an_error_that_names_the_field(tmp_path, change, words):
    write(tmp_path, [record()])
    before = (tmp_path / SHARD / "run.json").read_bytes()
    with pytest.raises(UserError) as info:
        RunWriter.open(tmp_path, IDENTITY | change, {})
    assert words in str(info.value)
    assert "\n" not in str(info.value)
    assert (tmp_path / SHARD / "run.json").read_bytes() == before
    RunWriter.open(tmp_path, IDENTITY, {}).close()


def test_tuples_and_lists_of_an_identity_are_equal(tmp_path):
    write(tmp_path, [record("a")], IDENTITY | {"training_data": ("a", "b")})
    write(tmp_path, [record("b")], IDENTITY | {"training_data": ["a", "b"]})


def test_each_process_adds_its_own_provenance(tmp_path):
    """Two machines: the second one's device, versions and memory do not stand for the first's."""
    first = {"device": "cuda (NVIDIA H100)", "cpu": "A", "git_sha": "aa", "started": "1"}
    with RunWriter.open(tmp_path, IDENTITY, first) as writer:
        writer.append([record("a"), record("b")])
        writer.close(ended="2", aborted=None, peak_memory_mb=4000.0)
    second = {"device": "cpu", "cpu": "B", "git_sha": "bb", "started": "3"}
    with RunWriter.open(tmp_path, IDENTITY, second) as writer:
        writer.append([record("c")])
        writer.close(ended="4", aborted=None, peak_memory_mb=500.0)
    run = read_run(tmp_path)
    common = {"shard": SHARD, "aborted": None}
    assert run.segments == (
        {
            **first,
            **common,
            "ended": "2",
            "peak_memory_mb": 4000.0,
            "first_part": 0,
            "n_records": 2,
        },
        {
            **second,
            **common,
            "ended": "4",
            "peak_memory_mb": 500.0,
            "first_part": 1,
            "n_records": 1,
        },
    )
    assert run.provenance == first | {"ended": "4", "aborted": None, "peak_memory_mb": 4000.0}
    assert run.computing_segments == run.segments
    assert run.identity == {"schema_version": 2, **IDENTITY}


def test_a_process_that_wrote_no_record_did_not_compute_the_run(tmp_path):
    with RunWriter.open(tmp_path, IDENTITY, {"cpu": "A"}) as writer:
        writer.close(aborted="the model cannot be loaded")
    with RunWriter.open(tmp_path, IDENTITY, {"cpu": "B"}) as writer:
        writer.append([record("a")])
    run = read_run(tmp_path)
    assert [segment["cpu"] for segment in run.computing_segments] == ["B"]
    (tmp_path / SHARD / "part-00000.parquet").unlink()  # the structures may not be kept
    bare = read_run(tmp_path)
    assert [segment["cpu"] for segment in bare.computing_segments] == ["A", "B"]


def test_facts_that_are_noted_late_are_those_of_the_segment(tmp_path):
    with RunWriter.open(tmp_path, IDENTITY, {"started": "when the queue was made"}) as writer:
        writer.note(started="its turn")
        writer.append([record("a")])
    assert read_run(tmp_path).provenance["started"] == "its turn"


def test_a_killed_process_leaves_its_provenance(tmp_path):
    writer = RunWriter.open(tmp_path, IDENTITY, {"cpu": "A", "ended": None})
    writer.append([record("a")])
    writer.flush()  # and never closed
    (segment,) = read_run(tmp_path).segments
    assert (segment["cpu"], segment["ended"], segment["n_records"]) == ("A", None, 1)


def test_resuming_a_finished_run_leaves_it_byte_for_byte(tmp_path):
    write(tmp_path, [record("a")], provenance={"device": "cpu"})
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    for shard in (Shard(), Shard(1, 2)):
        with RunWriter.open(tmp_path, IDENTITY, {"device": "cuda"}, shard=shard) as writer:
            assert writer.done == {("a", 0)}
            writer.close(ended="later")
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    assert [p.name for p in tmp_path.iterdir()] == [SHARD]


def test_a_run_that_never_had_a_record_leaves_nothing(tmp_path):
    RunWriter.open(tmp_path / "t5", IDENTITY, {}).close(ended="later")
    assert list(tmp_path.iterdir()) == []


# --- shards ---------------------------------------------------------------------------------------


def test_every_sample_is_in_exactly_one_part():
    ids = [f"mp-{i}" for i in range(500)]
    for total in (1, 2, 3, 7):
        parts = [Shard(number, total) for number in range(1, total + 1)]
        assert [sum(part.holds(name) for part in parts) for name in ids] == [1] * len(ids)
        sizes = [sum(part.holds(name) for name in ids) for part in parts]
        assert min(sizes) > 0.7 * len(ids) / total
    # sha256("a") = ca978112ca1bbdca… is even: the rule, so that it never changes in silence
    assert (Shard(1, 2).holds("a"), Shard(2, 2).holds("a")) == (False, True)
    assert Shard().holds("a")


def test_shards_written_side_by_side_are_one_run(tmp_path):
    one = RunWriter.open(tmp_path, IDENTITY, {"cpu": "A"}, shard=Shard(1, 2))
    two = RunWriter.open(tmp_path, IDENTITY, {"cpu": "B"}, shard=Shard(2, 2))
    two.append([record("c", batch_id=0)])
    one.append([record("a", batch_id=0), record("b", batch_id=1)])
    one.close(peak_memory_mb=7.0, aborted=None)
    two.close(peak_memory_mb=9.0, aborted="too many errors")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["shard-0001", "shard-0002"]
    run = read_run(tmp_path)
    assert [r.sample_id for r in run.records] == ["a", "b", "c"]
    assert [(s["shard"], s["cpu"], s["n_records"]) for s in run.segments] == [
        ("shard-0001", "A", 2),
        ("shard-0002", "B", 1),
    ]
    assert (run.provenance["peak_memory_mb"], run.provenance["aborted"]) == (9.0, "too many errors")
    assert run.computing_segments == run.segments
    with RunWriter.open(tmp_path, IDENTITY, {}, shard=Shard(2, 2)) as writer:
        assert writer.done == {("a", 0), ("b", 0), ("c", 0)}
        writer.append([record("d")])
        writer.close(aborted=None)
    assert read_run(tmp_path).provenance["aborted"] is None  # it went on after all
    assert [run.name for run in read_runs([tmp_path])] == ["t5+chgnet"]
    (alone,) = read_runs([tmp_path / "shard-0001"])
    assert [r.sample_id for r in alone.records] == ["a", "b"]


def test_shards_are_merged_strictly(tmp_path):
    write(tmp_path / "x", [record("a")], shard=Shard(1, 2))
    write(tmp_path / "y", [record("a")], shard=Shard(2, 2))
    shutil.copytree(tmp_path / "y" / "shard-0002", tmp_path / "x" / "shard-0002")
    with pytest.raises(UserError, match="sample a, repeat 0 is there twice"):
        read_run(tmp_path / "x")
    write(tmp_path / "z", [record("b")], IDENTITY | {"seed": 5}, shard=Shard(3, 3))
    shutil.rmtree(tmp_path / "x" / "shard-0002")
    shutil.copytree(tmp_path / "z" / "shard-0003", tmp_path / "x" / "shard-0003")
    with pytest.raises(UserError, match=r"seed differs \(0 and 5\)"):
        read_run(tmp_path / "x")
    with pytest.raises(
        UserError, match=r"shard-0003: cannot resume: seed differs \(5 stored, now 0"
    ):
        RunWriter.open(tmp_path / "x", IDENTITY, {})


def test_other_identity_in_another_shard_is_refused(tmp_path):
    write(tmp_path, [record("a")], shard=Shard(1, 2))
    with pytest.raises(UserError, match=r"shard-0001: cannot resume: seed differs"):
        RunWriter.open(tmp_path, IDENTITY | {"seed": 1}, {}, shard=Shard(2, 2))
    assert [p.name for p in tmp_path.iterdir()] == ["shard-0001"]


# --- the layout of schema version 1 ---------------------------------------------------------------


@pytest.fixture
def version_1(tmp_path):
    """A run folder as version 1 wrote it: parts beside one `run.json` in the model's folder."""
    folder = tmp_path / "t5+chgnet"
    write(folder, [record("a"), record("b")])
    (folder / SHARD / "part-00000.parquet").rename(folder / "part-00000.parquet")
    shutil.rmtree(folder / SHARD)
    header = {
        "identity": {"schema_version": 1, **IDENTITY, "end_missing": "keep"},
        "provenance": {
            "cpu": "A",
            "device": "cpu",
            "peak_memory_mb": 4000.0,
            "aborted": None,
            "end_missing": {"policy": "keep", "sample_ids": []},
        },
    }
    (folder / "run.json").write_text(json.dumps(header))
    return folder


def test_a_run_of_version_1_is_read(version_1):
    (run,) = read_runs([version_1.parent])
    assert [r.sample_id for r in run.records] == ["a", "b"]
    left_out = {"family": "other", "weights": None}
    renamed = {"schema_version": 2, "missing_final_frame": "keep"}
    assert run.identity == IDENTITY | renamed | left_out
    assert run.provenance["missing_final_frame"] == {"policy": "keep", "sample_ids": []}
    assert (run.provenance["peak_memory_mb"], run.segments[0]["cpu"]) == (4000.0, "A")
    assert [segment["n_records"] for segment in run.segments] == [2]


def test_a_run_of_version_1_goes_on_in_a_shard_beside_its_parts(version_1):
    before = {p.name: p.read_bytes() for p in version_1.iterdir()}
    identity = IDENTITY | {"missing_final_frame": "keep"}
    with RunWriter.open(version_1, identity, {"cpu": "B"}) as writer:
        assert (writer.done, writer.next_batch_id) == ({("a", 0), ("b", 0)}, 1)
        writer.append([record("c")])
        writer.close(peak_memory_mb=500.0)
    assert {p.name: p.read_bytes() for p in version_1.iterdir() if p.is_file()} == before
    run = read_run(version_1)
    assert [r.sample_id for r in run.records] == ["a", "b", "c"]
    assert [segment["n_records"] for segment in run.segments] == [2, 1]
    assert run.provenance["peak_memory_mb"] == 4000.0
    assert [segment["cpu"] for segment in run.computing_segments] == ["A", "B"]
    with pytest.raises(UserError, match="missing_final_frame differs"):
        RunWriter.open(version_1, IDENTITY, {})


def test_a_run_of_version_1_whose_model_honours_no_settings_goes_on(version_1):
    """Version 1 recorded seed, fmax and max_steps for every model; timeout belongs to all."""
    path = version_1 / "run.json"
    header = json.loads(path.read_text())
    everything = {"fmax": 0.05, "max_steps": 500, "timeout": 600.0}
    header["identity"] |= {"seed": 0, "settings": everything}
    path.write_text(json.dumps(header))
    identity = IDENTITY | {"missing_final_frame": "keep", "settings": {"timeout": 600.0}}
    identity.pop("seed", None)
    with RunWriter.open(version_1, identity, {"cpu": "B"}) as writer:
        assert writer.done == {("a", 0), ("b", 0)}
        writer.append([record("c")])
    assert [r.sample_id for r in read_run(version_1).records] == ["a", "b", "c"]
    for change, message in (
        (
            {"settings": {"fmax": 0.1, "max_steps": 500, "timeout": 600.0}},
            r"settings\.fmax differs",
        ),
        (
            {"settings": {"timeout": 60.0}},
            r"settings\.timeout differs \(600\.0 stored, now 60\.0\)",
        ),
        ({"seed": 1}, r"seed differs \(0 stored, now 1\)"),
        (
            {"decoding": {"t5": {"codec_version": 3}}},
            r"wrote it without decoding\.t5\.codec_version, .*: use another folder$",
        ),
    ):
        with pytest.raises(UserError, match=message):
            RunWriter.open(version_1, identity | change, {})


# --- locks ----------------------------------------------------------------------------------------


@pytest.fixture
def no_locks(monkeypatch):
    """A file system that has no locks, as NFS without a lock service."""

    def flock(handle, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("benchmarks.store.locking.fcntl.flock", flock)


def test_a_file_system_without_locks_is_locked_by_a_file(tmp_path, no_locks):
    with RunWriter.open(tmp_path, IDENTITY, {}) as writer:
        with pytest.raises(UserError) as info:
            RunWriter.open(tmp_path, IDENTITY, {})
        assert "this file system cannot lock (No locks available)" in str(info.value)
        assert "remove that file if the process has ended" in str(info.value)
        assert "--shard i/n" in str(info.value)
        assert "\n" not in str(info.value)
        writer.append([record("a")])
    assert sorted(p.name for p in (tmp_path / SHARD).iterdir()) == [
        "part-00000.parquet",
        "run.json",
    ]
    write(tmp_path, [record("b")])
    assert len(read_run(tmp_path).records) == 2


def test_the_lock_file_of_a_killed_process_is_no_obstacle(tmp_path, no_locks):
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                          capture_output=True, text=True, check=True).stdout.strip()  # fmt: skip
    (tmp_path / ".lock").write_text(f"{gone} {socket.gethostname()}\n")
    FolderLock(tmp_path).close()
    (tmp_path / ".lock").write_text(f"{gone} another-machine\n")
    with pytest.raises(UserError, match="another process is writing"):
        FolderLock(tmp_path)


def test_records_survive_an_exception_of_the_driver(tmp_path):
    def fail():
        with RunWriter.open(tmp_path, IDENTITY, {}) as writer:
            writer.append([record("a")])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert len(read_run(tmp_path).records) == 1


def test_interrupt_between_rename_and_return_does_not_repeat_records(tmp_path, monkeypatch):
    writer = RunWriter.open(tmp_path, IDENTITY, {})
    writer.append([record("a")])
    real = os.fsync
    calls = []

    def fsync(handle):
        real(handle)
        calls.append(handle)
        if len(calls) == 4:  # the folder, after the header and the rename of the part
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(KeyboardInterrupt):
        writer.flush()
    writer.close()
    assert [r.sample_id for r in read_run(tmp_path).records] == ["a"]


def test_two_writers_at_once_are_refused(tmp_path):
    with RunWriter.open(tmp_path, IDENTITY, {}) as writer:
        with pytest.raises(UserError, match="another process"):
            RunWriter.open(tmp_path, IDENTITY, {})
        writer.append([record("a")])
        writer.flush()
        with pytest.raises(UserError, match="another process"):
            RunWriter.open(tmp_path, IDENTITY, {})
        assert read_run(tmp_path).table.num_rows == 1
    RunWriter.open(tmp_path, IDENTITY, {}).close()


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        RunWriter.open(tmp_path / "file" / "t5", IDENTITY, {})


# --- hard kills -----------------------------------------------------------------------------------

_WRITER = """
import json, sys
from pathlib import Path
import numpy as np
from benchmarks.core import Geometry, Status
from benchmarks.store import Record, RunWriter

with RunWriter.open(Path(sys.argv[1]), json.loads(sys.argv[2]), {}) as writer:
    for i in range(10**6):
        if (f"s{i}", 0) in writer.done:
            continue
        geometry = Geometry(np.eye(3), np.zeros((i % 4, 3)), np.ones(i % 4, np.int16))
        writer.append([Record(model="t5+chgnet", sample_id=f"s{i}", repeat=0, status=Status.OK,
                              geometry=geometry, batch_id=i, batch_size=1, batch_seconds=0.1)])
        if i % 3 == 2:
            writer.flush()
            print(i + 1, flush=True)
"""


def test_sigkill_loses_nothing_that_was_flushed_and_repeats_nothing(tmp_path):
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    folder = tmp_path / "run"
    command = [sys.executable, "-c", _WRITER, str(folder), json.dumps(IDENTITY)]
    rng = np.random.default_rng(0)
    promised = 0
    for _ in range(5):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
        first = process.stdout.readline()
        time.sleep(rng.uniform(0, 0.15))
        os.kill(process.pid, signal.SIGKILL)
        flushed = [int(first), *map(int, process.stdout.read().split())]
        assert process.wait() == -signal.SIGKILL
        assert min(flushed) > promised  # it went on where the killed one stopped
        promised = max(flushed)
        ids = [r.sample_id for r in read_run(folder).records]
        assert ids == [f"s{i}" for i in range(len(ids))]
        assert len(ids) >= promised


def test_leftovers_of_a_kill_are_removed_and_never_read(tmp_path):
    write(tmp_path, [record("a")])
    folder = tmp_path / SHARD
    (folder / ".part-00001.parquet.tmp").write_bytes(b"PAR1 half a part")
    (folder / ".run.json.123.456.tmp").write_text('{"identity": {')
    assert read_run(tmp_path).table.num_rows == 1
    write(tmp_path, [record("b")])
    assert sorted(p.name for p in folder.iterdir()) == [
        "part-00000.parquet",
        "part-00001.parquet",
        "run.json",
    ]


def test_kill_before_the_first_header_is_a_fresh_start(tmp_path):
    (tmp_path / SHARD).mkdir()
    (tmp_path / SHARD / ".run.json.tmp").write_text('{"identity": {')
    write(tmp_path, [record("a")])
    assert read_run(tmp_path).table.num_rows == 1


# --- damage ---------------------------------------------------------------------------------------


@pytest.fixture
def stored(tmp_path):
    folder = tmp_path / "t5+chgnet"
    write(
        folder,
        [record(f"s{i}", geometry=geometry()) for i in range(6)],
        flush_every=3,
    )
    write(folder, [record(f"s{i}", geometry=geometry()) for i in range(6, 9)])
    return folder


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped", "text"])
def test_damaged_part_is_named_with_what_to_do(stored, damage):
    part = stored / SHARD / "part-00001.parquet"
    data = bytearray(part.read_bytes())
    data[60] ^= 0xFF
    content = {
        "truncated": bytes(data[: len(data) // 2]),
        "empty": b"",
        "flipped": bytes(data),
        "text": b"hello",
    }
    part.write_bytes(content[damage])
    for call in (lambda: read_run(stored), lambda: RunWriter.open(stored, IDENTITY, {})):
        with pytest.raises(UserError) as info:
            call()
        assert "part-00001.parquet: damaged" in str(info.value)
        assert "delete it and run again" in str(info.value)
        assert "\n" not in str(info.value)


def test_deleting_a_damaged_part_and_running_again_completes_the_run(stored):
    (stored / SHARD / "part-00000.parquet").unlink()
    with RunWriter.open(stored, IDENTITY, {}) as writer:
        todo = [f"s{i}" for i in range(9) if (f"s{i}", 0) not in writer.done]
        writer.append([record(i, geometry=geometry()) for i in todo])
    assert sorted(r.sample_id for r in read_run(stored).records) == [f"s{i}" for i in range(9)]


@settings(max_examples=60, deadline=None)
@given(where=st.floats(0, 1, exclude_max=True), mask=st.integers(1, 255))
def test_flipped_bits_are_noticed_or_harmless(tmp_path_factory, where, mask):
    folder = tmp_path_factory.mktemp("flip")
    write(folder, [record(f"s{i}", geometry=geometry(i % 3)) for i in range(20)])
    before = read_run(folder).table
    part = folder / SHARD / "part-00000.parquet"
    data = bytearray(part.read_bytes())
    data[int(where * len(data))] ^= mask
    part.write_bytes(data)
    try:
        after = read_run(folder).table
    except UserError as error:
        assert "part-00000.parquet" in str(error)  # noqa: PT017 - either outcome is allowed
    else:
        assert after.equals(before)


def test_part_copied_twice_is_an_error(stored):
    shutil.copy(stored / SHARD / "part-00000.parquet", stored / SHARD / "part-00007.parquet")
    with pytest.raises(UserError, match="sample s0, repeat 0 is there twice"):
        read_run(stored)


def test_part_of_another_model_is_an_error(stored, tmp_path):
    write(tmp_path / "mace", [record("z", model="mace")], IDENTITY | {"model": "mace"})
    shutil.copy(
        tmp_path / "mace" / SHARD / "part-00000.parquet", stored / SHARD / "part-00007.parquet"
    )
    with pytest.raises(UserError, match=r"part-00007.parquet: holds records of mace, not of t5"):
        read_run(stored)


def test_part_with_other_columns_is_an_error(stored):
    table = pq.read_table(stored / SHARD / "part-00000.parquet").drop_columns(["detail"])
    pq.write_table(table, stored / SHARD / "part-00000.parquet")
    with pytest.raises(UserError, match="columns are not those of a record"):
        read_run(stored)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "damaged"),
        ('{"identity": {"model": "a"', "damaged"),
        ("[]", "damaged"),
        ('{"identity": {"model": "a"}}', "damaged"),
        ('{"identity": {"model": "a"}, "provenance": {}}', "schema_version"),
        (
            '{"identity": {"model": "a", "schema_version": 3}, "segments": [{}]}',
            "schema version 3, this program reads up to 2",
        ),
        (
            '{"identity": {"model": "a", "schema_version": 2}, "segments": []}',
            "damaged \\(no segments",
        ),
        (
            (
                '{"identity": {"schema_version": 2, "model": "a", "dataset": "", "revision": ""},'
                ' "segments": [{"spent": 3}]}'
            ),
            "spent",
        ),
    ],
)
def test_bad_header_is_one_line(stored, text, words):
    (stored / SHARD / "run.json").write_text(text)
    with pytest.raises(UserError, match=words) as info:
        read_run(stored)
    assert "\n" not in str(info.value)


def test_parts_without_header_are_not_adopted(stored):
    (stored / SHARD / "run.json").unlink()
    with pytest.raises(UserError, match="no such file"):
        read_run(stored)
    with pytest.raises(UserError, match=r"has parts but no run\.json"):
        RunWriter.open(stored, IDENTITY, {})


# --- reading many ---------------------------------------------------------------------------------


def test_run_stored_without_structures_has_no_records(tmp_path):
    write(tmp_path / "t5", [record()])
    (tmp_path / "t5" / SHARD / "part-00000.parquet").unlink()
    (tmp_path / "t5" / "scores.parquet").write_bytes(b"somebody else's file")
    run = read_run(tmp_path / "t5")
    assert (run.name, len(run.records), run.table.num_rows) == ("t5+chgnet", 0, 0)
    assert run.table.schema == SCHEMA
    assert list(run.records) == []


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("t5+chgnet", "t5+chgnet"),
        ("mine=mace:weights/x.model", "mine=mace%3Aweights%2Fx.model"),
        ("../escape", "%2E.%2Fescape"),
        ("..", "%2E."),
        ("a b", "a%20b"),
        ("50%", "50%25"),
    ],
)
def test_model_names_become_safe_folders(tmp_path, model, name):
    folder = model_folder(tmp_path, model)
    assert folder == tmp_path / name
    write(folder, [record(model=model)], IDENTITY | {"model": model})
    assert folder.parent == tmp_path
    assert read_run(folder).name == model


def test_folders_of_runs_are_read_in_order(tmp_path):
    for model in ("mace", "chgnet"):
        write(tmp_path / model, [record(model=model)], IDENTITY | {"model": model})
    (tmp_path / "site").mkdir()
    runs = read_runs([tmp_path, tmp_path / "mace"])
    assert [run.name for run in runs] == ["chgnet", "mace"]
    assert runs[0].folder == (tmp_path / "chgnet").resolve()


def test_one_run_in_two_folders_is_merged(tmp_path):
    write(tmp_path / "1" / "t5", [record("a"), record("b")])
    write(tmp_path / "2" / "t5", [record("c", geometry=geometry())])
    (run,) = read_runs([tmp_path / "1", tmp_path / "2" / "t5"])
    assert [r.sample_id for r in run.records] == ["a", "b", "c"]
    assert len(run.folders) == 2


def test_merge_refuses_duplicates_and_differences(tmp_path):
    write(tmp_path / "1", [record("a")])
    write(tmp_path / "2", [record("a")])
    with pytest.raises(UserError, match="sample a, repeat 0 is there twice"):
        read_runs([tmp_path / "1", tmp_path / "2"])
    write(tmp_path / "3", [record("b")], IDENTITY | {"seed": 5})
    with pytest.raises(UserError, match=r"cannot be merged: seed differs \(0 and 5\)"):
        read_runs([tmp_path / "1", tmp_path / "3"])


def test_same_model_on_two_data_sets_is_two_runs(tmp_path):
    write(tmp_path / "1", [record("a")])
    write(tmp_path / "2", [record("a")], IDENTITY | {"dataset": "substitution/test"})
    assert [run.identity["dataset"] for run in read_runs([tmp_path])] == [
        "embedded-v1",
        "substitution/test",
    ]


def test_nothing_to_read(tmp_path):
    with pytest.raises(UserError, match="no such run folder"):
        read_runs([tmp_path / "nothing"])
    with pytest.raises(UserError, match=r"no run\.json in it"):
        read_runs([tmp_path])


def test_header_is_plain_json(tmp_path):
    write(tmp_path, [record()], provenance={"load_average": [0.1, 0.2, 0.3]})
    header = json.loads((tmp_path / SHARD / "run.json").read_text())
    assert set(header) == {"identity", "segments"}
    assert header["identity"]["schema_version"] == 2
    assert math.isclose(header["segments"][0]["load_average"][2], 0.3)


def test_a_run_given_up_before_its_first_new_record_says_so(tmp_path):
    """Else half a run would be ranked as a whole one."""
    with RunWriter.open(tmp_path / "run", IDENTITY, {}) as writer:
        writer.append([record("a")])
    again = RunWriter.open(tmp_path / "run", IDENTITY, {})
    again.close(aborted="cannot be loaded")
    assert read_run(tmp_path / "run").provenance["aborted"] == "cannot be loaded"


def test_a_merge_is_aborted_where_one_of_its_folders_was(tmp_path):
    for name, reason in (("a", None), ("b", "too many errors")):
        writer = RunWriter.open(tmp_path / name, IDENTITY, {"aborted": None})
        writer.append([record(name)])
        writer.close(aborted=reason)
    (run,) = read_runs([tmp_path / "a", tmp_path / "b"])
    assert run.provenance["aborted"] == "too many errors"


# --- what others may have written -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda h: h["identity"].pop("revision"), "identity: 'revision' is a required property"),
        (lambda h: h["identity"].update(model=["t5"]), "identity.model: \\['t5'\\] is not of type"),
        (lambda h: h["identity"].update(model=""), "identity.model: "),
        (lambda h: h["segments"][0].update(packages=[1]), "segments\\[0\\].packages: \\[1\\] is"),
        (
            lambda h: h["segments"][0].update(quarantined=[7]),
            "quarantined\\[0\\]: 7 is not",
        ),
        (lambda h: h["segments"][0].update(training_cost=[{}]), "training_cost\\[0\\]: 'hours' is"),
        (lambda h: h["segments"][0].update(batch_size=0), "segments\\[0\\].batch_size: 0 is less"),
        (lambda h: h["segments"][0].update(aborted={}), "segments\\[0\\].aborted: {} is not of"),
        (lambda h: h["segments"][0].update(peak_memory_mb=1e999), "Infinity is not finite"),
        (lambda h: h["segments"][0].update(threads=10**400), "10000000000000000000… is too large"),
    ],
)
def test_a_field_of_another_type_is_named(stored, change, where):
    path = stored / SHARD / "run.json"
    header = json.loads(path.read_text())
    change(header)
    path.write_text(json.dumps(header))
    with pytest.raises(UserError, match=f"run.json: damaged .*{where}"):
        read_run(stored)


def test_a_header_nested_too_deeply_is_one_line(stored):
    (stored / SHARD / "run.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match="it is nested too deeply"):
        read_run(stored)


def test_what_is_no_unicode_in_a_header_is_replaced(tmp_path):
    identity = IDENTITY | {"weights": "caf\udce9"}
    write(tmp_path, [record()], identity)
    assert read_run(tmp_path).identity["weights"] == "caf?"
    with RunWriter.open(tmp_path, identity, {}) as writer:
        assert writer.done == {("a", 0)}


def test_a_board_may_lack_family_split_and_weights(tmp_path):
    write(tmp_path / "a", [record()], {k: v for k, v in IDENTITY.items() if k != "split"})
    write(tmp_path / "b", [record()], IDENTITY | {"family": "of tomorrow"})
    found = [run.identity for run in read_runs([tmp_path])]
    assert [(i["family"], i["split"], i["weights"]) for i in found] == [
        ("other", None, None),
        ("other", "test", None),
    ]


CELL = [[4.0, 0, 0], [0, 4, 0], [0, 0, 4]]


@pytest.mark.parametrize(
    ("columns", "fault"),
    [
        ({"status": "fine"}, "unknown status"),
        ({"status": None}, "status is null"),
        ({"batch_size": 0}, "batch_size is not positive"),
        ({"batch_size": None}, "batch_size is null"),
        ({"batch_seconds": -1.0}, "batch_seconds is negative"),
        ({"lattice": CELL[:2]}, "a lattice without three vectors"),
        ({"lattice": [None, *CELL[1:]]}, "null within lattice"),
        ({"lattice": None}, "a lattice without positions, or the reverse"),
        ({"numbers": [14]}, "not as many atomic numbers as positions"),
        ({"numbers": [14, None]}, "null within numbers"),
        ({"lattice": None, "frac_coords": None}, "an answer that is no structure"),
    ],
    ids=str,
)
def test_a_row_that_no_record_can_be_is_named(stored, columns, fault):
    path = stored / SHARD / "part-00001.parquet"
    rows = pq.read_table(path).to_pylist()
    assert len(rows[0]["numbers"]) == 2
    rows[0] |= columns
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), path)
    with pytest.raises(UserError, match=rf"part-00001.parquet: damaged \({fault}\): delete it"):
        read_run(stored)
