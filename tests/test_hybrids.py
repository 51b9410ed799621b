"""A hybrid against its last part alone, from stored runs."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.core import Geometry, Status
from benchmarks.store import Record, RunWriter, read_run
from leaderboard import publish
from leaderboard.board.hybrids import END_COLUMNS, standalone_run
from leaderboard.board.scores import FILE, scores
from leaderboard.board.summary import board
from leaderboard.publish import make_boards, write_archive_of
from leaderboard.scoring import BoardEntry
from leaderboard.views.markdown import markdown
from tests.test_leaderboard import Memory

FINISHED = (Status.OK,) * 8
MACHINE = {
    "cpu": "a cpu", "device": "cpu", "python": "3.11", "threads": 1, "batch_size": 1,
    "aborted": None, "training_data": [], "quarantined": [], "packages": {},
}  # fmt: skip


def write(folder, dataset, name, *, evals, ends=None, energies=(None,) * 8, status=FINISHED,
          seconds=1.0, sha256=None, fmax=0.05, repeats=1, **provenance):  # fmt: skip
    identity = {
        "model": name, "label": name, "family": "hybrid" if "+" in name else "gnn",
        "weights": None, "weights_sha256": sha256, "dataset": dataset.name,
        "revision": dataset.revision, "split": dataset.split, "settings": {"fmax": fmax}, "seed": 0,
    }  # fmt: skip
    with RunWriter.open(folder / name, identity, MACHINE | provenance) as writer:
        for repeat in range(repeats):
            for i, sample_id in enumerate(dataset.ids):
                end = ends[i] if ends else dataset.geometries(i)[1]
                record = Record(
                    model=name, sample_id=sample_id, repeat=repeat, status=status[i], geometry=end,
                    energy=energies[i], n_force_evals=evals[i], batch_id=i, batch_size=1,
                    batch_seconds=seconds,
                )  # fmt: skip
                writer.append([record])
    return folder / name


def compared(folder, dataset, *names):
    runs = [read_run(folder / name) for name in names]
    return board(runs, [scores(run, dataset) for run in runs], replicates=200).hybrids


def hybrid_ends(dataset):
    """Ends of the hybrid; of the part alone they are the references."""
    ends = [dataset.geometries(i)[1] for i in range(8)]
    ends[1] = ends[1]._replace(lattice=ends[1].lattice * 1.005)  # strain √3 ln 1.005 = 0.0086
    ends[2] = ends[2]._replace(lattice=ends[2].lattice * 1.006)  # 0.0104
    moved = ends[3].frac_coords + np.array([[0.3 / 4, 0, 0], [0] * 3, [0] * 3, [0] * 3])
    ends[3] = ends[3]._replace(frac_coords=moved)  # 0.3 Å: 0.1125 on average without translation
    return ends


@pytest.fixture
def toy():
    return Memory()


@pytest.fixture
def pair(tmp_path, toy):
    """Sample 0 is not finished by the hybrid, 7 not by the part alone, 3 to 5 differ in energy."""
    write(
        tmp_path, toy, "b", evals=range(10, 18), energies=[-8.0] * 8, seconds=2.0, sha256="bb",
        status=(*FINISHED[:7], Status.UNCONVERGED),
    )  # fmt: skip
    write(
        tmp_path, toy, "a+b", evals=[5] * 8, ends=hybrid_ends(toy), seconds=0.5, sha256="aa+bb",
        energies=[-8.0, -8.0, -8.0, -8.1, -7.976, -7.984, -8.0, -8.0],  # 4 sites: 25, 6, 4 meV
        status=(Status.INVALID, *FINISHED[1:]),
    )  # fmt: skip
    for name in ("b", "a+b"):  # beside the runs, as toy data cannot be named on a command line
        scores(read_run(tmp_path / name), toy)
    return tmp_path


def test_what_a_hybrid_saves(pair, toy):
    (row,) = compared(pair, toy, "b", "a+b")
    assert (row.model, row.alone, row.n_samples) == ("a+b", "b", 8)
    assert (row.finished, row.alone_finished, row.both_finished) == (7, 7, 6)
    evals = row.force_evals  # over samples 1 to 6: 5 each against 11 to 16
    assert (evals.ratio.n, evals.hybrid, evals.alone) == (6, 5.0, 13.5)
    assert evals.ratio.point == pytest.approx(30 / 81, abs=1e-6)
    assert evals.saved.point == 8.5
    assert 6 <= evals.saved.low < 8.5 < evals.saved.high <= 11
    assert 5 / 16 <= evals.ratio.low < 30 / 81 < evals.ratio.high <= 5 / 11
    seconds = row.seconds
    assert (seconds.hybrid, seconds.alone) == (0.5, 2.0)
    assert (seconds.ratio.point, seconds.ratio.low, seconds.ratio.high) == (0.25,) * 3
    assert (seconds.saved.point, seconds.saved.low, seconds.saved.high) == (1.5,) * 3


def test_the_ratio_is_of_sums_and_not_a_mean_of_ratios(tmp_path, toy):
    write(tmp_path, toy, "b", evals=[10, 100] * 4)
    write(tmp_path, toy, "a+b", evals=[20, 50] * 4)
    (row,) = compared(tmp_path, toy, "b", "a+b")
    assert row.force_evals.ratio.point == pytest.approx(70 / 110, abs=1e-6), "not (2 + 0.5) / 2"
    assert row.force_evals.saved.point == 20.0


def test_the_same_minimum_needs_cell_positions_and_energy(pair, toy):
    (row,) = compared(pair, toy, "b", "a+b")
    minimum = row.minimum  # 1, 5 and 6 of samples 1 to 6
    assert (minimum.rate.n, minimum.rate.point) == (6, 0.5)
    assert (minimum.rate.low, minimum.rate.high) == pytest.approx((0.1876, 0.8124), abs=1e-4)
    assert (minimum.lower, minimum.level, minimum.higher) == (1, 1, 1)


def test_an_energy_that_was_not_recorded_is_not_asked_for(tmp_path, toy):
    write(tmp_path, toy, "b", evals=[9] * 8)
    write(tmp_path, toy, "a+b", evals=[9] * 8, ends=hybrid_ends(toy))
    minimum = compared(tmp_path, toy, "b", "a+b")[0].minimum
    assert (minimum.rate.n, minimum.rate.point) == (8, 0.75)
    assert (minimum.lower, minimum.level, minimum.higher) == (0, 0, 0)


def test_an_image_translated_and_wrapped_is_the_same_end(tmp_path, toy):
    ends = [toy.geometries(i)[1] for i in range(8)]
    ends = [Geometry(e.lattice, (e.frac_coords + 0.6) % 1, e.numbers) for e in ends]
    write(tmp_path, toy, "b", evals=[9] * 8)
    write(tmp_path, toy, "a+b", evals=[9] * 8, ends=ends)
    assert compared(tmp_path, toy, "b", "a+b")[0].minimum.rate.point == 1.0


def test_repeats_are_no_samples(tmp_path, toy):
    for name in ("b", "a+b"):
        write(tmp_path, toy, name, evals=[9] * 8, repeats=3)
    (row,) = compared(tmp_path, toy, "b", "a+b")
    assert (row.both_finished, row.force_evals.saved.n, row.minimum.rate.n) == (8, 8, 8)


@pytest.mark.parametrize("other", [{"fmax": 0.01}, {"sha256": "cc"}])
def test_other_settings_or_weights_are_not_compared(tmp_path, toy, other):
    write(tmp_path, toy, "b", **{"evals": [9] * 8, "sha256": "bb"} | other)
    write(tmp_path, toy, "a+b", evals=[9] * 8, sha256="aa+bb")
    assert compared(tmp_path, toy, "b", "a+b") == ()


def test_without_the_part_alone_there_is_nothing_to_compare(tmp_path, toy):
    write(tmp_path, toy, "a", evals=[9] * 8)
    write(tmp_path, toy, "a+b", evals=[9] * 8)
    assert compared(tmp_path, toy, "a", "a+b") == ()
    assert standalone_run(read_run(tmp_path / "a"), [read_run(tmp_path / "a")]) is None


@pytest.mark.parametrize("other", [{"cpu": "another"}, {"threads": 2}, {"batch_size": 8}])
def test_times_of_two_machines_are_not_compared(tmp_path, toy, other):
    write(tmp_path, toy, "b", evals=[9] * 8)
    write(tmp_path, toy, "a+b", evals=[9] * 8, **other)
    (row,) = compared(tmp_path, toy, "b", "a+b")
    assert row.seconds is None
    assert row.force_evals.saved.point == 0.0


def archive(pair, toy, tmp_path):
    folders = [pair / name for name in ("b", "a+b")]
    write_archive_of(folders, tmp_path / "archive", [toy])
    return tmp_path / "archive"


def test_an_archive_keeps_how_far_its_ends_were(pair, toy, tmp_path):
    full = compared(pair, toy, "b", "a+b")
    (found,) = make_boards([archive(pair, toy, tmp_path)])
    assert found.hybrids[0].minimum == full[0].minimum
    part = BoardEntry(name="part", archive="", functional="pbe")
    (found,) = make_boards([tmp_path / "archive"], part=part)
    assert found.hybrids[0].minimum == full[0].minimum


def test_stored_ends_belong_to_the_run_that_they_were_compared_with(pair, toy, tmp_path):
    path = archive(pair, toy, tmp_path) / FILE
    stored = pq.read_table(path)
    table = stored.to_pandas()
    table.loc[table["model"] == "b", "structures"] = "others"
    changed = pa.Table.from_pandas(table, preserve_index=False)
    pq.write_table(changed.replace_schema_metadata(stored.schema.metadata), path)
    (found,) = make_boards([tmp_path / "archive"])
    assert found.hybrids[0].minimum is None
    assert found.hybrids[0].force_evals.saved.point == 8.5
    assert markdown(found).endswith("| — | — |\n")


def test_a_page_with_hybrids(pair, toy, tmp_path):
    folders, out = [pair / "b", pair / "a+b"], tmp_path / "out"
    publish(folders, out, [toy])
    content = json.loads((out / "board.json").read_text(encoding="utf-8"))
    assert content["hybrids"][0]["minimum"]["rate"]["point"] == 0.5
    assert content["same_minimum"]["energy_within_ev_per_atom"] == 0.005
    page = (out / "board.md").read_text(encoding="utf-8")
    line = page.split("## Hybrids")[1].splitlines()[-1]
    assert line.startswith("| a+b | b | 7, 7, 6 (8) | 5.0, 13.5 | 0.370 [")
    assert "| 0.50, 2.00 | 0.250 [0.250, 0.250] | +1.500 [+1.500, +1.500] |" in line
    assert line.endswith("| 0.500 [0.188, 0.812] (6) | 1, 1, 1 |")


def test_no_section_without_hybrids(pair, toy, tmp_path):
    (found,) = publish([pair / "b"], tmp_path / "out", [toy]).boards
    assert "Hybrids" not in markdown(found)


def test_the_columns_of_the_ends_are_numbers_only(pair, toy, tmp_path):
    path = archive(pair, toy, tmp_path) / FILE
    table = pq.read_table(path).to_pandas()
    ends = table.loc[table["model"] == "a+b", list(END_COLUMNS)].to_numpy()
    assert ends[3] == pytest.approx([0, 0.1125, -0.025])
    assert np.isfinite(ends).all(), "also of what was not finished"
