"""The LeMat-Traj reader, the splits and the embedded set."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure

from benchmarks.core import Status, UserError
from benchmarks.data import Reason, frames, ids_sha256, load
from benchmarks.data.__main__ import main as data_main
from benchmarks.data.folders import EMBEDDED, EMBEDDED_SETS, split_names
from benchmarks.data.lemat.ids import source_of
from benchmarks.data.perturb import write_perturbed
from benchmarks.data.splits.manifest import make_manifest, split_of
from benchmarks.metrics import score
from tests.conftest import one_line


def rock_salt(a=5.6, symbols=("Na", "Cl"), shift=0.0):
    return Structure(Lattice.cubic(a), list(symbols), [[0, 0, 0], [0.5, 0.5, 0.5 + shift]])


@pytest.fixture
def pair(lemat_frame):
    """Two sound frames of one material; keyword arguments go into the second."""

    def make(material="mp-1", **columns):
        return [
            lemat_frame(rock_salt(5.6), material, 0),
            lemat_frame(rock_salt(5.7), material, 1, **columns),
        ]

    return make


@pytest.fixture
def load_frames(tmp_path, write_lemat):
    def run(rows, **kwargs):
        return load(str(write_lemat(tmp_path / "x.parquet", rows)), **kwargs)

    return run


# --- the embedded set ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "split", "n", "digest"),
    [
        (1, "train", 47, "f32080709464770f0f8add80a5dd4511314d4093991545310bf78bf2380aaae6"),
        (1, "val", 4, "2aba86553d469220de135861b2c9a93fe89716a01ca3e664be85c635770f5566"),
        (1, "test", 53, "b27b3d5751bff022f4a741b58771699df1e6ec74ec8f5b3a3d6a8fac280d2b08"),
        (2, "train", 71, "c4629dee88a6f03b23e5d9ce0ba6d27a28ce9123bef0504d6259e7f13dfe21d4"),
        (2, "val", 16, "33675d3c5093cad03894b3b875f1cb66f0e99af45745bfc988b90df9495c3ba4"),
        (2, "test", 13, "20ee1c3b5168b9d1c1a7dac2c046b9fad0e53c39d6ce1f9fcbd4e9f7c8803cbb"),
    ],
)
def test_ids_of_the_embedded_sets_never_change(version, split, n, digest):
    dataset = load("embedded" if version == 1 else f"embedded-v{version}", split=split)
    assert len(dataset) == n
    assert dataset.ids_sha256 == digest
    assert dataset.quarantined == ()
    assert (dataset.name, dataset.split) == (f"embedded-v{version}", split)


def test_embedded_is_the_default_and_test_its_default_split():
    dataset = load()
    assert (dataset.name, dataset.split, len(dataset)) == ("embedded-v1", "test", 53)
    assert dataset.redistributable
    assert dataset.revision.startswith("sha256:")
    assert dataset.revision == load(split="train").revision


def test_embedded_manifest_and_card_can_be_derived_from_the_files():
    manifest = make_manifest(EMBEDDED)
    assert manifest == json.loads((EMBEDDED / "manifest.json").read_text())
    assert data_main(["manifest", str(EMBEDDED), "--check"]) == 0
    card = (EMBEDDED / "README.md").read_text()
    for entry in manifest["splits"].values():
        assert entry["sha256"] in card
        assert entry["ids_sha256"] in card
        assert entry["ids"] == sorted(entry["ids"])


@pytest.mark.parametrize("version", [2, 3])
def test_a_later_version_is_what_its_manifest_says_and_holds_none_of_version_1(version):
    name = f"embedded-v{version}"
    folder = EMBEDDED_SETS[name]
    manifest = make_manifest(folder, name="embedded", version=version)
    assert manifest == json.loads((folder / "manifest.json").read_text())
    assert data_main(["manifest", str(folder), "--check"]) == 0
    sets = {split: load(name, split=split) for split in ("train", "val", "test")}
    old = {i for split in sets for i in load(split=split).ids}
    assert not old & {i for each in sets.values() for i in each.ids}


@pytest.mark.parametrize("name", EMBEDDED_SETS)
def test_no_chemical_system_is_in_two_splits(name):
    systems = [
        {s.initial.chemical_system for s in load(name, split=split)} for split in split_names(name)
    ]
    assert len(systems) > 1
    assert sum(map(len, systems)) == len(set.union(*systems))


@pytest.mark.slow
def test_the_figure_of_the_embedded_sets_has_every_crystal(tmp_path):
    from studies.embedded_sets import VERSIONS, main

    assert main(["--out", str(tmp_path)]) == 0
    table = pd.read_csv(tmp_path / "embedded_sets.csv", keep_default_na=False)
    sets = {v: [load(k, split=s) for s in split_names(k)] for k, v in VERSIONS.items()}
    counts = {version: sum(map(len, each)) for version, each in sets.items()}
    assert table.version.value_counts().to_dict() == counts
    moved = table[table.version == "version 3"].displacement > 0.05
    assert 0.5 < moved.mean() < 0.9
    hafnium = table[table.id == "gpaw-A-bcc-Hf-bcc-0-pbe"].iloc[0]
    assert (hafnium.elements, hafnium.prototype) == ("Hf", "A_229_a")
    assert hafnium.displacement < 1e-9
    assert {path.suffix for path in tmp_path.iterdir()} == {".csv", ".pdf", ".png", ".svg"}


def test_embedded_sample_is_the_relaxation_in_the_file():
    sample = load().get("gpaw-A-bcc-Hf-bcc-0-pbe")
    assert sample.material_id == "gpaw-A-bcc-Hf-bcc"
    assert (sample.source, sample.functional, sample.n_frames) == ("gpaw", "pbe", 3)
    rows = pq.read_table(EMBEDDED / "test.parquet").to_pylist()
    by_id = {row["id"]: row for row in rows}
    first, last = (by_id[f"{sample.sample_id}-{step}"] for step in (0, 2))
    assert sample.initial.lattice.matrix.tolist() == first["lattice_vectors"]
    assert sample.final.lattice.matrix.tolist() == last["lattice_vectors"]


def test_altered_file_is_not_taken_for_the_embedded_set(tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(EMBEDDED, folder)
    assert load(str(folder)).name == "embedded-v1"
    assert not load(str(folder)).redistributable
    shutil.copy(folder / "val.parquet", folder / "test.parquet")
    assert load(str(folder), split="train").split == "train"
    with pytest.raises(UserError, match="sha256 differs"):
        load(str(folder))
    (folder / "test.parquet").unlink()
    with pytest.raises(UserError, match="missing"):
        load(str(folder))
    (folder / "manifest.json").write_text('{"splits": 3}')
    with pytest.raises(UserError, match="not a usable manifest"):
        load(str(folder))


def test_split_rule():
    assert split_of(["Na", "Cl", "Na"]) == split_of(["Cl", "Na"])
    assert [split_of([e]) for e in ("Hf", "Zn", "Mg", "V", "Tl")] == [
        "test",
        "train",
        "val",
        "val",
        "train",
    ]


def test_manifest_refuses_a_sample_in_the_wrong_split(tmp_path, capsys):
    shutil.copy(EMBEDDED / "train.parquet", tmp_path / "test.parquet")
    assert data_main(["manifest", str(tmp_path)]) == 2
    assert "belongs into train, not test" in capsys.readouterr().err
    assert not (tmp_path / "manifest.json").exists()


# --- trajectories -------------------------------------------------------------------------------


def test_step_10_sorted_as_text_is_not_taken_for_the_second(lemat_frame, load_frames):
    rows = [lemat_frame(rock_salt(5 + step / 100), "mp-1", step) for step in range(12)]
    rows.sort(key=lambda row: row["id"])
    assert [row["relaxation_step"] for row in rows[:4]] == [0, 1, 10, 11]
    (sample,) = load_frames(rows)
    assert sample.initial.lattice.a == pytest.approx(5.00)
    assert sample.final.lattice.a == pytest.approx(5.11)
    assert sample.n_frames == 12


def test_trajectories_of_one_material_are_kept_apart(lemat_frame, load_frames):
    rows = []
    for trajectory, functional in [(0, "pbe"), (1, "pbe"), (0, "optb88-vdw")]:
        for step in (1, 0):
            structure = rock_salt(5 + step + trajectory / 10)
            extra = {"trajectory": trajectory, "functional": functional}
            rows.append(lemat_frame(structure, "mp-1-x-7", step, **extra))
    dataset = load_frames(rows)
    assert dataset.ids == ("mp-1-x-7-0-pbe", "mp-1-x-7-1-pbe", "mp-1-x-7-0-optb88-vdw")
    assert [s.functional for s in dataset] == ["pbe", "pbe", "optb88-vdw"]
    assert dataset[1].final.lattice.a == pytest.approx(6.1)


def test_frames_scattered_over_row_groups_and_files(tmp_path, lemat_frame, write_lemat):
    rows = [
        lemat_frame(rock_salt(5 + i / 10 + step / 100), f"mp-{i}", step)
        for i in range(5)
        for step in range(3)
    ]
    order = np.random.default_rng(0).permutation(15)
    rows = [rows[i] for i in order]
    write_lemat(tmp_path / "a.parquet", rows[:8], row_group_size=3)
    write_lemat(tmp_path / "b.parquet", rows[8:], row_group_size=2)
    dataset = load(str(tmp_path))
    assert dataset.name == tmp_path.name
    assert len(dataset) == 5
    for sample in dataset:
        i = int(sample.material_id[3:])
        assert sample.initial.lattice.a == pytest.approx(5 + i / 10)
        assert sample.final.lattice.a == pytest.approx(5.02 + i / 10)


def test_coordinates_are_neither_wrapped_nor_snapped_nor_turned(lemat_frame, load_frames):
    matrix = np.array([[0.1, 4.0, 0.3], [3.9, -0.2, 0.0], [0.5, 0.1, -6.0]])
    coords = [[-0.25, 1.7, 0.3333], [0.6667, 0.00001, 2.5]]
    structure = Structure(matrix, ["Ti", "O"], coords)
    (sample,) = load_frames([lemat_frame(structure, "mp-1", step) for step in (0, 1)])
    assert sample.initial.lattice.matrix.tolist() == matrix.tolist()
    np.testing.assert_allclose(sample.initial.frac_coords, coords, atol=1e-14)


NA_O = '[{"name": "Na", "chemical_symbols": ["Na"], "concentration": [0.9]}]'
VACANCY = (
    '[{"name": "Na", "chemical_symbols": ["Na", "vacancy"], "concentration": [0.5, 0.5]},'
    ' {"name": "Cl", "chemical_symbols": ["Cl"], "concentration": [1.0]}]'
)
CUBE = [[5.0, 0, 0], [0, 5.0, 0], [0, 0, 5.0]]


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"relaxation_step": 0, "id": "mp-1-0-pbe-0"}, Reason.DUPLICATED_STEP),
        ({"relaxation_step": None}, Reason.NO_STEP),
        ({"relaxation_step": 7}, Reason.ID_MISMATCH),
        ({"immutable_id": "mp-2"}, Reason.ID_MISMATCH),
        ({"immutable_id": None}, Reason.ID_MISMATCH),
        ({"functional": "scan"}, Reason.ID_MISMATCH),
        ({"species_at_sites": ["Na", "F"]}, Reason.COMPOSITION),
        ({"species_at_sites": ["Cl", "Na"]}, Reason.SITE_ORDER),
        ({"species_at_sites": ["D", "Cl"]}, Reason.UNKNOWN_ELEMENT),
        ({"species_at_sites": ["X", "Cl"]}, Reason.UNKNOWN_ELEMENT),
        ({"species_at_sites": [None, "Cl"]}, Reason.UNKNOWN_ELEMENT),
        ({"species_at_sites": ["vacancy", "Cl"]}, Reason.UNKNOWN_ELEMENT),
        ({"species_at_sites": ["Na+", "Cl"]}, Reason.UNKNOWN_ELEMENT),
        ({"species_at_sites": ["Na"]}, Reason.LENGTHS),
        ({"species_at_sites": None}, Reason.ZERO_SITES),
        ({"species_at_sites": [], "nsites": 0}, Reason.ZERO_SITES),
        ({"nsites": 3}, Reason.LENGTHS),
        ({"nsites": None}, Reason.LENGTHS),
        ({"species": NA_O}, Reason.DISORDERED),
        ({"species": VACANCY}, Reason.DISORDERED),
        ({"species": "not json"}, Reason.DISORDERED),
        ({"species": "[3]"}, Reason.DISORDERED),
        ({"species": "3"}, Reason.DISORDERED),
        ({"nperiodic_dimensions": 2}, Reason.NOT_PERIODIC),
        ({"dimension_types": [1, 1, 0]}, Reason.NOT_PERIODIC),
        ({"dimension_types": [1, 1]}, Reason.NOT_PERIODIC),
        ({"cartesian_site_positions": [[0, 0, 0]]}, Reason.LENGTHS),
        ({"cartesian_site_positions": [[0, 0, 0], [1, 1]]}, Reason.LENGTHS),
        ({"cartesian_site_positions": [[0, 0, 0], None]}, Reason.LENGTHS),
        ({"cartesian_site_positions": None}, Reason.LENGTHS),
        ({"cartesian_site_positions": [[0, 0, 0], [1, 1, np.nan]]}, Reason.NOT_FINITE),
        ({"cartesian_site_positions": [[0, 0, 0], [1, 1, np.inf]]}, Reason.NOT_FINITE),
        ({"cartesian_site_positions": [[0, 0, 0], [1, 1, None]]}, Reason.NOT_FINITE),
        ({"lattice_vectors": None}, Reason.NO_LATTICE),
        ({"lattice_vectors": []}, Reason.NO_LATTICE),
        ({"lattice_vectors": CUBE[:2]}, Reason.NO_LATTICE),
        ({"lattice_vectors": [[5.0, 0], [0, 5.0], [0, 0]]}, Reason.NO_LATTICE),
        ({"lattice_vectors": [*CUBE[:2], [0, 0, np.nan]]}, Reason.NOT_FINITE),
        ({"lattice_vectors": [*CUBE[:2], [0, 0, -np.inf]]}, Reason.NOT_FINITE),
        ({"lattice_vectors": [*CUBE[:2], CUBE[0]]}, Reason.COLLAPSED),
        ({"lattice_vectors": [[0.0] * 3] * 3}, Reason.COLLAPSED),
        ({"lattice_vectors": (1e200 * np.eye(3)).tolist()}, Reason.COLLAPSED),
        ({"lattice_vectors": [*CUBE[:2], [0, 0, 0.01]]}, Reason.COLLAPSED),
        ({"lattice_vectors": [[5.0, 5e3 + 5, 0], *CUBE[1:]]}, Reason.NOT_COMPACT),
        ({"lattice_vectors": [*CUBE[:2], [0, 0, 1001.0]]}, Reason.NOT_COMPACT),
    ],
)
@pytest.mark.parametrize("frame", ["first", "last"])
def test_bad_frame_is_quarantined_and_its_neighbours_are_not(
    lemat_frame, load_frames, columns, reason, frame
):
    columns = dict(columns)
    bad = [lemat_frame(rock_salt(5.6), "mp-1", 0), lemat_frame(rock_salt(5.7), "mp-1", 1)]
    if frame == "first" and "id" in columns:
        columns = {"relaxation_step": 1, "id": "mp-1-0-pbe-1"}
    bad[0 if frame == "first" else 1].update(columns)
    good = [lemat_frame(rock_salt(5.5), "mp-9", 0), lemat_frame(rock_salt(5.8), "mp-9", 1)]
    dataset = load_frames([good[0], *bad, good[1]])
    assert dataset.ids == ("mp-9-0-pbe",)
    assert dataset[0].initial.lattice.a == pytest.approx(5.5)
    assert dataset[0].final.lattice.a == pytest.approx(5.8)
    (quarantined,) = dataset.quarantined
    assert (quarantined.sample_id, quarantined.reason) == ("mp-1-0-pbe", reason)
    assert quarantined.detail


@pytest.mark.parametrize("bad_id", ["mp-1-0-pbe", "", None, "mp-1-0-pbe-x", "-3"])
def test_malformed_id_is_quarantined(load_frames, lemat_frame, pair, bad_id):
    dataset = load_frames([*pair("mp-9"), lemat_frame(rock_salt(), "mp-1", 0, id=bad_id)])
    assert dataset.ids == ("mp-9-0-pbe",)
    (quarantined,) = dataset.quarantined
    assert quarantined.sample_id == (bad_id or "row 2")
    assert quarantined.reason == Reason.MALFORMED_ID


def test_trajectory_that_is_no_number_is_a_mismatch(load_frames, lemat_frame, pair):
    rows = [lemat_frame(rock_salt(), "mp-1", step, trajectory="x") for step in (0, 1)]
    (quarantined,) = load_frames([*pair("mp-9"), *rows]).quarantined
    assert quarantined.reason == Reason.ID_MISMATCH


def test_ids_without_a_trajectory_index_are_those_of_alexandria_and_oqmd(load_frames, lemat_frame):
    rows = [
        lemat_frame(rock_salt(a), "agm001", step, id=f"agm001-pbe-{step}")
        for step, a in enumerate((5.5, 5.6))
    ]
    dataset = load_frames(rows)
    assert dataset.ids == ("agm001-pbe",)
    assert dataset.quarantined == ()


def test_single_frame_is_no_relaxation(load_frames, lemat_frame, pair):
    dataset = load_frames([lemat_frame(rock_salt(), "mp-1", 4), *pair("mp-9")])
    assert [(q.sample_id, q.reason) for q in dataset.quarantined] == [
        ("mp-1-0-pbe", Reason.SINGLE_FRAME)
    ]


def test_unknown_element_is_named(load_frames, pair):
    bad = pair("mp-1", species_at_sites=["D", "Cl"])
    (quarantined,) = load_frames([*bad, *pair("mp-9")]).quarantined
    assert quarantined.detail == "step 1: D"


def test_swap_in_the_middle_of_a_trajectory_is_seen(load_frames, lemat_frame, pair):
    rows = [lemat_frame(rock_salt(), "mp-1", step) for step in range(3)]
    rows[1]["species_at_sites"] = ["Cl", "Na"]
    (quarantined,) = load_frames([*rows, *pair("mp-9")]).quarantined
    assert (quarantined.reason, quarantined.detail) == (Reason.SITE_ORDER, "step 1")


def test_frame_without_energy_forces_or_stress_is_fine_for_geometry(load_frames, pair):
    rows = pair("mp-1")
    assert rows[0].get("forces") is None
    assert len(load_frames(rows)) == 1


def test_nulls_in_what_only_describes_the_frame_are_tolerated(load_frames, pair):
    columns = {"species": None, "dimension_types": None, "nperiodic_dimensions": None}
    assert len(load_frames(pair("mp-1", **columns))) == 1


# --- limits and views ---------------------------------------------------------------------------


def test_smaller_limit_is_contained_in_a_larger_one(shared_data):
    path = str(shared_data / "substitution" / "test.parquet")
    small, large = (load(path, limit=n) for n in (20, 100))
    assert (len(small), len(large)) == (20, 100)
    assert set(small.ids) < set(large.ids)
    whole = load(path)
    assert [i for i in whole.ids if i in set(small.ids)] == list(small.ids)
    assert set(load(path, limit=20, seed=1).ids) != set(small.ids)
    for sample in small:
        other = whole.get(sample.sample_id)
        assert sample.initial == other.initial
        assert sample.final == other.final


def test_limit_takes_the_smallest_hashes_of_the_usable(load_frames, pair):
    rows = [row for i in range(20) for row in pair(f"mp-{i}")]
    first = load_frames(rows, limit=3).ids
    assert first == ("mp-6-0-pbe", "mp-8-0-pbe", "mp-14-0-pbe")
    for row in rows:
        if row["id"] == "mp-8-0-pbe-1":
            row["lattice_vectors"] = None
    dataset = load_frames(rows, limit=3)
    assert dataset.ids == ("mp-4-0-pbe", "mp-6-0-pbe", "mp-14-0-pbe")
    assert [q.sample_id for q in dataset.quarantined] == ["mp-8-0-pbe"]


def test_limit_beyond_the_size_takes_all():
    assert len(load(limit=1000)) == 53


def test_limit_below_one_is_an_error():
    with pytest.raises(UserError, match="at least 1"):
        load(limit=0)


def test_dataset_is_a_sequence_with_views():
    dataset = load()
    assert dataset[-1].sample_id == dataset.ids[-1]
    assert [s.sample_id for s in dataset] == list(dataset.ids)
    with pytest.raises(IndexError):
        dataset[53]
    with pytest.raises(KeyError):
        dataset.get("nonsense")
    view = dataset.select([dataset.ids[7], dataset.ids[2]])
    assert view.ids == (dataset.ids[2], dataset.ids[7])
    assert view[1].initial == dataset[7].initial
    assert dataset[5:8].ids == dataset.ids[5:8]
    assert (view.name, view.revision) == (dataset.name, dataset.revision)
    assert view.ids_sha256 == ids_sha256(view.ids) != dataset.ids_sha256


def test_geometries_are_those_of_the_samples():
    dataset = load()
    for i, sample in enumerate(dataset):
        for geometry, structure in zip(
            dataset.geometries(i), (sample.initial, sample.final), strict=True
        ):
            assert geometry.structure() == structure
            assert geometry.numbers.dtype == np.int16


def test_a_relaxer_that_alters_its_input_does_not_alter_the_data():
    dataset = load()
    before = dataset.geometries(0)[0].lattice.copy()
    structure = dataset[0].initial
    structure.scale_lattice(1)
    structure.translate_sites([0], [0.1, 0.1, 0.1])
    assert dataset.geometries(0)[0].lattice.tolist() == before.tolist()
    assert dataset[0].initial != structure


@pytest.mark.parametrize(
    ("material", "source"),
    [
        ("mp-123", "mp"),
        ("agm001025701", "agm"),
        ("oqmd-1", "oqmd"),
        ("wbm-5-1", "wbm"),
        ("gpaw-A-bcc", "gpaw"),
        ("12", "unknown"),
    ],
)
def test_source_is_the_prefix_of_the_material_id(material, source):
    assert source_of(material) == source


# --- bad input: one line, never a traceback -------------------------------------------------------


def test_missing_path(tmp_path):
    one_line(lambda: load(str(tmp_path / "nothing.parquet")), "nothing.parquet", "no such file")


def test_not_parquet(tmp_path):
    path = tmp_path / "x.parquet"
    path.write_text("id,energy\n1,2\n")
    one_line(lambda: load(str(path)), "x.parquet", "not a readable parquet file")
    path.write_bytes(b"")
    one_line(lambda: load(str(path)), "x.parquet", "not a readable parquet file")


def test_truncated_file(tmp_path):
    data = (EMBEDDED / "test.parquet").read_bytes()
    path = tmp_path / "x.parquet"
    path.write_bytes(data[: len(data) // 2])
    one_line(lambda: load(str(path)), "x.parquet", "not a readable parquet file")


@settings(max_examples=60, deadline=None)
@given(where=st.floats(0, 1, exclude_max=True), junk=st.binary(min_size=1, max_size=40))
def test_corrupted_bytes_never_give_a_traceback(tmp_path_factory, where, junk):
    data = bytearray((EMBEDDED / "val.parquet").read_bytes())
    at = int(where * (len(data) - 8))  # the footer's length and the magic stay
    data[at : at + len(junk)] = junk
    path = tmp_path_factory.mktemp("corrupt") / "x.parquet"
    path.write_bytes(data)
    try:
        for sample in load(str(path)):
            assert len(sample.initial) == len(sample.final)
    except UserError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either outcome is allowed


def test_lacking_columns_are_named(tmp_path, lemat_table, pair):
    table = lemat_table(pair()).drop_columns(["species_at_sites", "forces"])
    pq.write_table(table, tmp_path / "x.parquet")
    one_line(lambda: load(str(tmp_path / "x.parquet")), "lacks species_at_sites, forces")


def test_column_of_a_wrong_type_is_named(tmp_path, lemat_table, pair):
    table = lemat_table(pair())
    i = table.schema.get_field_index("lattice_vectors")
    table = table.set_column(i, "lattice_vectors", pa.array(["a", "b"]))
    pq.write_table(table, tmp_path / "x.parquet")
    one_line(lambda: load(str(tmp_path / "x.parquet")), "column lattice_vectors is string")


def test_other_widths_of_the_same_types_are_read(tmp_path, lemat_table, pair):
    table = lemat_table(pair())
    for name, kind in [
        ("id", pa.large_string()),
        ("relaxation_step", pa.int64()),
        ("species_at_sites", pa.large_list(pa.large_string())),
        ("lattice_vectors", pa.list_(pa.list_(pa.float64(), 3), 3)),
        ("species", pa.dictionary(pa.int32(), pa.string())),
    ]:
        i = table.schema.get_field_index(name)
        table = table.set_column(i, name, table[name].cast(kind))
    pq.write_table(table, tmp_path / "x.parquet")
    assert load(str(tmp_path / "x.parquet")).ids == ("mp-1-0-pbe",)


def test_no_rows(load_frames):
    one_line(lambda: load_frames([]), "no rows")


def test_zero_usable_trajectories_say_why(load_frames, pair, lemat_frame):
    rows = [
        *pair("mp-1", nperiodic_dimensions=2),
        *pair("mp-2", lattice_vectors=None),
        lemat_frame(rock_salt(), "mp-3", 0),
        lemat_frame(rock_salt(), "mp-4", 0),
        lemat_frame(rock_salt(), "mp-5", 0, id="x"),
    ]
    one_line(
        lambda: load_frames(rows),
        "no usable trajectory",
        "2 single frame",
        "1 no 3x3 lattice",
        "1 not periodic in three dimensions",
        "1 malformed id",
    )


def test_only_malformed_ids(load_frames, lemat_frame):
    rows = [lemat_frame(rock_salt(), "mp-1", 0, id="x")] * 2
    one_line(lambda: load_frames(rows), "2 malformed id")


def test_split_of_a_file_is_an_error(tmp_path):
    shutil.copy(EMBEDDED / "test.parquet", tmp_path / "x.parquet")
    one_line(lambda: load(str(tmp_path / "x.parquet"), split="test"), "leave out --split")


def test_folder_without_parquet(tmp_path):
    one_line(lambda: load(str(tmp_path)), "no parquet file")


def test_folder_with_files_named_by_split(tmp_path, write_lemat, pair):
    folder = tmp_path / "hub"
    folder.mkdir()
    write_lemat(folder / "train-00000-of-00002.parquet", pair("mp-1"))
    write_lemat(folder / "train-00001-of-00002.parquet", pair("mp-2"))
    write_lemat(folder / "validation.parquet", pair("mp-3"))
    (folder / "provenance.parquet").write_text("ignored")
    (folder / "testimony.parquet").write_text("ignored")
    assert load(str(folder), split="train").ids == ("mp-1-0-pbe", "mp-2-0-pbe")
    dataset = load(str(folder), split="val")
    assert (dataset.name, dataset.split, dataset.ids) == ("hub", "val", ("mp-3-0-pbe",))
    one_line(lambda: load(str(folder)), "no split 'test'", "train, val")
    one_line(lambda: load(str(folder), split="tset"), "no split 'tset'", "train, val")
    write_lemat(folder / "test.parquet", pair("mp-4"))
    assert load(str(folder)).split == "test"


def test_folder_without_splits_reads_all_below_it(tmp_path, write_lemat, pair):
    (tmp_path / "deep").mkdir()
    (tmp_path / ".cache").mkdir()
    write_lemat(tmp_path / "deep" / "one.parquet", pair("mp-1"))
    write_lemat(tmp_path / "two.parquet", pair("mp-2"))
    write_lemat(tmp_path / ".cache" / "three.parquet", pair("mp-3"))
    dataset = load(str(tmp_path))
    assert sorted(dataset.ids) == ["mp-1-0-pbe", "mp-2-0-pbe"]
    assert dataset.split is None
    one_line(lambda: load(str(tmp_path), split="test"), "has no splits")


def test_other_remote_sources_are_refused():
    one_line(lambda: load("https://example.org/x.parquet"), "only hf://, local files")


def test_several_sources_are_read_as_one(tmp_path, write_lemat, pair):
    a = str(write_lemat(tmp_path / "a.parquet", pair("mp-1")))
    b = str(write_lemat(tmp_path / "b.parquet", pair("mp-2") + pair("mp-3")))
    both, first, second = load([a, b]), load(a), load(b)
    assert both.ids == (*first.ids, *second.ids)
    assert both.name == f"{first.name}+{second.name}"
    assert both.revision not in (first.revision, second.revision)
    assert both.revision == load([b, a]).revision
    assert both[2].initial == second[1].initial
    assert len(load([a, b], limit=2)) == 2
    assert (load([a]).name, load([a]).revision) == (first.name, first.revision)


def test_trajectory_of_two_sources_is_quarantined_not_merged(tmp_path, write_lemat, pair):
    a = str(write_lemat(tmp_path / "a.parquet", pair("mp-1") + pair("mp-2")))
    b = str(write_lemat(tmp_path / "b.parquet", pair("mp-2")))
    dataset = load([a, b])
    assert dataset.ids == ("mp-1-0-pbe",)
    assert [q.reason for q in dataset.quarantined] == [Reason.DUPLICATED_STEP]


def test_sources_of_different_splits_keep_them_in_their_names(tmp_path, write_lemat, pair):
    path = write_lemat(tmp_path / "own.parquet", pair("mp-1"))
    both = load(["embedded", str(path)])
    assert (both.name, both.split) == (f"embedded-v1/test+{tmp_path.name}/own", None)
    assert not both.redistributable


def test_source_named_twice(tmp_path, write_lemat, pair):
    path = str(write_lemat(tmp_path / "a.parquet", pair()))
    one_line(lambda: load([path, path]), "a.parquet", "twice")


def test_revision_follows_the_content(tmp_path, write_lemat, pair):
    path = write_lemat(tmp_path / "x.parquet", pair("mp-1"))
    one = load(str(path)).revision
    write_lemat(tmp_path / "x.parquet", pair("mp-2"))
    assert load(str(path)).revision != one
    assert len(one) == len("sha256:") + 64


# --- frames to train potentials on ----------------------------------------------------------------


def test_frames_are_converted_from_kilobar_and_vasp_sign(tmp_path, lemat_frame, write_lemat):
    kilobar = [[1602.1766208, 0, 0], [0, 0, 16.021766208], [0, 16.021766208, -1602.1766208]]
    rows = [
        lemat_frame(
            rock_salt(),
            "mp-1",
            3,
            energy=-7.5,
            forces=[[0.0, 0.1, 0.2], [0.0, -0.1, -0.2]],
            stress_tensor=kilobar,
        )
    ]
    (frame,) = frames(str(write_lemat(tmp_path / "x.parquet", rows)))
    assert (frame.sample_id, frame.step, frame.energy) == ("mp-1-0-pbe", 3, -7.5)
    assert frame.forces.tolist() == [[0.0, 0.1, 0.2], [0.0, -0.1, -0.2]]
    np.testing.assert_allclose(frame.stress, [[-1, 0, 0], [0, 0, -0.01], [0, -0.01, 1]], rtol=1e-9)
    assert frame.geometry.structure() == rock_salt()


@pytest.mark.parametrize(
    "sample_id", ["gpaw-A-fcc-Al-fcc-0-pbe", "gpaw-B2m-Li-Al-0-pbe", "gpaw-aC1-Li-Se-0-pbe"]
)
def test_stress_is_the_slope_of_the_energy(sample_id):
    """With ASE's sign dE = V tr(stress) / 3 * dV/V for a cubic cell; VASP's would be opposite."""
    a, b = [f for f in frames("embedded", "train") if f.sample_id == sample_id][:2]
    dv = abs(np.linalg.det(b.geometry.lattice)) - abs(np.linalg.det(a.geometry.lattice))
    predicted = (np.trace(a.stress) + np.trace(b.stress)) / 6 * dv
    assert predicted == pytest.approx(b.energy - a.energy, rel=0.03)


def test_frames_without_labels_and_unusable_frames(tmp_path, lemat_frame, write_lemat):
    sound = rock_salt()
    rows = [
        lemat_frame(sound, "mp-1", 0, forces=[[0.0, 0, 0]], energy=np.nan),
        lemat_frame(sound, "mp-1", 1, forces=[[0.0, 0, 0], [0, np.nan, 0]]),
        lemat_frame(sound, "mp-1", 2, lattice_vectors=[[0.0] * 3] * 3),
        lemat_frame(sound, "mp-1", 3, species_at_sites=["D", "Cl"]),
        lemat_frame(sound, "mp-1", 4, cartesian_site_positions=None),
        lemat_frame(sound, "mp-1", 5, id="x"),
        lemat_frame(sound, "mp-1", 6, species_at_sites=[]),
    ]
    kept = list(frames(str(write_lemat(tmp_path / "x.parquet", rows, row_group_size=2))))
    assert [f.step for f in kept] == [0, 1]
    assert all(f.energy is f.forces is f.stress is None for f in kept)


def test_every_embedded_training_frame_has_labels():
    kept = list(frames("embedded", "train"))
    assert len(kept) == 229
    assert all(f.energy is not None and f.forces is not None and f.stress is not None for f in kept)


# --- the data sets beside the repository ----------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "n", "reasons"),
    [
        ("gpaw/train.parquet", 47, []),
        ("gpaw/val.parquet", 4, []),
        ("gpaw/test.parquet", 53, []),
        ("substitution/val.parquet", 587, []),
        ("substitution/test.parquet", 779, []),
        ("vasp/trajectories.parquet", 92, []),
        ("vasp/other_frames.parquet", 116, []),
        ("vasp/lemat-quirks.parquet", 46, ["single frame", *45 * [str(Reason.END_MISSING)]]),
        ("hydrides/trajectories.parquet", 567, []),
    ],
)
def test_counts_of_the_shared_files(shared_data, path, n, reasons):
    dataset = load(str(shared_data / path))
    assert len(dataset) == n
    assert [str(q.reason) for q in dataset.quarantined] == reasons
    assert dataset.name == path.removesuffix(".parquet")
    assert not dataset.redistributable


def test_shared_substitution_folder_has_splits(shared_data):
    dataset = load(str(shared_data / "substitution"), limit=5)
    assert (dataset.name, dataset.split, len(dataset)) == ("substitution", "test", 5)
    assert {s.source for s in load(str(shared_data / "substitution"))} <= {
        "agm",
        "mp",
        "oqmd",
        "wbm",
    }


def test_folder_with_a_foreign_parquet_file_names_it(shared_data):
    one_line(lambda: load(str(shared_data / "vasp")), "provenance.parquet", "lacks")


def test_vasp_file_covers_one_to_232_sites(shared_data):
    dataset = load(str(shared_data / "vasp" / "trajectories.parquet"))
    sizes = [len(dataset.geometries(i)[0].numbers) for i in range(len(dataset))]
    assert (min(sizes), max(sizes)) == (1, 232)


def test_no_change_has_the_errors_that_perturbed_starts_were_made_with():
    for split, n_crystals in (("val", 20), ("test", 66)):
        data = load("perturbed", split=split)
        assert not data.quarantined
        assert len({data.materials[i].rsplit("-", 2)[0] for i in range(len(data))}) == n_crystals
        for i in range(0, len(data), 7):
            start, minimum = data.geometries(i)
            displacement, strain = re.search(r"-d(\d+)s(\d+)-\d+-", data.ids[i]).groups()
            row = score(start, minimum, start, Status.OK)
            assert row["strain"] == pytest.approx(int(strain) / 100)
            assert row["position_error"] == pytest.approx(int(displacement) / 100)


def test_perturbed_starts_are_those_that_the_command_makes(tmp_path):
    assert data_main(["manifest", str(EMBEDDED_SETS["perturbed"]), "--check"]) == 0
    write_perturbed(["embedded", "embedded-v2"], tmp_path / "again")
    for split in ("val", "test"):
        ours, theirs = load("perturbed", split=split), load(str(tmp_path / "again"), split=split)
        assert ours.ids == theirs.ids
        for i in range(0, len(ours), 11):
            for one, other in zip(ours.geometries(i), theirs.geometries(i), strict=True):
                assert np.allclose(one.lattice, other.lattice)
                assert np.allclose(one.frac_coords, other.frac_coords)
    one_line(
        lambda: write_perturbed(["embedded", "embedded"], tmp_path / "x"), "is in another source"
    )
