"""The pairs of prototype substitutions are built from public files: tiny ones on a local server."""

import gzip
import hashlib
import io
import json
import tarfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pymatgen.core import Lattice, Structure

from benchmarks.core import Geometry
from benchmarks.data import load
from benchmarks.data.__main__ import main
from benchmarks.data.build import substitution
from benchmarks.data.build.source_files import obtain, read_crystals
from benchmarks.data.build.substitution import (
    PairRecipe,
    fingerprint,
    matched_end,
    pairs_of,
    standard_cell,
    write_substitution,
)
from tests.conftest import one_line
from tests.local_server import answering

SHARED = Path(__file__).resolve().parents[2] / "shared"
LIST, ARCHIVE = "list.json.gz", "lemat-genbench.tar.gz"
ORIGIN, CENTRE = [0.0, 0.0, 0.0], [0.5, 0.5, 0.5]


def tetragonal(symbols, a, c):
    """The prototype of CuAu: two sites in a tetragonal cell."""
    return Structure(Lattice.tetragonal(a, c), symbols, [ORIGIN, CENTRE])


CRYSTALS = {
    "mp-1": tetragonal(["Fe", "Pt"], 2.72, 3.71),
    "wbm-1-2": tetragonal(["Cu", "Pt"], 2.70, 3.60),
    "oqmd-7": tetragonal(["Pt", "Co"], 2.68, 3.70),
}
"""Named as the databases name them; `oqmd-7` is a CIF in the archive, with platinum first."""
ROWS = [
    ("mp-1", "oqmd-7", "0,1"),
    ("oqmd-7", "mp-1", "1,0"),
    ("wbm-1-2", "mp-1", "0,1"),
]
"""Target, donor and order of the target's sites."""


@pytest.fixture
def sources(tmp_path):
    """A folder with the two files."""
    folder = tmp_path / "sources"
    folder.mkdir()
    listed = [
        {"mp_id" if name.startswith("mp") else "material_id": name, "structure": each.as_dict()}
        for name, each in CRYSTALS.items()
        if name != "oqmd-7"
    ]
    (folder / LIST).write_bytes(gzip.compress(json.dumps(listed).encode()))
    cif = CRYSTALS["oqmd-7"].to(fmt="cif").encode()
    with tarfile.open(folder / ARCHIVE, "w:gz") as archive:
        for name, data in (("oqmd/oqmd_oqmd-7.cif", cif), ("oqmd/metadata.csv", b"material_id\n")):
            member = tarfile.TarInfo(f"lemat-genbench-5bab2cd/baseline_data/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return folder


@pytest.fixture
def recipe(tmp_path, sources):
    """The folder of a recipe for these files; a donor has its long axis first."""
    folder = tmp_path / "recipe"
    folder.mkdir()
    cif = hashlib.sha256(CRYSTALS["oqmd-7"].to(fmt="cif").encode()).hexdigest()
    lines = f"baseline_data/oqmd/oqmd_oqmd-7.cif {cif}\n"
    files = [
        {"name": LIST, "sha256": hashlib.sha256((sources / LIST).read_bytes()).hexdigest()},
        {"name": ARCHIVE, "cifs_sha256": hashlib.sha256(lines.encode()).hexdigest()},
    ]
    for file in files:
        file |= {"url": f"https://example.org/{file['name']}", "licence": "CC-BY-4.0"}
    (folder / "sources.json").write_text(json.dumps({"spglib": "2.8.0", "files": files}))
    cells = {
        name: standard_cell(Geometry.of(crystal.get_sorted_structure()))
        for name, crystal in CRYSTALS.items()
    }
    structures = [
        {
            "id": name,
            "file": ARCHIVE if name == "oqmd-7" else LIST,
            "setting": "0,0,1;1,0,0;0,1,0",
            "fingerprint": fingerprint(cell),
        }
        for name, cell in cells.items()
    ]
    pairs = [
        {
            "immutable_id": target,
            "trajectory": 0,
            "donor_id": donor,
            "setting": "0,0,1;1,0,0;0,1,0",
            "order": order,
            "space_group": 123,
        }
        for target, donor, order in ROWS
    ]
    for name, rows in (("structures", structures), ("pairs", pairs)):
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")
    return folder


@pytest.fixture
def address(sources, tmp_path, monkeypatch):
    """The address of a server that serves the folder; the cache is empty."""
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path / "assets"))
    handler = partial(SimpleHTTPRequestHandler, directory=str(sources))
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *args: None)
    with answering(ThreadingHTTPServer(("127.0.0.1", 0), handler)) as server:
        yield f"http://127.0.0.1:{server.server_port}"


