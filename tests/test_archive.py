"""The archive of a data set: answers as changes of their initial structures, and back."""

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from benchmarks.core import Geometry, Status, UserError
from benchmarks.core.geometry import strain
from benchmarks.store import Record, RunWriter, read_archive, read_run, read_runs, write_archive

IDENTITY = {"dataset": "theirs", "revision": "sha256:0", "split": "test", "seed": 0}
CUBIC = Geometry(np.eye(3) * 4.0, np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), np.array([11, 17], "i2"))


def record(model, sample_id, geometry, status=Status.OK, **columns):
    base = {"repeat": 0, "batch_id": 0, "batch_size": 1, "batch_seconds": 0.5}
    return Record(
        model=model, sample_id=sample_id, status=status, geometry=geometry, **base | columns
    )


def stored(folder, model, answers, **columns):
    """A run in a folder of its own, read again: sample id -> answer."""
    with RunWriter.open(folder / model, IDENTITY | {"model": model}, {"device": "cpu"}) as writer:
        writer.append([record(model, name, answer, **columns) for name, answer in answers.items()])
    return read_run(folder / model)


def again(folder, run, initial):
    """The run after a way through an archive."""
    write_archive(folder / "archive", [run], initial)
    (found,) = read_runs([folder / "archive"])
    return found.with_initial(initial)


def assert_same_crystal(given, found):
    """Lengths (relative), cosines of the angles and fractional coordinates to 1e-12."""
    np.testing.assert_array_equal(given.numbers, found.numbers)
    np.testing.assert_allclose(found.frac_coords, given.frac_coords, rtol=0, atol=1e-12)
    metric = given.lattice @ given.lattice.T
    lengths = np.sqrt(np.diagonal(metric))
    errors = (found.lattice @ found.lattice.T - metric) / np.outer(lengths, lengths)
    assert np.abs(errors).max() <= 1e-12


# --- round trip -----------------------------------------------------------------------------------

cells = (
    hnp.arrays(np.float64, (3, 3), elements=st.floats(-0.4, 0.4))
    .map(lambda noise: 5 * (np.eye(3) + noise))
    .filter(lambda cell: np.linalg.cond(cell) < 1e3)
)


@st.composite
def pairs(draw):
    """An initial structure and an answer with as many sites, its cell rotated at will."""
    n = draw(st.integers(1, 5))
    coordinates = hnp.arrays(np.float64, (n, 3), elements=st.floats(-3, 3))
    numbers = hnp.arrays(np.int16, (n,), elements=st.integers(1, 94))
    species = draw(numbers)
    turn, _ = np.linalg.qr(draw(cells))
    turn *= np.sign(np.linalg.det(turn))
    initial = Geometry(draw(cells), draw(coordinates), species)
    answer = Geometry(draw(cells) @ turn, draw(coordinates), draw(st.just(species) | numbers))
    return initial, answer


@settings(max_examples=60, deadline=None)
@given(pair=pairs())
def test_every_answer_is_given_back_but_for_its_orientation(tmp_path_factory, pair):
    initial, answer = pair
    folder = tmp_path_factory.mktemp("archive")
    run = again(folder, stored(folder, "m", {"a": answer}), {"a": initial})
    (found,) = run.records
    assert_same_crystal(answer, found.geometry)
    assert strain(answer.lattice, found.geometry.lattice) < 1e-10


def test_a_change_is_what_the_model_did(tmp_path):
    """2 % along x and a site moved by 0.1: the numbers that are stored, read by eye."""
    turn = np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])
    answer = Geometry(
        np.diag([4.0 * np.exp(0.02), 4, 4]) @ turn, CUBIC.frac_coords + 0.1, CUBIC.numbers
    )
    run = stored(tmp_path, "m", {"a": answer})
    write_archive(tmp_path / "archive", [run], {"a": CUBIC})
    (row,) = pq.read_table(tmp_path / "archive" / "predictions.parquet").to_pylist()
    assert row["strain"] == pytest.approx([0.02, 0, 0, 0, 0, 0], abs=1e-15)
    assert np.array(row["displacements"]) == pytest.approx(0.1, abs=1e-15)
    assert (row["lattice"], row["frac_coords"], row["numbers"]) == (None, None, None)
    (found,) = again(tmp_path, run, {"a": CUBIC}).records
    np.testing.assert_allclose(found.geometry.lattice, np.diag([4.0 * np.exp(0.02), 4, 4]), 1e-15)


