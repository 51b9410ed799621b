"""The run folder: round trip, kills, resume, damage, merging."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from benchmarks.core import Geometry, Status, UserError
from benchmarks.store import SCHEMA, Record, RunWriter, model_folder, read_run, read_runs

IDENTITY = {
    "dataset": "embedded-v1",
    "revision": "sha256:0",
    "split": "test",
    "model": "t5+chgnet",
    "settings": {"fmax": 0.05, "max_steps": 500},
    "seed": 0,
}


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
    ]
    row = pq.read_table(tmp_path / "part-00000.parquet").to_pylist()[0]
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
    with RunWriter.open(tmp_path, IDENTITY, {}, flush_every=3) as writer:
        writer.append([record("a"), record("b")])
        assert sorted(p.name for p in tmp_path.iterdir()) == ["run.json"]
        writer.append([record("c")])
        assert sorted(p.name for p in tmp_path.iterdir()) == ["part-00000.parquet", "run.json"]
        writer.append([record("d")])
        writer.flush()
        writer.flush()
        assert len(list(tmp_path.glob("part-*"))) == 2
    assert len(list(tmp_path.glob("part-*"))) == 2


def test_slow_model_does_not_keep_its_records_in_memory(tmp_path):
    writer = RunWriter.open(tmp_path, IDENTITY, {}, flush_seconds=0.0)
    writer.append([record("a")])
    assert read_run(tmp_path).table.num_rows == 1


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
        ({"schema_version": 2}, "schema_version differs (1 stored, now 2)"),
    ],
)
def test_header_that_differs_is_an_error_that_names_the_field(tmp_path, change, words):
    write(tmp_path, [record()])
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(UserError) as info:
        RunWriter.open(tmp_path, IDENTITY | change, {})
    assert words in str(info.value)
    assert "\n" not in str(info.value)
    assert (tmp_path / "run.json").read_bytes() == before
    RunWriter.open(tmp_path, IDENTITY, {}).close()


def test_tuples_and_lists_of_an_identity_are_equal(tmp_path):
    write(tmp_path, [], IDENTITY | {"training_data": ("a", "b")})
    write(tmp_path, [], IDENTITY | {"training_data": ["a", "b"]})


def test_provenance_is_recorded_and_not_compared(tmp_path):
    with RunWriter.open(tmp_path, IDENTITY, {"device": "cpu", "started": "1"}) as writer:
        writer.append([record("a")])
        writer.close(ended="2", aborted=None)
    assert read_run(tmp_path).provenance == {
        "device": "cpu",
        "started": "1",
        "ended": "2",
        "aborted": None,
    }
    assert read_run(tmp_path).identity == {"schema_version": 1, **IDENTITY}
    with RunWriter.open(tmp_path, IDENTITY, {"device": "cuda", "started": "3"}) as writer:
        writer.append([record("b")])
        writer.close(ended="4")
    assert read_run(tmp_path).provenance == {
        "device": "cuda",
        "started": "1",
        "ended": "4",
        "aborted": None,
    }


def test_resuming_a_finished_run_leaves_it_byte_for_byte(tmp_path):
    write(tmp_path, [record("a")], provenance={"device": "cpu"})
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with RunWriter.open(tmp_path, IDENTITY, {"device": "cuda"}) as writer:
        writer.close(ended="later")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


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
        if len(calls) == 2:  # the folder, after the rename
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(KeyboardInterrupt):
        writer.flush()
    writer.close()
    assert [r.sample_id for r in read_run(tmp_path).records] == ["a"]


def test_two_writers_at_once_are_refused(tmp_path):
    with RunWriter.open(tmp_path, IDENTITY, {}):
        with pytest.raises(UserError, match="another process"):
            RunWriter.open(tmp_path, IDENTITY, {})
        assert read_run(tmp_path).table.num_rows == 0
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
    (tmp_path / ".part-00001.parquet.tmp").write_bytes(b"PAR1 half a part")
    (tmp_path / ".run.json.tmp").write_text('{"identity": {')
    assert read_run(tmp_path).table.num_rows == 1
    write(tmp_path, [record("b")])
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "part-00000.parquet",
        "part-00001.parquet",
        "run.json",
    ]


def test_kill_before_the_first_header_is_a_fresh_start(tmp_path):
    (tmp_path / ".run.json.tmp").write_text('{"identity": {')
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
    part = stored / "part-00001.parquet"
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
    (stored / "part-00000.parquet").unlink()
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
    part = folder / "part-00000.parquet"
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
    shutil.copy(stored / "part-00000.parquet", stored / "part-00007.parquet")
    with pytest.raises(UserError, match="sample s0, repeat 0 is there twice"):
        read_run(stored)


def test_part_of_another_model_is_an_error(stored, tmp_path):
    write(tmp_path / "mace", [record("z", model="mace")], IDENTITY | {"model": "mace"})
    shutil.copy(tmp_path / "mace" / "part-00000.parquet", stored / "part-00007.parquet")
    with pytest.raises(UserError, match=r"part-00007.parquet: holds records of mace, not of t5"):
        read_run(stored)


def test_part_with_other_columns_is_an_error(stored):
    table = pq.read_table(stored / "part-00000.parquet").drop_columns(["detail"])
    pq.write_table(table, stored / "part-00000.parquet")
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
            '{"identity": {"model": "a", "schema_version": 2}, "provenance": {}}',
            "schema version 2, this program reads 1",
        ),
    ],
)
def test_bad_header_is_one_line(stored, text, words):
    (stored / "run.json").write_text(text)
    with pytest.raises(UserError, match=words) as info:
        read_run(stored)
    assert "\n" not in str(info.value)


def test_parts_without_header_are_not_adopted(stored):
    (stored / "run.json").unlink()
    with pytest.raises(UserError, match="no such file"):
        read_run(stored)
    with pytest.raises(UserError, match=r"has parts but no run\.json"):
        RunWriter.open(stored, IDENTITY, {})


# --- reading many ---------------------------------------------------------------------------------


def test_run_stored_without_structures_has_no_records(tmp_path):
    write(tmp_path / "t5", [record()])
    (tmp_path / "t5" / "part-00000.parquet").unlink()
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
    with pytest.raises(UserError, match="cannot be merged: seed differs"):
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
    write(tmp_path, [], provenance={"load_average": [0.1, 0.2, 0.3]})
    header = json.loads((tmp_path / "run.json").read_text())
    assert set(header) == {"identity", "provenance"}
    assert header["identity"]["schema_version"] == 1
    assert math.isclose(header["provenance"]["load_average"][2], 0.3)


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