def test_the_pairs_are_built_from_a_server_and_again_from_the_cache(address, recipe, tmp_path):
    out = tmp_path / "substitution"
    counts = write_substitution(out, sources=address, recipe=recipe)
    assert counts == {"train": 1, "val": 1, "test": 1}
    test = load(str(out), split="test")
    assert test.ids == ("oqmd-7-0-pbe",)
    start, end = test.geometries(0)
    # cobalt takes the place of platinum, and the long axis comes first
    assert start.numbers.tolist() == end.numbers.tolist() == [78, 27]
    np.testing.assert_allclose(start.lattice, np.diag([3.71, 2.72, 2.72]), atol=1e-9)
    np.testing.assert_allclose(end.lattice, np.diag([3.70, 2.68, 2.68]), atol=1e-9)
    for found in (start, end):
        np.testing.assert_allclose(found.frac_coords, [ORIGIN, CENTRE], atol=1e-9)
    rows = pq.read_table(out / "provenance.parquet").to_pylist()
    assert [row["split"] for row in rows] == ["train", "test", "val"]
    assert rows[1] == {
        "immutable_id": "oqmd-7",
        "trajectory": 0,
        "split": "test",
        "source": "oqmd",
        "donor_id": "mp-1",
        "donor_source": "mp",
        "substitution": "Fe->Pt; Pt->Co",
        "formula": "CoPt",
        "chemical_system": "Co-Pt",
        "space_group": 123,
    }
    again = tmp_path / "again"
    assert write_substitution(again, offline=True, recipe=recipe) == counts
    assert (again / "test.parquet").read_bytes() == (out / "test.parquet").read_bytes()