def test_an_answer_that_is_its_initial_structure_is_so_bit_for_bit(tmp_path):
    skewed = Geometry(np.array([[3.1, 0.2, 0], [-1.4, 2.9, 0.3], [0, 0, 7.7]]), *CUBIC[1:])
    (found,) = again(tmp_path, stored(tmp_path, "m", {"a": skewed}), {"a": skewed}).records
    np.testing.assert_array_equal(found.geometry.lattice, skewed.lattice)
    np.testing.assert_array_equal(found.geometry.frac_coords, skewed.frac_coords)


def test_coordinates_are_not_wrapped(tmp_path):
    answer = CUBIC._replace(frac_coords=CUBIC.frac_coords + np.array([[1, 0, -2], [0, 0, 0]]))
    (found,) = again(tmp_path, stored(tmp_path, "m", {"a": answer}), {"a": CUBIC}).records
    np.testing.assert_allclose(found.geometry.frac_coords[0], [1, 0, -2], rtol=0, atol=1e-15)


def test_species_are_stored_only_where_they_differ(tmp_path):
    swapped = CUBIC._replace(numbers=CUBIC.numbers[::-1].copy())
    run = stored(tmp_path, "m", {"a": CUBIC, "b": swapped})
    found = again(tmp_path, run, {"a": CUBIC, "b": CUBIC})
    assert [r.geometry.numbers.tolist() for r in found.records] == [[11, 17], [17, 11]]
    rows = pq.read_table(tmp_path / "archive" / "predictions.parquet").to_pylist()
    assert [row["numbers"] for row in rows] == [None, [17, 11]]


@pytest.mark.parametrize(
    "nonsense",
    [
        None,
        Geometry(np.zeros((3, 3)), np.zeros((0, 3)), np.zeros(0, np.int16)),
        Geometry(np.eye(3), np.zeros((1, 3)), np.ones(1, np.int16)),
        Geometry(np.eye(3)[[0, 0, 1]], CUBIC.frac_coords, CUBIC.numbers),
        Geometry(-CUBIC.lattice, CUBIC.frac_coords, CUBIC.numbers),
        Geometry(np.full((3, 3), np.nan), CUBIC.frac_coords, CUBIC.numbers),
        Geometry(np.eye(3) * 1e200, CUBIC.frac_coords, CUBIC.numbers),
        Geometry(np.eye(3), np.array([[np.inf, 0, 0], [0, 0, 0]]), CUBIC.numbers),
        Geometry(np.eye(3), np.full((2, 3), 1e17), CUBIC.numbers),
    ],
    ids=[
        "nothing parsed", "no sites", "lost a site", "singular", "left-handed", "nan",
        "exploded", "infinite", "far away",
    ],
)  # fmt: skip
def test_an_answer_that_is_no_change_is_kept_as_given(tmp_path, nonsense):
    run = stored(tmp_path, "m", {"a": nonsense}, status=Status.INVALID, detail="data_\n…")
    (found,) = again(tmp_path, run, {"a": CUBIC}).records
    assert (found.status, found.detail) == (Status.INVALID, "data_\n…")
    assert (found.geometry is None) == (nonsense is None)
    for x, y in zip(nonsense or (), found.geometry or (), strict=True):
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        np.testing.assert_array_equal(x, y)


def test_everything_else_of_a_record_is_kept(tmp_path):
    columns = {"energy": -6.5, "max_force": 0.01, "max_stress": 1e-4, "n_force_evals": 12}
    columns |= {"n_tokens": 88, "batch_seconds": 1.25}
    run = stored(tmp_path, "m", {"a": CUBIC, "b": None}, **columns)
    found = again(tmp_path, run, {"a": CUBIC, "b": CUBIC})
    left_out = {"family": "other", "weights": None}
    assert (found.name, found.identity, found.segments) == (
        run.name,
        run.identity | left_out,
        run.segments,
    )
    for x, y in zip(run.records, found.records, strict=True):
        assert replace(x, geometry=None) == replace(y, geometry=None)


# --- many models, and what is missing -------------------------------------------------------------


