"""Croissant metadata of the data sets of this project, and the file for a DOI."""

import hashlib
import json
import shutil
import zipfile

import numpy as np
import pytest
import yaml

from benchmarks.data import folders, load
from benchmarks.data.__main__ import main
from benchmarks.data.croissant import FILE
from benchmarks.data.deposit import write_deposit
from benchmarks.data.folders import EMBEDDED_SETS, MANIFEST

SETS = sorted(name for name, folder in EMBEDDED_SETS.items() if (folder / MANIFEST).is_file())


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A copy of the embedded set, the only one that the commands know."""
    folder = tmp_path / "sets" / "embedded"
    shutil.copytree(EMBEDDED_SETS["embedded"], folder)
    monkeypatch.setattr(folders, "EMBEDDED_SETS", {"embedded": folder})
    monkeypatch.setattr("benchmarks.data.croissant.EMBEDDED_SETS", {"embedded": folder})
    return folder


@pytest.mark.parametrize("name", SETS)
def test_the_metadata_are_those_of_the_files(name, capsys):
    assert main(["metadata", name, "--check"]) == 0
    folder = EMBEDDED_SETS[name]
    found = json.loads((folder / FILE).read_text(encoding="utf-8"))
    assert found["license"] == "https://creativecommons.org/licenses/by/4.0/"
    manifest = json.loads((folder / MANIFEST).read_text())
    assert found["name"] == f"{manifest['name']}-v{manifest['version']}"
    for file in found["distribution"]:
        content = (folder / file["contentUrl"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == file["sha256"]
    assert len(found["distribution"]) == len(found["recordSet"]) == len(manifest["splits"])
    given = {key for key in found if key.startswith("rai:")}
    assert given >= {
        "rai:dataCollection", "rai:dataBiases", "rai:dataLimitations", "rai:dataUseCases",
        "rai:dataSocialImpact", "rai:personalSensitiveInformation",
    }  # fmt: skip


def test_fields_have_the_types_and_the_depth_of_the_columns():
    found = json.loads((EMBEDDED_SETS["embedded"] / FILE).read_text(encoding="utf-8"))
    (test,) = [each for each in found["recordSet"] if each["@id"] == "test"]
    fields = {each["name"]: each for each in test["field"]}
    kinds = {
        name: (fields[name]["dataType"], fields[name].get("arrayShape"))
        for name in ("energy", "nsites", "cross_compatibility", "id", "elements", "forces")
    }
    assert kinds == {
        "energy": ("sc:Float", None),
        "nsites": ("sc:Integer", None),
        "cross_compatibility": ("sc:Boolean", None),
        "id": ("sc:Text", None),
        "elements": ("sc:Text", "-1"),
        "forces": ("sc:Float", "-1,-1"),
    }


@pytest.mark.parametrize("name", SETS)
def test_mlcroissant_finds_no_fault_and_reads_the_frames(name):
    mlcroissant = pytest.importorskip("mlcroissant")
    found = mlcroissant.Dataset(jsonld=EMBEDDED_SETS[name] / FILE)
    issues = found.metadata.ctx.issues
    assert (issues.errors, issues.warnings) == (set(), set())
    first = next(iter(found.records("test")))
    initial = load(name, split="test").geometries(0)[0]
    assert first["test/lattice_vectors"] == pytest.approx(initial.lattice, abs=1e-12)
    assert np.array(first["test/forces"] or [[0, 0, 0]]).shape[1] == 3


def test_a_file_that_is_not_the_listed_one_has_no_metadata(small, capsys):
    assert main(["metadata", "--date", "2026-11-30"]) == 0
    kept = json.loads((small / FILE).read_text())
    assert kept["datePublished"] == "2026-11-30"
    assert main(["metadata"]) == 0  # keeps the date
    assert json.loads((small / FILE).read_text()) == kept
    (small / "README.md").write_text("# Another card\n\nAnother first paragraph.\n")
    assert main(["metadata", "--check"]) == 1
    with (small / "val.parquet").open("ab") as file:
        file.write(b"x")
    capsys.readouterr()
    assert main(["metadata"]) == 2
    error = capsys.readouterr().err
    assert "val.parquet: missing, or not the file of" in error
    assert error.count("\n") == 1
    assert main(["metadata", "nothing"]) == 2
    assert "nothing: no data set of this project: embedded" in capsys.readouterr().err


def test_a_deposit_is_the_same_bytes_and_whole(tmp_path, small, capsys):
    main(["metadata"])
    one, two = tmp_path / "one" / "data.zip", tmp_path / "two" / "data.zip"
    assert main(["deposit", "--out", str(one)]) == 0
    assert capsys.readouterr().out.endswith(f"sha256 {_sha256(one.read_bytes())}\n")
    (small / "train.parquet").touch()
    write_deposit([small], two)
    assert one.read_bytes() == two.read_bytes()
    with zipfile.ZipFile(one) as archive:
        files = {each.filename: archive.read(each) for each in archive.infolist()}
    inside = {f"embedded-v1/{each.name}": each.read_bytes() for each in small.iterdir()}
    assert inside.keys() >= {f"embedded-v1/{name}" for name in (FILE, "README.md", MANIFEST)}
    extra = {"LICENSE.txt", "CITATION.cff", "SHA256SUMS"}
    assert files.keys() == {f"data/{path}" for path in (*inside, *extra)}
    assert all(files[f"data/{path}"] == content for path, content in inside.items())
    sums = [line.split("  ") for line in files["data/SHA256SUMS"].decode().splitlines()]
    assert {path for _, path in sums} == {*inside, "LICENSE.txt", "CITATION.cff"}
    assert all(_sha256(files[f"data/{path}"]) == digest for digest, path in sums)
    citation = yaml.safe_load(files["data/CITATION.cff"])
    assert (citation["type"], citation["license"]) == ("dataset", "CC-BY-4.0")
    assert b"creativecommons.org/licenses/by/4.0/legalcode" in files["data/LICENSE.txt"]


def test_a_deposit_with_old_metadata_is_not_written(tmp_path, small, capsys):
    (small / "README.md").write_text("# Another card\n\nAnother first paragraph.\n")
    assert main(["deposit", "--out", str(tmp_path / "data.zip")]) == 2
    error = capsys.readouterr().err
    assert "missing or old: python -m benchmarks.data metadata" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "data.zip").exists()
    assert main(["deposit", "--out", str(tmp_path / "data.tar")]) == 2
    assert "name a .zip" in capsys.readouterr().err


def _sha256(content):
    return hashlib.sha256(content).hexdigest()
