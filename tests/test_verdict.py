"""What DFT says of predictions; EMT stands in for GPAW."""

import json
import sys
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from ase import Atoms
from ase.calculators.emt import EMT

from benchmarks.core import GPA, Geometry, Status
from benchmarks.dft.__main__ import main
from benchmarks.dft.pool import Workers, relax_each
from benchmarks.dft.results import DFTResult, InitialStructure
from benchmarks.dft.settings import VERSION_3
from benchmarks.store import read_runs
from leaderboard.board.dft_verdicts import FILE
from leaderboard.board.schema import Board
from leaderboard.publish import make_boards
from leaderboard.scoring import score_runs
from leaderboard.site.pages import write_site
from leaderboard.views.markdown import markdown
from tests.site_runs import Page
from tests.test_leaderboard import Answer, Memory, halfway, identity, oracle, write

VERSIONS = {"gpaw": "1.2", "ase": "3", "numpy": "2", "python": "3.11"}


class Metals(Memory):
    """One atom of copper, two of copper and of silver that move, and palladium, which fails."""

    name, revision = "embedded-v1", "sha256:11"
    STRETCH = 1.04

    def __init__(self):
        self.ids = ("Cu", "Cu2", "Ag2", "Pd")
        cells = [(29, 1, 2.5), (29, 2, 2.6), (47, 2, 2.9), (46, 1, 2.7)]
        self._pairs = []
        for number, sites, a in cells:
            lattice = np.diag([a, a, a * (1.4 if sites == 2 else 1)])
            coords = np.array([[0, 0, 0], [0.5, 0.5, 0.5]])[:sites]
            moved = coords + np.array([[0, 0, 0], [0.05, 0, 0]])[:sites]
            numbers = np.full(sites, number, dtype=np.int16)
            start = Geometry(lattice * self.STRETCH, moved, numbers)
            self._pairs.append((start, Geometry(lattice, coords, numbers)))


def emt(geometry):
    lattice, coords, numbers = geometry
    return Atoms(numbers, cell=lattice, scaled_positions=coords, pbc=True, calculator=EMT())


def energy(geometry):
    return emt(geometry).get_potential_energy() / len(geometry.numbers)


@pytest.fixture
def metals(monkeypatch):
    """The data set; EMT computes it in this process, and `metals.calls` are the structures."""
    data = Metals()
    data.calls, data.stop_after = [], None
    volumes = {
        (symbol, len(numbers)): np.linalg.det(lattice)
        for (_, (lattice, _, numbers)), symbol in zip(
            data._pairs, ("Cu", "Cu", "Ag", "Pd"), strict=True
        )
    }

    def computed(starts, settings, workers):
        for start in starts:
            if data.stop_after is not None and len(data.calls) >= data.stop_after:
                raise KeyboardInterrupt
            data.calls.append((start, settings.max_steps))
            record = {"name": start.name, "start": start.sha256, "symbols": start.symbols,
                      "cutoff": 600.0}  # fmt: skip
            if start.symbols[0] == "Pd":
                yield DFTResult(**record, reason="KohnShamConvergenceError: no end")
                continue
            atoms = emt(start.geometry)
            frame = {
                "lattice": atoms.cell.tolist(), "positions": atoms.positions.tolist(),
                "energy": atoms.get_potential_energy(), "forces": atoms.get_forces().tolist(),
                "stress": atoms.get_stress(voigt=False).tolist(),
            }  # fmt: skip
            # one step more for each per cent that the cell is too large
            volume = volumes[start.symbols[0], len(start.symbols)]
            steps = 1 + round(100 * ((atoms.get_volume() / volume) ** (1 / 3) - 1))
            yield DFTResult(**record, frames=[frame] * (steps if settings.max_steps else 1))

    monkeypatch.setattr("benchmarks.dft.pool.relax_each", computed)
    monkeypatch.setattr("benchmarks.dft.verdict.gpaw_versions", lambda python: VERSIONS)
    for module in ("leaderboard.scoring", "benchmarks.dft.verdict"):
        monkeypatch.setattr(
            f"{module}.find_dataset",
            lambda run, datasets: data if run.identity["revision"] == data.revision else None,
        )
    return data


