"""The held-out split: what a group is, how groups become parts, and what the folder is good for."""

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure

from benchmarks.core import Geometry, UserError
from benchmarks.core.files import file_sha256
from benchmarks.data import frames, load
from benchmarks.data.__main__ import main
from benchmarks.data.audit import audit
from benchmarks.data.sources import resolve, resolve_all
from benchmarks.data.splits.assignment import _fill, assign, size_class, strata
from benchmarks.data.splits.fingerprint import fingerprint, near_duplicates
from benchmarks.data.splits.grouping import describe, joined
from benchmarks.data.splits.prototypes import prototype, prototypes
from benchmarks.run import main as run
from benchmarks.store import read_run
from t2relax.data.training_pairs import read_pairs
from tests.conftest import one_line

FCC = [[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
HALF, QUARTER = [0.5, 0.5, 0.5], [0.25, 0.25, 0.25]


def rock_salt(metal="Na", anion="Cl", a=5.6):
    return Structure(np.array(FCC) * a, [metal, anion], [[0, 0, 0], HALF])


def caesium_chloride(metal="Cs", anion="Cl", a=4.1):
    return Structure(Lattice.cubic(a), [metal, anion], [[0, 0, 0], HALF])


def zincblende(metal="Zn", anion="S", a=5.4):
    return Structure(np.array(FCC) * a, [metal, anion], [[0, 0, 0], QUARTER])


def perovskite(a="Sr", b="Ti", x="O"):
    faces = [[0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    return Structure(Lattice.cubic(3.9), [a, b, x, x, x], [[0, 0, 0], HALF, *faces])


def packing(layers):
    """Close packing of copper; `AB` is hexagonal, `ABC` cubic."""
    a, where = 2.55, {"A": (0, 0), "B": (1 / 3, 2 / 3), "C": (2 / 3, 1 / 3)}
    lattice = Lattice.hexagonal(a, a * np.sqrt(2 / 3) * len(layers))
    sites = [[*where[name], i / len(layers)] for i, name in enumerate(layers)]
    return Structure(lattice, ["Cu"] * len(layers), sites)


def label(structure):
    return prototype(Geometry.of(structure))


def rattled(structure, distance=0.02, seed=0):
    shift = np.random.default_rng(seed).normal(size=(len(structure), 3))
    shift *= distance / np.linalg.norm(shift, axis=1)[:, None]
    return Structure(
        structure.lattice,
        structure.species,
        structure.cart_coords + shift,
        coords_are_cartesian=True,
    )


# --- prototypes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("structure", "expected"),
    [
        (rock_salt(), "AB_225_a_b"),
        (rock_salt("Cl", "Na"), "AB_225_a_b"),
        (rock_salt("Mg", "O", 4.2), "AB_225_a_b"),
        (rattled(rock_salt()), "AB_225_a_b"),
        (rock_salt().make_supercell(2, in_place=False), "AB_225_a_b"),
        (caesium_chloride(), "AB_221_a_b"),
        (zincblende(), "AB_216_a_c"),
        (perovskite(), "ABC3_221_a_b_c"),
        (packing("AB"), "A_194_c"),
        (packing("ABC"), "A_225_a"),
    ],
)
def test_prototypes_of_known_structures(structure, expected):
    assert label(structure) == expected


@pytest.mark.parametrize("shift", [HALF, QUARTER, [0.1, 0.7, 0.3]])
def test_a_prototype_does_not_depend_on_the_origin(shift):
    for structure in (perovskite(), zincblende()):
        moved = structure.copy()
        moved.translate_sites(range(len(moved)), shift)
        assert label(moved) == label(structure)


@pytest.mark.parametrize("axes", [[0, 1, 2], [1, 2, 0], [2, 0, 1], [1, 0, 2]])
@pytest.mark.parametrize("second", [[0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]])
def test_nor_on_which_axis_of_an_orthorhombic_cell_is_the_longest(axes, second):
    lattice = np.diag(np.array([3.0, 4.0, 5.0])[axes])
    assert label(Structure(lattice, ["Na", "Cl"], [[0, 0, 0], second])) == "AB_47_a_b"
    assert label(Structure(lattice, ["Na", "Cl"], [[0, 0, 0], HALF])) != "AB_47_a_b"


# --- near-duplicates -----------------------------------------------------------------------------


def fingerprints(structures):
    return np.array([fingerprint(Geometry.of(structure)) for structure in structures])


def test_a_fingerprint_is_of_the_crystal_not_of_its_description():
    plain = perovskite()
    turned = Structure(
        plain.lattice.matrix @ np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0],
        plain.species,
        plain.frac_coords + 0.3,
    )
    others = [
        plain.make_supercell([[1, 1, 0], [0, 1, 0], [0, 0, 2]], in_place=False),
        turned,
        Structure.from_sites(list(reversed(plain))),
        perovskite("Ba", "Zr", "S"),
        plain.copy().scale_lattice(100),
    ]
    found = fingerprints([plain, *others])
    assert np.abs(found - found[0]).max() < 1e-8
    assert np.abs(fingerprints([rattled(plain, 0.01)])[0] - found[0]).max() < 0.01


def test_near_duplicates_are_joined_by_chains_and_within_a_kind_only():
    found = np.array([[0.0], [0.015], [0.03], [0.2], [0.0]])
    assert near_duplicates(found, "aaaab").tolist() == [0, 0, 0, 3, 4]


def test_different_orders_and_packings_are_no_near_duplicates():
    layered = Structure(Lattice.tetragonal(3.0, 6.0), ["Na", "Cl"], [[0, 0, 0], [0, 0, 0.5]])
    simple = [rock_salt(), caesium_chloride(), zincblende(), layered]
    assert len(set(near_duplicates(fingerprints(simple), "aaaa"))) == 4
    assert len(set(near_duplicates(fingerprints([packing("AB"), packing("ABC")]), "aa"))) == 2


def test_mirror_images_in_chiral_groups_have_two_labels_and_one_fingerprint():
    silicon, oxygen = [[0.470, 0, 2 / 3]], [[0.414, 0.267, 0.786]]
    left, right = (
        Structure.from_spacegroup(name, Lattice.hexagonal(4.91, 5.40), ["Si", "O"], sites)
        for name, sites in (
            ("P3_221", [*silicon, *oxygen]),
            ("P3_121", (1 - np.array([*silicon, *oxygen])).tolist()),
        )
    )
    assert {label(left), label(right)} == {"AB2_152_a_c", "AB2_154_a_c"}
    assert near_duplicates(fingerprints([left, right]), "aa").tolist() == [0, 0]


# --- groups and parts ----------------------------------------------------------------------------


def test_groups_are_chains_of_common_keys():
    materials = ["m1", "m1", "m2", "m3", "m4", "m5"]
    formulas = ["x", "y", "y", "z", None, None]
    assert joined([materials, formulas]).tolist() == [0, 0, 0, 1, 2, 3]


def assert_within_one_part(table, *keys):
    for key in keys:
        assert table.groupby(key)["split"].nunique().max() == 1


SAMPLE = st.tuples(
    st.integers(0, 30), st.integers(0, 12), st.sampled_from(["mp", "agm", "oqmd"]),
    st.sampled_from(["pbe", "scan"]), st.sampled_from([1, 4, 5, 16, 70]),
)  # fmt: skip


def grouped(rows, keys=("material_id", "composition")):
    """A table of samples with their groups, as `describe` makes it."""
    names = ["material_id", "composition", "source", "functional", "n_sites"]
    table = pd.DataFrame(rows, columns=names).astype({"material_id": str, "composition": str})
    table["sample_id"] = [f"s{i:03d}" for i in range(len(table))]
    group = joined([list(table[key]) for key in keys])
    return table.assign(group=table.groupby(group)["sample_id"].transform("min"))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(SAMPLE, min_size=5, max_size=60),
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(0, 3),
    st.sampled_from([("material_id", "composition"), ("material_id", "source")]),
    st.randoms(use_true_random=False),
)
def test_nothing_ever_spans_two_parts(rows, test_size, val_size, seed, keys, random):
    table = grouped(rows, keys)
    sizes = {"test": test_size, "val": val_size}
    table["split"] = assign(table, sizes, seed)
    used = table[table["split"] != "left_out"]
    assert_within_one_part(used, "group", "composition", "material_id")
    for name, size in sizes.items():
        assert (table["split"] == name).sum() <= size
    shuffled = table.sample(frac=1, random_state=random.randint(0, 99))
    again = assign(shuffled, sizes, seed)
    assert again.sort_index().equals(table["split"].rename(again.name))
    if keys[1] == "composition":
        assert "left_out" not in set(table["split"])


def test_parts_have_their_sizes_and_the_proportions_of_the_whole():
    rows = [(i, i, "mp" if i % 4 else "agm", "pbe", 2 if i % 2 else 30) for i in range(1000)]
    table = grouped(rows)
    part = assign(table, {"test": 200, "val": 100}, 0)
    assert part.value_counts().to_dict() == {"train": 700, "test": 200, "val": 100}
    for name, size in (("test", 200), ("val", 100), ("train", 700)):
        found = strata(table[part == name]).value_counts().to_dict()
        assert found == {
            "pbe mp up to 4": size / 2,
            "pbe mp up to 64": size / 4,
            "pbe agm up to 64": size / 4,
        }
    other = assign(table, {"test": 200, "val": 100}, 1)
    assert 30 < ((part == "test") & (other == "test")).sum() < 60


def test_a_group_larger_than_a_part_stays_in_train():
    table = grouped([(0, 0, "mp", "pbe", 2)] * 30 + [(i, i, "mp", "pbe", 2) for i in range(1, 21)])
    for seed in range(5):
        part = assign(table, {"test": 10, "val": 5}, seed)
        assert set(part[:30]) == {"train"}
        assert part.value_counts().to_dict() == {"train": 35, "test": 10, "val": 5}


def test_what_shares_a_composition_with_another_part_is_left_out():
    rows = [(i, i % 10, "mp", "pbe", 2) for i in range(40)]
    table = grouped(rows, keys=("material_id",))
    part = assign(table, {"test": 2, "val": 2}, 0)
    assert part.value_counts().to_dict() == {"train": 24, "left_out": 12, "test": 2, "val": 2}


def test_of_groups_that_fit_in_no_stratum_the_nearest_is_taken():
    groups = {"one size": Counter(a=6), "mixed": Counter(a=1, b=5), "too large": Counter(a=1, b=9)}
    assert list(_fill(groups, Counter(a=4, b=4))) == ["mixed"]


def test_many_prototypes_are_shared_out_and_come_back_in_order(monkeypatch):
    monkeypatch.setattr("benchmarks.data.splits.prototypes._MANY", 2)
    structures = [rock_salt(), caesium_chloride(), zincblende()]
    geometries = [Geometry.of(structure) for structure in structures]
    assert prototypes(geometries) == [prototype(geometry) for geometry in geometries]


def test_classes_of_size():
    classes = size_class(pd.Series([1, 4, 5, 8, 16, 17, 64, 65]))
    assert list(classes)[:4] == ["up to 4", "up to 4", "up to 8", "up to 8"]
    assert list(classes)[4:] == ["up to 16", "up to 64", "up to 64", "over 64"]


# --- the command ---------------------------------------------------------------------------------

METALS = ["Li", "Na", "K", "Rb", "Cs", "Mg", "Ca", "Sr", "Ba", "Ag"]
ANIONS = ["F", "Cl", "Br", "I", "O", "S"]


@pytest.fixture(scope="module")
def rows(lemat_frame):
    """60 salts, each in two sources, some in two prototypes; one trajectory that is no good."""
    frames = []
    for i, (metal, anion) in enumerate((m, x) for m in METALS for x in ANIONS):
        kind = (rock_salt, caesium_chloride, zincblende)[i % 3]
        for source, make in (("mp", kind), ("agm", kind if i % 5 else perovskite_of)):
            end = make(metal, anion)
            start = end.copy().scale_lattice(end.volume * 1.1)
            material = f"{source}-{i}"
            frames += [lemat_frame(start, material, 0), lemat_frame(end, material, 1)]
    return [*frames, lemat_frame(rock_salt(), "mp-999", 0)]


def perovskite_of(metal, anion):
    return Structure(
        Lattice.cubic(4.0), [metal] * 2 + [anion] * 2, [[0, 0, 0], HALF, [0.5, 0, 0], [0, 0.5, 0.5]]
    )


@pytest.fixture
def data(tmp_path, write_lemat, rows):
    return str(write_lemat(tmp_path / "salts.parquet", rows))


@pytest.fixture
def folder(tmp_path, data):
    out = tmp_path / "held-out"
    assert main(["split", data, "--out", str(out), "--test-size", "20"]) == 0
    return out


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def manifest_of(folder):
    return json.loads((folder / "manifest.json").read_text())


def test_the_folder_holds_lists_manifest_and_report(folder, data):
    names = ["manifest.json", "report.md", "test.csv", "train.csv", "val.csv"]
    assert list(contents(folder)) == names
    manifest = manifest_of(folder)
    assert manifest["sources"] == [data]
    assert (manifest["by"], manifest["seed"], manifest["n_quarantined"]) == ("composition", 0, 1)
    counts = {name: part["n_samples"] for name, part in manifest["splits"].items()}
    assert counts == {"train": 90, "test": 20, "val": 10}
    test = pd.read_csv(folder / "test.csv")
    assert list(test["sample_id"]) == sorted(test["sample_id"])
    assert set(test["source"]) == {"mp", "agm"}
    seen = test.groupby("source")["MPtrj (Materials Project)"].unique().map(list).to_dict()
    assert seen == {"mp": ["possibly"], "agm": ["no"]}
    text = (folder / "report.md").read_text()
    assert "| test | 20 | 10 | 2 | 10 |" in text
    assert "1 trajectories quarantined" in text


def test_the_same_parts_whatever_the_order_of_the_rows(folder, write_lemat, rows, data):
    before = contents(folder)
    order = np.random.default_rng(0).permutation(len(rows))
    write_lemat(Path(data), [rows[i] for i in order])
    assert main(["split", data, "--out", str(folder), "--test-size", "20"]) == 0
    after = contents(folder)
    assert {name for name in after if after[name] != before[name]} == {"manifest.json", "report.md"}


def test_anyone_can_regenerate_it(folder, data, tmp_path, capsys):
    command = ["split", data, "--test-size", "20"]
    assert main([*command, "--out", str(tmp_path / "again")]) == 0
    assert contents(tmp_path / "again") == contents(folder)
    assert main([*command, "--out", str(folder), "--check"]) == 0
    assert main([*command, "--out", str(folder), "--check", "--seed", "1"]) == 1
    assert f"{folder / 'test.csv'} differs from what the data give" in capsys.readouterr().out
    assert contents(tmp_path / "again") == contents(folder)


def test_prototypes_are_held_out_and_compositions_with_them(data, tmp_path):
    out = tmp_path / "p"
    command = ["split", data, "--out", str(out), "--by", "prototype"]
    assert main([*command, "--test-size", "40", "--val-size", "12"]) == 0
    parts = {name: pd.read_csv(out / f"{name}.csv") for name in ("train", "test", "left_out")}
    assert set(parts["train"]["prototype"]).isdisjoint(parts["test"]["prototype"])
    assert set(parts["train"]["composition"]).isdisjoint(parts["test"]["composition"])
    assert set(parts["left_out"]["group"]).isdisjoint(parts["test"]["group"])
    assert "left_out" in (out / "report.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--test-size", "120"], "has 120 samples"),
        (["--test-size", "1", "--val-size", "1"], "would be empty"),
        (["--test-size", "0"], "--test-size 0: must be at least 1"),
        (["--limit", "-1"], "--limit -1: must be at least 1"),
        (["--split", "test"], "is a single file without splits"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(data, tmp_path, capsys, arguments, words):
    assert main(["split", data, "--out", str(tmp_path / "x"), *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error.splitlines()[-1]
    assert not (tmp_path / "x").exists()


# --- the split in use ----------------------------------------------------------------------------


def test_the_folder_is_a_data_set_with_splits(folder, data):
    whole = load(data)
    parts = {name: load(str(folder), split=name) for name in ("train", "val", "test")}
    assert sorted(x for part in parts.values() for x in part.ids) == sorted(whole.ids)
    test = parts["test"]
    assert test.name == f"{whole.name} by composition"
    assert test.split == "test"
    assert test.revision.startswith("sha256:")
    assert test.ids_sha256 == manifest_of(folder)["splits"]["test"]["ids_sha256"]
    assert test[0].final == whole.get(test.ids[0]).final
    assert test.quarantined == ()
    assert {frame.sample_id for frame in frames(str(folder), "train")} == set(parts["train"].ids)
    assert set(audit(resolve(str(folder)))["sample_id"]) == set(test.ids)
    assert set(load(str(folder), limit=5).ids) < set(load(str(folder), limit=9).ids) < set(test.ids)


def test_the_t5_trains_on_its_train_part(folder):
    pairs, origin = read_pairs([str(folder)], "train")
    assert len(pairs) == 90
    assert origin == {f"{load(str(folder)).name}/train": load(str(folder)).revision}


def test_baselines_train_on_its_train_part_too(folder, data):
    from baselines.training.model_card import training_sets

    sets = training_sets([str(folder), "embedded", data])
    assert [(each.split, len(each)) for each in sets] == [("train", 90), ("train", 47), (None, 120)]


def test_a_run_on_it_goes_on_where_it_stopped_and_another_split_is_refused(
    folder, data, tmp_path, capsys
):
    out = tmp_path / "runs"
    command = ["--models", "identity", "--data", str(folder), "--out", str(out)]
    assert run([*command, "--limit", "5"]) == 0
    assert run(command) == 0
    assert "identity: 15 of 20 structures" in capsys.readouterr().err
    stored = read_run(out / "identity")
    assert {record.sample_id for record in stored.records} == set(load(str(folder)).ids)
    assert stored.identity["revision"] == load(str(folder)).revision
    assert main(["split", data, "--out", str(folder), "--test-size", "20", "--seed", "1"]) == 0
    assert run(command) == 2
    assert "revision" in capsys.readouterr().err


def test_it_is_read_together_with_others(folder, data):
    both = load([str(folder), "embedded"], split="test")
    parts = load(str(folder)), load("embedded")
    assert both.ids == parts[0].ids + parts[1].ids
    assert both.name == f"{parts[0].name}+{parts[1].name}"
    assert both.split == "test"
    table = audit(resolve_all([str(folder), "embedded"], "test"))
    assert set(table["sample_id"]) == set(both.ids)
    assert set(load([str(folder), "embedded"], split="test", limit=9).ids) < set(both.ids)
    one_line(lambda: load([str(folder), data]), "named twice")


def test_what_was_altered_is_not_taken_for_the_split(folder, data, tmp_path, write_lemat, rows):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "test.csv").write_text("sample_id\nmp-0-0-pbe\n")
    one_line(lambda: load(str(copy)), "sha256 differs")
    manifest = manifest_of(folder)
    del manifest["seed"]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    one_line(lambda: load(str(copy), split="val"), "not a usable manifest", "seed")
    write_lemat(Path(data), rows[:-1])
    one_line(lambda: load(str(folder)), "split again")


# --- the files beside the repository -------------------------------------------------------------


def test_real_substitutions_by_composition_and_prototype(shared_data):
    dataset = load(str(shared_data / "substitution" / "test.parquet"), limit=150)
    for by in ("composition", "prototype"):
        table = describe(dataset, by)
        table["split"] = assign(table, {"test": 40, "val": 20}, 0)
        used = table[table["split"] != "left_out"]
        assert_within_one_part(used, by, "material_id", "composition")
        assert (table["split"] == "test").sum() == 40


def test_the_quirky_table_is_split_too(shared_data, tmp_path, capsys):
    path = shared_data / "vasp" / "lemat-quirks.parquet"
    command = ["split", str(path), "--out", str(tmp_path / "q"), "--test-size", "8"]
    assert main(command) == 0
    assert "34 train, 8 test, 4 val" in capsys.readouterr().out
    assert "46 trajectories quarantined" in (tmp_path / "q" / "report.md").read_text()


def test_a_split_that_is_made_of_itself_is_one_line(tmp_path):
    (tmp_path / "test.csv").write_text("sample_id\na\n")
    about = {
        "name": "x", "version": 1, "sources": [str(tmp_path)], "n_drawn": None, "seed": 0,
        "revision": "", "source_split": None,
        "splits": {"test": {"file": "test.csv", "sha256": file_sha256(tmp_path / "test.csv")}},
    }  # fmt: skip
    (tmp_path / "manifest.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match=r"manifest\.json: the split is made of itself"):
        load(str(tmp_path), split="test")


@pytest.mark.parametrize("file", ["../test.csv", "/etc/passwd", "a/../../b", "a\0b"])
def test_a_manifest_names_files_of_its_folder_only(tmp_path, file):
    about = {"name": "x", "version": 1, "splits": {"test": {"file": file, "sha256": ""}}}
    (tmp_path / "manifest.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match=r"manifest\.json: .* is no file of the folder"):
        load(str(tmp_path), split="test")