def test_many_models_are_three_files_at_most(tmp_path):
    runs = [stored(tmp_path, name, {"a": CUBIC, "b": CUBIC}) for name in ("t5", "identity")]
    write_archive(tmp_path / "archive", runs, {"a": CUBIC, "b": CUBIC})
    assert sorted(p.name for p in (tmp_path / "archive").iterdir()) == [
        "predictions.parquet",
        "runs.json",
    ]
    assert [run.name for run in read_archive(tmp_path / "archive")] == ["t5", "identity"]
    (tmp_path / "all").mkdir()
    (tmp_path / "archive").rename(tmp_path / "all" / "theirs")
    found = read_runs([tmp_path / "all"])  # a folder of archives
    assert [(run.name, run.table.num_rows) for run in found] == [("t5", 2), ("identity", 2)]
    assert {run.folder for run in found} == {tmp_path / "all" / "theirs"}


def test_without_initial_structures_there_are_no_records(tmp_path):
    write_archive(tmp_path, [stored(tmp_path, "m", {"a": CUBIC})], {"a": CUBIC})
    (run,) = read_archive(tmp_path)
    assert run.table["status"].to_pylist() == ["ok"]
    with pytest.raises(UserError, match="name the data with --data"):
        _ = run.records


def test_samples_outside_of_a_smaller_data_set_are_left_out(tmp_path):
    answers = {"a": CUBIC, "b": None, "c": CUBIC}
    write_archive(tmp_path, [stored(tmp_path, "m", answers)], {"a": CUBIC, "c": CUBIC})
    (run,) = read_archive(tmp_path)
    assert [r.sample_id for r in run.with_initial({"c": CUBIC, "z": CUBIC}).records] == ["c"]
    assert [r.sample_id for r in run.with_initial({}).records] == []


def test_a_run_in_a_folder_of_its_own_needs_no_initial_structures(tmp_path):
    run = stored(tmp_path, "m", {"a": CUBIC})
    assert run.with_initial({}) is run


def test_a_run_without_records_keeps_its_header(tmp_path):
    run = stored(tmp_path, "m", {"a": CUBIC})
    write_archive(tmp_path, [replace(run, table=run.table.slice(0, 0))], {})
    (found,) = read_archive(tmp_path)
    assert (found.identity, found.table.num_rows) == (run.identity, 0)


def test_what_cannot_be_archived_is_one_line(tmp_path):
    run = stored(tmp_path, "m", {"a": CUBIC})
    other = replace(run, name="n", identity=run.identity | {"revision": "sha256:1"})
    with pytest.raises(UserError, match="an answer for a, whose initial structure is not there"):
        write_archive(tmp_path / "archive", [run], {})
    with pytest.raises(UserError, match="'m' occurs twice"):
        write_archive(tmp_path / "archive", [run, run], {"a": CUBIC})
    with pytest.raises(UserError, match="'n' and 'm' differ in revision"):
        write_archive(tmp_path / "archive", [run, other], {"a": CUBIC})
    assert not (tmp_path / "archive").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "runs.json").write_text("[{}]"), "runs.json: damaged"),
        (lambda folder: (folder / "runs.json").write_text("7"), "runs.json: damaged"),
        (lambda folder: (folder / "runs.json").write_text("[]"), "does not name m"),
        (lambda folder: (folder / "predictions.parquet").unlink(), "predictions.parquet: damaged"),
        (
            lambda folder: (folder / "predictions.parquet").write_bytes(b"PAR1"),
            "predictions.parquet: damaged",
        ),
    ],
)
def test_a_damaged_archive_is_one_line(tmp_path, damage, message):
    write_archive(tmp_path, [stored(tmp_path, "m", {"a": CUBIC})], {"a": CUBIC})
    damage(tmp_path)
    with pytest.raises(UserError, match=message) as info:
        read_archive(tmp_path)
    assert "\n" not in str(info.value)


def test_a_newer_archive_is_one_line(tmp_path):
    write_archive(tmp_path, [stored(tmp_path, "m", {"a": CUBIC})], {"a": CUBIC})
    headers = json.loads((tmp_path / "runs.json").read_text())
    headers[0]["identity"]["schema_version"] = 99
    (tmp_path / "runs.json").write_text(json.dumps(headers))
    with pytest.raises(UserError, match="schema version 99"):
        read_archive(tmp_path)


def test_an_archive_beside_a_folder_of_the_same_run_is_not_merged(tmp_path):
    run = stored(tmp_path, "m", {"a": CUBIC})
    write_archive(tmp_path / "archive", [run], {"a": CUBIC})
    with pytest.raises(UserError, match="'m' of an archive is a whole run"):
        read_runs([tmp_path])