def lost(initial, final, i):
    """Gives no structure of the first sample, and the reference of the others."""
    return oracle(initial, final, i) if i else Answer(Status.INVALID, None)


@pytest.fixture
def runs(tmp_path, metals):
    folder = tmp_path / "runs"
    for name, relax in (("identity", identity), ("halfway", halfway), ("oracle", oracle)):
        write(folder, name, relax, metals)
    return folder


def verdict(folder, *args):
    out = folder.parent / "verdict"
    return main(["verdict", str(folder), "--out", str(out), *args])


def stored(folder, name):
    rows = pq.read_table(folder / name / FILE).to_pylist()
    return {row["sample_id"]: row for row in rows}


def one_line(capsys):
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error.rstrip("\n")


def rows_of(folder):
    (board,) = make_boards([folder])
    return {row.model: row for row in board.dft_verdicts.rows}


# what is computed


def test_energy_force_and_stress_are_those_at_the_prediction(runs, metals):
    assert verdict(runs, "--models", "identity,halfway") == 0
    for name, answer in (("identity", identity), ("halfway", halfway)):
        found = stored(runs, name)
        for i, sample_id in enumerate(metals.ids[:3]):
            start, reference = metals.geometries(i)
            atoms, row = emt(answer(start, reference, i).geometry), found[sample_id]
            above = atoms.get_potential_energy() / len(atoms) - energy(reference)
            assert row["energy_above_reference"] == pytest.approx(above, abs=1e-9)
            assert row["start_above_reference"] == pytest.approx(
                energy(start) - energy(reference), abs=1e-9
            )
            force = np.linalg.norm(atoms.get_forces(), axis=1).max()
            assert row["max_force"] == pytest.approx(force, abs=1e-9)
            assert row["max_stress"] == pytest.approx(np.abs(atoms.get_stress()).max(), abs=1e-9)
            assert row["reason"] == row["steps_reason"] == ""
            assert row["ionic_steps"] is None
    assert found["Cu2"]["max_force"] > 0.01
    assert not (runs / "oracle" / FILE).exists()


def test_equal_structures_are_computed_once_and_all_on_the_grid_of_the_reference(runs, metals):
    verdict(runs)
    per_crystal = {}
    for start, steps in metals.calls:
        assert steps == 0
        per_crystal.setdefault((start.symbols[0], len(start.symbols)), []).append(start.kpt_grid)
    # the start (which identity predicts), the reference (oracle), and halfway
    grids = {key: {*grids} for key, grids in per_crystal.items()}
    assert [len(each) for each in per_crystal.values()] == [3, 3, 3, 3]
    # 2.5 points per Å^-1 along 2 pi / 2.5 Å: 6.28 of the reference, 6.04 of the start
    assert grids["Cu", 1] == {(7, 7, 7)}
    assert all(len(each) == 1 for each in grids.values())


def test_cheap_crystals_come_first_and_nothing_is_computed_twice(runs, metals):
    assert verdict(runs, "--limit", "1") == 0
    first = [start.symbols for start, _ in metals.calls]
    assert first == [["Cu"]] * 3
    assert stored(runs, "oracle").keys() == {"Cu"}
    row = rows_of(runs)["identity"]
    assert row.energy_above_reference.n == row.below_start.n == 1
    assert row.energy_above_reference.low is row.below_start.low is None  # of one composition
    assert verdict(runs, "--limit", "1") == 0
    assert len(metals.calls) == 3
    verdict(runs)
    names = [start.name for start, _ in metals.calls]
    assert len(names) == len(set(names)) == 12
    assert len(stored(runs, "oracle")) == 4


