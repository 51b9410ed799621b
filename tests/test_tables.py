"""Tables as other programs write them: columns in names of folders, columns twice, nulls."""

import os
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pymatgen.core import Lattice, Structure

from benchmarks.core import UserError
from benchmarks.data import Reason, frames, load
from benchmarks.data.audit import audit
from benchmarks.data.sources import resolve
from benchmarks.run import main as run
from tests.conftest import one_line

CASES = Path(__file__).parent / "cases"


def salt(a):
    return Structure(Lattice.cubic(a), ["Na", "Cl"], [[0, 0, 0], [0.5] * 3])


@pytest.fixture
def rows(lemat_frame):
    """Two frames of each of `n` materials."""

    def make(n=2, **columns):
        return [
            lemat_frame(salt(5.6 + step / 10), f"mp-{i}", step, **columns)
            for i in range(n)
            for step in range(2)
        ]

    return make


# --- the cases ----------------------------------------------------------------------------------


def test_folder_of_a_functional_is_a_column():
    for part in ("", "functional=pbe", "functional=pbe/part-0.parquet"):
        dataset = load(str(CASES / "partitioned" / part))
        assert (len(dataset), set(dataset.functionals)) == (4, {"pbe"})
        assert dataset.quarantined == ()
    assert len(list(frames(str(CASES / "partitioned")))) == 12


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("column_twice.parquet", "column energy stands in it twice: remove one"),
        ("nsites_null.parquet", "the first is gpaw-A-bcc-Hf-bcc-0-pbe, step 0: nsites is null"),
    ],
)
def test_case_is_one_line_and_exit_2(tmp_path, capsys, name, said):
    path = CASES / name
    command = ["--models", "identity", "--data", str(path), "--out", str(tmp_path / "runs")]
    assert run(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {path}: ")
    assert said in line


def test_name_that_is_too_long_is_one_line(tmp_path):
    one_line(lambda: load(str(tmp_path / ("a" * 300))), "File name too long")


# --- folders as Hive writes them ------------------------------------------------------------------


def write_parts(folder, table, *columns):
    """A file for each combination of values, as pyarrow and Spark write it."""
    pq.write_to_dataset(table, folder, partition_cols=list(columns))
    return folder


def test_pyarrow_and_the_reader_agree_on_folders(tmp_path, lemat_table, rows):
    made = [*rows(2), *rows(1, functional="pbesol")]
    made[-2]["id"], made[-1]["id"] = "mp-0-0-pbesol-0", "mp-0-0-pbesol-1"
    folder = write_parts(tmp_path / "x", lemat_table(made), "functional", "relaxation_number")
    dataset = load(str(folder))
    assert sorted(dataset.ids) == ["mp-0-0-pbe", "mp-0-0-pbesol", "mp-1-0-pbe"]
    assert sorted(dataset.functionals) == ["pbe", "pbe", "pbesol"]
    assert dataset.get("mp-1-0-pbe").final.lattice.a == pytest.approx(5.7)


def test_folders_of_other_columns_do_not_matter(tmp_path, lemat_table, rows):
    folder = write_parts(tmp_path / "x", lemat_table(rows()), "chemical_formula_anonymous")
    assert len(load(str(folder))) == 2


def test_value_of_a_folder_is_unquoted_and_may_be_null(tmp_path, lemat_table, rows):
    table = lemat_table(rows(1)).drop_columns(["immutable_id", "relaxation_number"])
    table = table.set_column(
        table.schema.get_field_index("id"), "id", pa.array(["a/b-0-pbe-0", "a/b-0-pbe-1"])
    )
    folder = tmp_path / "immutable_id=a%2Fb" / "relaxation_number=__HIVE_DEFAULT_PARTITION__"
    folder.mkdir(parents=True)
    pq.write_table(table, folder / "0.parquet")
    assert load(str(tmp_path)).materials == ("a/b",)


def test_folder_that_contradicts_its_file_or_has_no_value_of_the_type(tmp_path, lemat_table, rows):
    for name, said in (
        ("functional=pbesol", "column functional is not pbesol as its folder says"),
        ("relaxation_number=first", "column relaxation_number is string, expected int64"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        table = lemat_table(rows(1))
        table = table.drop_columns(["relaxation_number"]) if "first" in name else table
        pq.write_table(table, folder / "0.parquet")
        one_line(lambda folder=folder: load(str(folder)), said)


def test_folder_does_not_stand_for_a_list(tmp_path, lemat_table, rows):
    folder = tmp_path / "forces=0"
    folder.mkdir()
    pq.write_table(lemat_table(rows(1)).drop_columns(["forces"]), folder / "0.parquet")
    one_line(lambda: load(str(tmp_path)), "lacks forces")


# --- columns twice, nulls -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["id", "energy", "forces", "species_at_sites"])
def test_column_twice_is_named(tmp_path, lemat_table, rows, name):
    table = lemat_table(rows(1))
    pq.write_table(table.append_column(name, table[name]), tmp_path / "x.parquet")
    for read in (load, lambda path: audit(resolve(path)), lambda path: list(frames(path))):
        with pytest.raises(UserError, match=f"column {name} stands in it twice"):
            read(str(tmp_path / "x.parquet"))


def test_other_column_twice_does_not_matter(tmp_path, lemat_table, rows):
    table = lemat_table(rows(1))
    table = table.append_column("last_modified", table["last_modified"])
    pq.write_table(table, tmp_path / "x.parquet")
    assert len(load(str(tmp_path / "x.parquet"))) == 1


@pytest.mark.parametrize("group", [1, 2, 100])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("immutable_id", Reason.ID_MISMATCH),
        ("functional", Reason.ID_MISMATCH),
        ("nsites", Reason.LENGTHS),
    ],
)
def test_null_costs_its_trajectory_only_however_many_row_groups(
    tmp_path, write_lemat, rows, name, reason, group
):
    made = rows(4)
    made[3][name] = None
    dataset = load(str(write_lemat(tmp_path / "x.parquet", made, row_group_size=group)))
    assert dataset.ids == ("mp-0-0-pbe", "mp-2-0-pbe", "mp-3-0-pbe")
    (lost,) = dataset.quarantined
    assert (lost.sample_id, lost.reason) == ("mp-1-0-pbe", reason)
    assert lost.detail == f"step 1: {name} is null"


# --- mutants --------------------------------------------------------------------------------------


def mutated_bytes(data, rng):
    """Bytes changed, removed, inserted or cut off, at one to four places."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        at = int(rng.integers(len(data)))
        n = int(rng.integers(1, 9))
        match rng.integers(5):
            case 0:
                data[at] ^= 1 << int(rng.integers(8))
            case 1:
                del data[at : at + n]
            case 2:
                data[at:at] = rng.bytes(n)
            case 3:
                data[at : at + n] = rng.bytes(n)
            case 4:
                data[at:at] = data[at : at + 50 * n]
    return bytes(data)


def mutated_table(table, rng):
    """A column with nulls, of another type, with other values, twice, or not there."""
    i = int(rng.integers(table.num_columns))
    name, column = table.column_names[i], table.column(i)
    values = column.to_pylist()
    row = int(rng.integers(len(values)))
    odd = (None, 0, -1, 2**40, np.nan, np.inf, 1e300, "", "X", "mp-1", [], [[]], [[1.0] * 3], True)
    match rng.integers(7):
        case 0:
            return table.drop_columns([name])
        case 1:
            return table.append_column(name, column)
        case 2:
            values[row] = None
        case 3:
            values = [odd[rng.integers(len(odd))]] * len(values)
        case 4 if isinstance(values[row], list):
            values[row] = values[row][:-1] if rng.integers(2) else values[row] * 2
        case 5 if isinstance(values[row], float | int):
            values[row] = float(rng.choice([np.nan, np.inf, -1.0, 0.0, 1e30]))
        case _:
            other = int(rng.integers(len(values)))
            values[row], values[other] = values[other], values[row]
    for kind in (column.type, None):
        with suppress(pa.ArrowException, TypeError, OverflowError):
            return table.set_column(i, name, pa.array(values, kind))
    return table.set_column(i, name, pa.array(list(map(str, values))))


def check_like_pyarrow(path, dataset):
    """Every pair is two frames of its trajectory as pyarrow reads them from the file."""
    kept = {}
    columns = ["id", "lattice_vectors", "cartesian_site_positions"]
    for row in pq.ParquetFile(path).read(columns).to_pylist():
        if row["id"] is not None:
            kept.setdefault(row["id"].rpartition("-")[0], []).append(row)
    for i, name in enumerate(dataset.ids):
        for geometry in dataset.geometries(i):
            assert any(
                np.array_equal(geometry.lattice, row["lattice_vectors"])
                and np.allclose(
                    geometry.frac_coords @ geometry.lattice, row["cartesian_site_positions"]
                )
                for row in kept[name]
                if row["lattice_vectors"] and row["cartesian_site_positions"]
            )


@pytest.mark.parametrize("seed", range(10))
def test_mutant_of_a_table_is_read_as_pyarrow_reads_it_or_is_one_line(
    tmp_path, lemat_table, lemat_frame, seed
):
    rng = np.random.default_rng(seed)
    made = [
        lemat_frame(salt(5.6 + step / 10), f"mp-{i}", step, energy=-7.0 - step)
        for i in range(3)
        for step in range(3)
    ]
    table, path = lemat_table(made), tmp_path / "x.parquet"
    pq.write_table(table, path, row_group_size=4, compression="none")
    data = path.read_bytes()
    read = 0
    for number in range(200):
        if number % 2:
            path.write_bytes(mutated_bytes(data, rng))
        else:
            pq.write_table(mutated_table(table, rng), path, row_group_size=4)
        said = ""
        try:
            dataset = load(str(path))
        except UserError as error:
            said = str(error)
        assert "\n" not in said
        if not said:
            check_like_pyarrow(path, dataset)
            read += 1
    assert 20 < read < 180


def test_name_that_is_not_utf_8_is_one_line(tmp_path, capfd, lemat_table, rows):
    path = tmp_path / os.fsdecode(b"caf\xe9.parquet")
    path.write_bytes(b"PAR1")
    assert run(["--models", "identity", "--data", str(path), "--out", str(tmp_path / "runs")]) == 2
    error = capfd.readouterr().err.splitlines()
    assert len(error) == 1
    assert "caf\\udce9.parquet: not a readable parquet file" in error[0]


# --- files that unpack to far more than they hold -------------------------------------------------


@pytest.mark.parametrize("one", [True, False], ids=["one value", "many row groups"])
def test_a_file_that_unpacks_to_far_more_is_refused_at_once(tmp_path, lemat_table, rows, one):
    """100 MB of one letter are 10 kB of zstd."""
    path = tmp_path / "x.parquet"
    letters, n = (100_000_000, 1) if one else (10_000_000, 10)
    table = pa.concat_tables([lemat_table(rows()[:1])] * n)
    ids = pa.array(["x" * letters] * n)
    table = table.set_column(table.column_names.index("id"), "id", ids)
    pq.write_table(table, path, compression="zstd", row_group_size=1, use_dictionary=False)
    assert path.stat().st_size < 1_000_000
    begin = time.process_time()
    with pytest.raises(UserError, match=r"x.parquet: not a readable parquet file .*that unpack to"):
        load(str(path))
    assert time.process_time() - begin < 1