def test_the_command_compares_with_another_folder(sources, recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(substitution, "RECIPE", recipe)
    monkeypatch.setattr(
        substitution,
        "write_substitution",
        partial(write_substitution, recipe=recipe),
    )
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    arguments = ["build", "substitution", "--sources", str(sources), "--out"]
    assert main([*arguments, first]) == 0
    assert main([*arguments, second, "--against", first]) == 0
    assert (
        "test: 1 pairs in both, 0 in one or with another donor; largest difference 0.0e+00 Å"
        in (capsys.readouterr().out)
    )
    one = pq.read_table(Path(first) / "test.parquet")
    (Path(first) / "test.parquet").unlink()
    lattices = [(np.array(each) + 1e-4).tolist() for each in one["lattice_vectors"].to_pylist()]
    place = one.schema.get_field_index("lattice_vectors")
    moved = one.set_column(place, one.schema.field(place), [lattices])
    pq.write_table(moved, Path(first) / "test.parquet")
    assert main([*arguments, second, "--against", first]) == 1
    assert "test: 1 pairs in both, 0 in one or with another donor; largest difference 1." in (
        capsys.readouterr().out
    )


def test_a_missing_file_a_wrong_one_and_a_missing_crystal_are_one_line(sources, recipe, tmp_path):
    def build():
        write_substitution(tmp_path / "out", sources=str(sources), recipe=recipe)

    whole = (sources / LIST).read_bytes()
    (sources / LIST).write_bytes(whole[:-5])
    one_line(build, LIST, "another file (sha256", "https://example.org/list.json.gz")
    (sources / LIST).unlink()
    one_line(build, "no such file", "https://example.org/list.json.gz")
    (sources / LIST).write_bytes(whole)
    archive = (sources / ARCHIVE).read_bytes()
    (sources / ARCHIVE).write_bytes(archive[:100])
    one_line(build, ARCHIVE, "damaged")
    with tarfile.open(sources / ARCHIVE, "w:gz"):
        pass
    one_line(build, "1 of 1 crystals are not in it", "oqmd-7")
    cif = CRYSTALS["oqmd-7"].to(fmt="cif").replace("3.7", "3.8").encode()
    with tarfile.open(sources / ARCHIVE, "w:gz") as changed:
        member = tarfile.TarInfo("baseline_data/oqmd/oqmd_oqmd-7.cif")
        member.size = len(cif)
        changed.addfile(member, io.BytesIO(cif))
    one_line(build, ARCHIVE, "other contents")
    assert not (tmp_path / "out").exists()


def test_offline_without_a_cache_says_where_the_files_are(address, recipe, tmp_path):
    one_line(
        lambda: write_substitution(tmp_path / "out", offline=True, recipe=recipe),
        "not downloading (offline)",
        "https://example.org/list.json.gz",
        "--sources DIR",
    )


def test_another_standard_cell_names_the_version_of_spglib(sources, recipe, tmp_path):
    table = pq.read_table(recipe / "structures.parquet").to_pylist()
    table[0]["fingerprint"] += 1e-3
    pq.write_table(pa.Table.from_pylist(table), recipe / "structures.parquet")
    one_line(
        lambda: write_substitution(tmp_path / "out", sources=str(sources), recipe=recipe),
        "1 of 3 standardised cells (mp-1, …)",
        "pip install spglib==2.8.0",
    )
    assert not list((tmp_path / "out").glob("*.parquet"))


def test_an_end_is_moved_as_a_whole_and_to_the_nearest_images():
    start = np.array([[0.0, 0.0, 0.0], [0.5, 0.5, 0.9]])
    target = Geometry(
        np.eye(3), np.array([[0.85, 0.75, 0.23], [0.35, 0.25, 0.25]]), np.array([8, 3])
    )
    end = matched_end(start, target, [1, 0])
    assert end.numbers.tolist() == [3, 8]
    np.testing.assert_allclose(end.frac_coords, [[0.0, 0.0, -0.04], [0.5, 0.5, 0.94]], atol=1e-12)


def test_a_command_of_two_words_has_both(capsys):
    assert main(["build"]) == 2
    assert "build substitution" in capsys.readouterr().err


@pytest.mark.slow
def test_pairs_of_the_shared_set_are_the_same_and_so_is_pymatgens_matching():
    """A target of each database; pymatgen's StructureMatcher gives the same ends."""
    if not (SHARED / "sources").is_dir():
        pytest.skip("the public sources beside the repository (../shared/sources) are not there")
    from pymatgen.analysis.structure_matcher import StructureMatcher

    whole = PairRecipe.read(substitution.RECIPE)
    reference = load(str(SHARED / "data" / "substitution" / "val.parquet"))
    chosen = {}
    for row in whole.pairs:
        name = f"{row['immutable_id']}-{row['trajectory']}-pbe"
        if name in reference.ids:
            chosen.setdefault(row["immutable_id"].rstrip("0123456789-"), row)
    assert set(chosen) == {"agm", "mp", "oqmd", "wbm"}
    used = {name for row in chosen.values() for name in (row["immutable_id"], row["donor_id"])}
    small = PairRecipe(
        whole.files,
        whole.spglib,
        tuple(row for row in whole.structures if row["id"] in used),
        tuple(chosen.values()),
    )
    crystals = {}
    paths = obtain(whole.files, str(SHARED / "sources"))
    for file, path in zip(whole.files, paths, strict=True):
        names = {row["id"] for row in small.structures if row["file"] == file.name}
        # the hash is of all CIFs that are used
        part = type(file)(name=file.name, url=file.url, licence=file.licence)
        crystals |= read_crystals(part, path, names)
    for pair in pairs_of(small, crystals):
        name = f"{pair.row['immutable_id']}-{pair.row['trajectory']}-pbe"
        both = reference.geometries(reference.ids.index(name))
        for found, given in zip((pair.start, pair.end), both, strict=True):
            apart = found.frac_coords - given.frac_coords
            assert np.abs((apart - apart.round()) @ given.lattice).max() < 1e-6
            assert np.abs(found.lattice - given.lattice).max() < 1e-6
            assert found.numbers.tolist() == given.numbers.tolist()
        target = standard_cell(crystals[pair.row["immutable_id"]]).structure()
        matcher = StructureMatcher(
            primitive_cell=False, attempt_supercell=False, ltol=0.3, stol=0.5, angle_tol=10
        )
        matched = matcher.get_s2_like_s1(pair.start.structure(), target)
        apart = matched.frac_coords - pair.end.frac_coords
        assert np.abs(apart - apart.round()).max() < 1e-6