def test_ionic_steps_are_counted_for_crystals_whose_atoms_move(runs, metals):
    assert verdict(runs, "--relax", "5") == 0
    found = stored(runs, "halfway")
    steps = {name: (row["ionic_steps"], row["start_ionic_steps"]) for name, row in found.items()}
    assert steps["Cu2"] == steps["Ag2"] == (3, 5)
    assert steps["Cu"] == (None, None)
    relaxed = [start for start, steps in metals.calls if steps]
    assert {start.kpt_grid for start in relaxed} == {None}  # as the reference was
    rows = rows_of(runs)
    assert [rows[name].ionic_steps.ratio.point for name in ("identity", "halfway", "oracle")] == [
        1.0, 0.6, 0.2,
    ]  # fmt: skip
    assert (rows["halfway"].ionic_steps.predicted, rows["halfway"].ionic_steps.start) == (3, 5)
    assert rows["halfway"].ionic_steps.ratio.n == 2
    assert rows["halfway"].ionic_steps.ratio.low == pytest.approx(0.6)
    assert [start for start, steps in metals.calls if steps and start.symbols == ["Cu"]] == []


# what fails


def test_a_failure_is_a_row_with_its_reason(runs, metals):
    write(runs, "lost", lost, metals)
    assert verdict(runs) == 0
    reason = "KohnShamConvergenceError: no end"
    assert stored(runs, "oracle")["Pd"]["reason"] == (
        f"the reference: {reason}; the start: {reason}; the prediction: {reason}"
    )
    assert stored(runs, "lost")["Cu"]["reason"] == "no relaxed structure (invalid)"
    row = rows_of(runs)["lost"]
    assert (row.n_predictions, row.n_without_structure, row.n_failed) == (4, 1, 1)
    # of copper there is no structure, palladium does not count, two are below the start
    assert row.below_start.point == pytest.approx(2 / 3, abs=1e-5)
    assert row.below_start.n == 3
    assert row.energy_above_reference.n == 2


def test_an_interrupt_leaves_the_rows_that_are_done(runs, metals, capsys):
    metals.stop_after = 4
    assert verdict(runs) == 130
    assert capsys.readouterr().err.splitlines()[-1] == (
        "interrupted; the same command goes on from here"
    )
    assert stored(runs, "halfway").keys() == {"Cu"}
    metals.stop_after = None
    assert verdict(runs) == 0
    assert stored(runs, "halfway").keys() == set(metals.ids)
    assert len(metals.calls) == 12


def test_other_data_and_models_that_are_not_there_are_one_line(runs, metals, capsys):
    assert verdict(runs, "--models", "t5,oracle") == 2
    assert one_line(capsys) == "error: --models t5: not among halfway, identity, oracle"
    write(runs, "oracle2", oracle, Memory())
    assert verdict(runs) == 2
    assert "toy (sha256:00) is left out: it is none of embedded-v1, " in capsys.readouterr().err
    assert len(stored(runs, "oracle")) == 4
    (runs / "oracle" / FILE).write_bytes(b"PAR1")
    assert verdict(runs, "--models", "oracle") == 2
    assert f"{FILE}: damaged" in one_line(capsys)


def test_runs_whose_structures_were_not_kept_are_one_line(runs, metals, capsys, monkeypatch):
    stripped = [replace(run, table=run.table.slice(0, 0)) for run in read_runs([runs])]
    monkeypatch.setattr("benchmarks.dft.verdict.read_runs", lambda paths: stripped)
    assert verdict(runs) == 2
    assert one_line(capsys) == f"error: {runs}: no structures are stored, only scores"


def test_another_program_never_mixes_with_what_is_there(runs, metals, capsys, monkeypatch):
    verdict(runs, "--limit", "1")
    monkeypatch.setattr(
        "benchmarks.dft.verdict.gpaw_versions", lambda python: VERSIONS | {"gpaw": "9"}
    )
    capsys.readouterr()
    assert verdict(runs, "--limit", "1") == 2
    assert "gpaw differs ('1.2' stored, now '9')" in one_line(capsys)
    out = ["--out", str(runs.parent / "another")]
    assert main(["verdict", str(runs), *out, "--limit", "1"]) == 2
    assert "computed with GPAW 1.2, PBE, not with GPAW 9, PBE" in one_line(capsys)


def test_without_gpaw_one_line_says_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert main(["verdict", str(tmp_path), "--python", sys.executable]) == 2
    error = one_line(capsys)
    assert "No module named 'gpaw'" in error
    assert "apt install gpaw gpaw-data" in error


