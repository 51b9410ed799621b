"""Errors by DFT settings, and the same material relaxed with several functionals."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from benchmarks.core import Geometry
from benchmarks.data import load
from leaderboard.__main__ import main
from studies.dft_settings.__main__ import main as study
from studies.dft_settings.materials import describe, difference, pairs, settings_of
from tests.conftest import one_line
from tests.test_leaderboard import halfway, write

STRETCH = 1.03 ** (1 / 3)
SITES = [[0, 0, 0], [0.5, 0.5, 0.5], [0.3, 0.3, 0], [0.7, 0.7, 0], [0.2, 0.8, 0.5], [0.8, 0.2, 0.5]]
RUTILE = Structure(Lattice.tetragonal(4.6, 3.0), ["Ti"] * 2 + ["O"] * 4, SITES)


def stretched(structure, *factors):
    lattice = structure.lattice.matrix * np.array(factors)[:, None]
    return Structure(lattice, structure.species, structure.frac_coords)


def permuted(structure):
    """The axes c, a, b, the crystal rotated."""
    order = [2, 0, 1]
    lattice = Lattice(structure.lattice.matrix[order])
    return Structure(
        Lattice.from_parameters(*lattice.parameters),
        structure.species,
        structure.frac_coords[:, order],
    )


def supercell(structure):
    return structure.make_supercell([[2, 0, 0], [0, 1, 0], [0, 0, 3]], in_place=False)


def skewed(structure):
    """Another basis of the same lattice, a + c for a."""
    return structure.make_supercell([[1, 0, 1], [0, 1, 0], [0, 0, 1]], in_place=False)


def shuffled(structure):
    """Sites in another order, the origin elsewhere."""
    moved = structure.copy()
    moved.translate_sites(range(len(moved)), [0.11, 0.37, 0.23])
    return Structure.from_sites([moved[i] for i in (1, 0, 5, 2, 4, 3)])


def apart(first, second):
    return difference(Geometry.of(first), Geometry.of(second))


# two relaxed structures


@pytest.mark.parametrize("setting", [Structure.copy, permuted, supercell, skewed, shuffled])
@pytest.mark.parametrize("swapped", [False, True])
def test_a_known_difference_is_found_in_any_cell_and_site_order(setting, swapped):
    two = [RUTILE, setting(stretched(RUTILE, STRETCH, STRETCH, STRETCH))]
    row = apart(*two[::-1] if swapped else two)
    assert row["volume_mape"] == pytest.approx(100 - 100 / 1.03 if swapped else 3)
    assert row["strain"] == pytest.approx(0.017066, abs=1e-6)  # ln(1.03) / 3^½
    assert row["position_mae"] == pytest.approx(0, abs=1e-6)
    lengths = {supercell: (9.2 + 4.6 + 9.0) / 3}.get(setting, (4.6 + 4.6 + 3.0) / 3)
    if not (setting is skewed and swapped):  # there the setting is the skewed one
        assert row["lattice_mae"] == pytest.approx(lengths * (STRETCH - 1), abs=1e-6)
    assert row["left_out"] == ""


def test_axes_of_nearly_equal_length_are_not_confused():
    """The distances of sites see no difference: of a body-centred cell there is one site."""
    first = Structure(Lattice.tetragonal(3.0, 3.03), ["Fe", "Fe"], SITES[:2])
    row = apart(first, permuted(stretched(first, 1, 1, 1.002)))
    assert row["strain"] == pytest.approx(0.001998, abs=1e-6)  # ln(1.002)
    assert row["lattice_mae"] == pytest.approx(3.03 * 0.002 / 3)


def test_a_moved_site_is_seen_in_a_supercell():
    moved = RUTILE.copy()
    moved.translate_sites([4], [0, 0, 0.05])
    row = apart(RUTILE, supercell(moved))
    # 0.15 Å, less the mean over the six sites of each cell: (0.125 + 5 * 0.025) / 6
    assert row["position_mae"] == pytest.approx(0.25 / 6, abs=1e-6)
    assert row["strain"] == pytest.approx(0, abs=1e-6)


def test_cells_that_cannot_be_compared_are_left_out_with_their_reason():
    twice, thrice = (RUTILE.make_supercell([1, 1, n], in_place=False) for n in (2, 3))
    row = apart(twice, thrice)
    assert row["left_out"] == "one cell is no multiple of the other"
    assert row["volume_mape"] == pytest.approx(0)
    assert np.isnan(row["strain"])
    assert apart(RUTILE, stretched(RUTILE, 1, 1, 2))["left_out"] == "no common cell"


# a data set of them


@pytest.fixture
def table(tmp_path, lemat_frame, write_lemat):
    """`table(*(material, functional, relaxed structure)) -> path`; starts are 2 % too long."""

    def make(*relaxations, name="mine"):
        frames = []
        for k, (material, functional, end) in enumerate(relaxations):
            about = {"trajectory": k, "functional": functional}
            start = stretched(end, 1.02, 1.02, 1.02)
            frames += [lemat_frame(start, material, 0, **about),
                       lemat_frame(end, material, 1, **about)]  # fmt: skip
        return write_lemat(tmp_path / f"{name}.parquet", frames)

    return make


BIGGER = stretched(RUTILE, STRETCH, STRETCH, STRETCH)
TWO = (("mp-1", "pbe", BIGGER), ("mp-2", "pbesol", supercell(RUTILE)))
NITRIDE = Structure(Lattice.cubic(4.2), ["Ti", "N"], SITES[:2])


def described(path):
    dataset = load(str(path))
    return dataset, describe(dataset).join(settings_of(dataset, [str(path)]))


def test_one_material_is_one_id_or_one_composition_and_prototype(table):
    other = stretched(RUTILE, 1, 1.06, 1)  # orthorhombic: another prototype
    path = table(*TWO, ("mp-3", "scan", other), ("mp-1", "r2scan", other), ("mp-4", "pbe", NITRIDE))
    found = pairs(*described(path)).set_index("functionals")
    assert found["shared"].to_dict() == {
        "pbe, pbesol": "prototype", "pbe, r2scan": "material id", "r2scan, scan": "prototype"
    }  # fmt: skip
    assert found["material"].nunique() == 1


def test_a_prototype_without_a_common_cell_is_not_one_material(table):
    longer = stretched(RUTILE, 1, 1, 2)
    (left_out,) = pairs(*described(table(TWO[0], ("mp-2", "pbesol", longer)))).itertuples()
    assert left_out.left_out == "no common cell"
    assert np.isnan(left_out.volume_mape)
    (kept,) = pairs(*described(table(TWO[0], ("mp-1", "pbesol", longer)))).itertuples()
    assert kept.volume_mape == pytest.approx(200 / 1.03 - 100)


def test_an_unknown_functional_is_in_no_pair(table):
    dataset, samples = described(table(*TWO))
    samples.loc[dataset.ids[1], "functional"] = "unknown"
    assert pairs(dataset, samples).empty


# settings


SETTINGS = """\
sample_id,n_frames,functional,program,cutoff_ev,hubbard_u_ev,file,sha256
a,2,pbe,vasp,520.0,"{""Ti"": 3.2}",x,00
b,2,pbe,fhi-aims,,{},y,00
"""


def test_settings_beside_the_data_or_unknown(tmp_path):
    (tmp_path / "mine.settings.csv").write_text(SETTINGS)
    dataset = SimpleNamespace(ids=("a", "b", "c"), functionals=("pbe", None, ""))
    for source in (tmp_path / "mine.parquet", tmp_path):
        found = settings_of(dataset, [str(source), "hf://LeMaterial/LeMat-Traj"])
        assert found.loc["a"].to_list() == ["pbe", "vasp", "+U", "520"]
        assert found.loc["b"].to_list() == ["unknown", "fhi-aims", "none stated", "unknown"]
        assert found.loc["c"].to_list() == ["unknown"] * 4


def test_settings_beside_each_of_several_and_of_what_a_held_out_split_was_made_of(tmp_path):
    header, first, second = SETTINGS.splitlines()
    for name, line in (("one", first), ("two", second)):
        (tmp_path / f"{name}.settings.csv").write_text(f"{header}\n{line}\n")
    one, two = (str(tmp_path / f"{name}.parquet") for name in ("one", "two"))
    folder = tmp_path / "held-out"
    folder.mkdir()
    manifest = {"name": "x", "version": 1, "splits": {}, "sources": [one, two]}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    dataset = SimpleNamespace(ids=("a", "b"), functionals=("pbe", "pbe"))
    for sources in ([one, two], [str(folder)]):
        assert settings_of(dataset, sources)["program"].to_list() == ["vasp", "fhi-aims"]


@pytest.mark.parametrize(
    "text", ["", "sample_id\na\n", SETTINGS.replace("520.0", "high"), SETTINGS.replace("{}", "{")]
)
def test_damaged_settings_are_one_line(tmp_path, text):
    path = tmp_path / "mine.settings.csv"
    path.write_text(text)
    dataset = SimpleNamespace(ids=("a",), functionals=("pbe",))
    one_line(lambda: settings_of(dataset, [str(tmp_path)]), str(path), "damaged")


# the command


def run(path, out, *more):
    """The files of the study, made of a run without structures."""
    dataset = load(str(path))
    write(out / "full", "halfway", halfway, dataset)
    bare, data = str(out / "bare"), ["--data", str(path)]
    assert main([str(out / "full"), "--archive", bare, *data]) == 0
    assert study([bare, "--out", str(out / "settings"), *data, *more]) == 0
    return out / "settings"


def test_the_files_show_errors_by_functional_and_how_far_the_target_moves(table, tmp_path):
    path = table(*TWO, ("mp-4", "pbe", NITRIDE))
    folder = run(path, tmp_path)
    text = (folder / "settings.md").read_text()
    volume = [part for part in text.split("\n\n") if part.startswith("| volume_mape (%)")]
    by_functional, by_pair = (part.splitlines() for part in volume)
    assert by_functional[0] == "| volume_mape (%) | n | compositions | identity | halfway |"
    assert by_functional[2] == "| pbe | 2 | 2 | 6.12 [6.12, 6.12] | 3.03 [3.03, 3.03] |"
    assert by_functional[3] == "| pbesol | 1 | 1 | 6.12 | 3.03 |"
    assert by_pair[2:] == ["| pbe, pbesol | 1 | 1 | 2.91 | 2.91 | 6.12 | 3.03 |"]
    assert "fewer than 30 compositions**: pbe, pbesol: 1." in text
    assert "n = 1 materials relaxed with several functionals, 1 pairs" in text
    assert "Unknown, of 3 samples: Functional of 0, Program of 3" in text
    assert "## Program" not in text
    numbers = json.loads((folder / "settings.json").read_text())["estimates"]
    (moved,) = (x for x in numbers if x["model"] == "target" and x["metric"] == "strain")
    assert moved["mean"] == pytest.approx(0.017066, abs=1e-6)
    with (folder / "settings-pairs.csv").open() as file:
        (pair,) = csv.DictReader(file)
    assert (pair["first"], pair["second"]) == ("mp-1-0-pbe", "mp-2-1-pbesol")
    files = sorted(folder.iterdir())
    assert [file.name for file in files] == [
        "settings-pairs.csv", "settings.json", "settings.md", "settings.svg"
    ]  # fmt: skip
    again = sorted(run(path, tmp_path / "again").iterdir())
    assert [file.read_bytes() for file in again] == [file.read_bytes() for file in files]


def test_settings_that_are_known_are_slices(table, tmp_path):
    path = table(("mp-1", "pbe", RUTILE), ("mp-2", "pbe", NITRIDE))
    path.with_suffix(".settings.csv").write_text(SETTINGS.replace("\na,", "\nmp-1-0-pbe,"))
    text = (run(path, tmp_path) / "settings.md").read_text()
    assert "## +U\n" in text
    assert "\n| +U | 1 | 1 | 6.12 | 3.03 |\n" in text
    assert "Unknown, of 2 samples: Functional of 0, Program of 1, +U of 1, Cutoff (eV) of 1" in text


def test_a_volume_without_a_common_cell_is_counted_by_itself(table, tmp_path):
    longer = ("mp-1", "pbesol", stretched(RUTILE, 1, 1, 2))
    folder = run(table(TWO[0], longer), tmp_path)
    text = (folder / "settings.md").read_text()
    assert "| pbe, pbesol | 0 | 0 | — | — | — | — |" in text
    assert "| pbe, pbesol | 1 | 1 | 94.17 | 94.17 | 6.12 | 3.03 |" in text
    assert "cells and positions: no common cell 1." in text
    assert "pbe, pbesol (n = 0–1)" in (folder / "settings.svg").read_text()


def test_data_of_one_functional_say_that_nothing_can_be_said(table, tmp_path):
    folder = run(table(("mp-1", "pbe", RUTILE), ("mp-2", "pbe", NITRIDE)), tmp_path)
    text = (folder / "settings.md").read_text()
    assert "No material was relaxed with several functionals (n = 0)" in text
    assert "Samples that are in no pair: 2 of 2" in text
    assert not (folder / "settings.svg").exists()


def test_mistakes_are_one_line_and_exit_2(table, tmp_path, capsys):
    first, second = table(*TWO), table(*TWO[:1], name="other")
    for path in (first, second):
        write(tmp_path / path.stem, "halfway", halfway, load(str(path)))
    out, data = str(tmp_path / "out"), ["--data", str(first)]
    for arguments, words in (
        (["mine", "--out", out], "--data"),
        (["mine", "other", "--out", out, *data], "two data sets"),
        (["mine", "--out", str(first), *data], "cannot be written"),
    ):
        runs = [str(tmp_path / name) if name in ("mine", "other") else name for name in arguments]
        assert study(runs) == 2
        message = capsys.readouterr().err
        assert words in message
        assert message.count("\n") == 1
