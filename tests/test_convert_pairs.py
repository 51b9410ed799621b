"""Pairs without the steps between: four forms, and sites in another order."""

import csv
import gzip
import json

import numpy as np
import pandas as pd
import pytest
from pymatgen.core import Lattice, Structure

from benchmarks.core import Geometry
from benchmarks.data import load
from benchmarks.data.__main__ import main
from benchmarks.data.convert.pairs import FoundPair, read_pair
from benchmarks.data.convert.relaxation import ConversionError

RELAXED = {
    "salt": Structure(Lattice.cubic(4.0), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
    "perovskite": Structure(
        Lattice.cubic(3.9),
        ["Sr", "Ti", "O", "O", "O"],
        [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
    ),
}


def start_of(relaxed):
    rng = np.random.default_rng(0)
    fracs = relaxed.frac_coords + rng.normal(0, 0.01, (len(relaxed), 3))
    return Structure(relaxed.lattice.matrix * 1.03, relaxed.species, fracs)


INITIAL = {name: start_of(relaxed) for name, relaxed in RELAXED.items()}


def converted(tmp_path, *inputs, out="out.parquet", status=0):
    command = ["convert", "pairs", *map(str, inputs), "--functional", "pbe"]
    assert main([*command, "--out", str(tmp_path / out)]) == status
    return tmp_path / out


def check(path, names=tuple(RELAXED), tolerance=1e-5):
    data = load(str(path))
    assert sorted(data.materials) == sorted(names)
    assert not data.quarantined
    for i, name in enumerate(data.materials):
        for found, wanted in zip(data.geometries(i), (INITIAL[name], RELAXED[name]), strict=True):
            assert np.allclose(found.lattice, Geometry.of(wanted).lattice, atol=tolerance)
            apart = found.frac_coords - wanted.frac_coords
            assert np.abs(apart - apart.round()).max() < tolerance
            assert found.numbers.tolist() == list(wanted.atomic_numbers)


def test_poscar_and_contcar_of_each_folder(tmp_path):
    for name in RELAXED:
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        INITIAL[name].to(str(folder / "POSCAR"), fmt="poscar")
        RELAXED[name].to(str(folder / "CONTCAR"), fmt="poscar")
    (tmp_path / "runs" / "unfinished").mkdir()
    INITIAL["salt"].to(str(tmp_path / "runs" / "unfinished" / "POSCAR"), fmt="poscar")
    check(converted(tmp_path, tmp_path / "runs"))


def test_two_folders_with_the_same_names(tmp_path):
    for kind, structures in {"a": INITIAL, "b": RELAXED}.items():
        (tmp_path / kind).mkdir()
        for name, structure in structures.items():
            structure.to(str(tmp_path / kind / f"{name}.cif"), significant_figures=12)
    check(converted(tmp_path, tmp_path / "a", tmp_path / "b"))


def rows():
    for name in RELAXED:
        yield {
            "material_id": name,
            "initial_structure": INITIAL[name].as_dict(),
            "relaxed_structure": RELAXED[name].as_dict(),
        }


@pytest.mark.parametrize("form", ["csv", "csv of cif", "jsonl", "json", "columns", "json.gz"])
def test_rows_of_two_structures(tmp_path, form):
    path = tmp_path / f"pairs.{form.split()[0].replace('columns', 'json')}"
    table = list(rows())
    if form.startswith("csv"):
        with path.open("w", newline="") as file:
            lines = csv.DictWriter(file, table[0])
            lines.writeheader()
            for row in table:
                texts = {
                    key: json.dumps(x) if key != "material_id" else x for key, x in row.items()
                }
                if form == "csv of cif":
                    for key in ("initial_structure", "relaxed_structure"):
                        structure = Structure.from_dict(row[key])
                        texts[key] = structure.to(fmt="cif", significant_figures=12)
                lines.writerow(texts)
    elif form == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in table))
    elif form == "columns":
        pd.DataFrame(table).to_json(path)
    elif form == "json.gz":
        path.write_bytes(gzip.compress(json.dumps(table).encode()))
    else:
        path.write_text(json.dumps(table))
    check(converted(tmp_path, path))


def test_the_folder_of_a_paper_with_its_splits(tmp_path):
    (tmp_path / "set" / "CIF").mkdir(parents=True)
    for name in RELAXED:
        folder = tmp_path / "set" / "CIF"
        INITIAL[name].to(str(folder / f"{name}_unrelaxed.cif"), significant_figures=12)
        RELAXED[name].to(str(folder / f"{name}_relaxed.cif"), significant_figures=12)
    (tmp_path / "set" / "train.csv").write_text("idx,cif_id\n0,salt\n")
    (tmp_path / "set" / "test.csv").write_text("idx,cif_id\n0,perovskite\n")
    out = converted(tmp_path, tmp_path / "set", out="splits")
    check(out / "train.parquet", ["salt"])
    check(out / "test.parquet", ["perovskite"])
    assert len(load(str(out))) == 1  # the test split of a folder


def test_sites_in_another_order_are_matched_and_the_audit_says_so(tmp_path):
    start, end = INITIAL["perovskite"], RELAXED["perovskite"]
    for order, words in (
        ([0, 1, 4, 2, 3], "sites in another order"),
        ([2, 4, 3, 1, 0], "species in another order"),
    ):
        pair = read_pair(FoundPair("x", start.as_dict(), Structure.from_sites(
            [end[i] for i in order]
        ).as_dict()))  # fmt: skip
        assert words in pair.matched
        assert pair.displacement < 0.1
        assert np.allclose(pair.relaxed.frac_coords, end.frac_coords)
        assert pair.initial.numbers.tolist() == pair.relaxed.numbers.tolist()
    same = read_pair(FoundPair("x", start.as_dict(), end.as_dict()))
    assert same.matched == "order"


def test_what_is_no_pair_is_named_and_the_others_are_written(tmp_path, capsys):
    table = [*rows(), {"material_id": "odd", "initial_structure": INITIAL["salt"].as_dict(),
                       "relaxed_structure": RELAXED["perovskite"].as_dict()}]  # fmt: skip
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps(table))
    check(converted(tmp_path, path, status=2))
    assert "not converted: odd: not the same atoms: 2 and 5 sites" in capsys.readouterr().out
    audit = pd.read_csv(tmp_path / "out.pairs.csv")
    assert audit["sample_id"].tolist() == ["salt-0-pbe", "perovskite-0-pbe"]
    assert audit["volume_change_percent"][0] == pytest.approx(100 * (1.03**-3 - 1), abs=1e-3)


def test_a_wrong_input_ends_with_one_line(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.json").write_text("[1, 2]")
    (tmp_path / "y.jsonl").write_text(json.dumps({"material_id": "a"}) + "\n")
    for name, words in {
        "empty": "no pair of initial and relaxed structures in it",
        "x.json": "its rows are no objects",
        "y.jsonl": "row 1 has no initial_structure",
        "absent": "no such file or folder",
    }.items():
        command = ["convert", "pairs", str(tmp_path / name), "--functional", "pbe"]
        assert main([*command, "--out", str(tmp_path / "o.parquet")]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert words in line
    assert not (tmp_path / "o.parquet").exists()
    with pytest.raises(ConversionError, match="no structure of pymatgen"):
        read_pair(FoundPair("x", {}, {}))