# the board


def test_the_board_says_what_dft_says(runs, metals):
    verdict(runs, "--models", "identity,oracle")
    (board,) = make_boards([runs])
    rows = {row.model: row for row in board.dft_verdicts.rows}
    assert rows.keys() == {"identity", "oracle"}
    assert rows["oracle"].energy_above_reference.point == 0
    assert rows["oracle"].below_start.point == 1
    assert rows["identity"].below_start.point == 0
    pairs = [metals.geometries(i) for i in range(3)]
    above = [1000 * (energy(start) - energy(reference)) for start, reference in pairs]
    assert min(above) > 10
    assert rows["identity"].energy_above_reference.point == pytest.approx(np.mean(above), rel=1e-5)
    median = rows["identity"].median_energy_above_reference
    assert median.point == pytest.approx(np.median(above), rel=1e-5)
    stresses = [np.abs(emt(start).get_stress()).max() / GPA for start, _ in pairs]
    assert rows["identity"].dft_max_stress.point == pytest.approx(np.mean(stresses), rel=1e-5)
    text = board.to_json()
    assert Board.from_json(text).to_json() == text
    page = markdown(board)
    assert "## What DFT says" in page
    assert "GPAW 1.2, PBE" in page
    number = f"{np.mean(above):.1f}"
    (line,) = [each for each in page.splitlines() if each.startswith("| identity | 4, 0, 1 |")]
    assert f"| {number} [" in line
    write_site([("", score_runs([runs])[0])], runs.parent / "site")
    html = (runs.parent / "site" / "index.html").read_text()
    tables = [table for table in Page(html).tables if "Below start ↑" in table[0]]
    ((_, best, cells),) = tables
    assert (best[0], cells[0]) == ("oracle", "identity")
    assert cells[1].startswith(f"{number} [")


def test_a_board_without_the_file_has_no_such_table(runs, tmp_path):
    (board,) = make_boards([runs])
    assert board.dft_verdicts is None
    assert "dft_verdicts" not in json.loads(board.to_json())
    assert "What DFT says" not in markdown(board)
    write_site([("", score_runs([runs])[0])], tmp_path / "site")
    assert "What DFT says" not in (tmp_path / "site" / "index.html").read_text()


def test_rows_of_an_older_prediction_do_not_count(runs, metals):
    verdict(runs, "--models", "identity,halfway")
    kept = (runs / "halfway" / FILE).read_bytes()
    for path in (runs / "halfway").rglob("*"):
        if path.is_file():
            path.unlink()
    write(runs, "halfway", oracle, metals)
    (runs / "halfway" / FILE).write_bytes(kept)
    assert rows_of(runs).keys() == {"identity"}


# the worker

FAKE = """
import json, os, types
from ase.calculators.emt import EMT

__version__ = "1.2.3"
FermiDirac = float
def PW(cutoff, dedecut):
    return cutoff, dedecut
def Mixer(*numbers):
    return numbers

class GPAW(EMT):
    def __init__(self, kpts, **other):
        super().__init__()
        setup = types.SimpleNamespace(symbol="Cu", fingerprint="01")
        self.wfs = types.SimpleNamespace(setups=[setup])
        with open(os.environ["FAKE_CALLS"], "a") as calls:
            calls.write(json.dumps(kpts) + chr(10))
"""


def test_the_worker_computes_once_on_the_given_grid(tmp_path, monkeypatch):
    (tmp_path / "gpaw.py").write_text(FAKE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("FAKE_CALLS", str(tmp_path / "calls"))
    start, _ = Metals().geometries(1)
    once = replace(VERSION_3, max_steps=0)  # which measures the Pulay stress on other grids
    structure = InitialStructure("x", start, (2, 3, 4))
    (record,) = relax_each([structure], once, Workers(python=sys.executable))
    assert record.reason == ""
    (frame,) = record.frames
    assert frame["energy"] / 2 == pytest.approx(energy(start), abs=1e-9)
    calls = [json.loads(line) for line in (tmp_path / "calls").read_text().splitlines()]
    assert calls[-1] == {"size": [2, 3, 4], "gamma": True}
