import json
import re
from collections import namedtuple
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from benchmarks.core import ANSWERED, SCORED, Geometry, MissingFinalFrame, Sample, Status, UserError
from benchmarks.core.formatting import format_estimate
from benchmarks.core.geometry import reduced_composition
from benchmarks.core.statistics import Estimate, Resampling, estimates, ranks, wilson
from benchmarks.data import ids_sha256
from benchmarks.metrics import METRICS, Reduce, score
from benchmarks.models.provenance import weights_identity
from benchmarks.models.registry import MODELS, find_weights
from benchmarks.store import Record, RunWriter, read_run, write_archive
from leaderboard import publish
from leaderboard.__main__ import main
from leaderboard.board.comparisons import differences, slices
from leaderboard.board.schema import Board, Spread
from leaderboard.board.scores import FILE, crystal_system, scores
from leaderboard.board.summary import board, reference_uncertainty
from leaderboard.publish import (
    departures,
    differing,
    make_boards,
    published_documents,
    write_archive_of,
)
from leaderboard.scoring import PUBLISHED, read_entries, score_runs
from leaderboard.site import trust
from leaderboard.views.markdown import markdown, table, to_csv


class Memory:
    """A data set of perturbed rock salts, each pair of samples of one composition."""

    name, revision, split, redistributable = "toy", "sha256:00", "test", False
    missing_final_frame = MissingFinalFrame.IF_RELAXED

    def __init__(self, count=8, seed=0):
        rng = np.random.default_rng(seed)
        self.ids = tuple(f"gpaw-{i}-0-pbe" for i in range(count))
        self._pairs = [self._pair(i, rng) for i in range(count)]

    @staticmethod
    def _pair(i, rng):
        sites = np.array([[0, 0, 0], [0.5, 0, 0], [0.5, 0.5, 0], [0, 0.5, 0.5]])
        numbers = np.array([11, 17, 11, 17 + i // 2], dtype=np.int16)
        final = Geometry(np.diag([4.0, 4.2, 4.4]), sites, numbers)
        moved = sites + rng.normal(size=(4, 3)) * 0.02
        return Geometry(final.lattice * (1.03 + 0.002 * i), moved, numbers), final

    def __len__(self):
        return len(self.ids)

    def geometries(self, i):
        return self._pairs[i]

    def __getitem__(self, i):
        initial, final = self._pairs[i]
        return Sample(
            sample_id=self.ids[i], initial=initial.structure(), final=final.structure(),
            material_id=self.ids[i], functional="pbe", source="gpaw", n_frames=2,
        )  # fmt: skip


Answer = namedtuple("Answer", "status geometry")


def oracle(initial, final, i):
    return Answer(Status.OK, final)


def identity(initial, final, i):
    return Answer(Status.OK, initial)


def halfway(initial, final, i):
    middle = [(a + b) / 2 for a, b in zip(initial[:2], final[:2], strict=True)]
    return Answer(Status.OK, Geometry(*middle, final.numbers))


def failing(status, every=2, answer=oracle):
    """As `answer`, but each `every`-th sample fails: with what looks like a perfect structure, or,
    where the status says that all is well, with a collapsed cell."""

    def relax(initial, final, i):
        if i % every:
            return answer(initial, final, i)
        broken = final._replace(lattice=final.lattice * 0) if status in SCORED else final
        return Answer(status, broken)

    return relax


def write(
    folder, name, relax, dataset, repeats=1, chosen=None, seconds=0.5, family="trivial", **more
):
    about = {"model": name, "label": name.upper(), "family": family, "weights": None,
             "weights_sha256": None, "dataset": dataset.name, "revision": dataset.revision,
             "split": dataset.split, "settings": {"fmax": 0.05}, "seed": 0}  # fmt: skip
    machine = {"cpu": "a cpu", "device": "cpu", "python": "3.11", "threads": 1, "aborted": None,
               "packages": {"numpy": "2"}, "training_data": [], "load_seconds": 2.0,
               "peak_memory_mb": 100.0, "quarantined": []}  # fmt: skip
    with RunWriter.open(folder / name, about, machine | more) as writer:
        for repeat in range(repeats):
            for i in range(len(dataset)) if chosen is None else chosen:
                status, geometry = relax(*dataset.geometries(i), i + repeat)
                record = Record(
                    model=name, sample_id=dataset.ids[i], repeat=repeat, status=status,
                    geometry=geometry, batch_id=i, batch_size=1, batch_seconds=seconds,
                    n_force_evals=10 + i,
                )  # fmt: skip
                writer.append([record])
        writer.close(aborted=more.get("aborted"))
    return folder / name


@pytest.fixture
def toy():
    return Memory()


def compare(tmp_path, dataset, replicates=100, **models):
    runs = [read_run(write(tmp_path, name, relax, dataset)) for name, relax in models.items()]
    tables = [scores(run, dataset) for run in runs]
    found = board(runs, tables, replicates=replicates)
    return {row.model: row for row in found.rows}


def value(row, name):
    return row.metrics[name].point


# what a row is worth


def test_the_oracle_has_errors_0_rates_and_skills_1(tmp_path, toy):
    row = compare(tmp_path, toy, oracle=oracle, identity=identity)["oracle"]
    costs = {"latency_median", "latency_p95", "throughput", "wall_time_mean", "wall_time_median",
             "peak_memory", "load_time", "n_force_evals", "n_tokens"}  # fmt: skip
    for name in METRICS.keys() - costs:
        expected = 1.0 if METRICS[name].higher_is_better else 0.0
        if value(row, name) is not None:
            assert value(row, name) == pytest.approx(expected, abs=1e-6), name
    assert [name for name in METRICS if value(row, name) is None] == ["n_tokens", "declared_time"]


def test_doing_nothing_has_skill_0(tmp_path, toy):
    row = compare(tmp_path, toy, identity=identity)["identity"]
    for part in ("lattice", "position", "volume"):
        assert value(row, f"skill_{part}") == pytest.approx(0, abs=1e-12)
    assert value(row, "lattice_improved_rate") == value(row, "lattice_harmed_rate") == 0
    assert value(row, "lattice_mae") == pytest.approx(4.2 * 0.037)


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("name", ["score", "adwt", "strain_awt", "skill_lattice", "skill_position",
                                  "skill_volume", "match_rate", "lattice_improved_rate",
                                  "position_improved_rate", "validity_rate_strict",
                                  "element_preservation_rate_strict"])  # fmt: skip
def test_a_failure_never_improves_what_ranks(every_status, status, name):
    rows = every_status
    failed = value(rows[f"failing-{status}"], name)
    assert failed <= value(rows["halfway"], name) + 1e-12
    if "strict" not in name:  # an answer may be valid as text and yet be refused
        assert failed < value(rows["halfway"], name)


@pytest.fixture(scope="module")
def every_status(tmp_path_factory):
    models = {f"failing-{status}": failing(status, answer=halfway) for status in Status}
    return compare(tmp_path_factory.mktemp("runs"), Memory(), halfway=halfway, **models)


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_every_aggregate_takes_every_status(all_failed, status, metric):
    """A model whose every answer fails: bounded numbers get their worst, errors get no number."""
    found = all_failed[status].metrics[metric.name]
    if metric.reduce is Reduce.SKILL:
        assert found.point == pytest.approx(0, abs=1e-12)
    elif metric.failure is not None and metric.reduce is not Reduce.PROPORTION:
        assert (found.point, found.n) == (metric.failure, 2)
    elif metric.column.startswith("valid_"):
        # a collapsed cell climbs four rungs; what is refused as `invalid` looks perfect here
        low = {Status.OK, Status.UNCONVERGED} if metric.column in CELL_RUNGS else set()
        answered = status in ANSWERED
        unanswered = 0.0 if metric.name.endswith("_strict") else None
        assert found.point == (float(status not in low) if answered else unanswered)
    elif metric.name in COSTS:
        refused = status is Status.UNSUPPORTED and metric.unit in {"s", "1/s"}
        assert found.point == (
            None if refused and metric.name != "load_time" else COSTS[metric.name]
        )
    else:
        assert (found.point, found.low, found.n) == (None, None, 0)


CELL_RUNGS = {"valid_cell", "valid_distance"}
COSTS = {"latency_median": 0.5, "latency_p95": 0.5, "wall_time_mean": 0.5, "wall_time_median": 0.5,
         "throughput": 2.0, "n_force_evals": 10.5, "n_tokens": None, "peak_memory": 100.0,
         "load_time": 2.0}  # fmt: skip


@pytest.fixture(scope="module")
def all_failed(tmp_path_factory):
    folder, dataset = tmp_path_factory.mktemp("runs"), Memory(2)
    return {
        status: compare(folder / status, dataset, model=failing(status, every=1))["model"]
        for status in Status
    }


def test_rates_over_answers_and_over_all(tmp_path, toy):
    rows = compare(tmp_path, toy, invalid=failing(Status.OK, 4), late=failing(Status.RESOURCE, 4))
    assert value(rows["invalid"], "validity_rate") == value(rows["invalid"], "validity_rate_strict")
    assert value(rows["invalid"], "validity_rate") == 0.75
    assert value(rows["invalid"], "element_preservation_rate") == 1.0
    assert rows["invalid"].coverage == dict.fromkeys(Status, 0) | {"ok": 6, "invalid": 2}
    assert value(rows["late"], "validity_rate") == 1.0
    assert rows["late"].metrics["validity_rate"].n == 6
    assert value(rows["late"], "validity_rate_strict") == 0.75
    assert rows["late"].coverage["resource"] == 2


def test_an_ok_record_with_a_broken_structure_is_invalid(tmp_path, toy):
    row = compare(tmp_path, toy, model=failing(Status.OK))["model"]
    assert row.coverage["invalid"] == 4
    assert row.coverage["ok"] == 4
    assert value(row, "score") == pytest.approx(0.5)
    assert value(row, "lattice_mae") == pytest.approx(0, abs=1e-9)


def test_skill_is_null_where_nothing_could_be_gained(tmp_path, toy):
    still = Memory()
    still._pairs = [(final, final) for _, final in toy._pairs]
    row = compare(tmp_path, still, model=oracle)["model"]
    assert value(row, "skill_lattice") is None
    assert value(row, "lattice_improved_rate") is None
    assert "—" in markdown(board([read_run(tmp_path / "model")], [scores(
        read_run(tmp_path / "model"), still)], replicates=10))  # fmt: skip


# comparing


def test_repeats_that_differ_have_a_column(tmp_path, toy):
    def wavering(initial, final, i):
        return (oracle if i % 2 else identity)(initial, final, i)

    models = {"steady": identity, "wavering": wavering}
    runs = [read_run(write(tmp_path, name, relax, toy, 2)) for name, relax in models.items()]
    tables = [scores(run, toy) for run in runs]
    found = board(runs, tables, replicates=20)
    spreads = {row.model: row.spread for row in found.rows}
    assert spreads["steady"] == Spread(repeats=2, strain=0.0, position=0.0)
    assert spreads["wavering"].strain == pytest.approx(tables[0]["strain"].max(), rel=1e-4)
    assert spreads["wavering"].position == pytest.approx(
        tables[0]["position_error"].max(), rel=1e-4
    )
    assert "0, 0 Å (2 repeats)" in markdown(found)
    run = read_run(write(tmp_path / "once", "steady", identity, toy))
    once = board([run], [scores(run, toy)], replicates=20)
    assert once.rows[0].spread is None
    assert "Repeats differ by" not in markdown(once)


def test_a_control_is_checked_against_no_change_and_not_ranked(tmp_path, toy):
    runs = tmp_path / "runs"
    write(runs, "identity", identity, toy)
    for name, relax in {
        "still": identity, "moves": oracle, "fails": failing(Status.ERROR)
    }.items():  # fmt: skip
        write(runs, name, relax, toy, family="control")
    (found,) = score_runs([runs], [toy])
    made = found.board()
    assert [row.model for row in made.rows] == ["identity"]
    page = markdown(made)
    assert "still is a control and not ranked: its errors are those of identity as they" in page
    assert "moves is a control and not ranked: its errors are those of identity NOT as" in page
    assert "fails is a control and not ranked: its errors are those of identity NOT as" in page
    tests = trust.self_tests(found, toy.ids)
    assert [test.passed for test in tests] == [True, True, False, False, True]


def test_repeats_are_not_samples(tmp_path, toy):
    run = read_run(write(tmp_path, "m", failing(Status.ERROR), toy, repeats=2))
    (row,) = board([run], [scores(run, toy)], replicates=50).rows
    assert row.n_samples == row.metrics["score"].n == 8
    assert sum(row.coverage.values()) == 16
    assert value(row, "score") == pytest.approx(0.5)
    assert row.metrics["score"].low == pytest.approx(0.5)  # each sample fails once of twice
    assert row.metrics["lattice_mae"].n == 8


def test_models_are_compared_on_the_samples_they_share(tmp_path, toy):
    runs = [
        read_run(write(tmp_path, "all", oracle, toy)),
        read_run(write(tmp_path, "some", identity, toy, chosen=[1, 4, 5])),
        read_run(write(tmp_path, "more", halfway, toy, chosen=[1, 4, 5])),
    ]
    found = board(runs, [scores(run, toy) for run in runs])
    assert [row.n_samples for row in found.rows] == [3, 3, 3]
    assert found.dataset.n_samples == 3
    assert "run on more: all 8" in found.notes[0]
    assert value(found.rows[2], "lattice_mae") == pytest.approx(4.2 * (0.03 + 0.002 * 10 / 3))


def test_one_short_run_takes_no_sample_from_the_others(tmp_path, toy):
    runs = [
        read_run(write(tmp_path, "all", oracle, toy)),
        read_run(write(tmp_path, "half", halfway, toy)),
        read_run(write(tmp_path, "short", identity, toy, chosen=[1, 4, 5])),
    ]
    found = board(runs, [scores(run, toy) for run in runs])
    alone = board(runs[:2], [scores(run, toy) for run in runs[:2]])
    assert found.rows == alone.rows
    assert found.dataset == alone.dataset
    assert found.notes == ("Not ranked, as they were run on some of the 8 samples only: short 3.",)
    (short,) = found.apart
    assert (short.model, short.n_samples, short.rank) == ("short", 3, None)
    assert value(short, "lattice_mae") == pytest.approx(4.2 * (0.03 + 0.002 * 10 / 3))
    assert "## On other samples\n" in markdown(found)
    assert "| — | short | trivial | 0." in markdown(found)
    assert "On other samples, not ranked:" in table(found)
    disjoint = board(runs[2:], [scores(run, toy) for run in runs[2:]])
    assert [row.model for row in disjoint.rows] == ["short"]


def test_rows_of_two_machines_say_so(tmp_path, toy):
    first = read_run(write(tmp_path, "first", oracle, toy))
    second = read_run(write(tmp_path, "second", halfway, toy, device="cuda (NVIDIA H200)"))
    found = board([first, second], [scores(run, toy) for run in (first, second)])
    assert "| 0.5 ¹ |" in markdown(found)
    assert "| 0.5 ² |" in markdown(found)
    note = "¹ a cpu, device cpu, 1 thread; ² a cpu, device cuda (NVIDIA H200), 1 thread."
    assert note in markdown(found)
    assert note in table(found)
    one = board([first], [scores(first, toy)])
    assert "¹" not in markdown(one)
    assert "measured on one machine: a cpu, device cpu, 1 thread.\n" in markdown(one)
    assert one.rows[0].hardware[0].cpu == "a cpu"


def test_a_run_that_ended_early_is_named_and_not_ranked(tmp_path, toy):
    write(tmp_path, "bad", oracle, toy, chosen=[0], aborted="10 errors in a row")
    write(tmp_path, "none", oracle, toy, chosen=[], aborted="cannot load")
    write(tmp_path, "good", oracle, toy)
    (found,) = make_boards([tmp_path], [toy])
    assert [row.model for row in found.rows] == ["good"]
    assert found.rows[0].n_samples == 8
    assert found.notes == (
        "Not ranked: bad, whose run ended early (10 errors in a row).",
        "Not ranked: none, whose run ended early (cannot load).",
    )
    (nothing,) = make_boards([tmp_path / "bad", tmp_path / "none"], [toy])
    assert json.loads(nothing.to_json())["rows"] == []
    assert "bad" in markdown(nothing)
    assert "cannot load" in table(nothing)
    assert to_csv(nothing).count("\n") == 1


def test_a_run_without_any_record_says_so(tmp_path, toy):
    (part,) = write(tmp_path, "empty", oracle, toy, chosen=[0]).rglob("part-*.parquet")
    part.unlink()
    with pytest.raises(UserError, match="holds neither records nor"):
        make_boards([tmp_path], [toy])


def test_ranks_and_ties(tmp_path, toy):
    rows = compare(tmp_path, toy, oracle=oracle, twin=oracle, halfway=halfway, identity=identity)
    places = {name: (row.rank, row.rank_low, row.rank_high) for name, row in rows.items()}
    assert places["oracle"] == places["twin"] == (1, 1, 1)
    assert places["halfway"] == (3, 3, 3)
    assert places["identity"] == (4, 4, 4)
    assert list(rows) == ["oracle", "twin", "halfway", "identity"]
    runs = [read_run(tmp_path / name) for name in rows]
    assert board(runs, [scores(run, toy) for run in runs]).ties == (("oracle", "twin"),)


def test_one_composition_gives_no_interval(tmp_path):
    rows = compare(tmp_path, Memory(2), oracle=oracle, identity=identity)
    assert rows["oracle"].metrics["strain"].low is None
    assert (rows["oracle"].rank, rows["oracle"].rank_low, rows["oracle"].rank_high) == (1, 1, 2)
    runs = [read_run(tmp_path / name) for name in rows]
    text = markdown(board(runs, [scores(run, Memory(2)) for run in runs]))
    assert "nan" not in text
    assert "| identity | +0.130 |  |" in text, "the difference in lattice_mae"


def test_times(tmp_path, toy):
    row = compare(tmp_path, toy, model=oracle)["model"]
    for name in ("latency_median", "latency_p95", "wall_time_mean", "wall_time_median"):
        assert value(row, name) == 0.5
    assert value(row, "throughput") == 2.0
    assert value(row, "n_force_evals") == 13.5
    assert (value(row, "load_time"), value(row, "peak_memory")) == (2.0, 100.0)


def test_refusing_a_structure_does_not_make_a_model_fast(tmp_path, toy):
    row = compare(tmp_path, toy, model=failing(Status.UNSUPPORTED))["model"]
    assert row.metrics["wall_time_median"].n == 4
    assert row.metrics["latency_median"].n == 4
    hung = compare(tmp_path, toy, hung=failing(Status.RESOURCE))["hung"]
    assert hung.metrics["wall_time_median"].n == 8


@pytest.mark.parametrize(
    ("training_data", "clean"),
    [([], 8), (["MPtrj (Materials Project)"], 5), (["OMat24"], 3), (["not stated"], 0)],
)
def test_the_clean_part_is_what_the_model_cannot_have_seen(tmp_path, toy, training_data, clean):
    folder = write(tmp_path, "halfway", failing(Status.ERROR), toy, training_data=training_data)
    run = read_run(folder)
    scored = scores(run, toy).assign(source=["mp"] * 3 + ["agm"] * 5)
    found = board([run], [scored], replicates=50)
    part, whole = (found.rows[0].metrics[name] for name in ("score_clean", "score"))
    failed = {8: 4, 5: 2, 3: 2}
    assert part.n == clean
    assert part.point == (pytest.approx(1 - failed[clean] / clean, abs=1e-6) if clean else None)
    assert (part == whole) == (clean == 8)
    assert (f"  {part.point:.3f} ({clean})  " if clean else "  —  ") in table(found)


def test_the_functional_of_a_model_is_told_where_its_run_knows_it(tmp_path, toy):
    about = {"training_data": ["MatPES"], "functional": "r2SCAN"}
    new = write(tmp_path, "new", failing(Status.ERROR), toy, **about)
    old = write(tmp_path, "old", failing(Status.ERROR), toy)
    runs = [read_run(new), read_run(old)]
    found = board(runs, [scores(run, toy) for run in runs], replicates=50)
    assert "| new | NEW | MatPES | r2SCAN | — | — |\n" in markdown(found)
    assert "| old | OLD | nothing | — | none | — |\n" in markdown(found)
    told = {row["model"]: row.get("functional") for row in json.loads(found.to_json())["rows"]}
    assert told == {"new": "r2SCAN", "old": None}


def test_slices_show_where_a_model_fails():
    about = {
        "sample_id": list("abcd"), "group": list("abcd"), "functional": ["pbe"] * 4,
        "source": ["mp", "mp", "oqmd", "oqmd"], "crystal_system": ["cubic"] * 3 + ["trigonal"],
        "n_sites": [1.0, 2.0, 3.0, 70.0], "identity_volume_error": [0.5] * 4,
    }  # fmt: skip
    good = pd.DataFrame(about | {"score": [1.0, 0.5, 0.5, 0.5]})
    fails = pd.DataFrame(about | {"score": [1.0, 0.5, np.nan, 0.0]})
    runs = [
        SimpleNamespace(name="good", provenance={"training_data": ["MPtrj (Materials Project)"]}),
        SimpleNamespace(name="fails", provenance={"training_data": []}),
    ]
    tables, by_training = slices(runs, [good, fails], list("abcd"))
    found = {
        each.title: {part.label: (part.n, [written(x) for x in part.scores.values()])
                     for part in each.slices} for each in tables
    }  # fmt: skip
    titles = ["Source", "Sites (more than, up to)", "Crystal system of the start"]
    assert list(found) == titles, "all are of one functional, and of one change of volume"
    assert found["Source"] == {
        "mp": (2, ["0.750 [0.500, 1.000]", "0.750 [0.500, 1.000]"]),
        "oqmd": (2, ["0.500 [0.500, 0.500]", "0.000 [0.000, 0.000]"]),
    }
    assert list(found["Sites (more than, up to)"]) == ["0 to 2", "2 to 4", "over 64"]
    assert found["Crystal system of the start"]["trigonal"] == (1, ["0.500", "0.000"])
    assert [
        (line.model, line.contained.n, written(line.contained), line.not_contained.n,
         written(line.not_contained)) for line in by_training
    ] == [
        ("good", 2, "0.750 [0.500, 1.000]", 2, "0.500 [0.500, 0.500]"),
        ("fails", 0, "—", 4, "0.375 [0.000, 0.750]"),
    ]  # fmt: skip


def written(estimate):
    return format_estimate(estimate, 3)


def errors(values, scored=(1, 1, 1, 1)):
    """A table of scores in which every error of sample k is `values[k]`."""
    column = np.where(np.array(scored) == 1, values, np.nan)
    names = ("score", "lattice_error", "volume_error", "strain", "position_error")
    return pd.DataFrame(
        {"sample_id": list("abcd"), "scored": scored} | dict.fromkeys(names, column)
    )


def test_differences_are_paired_and_not_read_from_two_intervals():
    spread = np.array([0.0, 1.0, 2.0, 3.0])
    tables = [errors(spread), errors(spread + 0.25), errors(spread, scored=(1, 1, 1, 0))]
    resampling = Resampling.of(list("abcd"), 500, np.random.default_rng(0))
    models = ["base", "off", "fails"]
    found = differences(models, ["base"], tables, list("abcd"), resampling)
    cells = {each.metric: each.cells for each in found}
    assert cells["lattice_mae"]["base"] == {}
    off = cells["lattice_mae"]["off"]["base"]
    assert (off.point, off.low, off.high, off.n) == (0.25, 0.25, 0.25, 4), "each spreads over 3"
    fails = cells["lattice_mae"]["fails"]["base"]
    assert (fails.point, fails.low, fails.high, fails.n) == (0.0, 0.0, 0.0, 3)
    score = cells["score"]["fails"]["base"]
    assert (score.point, score.n) == (-0.75, 4), "a failure earns 0, over all samples"


def test_a_difference_is_bold_where_its_interval_excludes_0(tmp_path, toy):
    models = {"oracle": oracle, "halfway": halfway, "fails": failing(Status.ERROR, 2, halfway)}
    runs = [read_run(write(tmp_path, name, relax, toy)) for name, relax in models.items()]
    text = markdown(board(runs, [scores(run, toy) for run in runs]))
    lattice = text.split("| lattice_mae (Å) | − oracle |")[1].split("\n\n")[0]
    assert "| oracle |  | **-0.078 [" in lattice
    assert "| fails | **+0.080 [" in lattice
    assert "]**, n = 4 |" in lattice


@pytest.mark.parametrize(
    ("cell", "system"),
    [((4, 4, 4), "cubic"), ((4, 4, 5), "tetragonal"), ((4, 5, 6), "orthorhombic")],
)
def test_crystal_system(cell, system):
    geometry = Geometry(np.diag(cell).astype(float), np.zeros((1, 3)), np.array([29], np.int16))
    assert crystal_system(geometry) == system


# bootstrap


def test_wilson_literal():
    assert wilson(0.9, 10) == pytest.approx((0.5958, 0.9821), abs=1e-4)
    assert wilson(1.0, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)
    assert wilson(0.0, 53) == pytest.approx((0.0, 0.0676), abs=1e-4)


def test_ranks_share_the_better_place():
    assert ranks(np.array([[0.5, 0.9, 0.5, 0.1]])).tolist() == [[2, 1, 2, 4]]


def test_the_bootstrap_draws_groups_and_not_samples():
    values = np.repeat([0.0, 1.0], 500)[:, None]
    ones = np.ones_like(values)
    two = Resampling.of(["a"] * 500 + ["b"] * 500, 2000, np.random.default_rng(0))
    many = Resampling.of([str(i) for i in range(1000)], 2000, np.random.default_rng(0))
    spread = [estimates([Reduce.MEAN], values, ones, r)[1:, 0].std() for r in (two, many)]
    assert spread[0] == pytest.approx(0.3536, abs=0.01)  # 0, ½, 1 with ¼, ½, ¼
    assert spread[1] == pytest.approx(0.0158, abs=0.001)  # ½ / √1000


def test_point_estimates_by_hand():
    x = np.array([1.0, 2.0, 9.0, np.nan])
    w = np.array([1.0, 1.0, 2.0, 1.0])
    resampling = Resampling.of(list("abcd"), 10, np.random.default_rng(0))
    reduces = [Reduce.MEAN, Reduce.ROOT_MEAN, Reduce.INVERSE_MEAN, Reduce.SKILL, Reduce.MEDIAN]
    values, weights = np.tile(x[:, None], 5), np.tile(w[:, None], 5)
    found = estimates(reduces, values, weights, resampling)[0]
    assert found == pytest.approx([5.25, 5.25**0.5, 1 / 5.25, 1 - 12 / 4, 2.0])


def test_a_difference_the_other_way_round_has_no_negative_zero():
    turned = -Estimate(point=0.0, low=-1.0, high=0.0, n=3)
    assert [str(x) for x in (turned.point, turned.low, turned.high)] == ["0.0", "0.0", "1.0"]


def test_weighted_quantiles_equal_those_of_repeated_values():
    rng = np.random.default_rng(1)
    few, many = (list("abcdefghi"), 20), ([str(i % 70) for i in range(2000)], 50)
    for (groups, replicates), share in product((few, many), (0.5, 0.95)):
        values = np.round(rng.random(len(groups)), 2)
        if len(groups) > 9:  # near-copies: replicates lie far apart
            values = np.array(groups, dtype=float)
        resampling = Resampling.of(groups, replicates, rng)
        found = resampling.quantile(values, share)
        for weights, quantile in zip(resampling.weights, found, strict=True):
            repeated = np.repeat(values, weights[resampling.membership])
            expected = np.quantile(repeated, share, method="averaged_inverted_cdf")
            assert quantile == pytest.approx(expected)


# scores beside the run


@pytest.mark.parametrize("answers", [failing(Status.ERROR), failing(Status.OK), oracle])
def test_scores_are_computed_once(tmp_path, toy, monkeypatch, answers):
    run = read_run(write(tmp_path, "m", answers, toy, repeats=2))
    first = scores(run, toy)
    assert (run.folder / FILE).exists()
    monkeypatch.setattr("leaderboard.board.scores.score_slow", None)
    assert scores(run, toy).equals(first)
    stored = pq.read_table(run.folder / FILE)
    doubled = pc.multiply(stored["strain"], 2)
    stored = stored.set_column(stored.column_names.index("strain"), "strain", doubled)
    pq.write_table(stored, run.folder / FILE)
    kept = first["scored"] == 1
    assert scores(run, toy, store=False)["strain"][kept].equals(2 * first["strain"][kept])


def test_stored_scores_of_the_same_records_and_data_are_taken_as_they_are(
    tmp_path, toy, monkeypatch
):
    folder = write(tmp_path, "m", halfway, toy)
    first = scores(read_run(folder), toy)
    computed = []
    monkeypatch.setattr(
        "leaderboard.board.scores.score",
        lambda initial, reference, prediction, status: (
            computed.append(status) or score(initial, reference, prediction, status)
        ),
    )
    assert scores(read_run(folder), Memory()).equals(first)
    assert not computed
    other = Memory(seed=1)
    other.revision = toy.revision
    assert not scores(read_run(folder), other, store=False).equals(first)
    assert len(computed) == len(other)
    write(tmp_path / "again", "m", oracle, toy)
    (folder / FILE).rename(tmp_path / "again" / "m" / FILE)
    found = scores(read_run(tmp_path / "again" / "m"), toy)
    assert found["score"].tolist() == [1.0] * len(toy)


def test_a_new_column_is_computed_for_stored_scores_too(tmp_path, toy, monkeypatch):
    run = read_run(write(tmp_path, "m", oracle, toy))
    first = scores(run, toy)
    path = run.folder / FILE
    pq.write_table(pq.read_table(path).drop_columns(["strain"]), path)
    monkeypatch.setattr("leaderboard.board.scores.score_slow", None)
    assert scores(run, toy).equals(first)


def test_cheap_scores_of_an_archive_are_not_taken_on_trust(tmp_path, toy, monkeypatch):
    write(tmp_path / "runs", "m", halfway, toy)
    initial = {each: toy.geometries(i)[0] for i, each in enumerate(toy.ids)}
    folder = tmp_path / "archive"
    folder.mkdir()
    (kept,) = score_runs([tmp_path / "runs"], [toy])
    write_archive(folder, kept.runs, initial)
    (first,) = score_runs([folder], [toy])
    monkeypatch.setattr("leaderboard.board.scores.score_slow", None)
    stored = pq.read_table(folder / FILE)
    doubled = pc.multiply(stored["strain"], 2)
    pq.write_table(
        stored.set_column(stored.column_names.index("strain"), "strain", doubled), folder / FILE
    )
    (again,) = score_runs([folder], [toy], store=False)
    assert again.tables[0]["strain"].tolist() == first.tables[0]["strain"].tolist()


@pytest.mark.parametrize("version", ["evaluator", "pymatgen", "moyopy"])
def test_slow_scores_of_another_version_are_computed_again(tmp_path, toy, monkeypatch, version):
    run = read_run(write(tmp_path, "m", oracle, toy))
    scores(run, toy)
    versions = {"evaluator": "1", "pymatgen": "1", "moyopy": "1"} | {version: "other"}
    monkeypatch.setattr("leaderboard.board.scores._versions", lambda: versions)
    monkeypatch.setattr("leaderboard.board.scores.score_slow", None)
    with pytest.raises(TypeError):
        scores(run, toy)


def damaged_scores(table, damage):
    """The stored scores with a fault, as bytes."""
    if damage == "truncated":
        return table.read_bytes()[:500]
    if damage == "empty":
        return b""
    if damage == "flipped":
        data = bytearray(table.read_bytes())
        data[60] ^= 0xFF
        return bytes(data)
    arrow = pq.read_table(table)
    if damage == "another type":
        at = arrow.column_names.index("lattice_error")
        arrow = arrow.set_column(at, "lattice_error", pa.array(["x"] * len(arrow)))
    else:
        arrow = arrow.drop_columns([damage])
    pq.write_table(arrow, table)
    return table.read_bytes()


@pytest.mark.parametrize(
    "damage", ["truncated", "empty", "flipped", "another type", "scored", "group", "structures"]
)
def test_damaged_scores_are_computed_again_where_the_data_are_there(tmp_path, toy, damage):
    run = read_run(write(tmp_path, "m", oracle, toy))
    first, path = scores(run, toy), run.folder / FILE
    path.write_bytes(damaged_scores(path, damage))
    if damage != "structures":  # which nobody needs who has no data
        with pytest.raises(UserError, match=r"is damaged .*: delete it and score the run again"):
            scores(run)
    assert scores(run, toy).equals(first)
    assert scores(run).equals(first)


def test_a_crystal_system_that_is_not_stored_is_unknown(tmp_path, toy):
    run = read_run(write(tmp_path, "m", oracle, toy))
    scores(run, toy)
    arrow = pq.read_table(run.folder / FILE)
    at = arrow.column_names.index("crystal_system")
    nulls = pa.array([None] * len(arrow), pa.string())
    arrow = arrow.set_column(at, "crystal_system", nulls)
    pq.write_table(arrow, run.folder / FILE)
    assert set(scores(run)["crystal_system"]) == {"unknown"}


def test_a_run_on_a_full_disk_is_scored_without_a_cache(tmp_path, toy, monkeypatch):
    @contextmanager
    def full(path):
        raise UserError(f"{path}: cannot be written (No space left on device)")
        yield

    run = read_run(write(tmp_path, "m", oracle, toy))
    monkeypatch.setattr("leaderboard.board.scores.atomic_write", full)
    assert len(scores(run, toy)) == len(toy)
    assert not (run.folder / FILE).exists()


def test_a_smaller_limit_does_not_shrink_the_stored_scores(tmp_path, toy):
    run = read_run(write(tmp_path, "m", oracle, toy))
    scores(run, toy)
    before = (run.folder / FILE).read_bytes()
    small = Memory()
    small.ids = small.ids[:3]
    assert len(scores(run, small)) == 3
    assert (run.folder / FILE).read_bytes() == before
    small.ids = ("another",)
    with pytest.raises(UserError, match="wrong --data"):
        scores(run, small)


def test_stored_scores_are_read_where_structures_may_not_be_kept(tmp_path, toy):
    run = read_run(write(tmp_path / "full", "m", oracle, toy))
    with pytest.raises(UserError, match="does not exist: name the data with --data"):
        scores(run)
    first = scores(run, toy)
    assert scores(run).equals(first)
    for path in (*run.folder.rglob("run.json"), run.folder / FILE):
        kept = tmp_path / "bare" / "m" / path.relative_to(run.folder)
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(path.read_bytes())
    full = make_boards([tmp_path / "full"], [toy])[0].to_json()
    assert make_boards([tmp_path / "bare"])[0].to_json() == full
    files = write_archive_of([tmp_path / "full"], tmp_path / "archive", [toy])
    assert [path.name for path in files] == ["predictions.parquet", "runs.json", FILE]
    assert make_boards([tmp_path / "archive"])[0].to_json() == full


@pytest.fixture
def listed(tmp_path, toy):
    """Two published boards of one archive; the second is a part of it."""
    for name, relax in {"identity": identity, "oracle": oracle}.items():
        write(tmp_path / "full", name, relax, toy)
    write_archive_of([tmp_path / "full"], tmp_path / "boards/runs/toys", [toy])
    path = tmp_path / "boards" / "boards.toml"
    path.write_text(
        '[[board]]\nname = "all"\narchive = "toys"\n'
        '[[board]]\nname = "part"\narchive = "toys"\ndataset = "toy (pbe, unseen)"\n'
        'functional = "pbe"\nwithout_compositions = ["ClNa"]\n'
    )
    return path


def test_a_published_board_may_be_a_part_of_an_archive(tmp_path, toy, listed):
    texts, made, _ = published_documents(listed=listed)
    whole, part = (each for _, each in made)
    assert (whole.name, whole.dataset.n_samples) == ("toy/test", 8)
    assert (part.name, part.dataset.n_samples) == ("toy (pbe, unseen)/test", 6)
    assert part.dataset.ids_sha256 == ids_sha256(toy.ids[2:])
    assert {path.relative_to(tmp_path / "boards" / "boards") for path in texts} == {
        Path("all/board.json"), Path("all/board.md"), Path("part/board.json"), Path("part/board.md")
    }  # fmt: skip
    study = tmp_path / "boards/boards/all/invariance.csv"
    study.parent.mkdir(parents=True)
    study.write_text(
        "model,weights_sha256,dataset,split,structures,writing,n,status_changed,strain,strain_low,"
        "strain_high,displacement,displacement_low,displacement_high\n"
        "oracle,,toy,test,8,mean,8,0,0.02,0.01,0.03,0.1,0.05,0.2\n"
    )
    pages = published_documents(listed=listed).texts
    shown = {path.parent.name: "| 0.02, 0.1 Å |" in text for path, text in pages.items()
             if path.name == "board.md"}  # fmt: skip
    assert shown == {"all": True, "part": False}
    listed.write_text(listed.read_text().replace('"pbe"', '"pbesol"'))
    with pytest.raises(UserError, match=r"'identity' has no sample of the board 'part'"):
        published_documents(listed=listed)


def test_a_changed_score_of_an_archive_is_named_and_written_again(tmp_path, toy, listed):
    path = tmp_path / "boards/runs/toys/scores.parquet"
    table = pq.read_table(path)
    values = table["a_error"].to_pylist()
    row = table["model"].to_pylist().index("identity")
    sample, right = table["sample_id"][row].as_py(), values[row]
    values[row] += 0.01
    column = table.schema.get_field_index("a_error")
    pq.write_table(table.set_column(column, "a_error", pa.array(values)), path)
    where = f"{path}: identity, {sample}: a_error"
    line = f"{where}: {values[row]:.6g} in the file, the records give {right:.6g}"
    assert published_documents([toy], store=False, listed=listed).stale == [line]
    published_documents([toy], listed=listed)
    assert published_documents([toy], store=False, listed=listed).stale == []
    assert pq.read_table(path)["a_error"][row].as_py() == right


def test_an_archive_gives_a_new_metric_where_the_data_are_named(tmp_path, toy, listed, monkeypatch):
    """Its stored scores lack a column: without the data the metric is unknown, with them known."""
    folder = tmp_path / "boards/runs/toys"
    stored = pq.read_table(folder / FILE)
    pq.write_table(stored.drop_columns(["strain", "rmsd"]), folder / FILE)
    (old,) = make_boards([folder])
    assert [value(row, "strain") for row in old.rows] == [None, None]
    assert value(old.rows[0], "lattice_mae") == 0.0
    (note,) = old.notes
    assert note == (
        "Unknown, as the stored scores of identity, oracle are older: strain, rmsd_normalized; "
        "to compute, name toy with --data."
    )
    table = stored.to_pandas()
    table.loc[table["model"] == "oracle", "strain"] = np.nan
    partly = pa.Table.from_pandas(table, preserve_index=False)
    pq.write_table(partly.replace_schema_metadata(stored.schema.metadata), folder / FILE)
    (note,) = make_boards([folder])[0].notes
    assert note.startswith("Unknown, as the stored scores of oracle are older: strain;")
    changes = pq.read_table(folder / "predictions.parquet")
    kept = changes.filter(pc.not_equal(changes["model"], "oracle"))
    pq.write_table(kept, folder / "predictions.parquet")
    (note,) = make_boards([folder])[0].notes
    assert note.endswith("; to compute, run oracle again (no predictions are stored).")
    pq.write_table(changes, folder / "predictions.parquet")
    (new,) = make_boards([folder], [toy])
    assert new.notes == ()
    assert value(new.rows[1], "strain") == pytest.approx(0.0633, abs=1e-3)
    assert make_boards([folder])[0] == new, "the scores are kept beside the archive"
    monkeypatch.setattr("leaderboard.board.scores.EVALUATOR", "2")
    with pytest.raises(UserError, match="has evaluator 1 instead of 2: name the data with --data"):
        make_boards([folder])
    assert make_boards([folder], [toy])[0].rows == new.rows


def test_stored_scores_must_be_of_this_run_and_evaluator(tmp_path, toy, monkeypatch):
    run = read_run(write(tmp_path, "m", oracle, toy, chosen=[0, 1]))
    scores(run, toy)
    monkeypatch.setattr("leaderboard.board.scores.EVALUATOR", "2")
    with pytest.raises(UserError, match="has evaluator 1 instead of 2: name the data with --data"):
        scores(run)
    monkeypatch.undo()
    grown = read_run(write(tmp_path, "m", oracle, toy, chosen=[2]))
    with pytest.raises(UserError, match="not of the records beside it"):
        scores(grown)
    (tmp_path / "m" / FILE).write_bytes(b"PAR1 torn")
    with pytest.raises(UserError, match="is damaged"):
        scores(run)


def test_reduced_compositions():
    assert reduced_composition([38, 22, 8, 8, 8]) == "O3SrTi"
    assert reduced_composition([11, 17, 11, 17]) == "ClNa"
    assert reduced_composition([6, 6]) == "C"


# rendering and files


@pytest.fixture
def runs(tmp_path, toy):
    for name, relax in {"identity": identity, "half|way": halfway, "oracle": oracle}.items():
        write(tmp_path / "runs", name, relax, toy)
    return tmp_path / "runs"


def test_rendering_twice_is_byte_identical(tmp_path, toy, runs):
    contents = []
    for out in (tmp_path / "one", tmp_path / "two"):
        files = publish([runs], out, [toy], csv=True, figures=True).files
        names = ["board.json", "board.md", "board.csv", "leaderboard.svg"]
        assert [path.name for path in files] == names
        contents.append([path.read_bytes() for path in files])
    assert contents[0] == contents[1]
    assert [path.name for path in publish([runs], out, [toy]).files] == ["board.json", "board.md"]


def test_a_board_is_read_back_as_it_was(tmp_path, toy, runs):
    write(tmp_path / "runs", "short", oracle, toy, chosen=[0, 1])
    (made,) = make_boards([runs], [toy])
    assert made.apart
    text = made.to_json()
    read = Board.from_json(text)
    assert read == made
    assert read.to_json() == text
    assert markdown(read) == markdown(made)
    for wrong in (text[:-9], text.replace('"rank": 1', '"rank": "first"'), "[]"):
        with pytest.raises(UserError, match=r"x\.json is not a board of this version"):
            Board.from_json(wrong, "x.json")


def test_every_rendering_names_data_set_split_and_n(toy, runs):
    (found,) = make_boards([runs], [toy])
    assert table(found).startswith("Leaderboard: toy, split test, 8 samples\n")
    assert markdown(found).startswith("# Leaderboard: toy, split test, 8 samples\n")
    assert to_csv(found).splitlines()[1].startswith("toy/test,oracle,ORACLE,trivial,1,1,1,8,8,0,")
    assert "half\\|way" in markdown(found)
    assert "does not see the cell" in markdown(found)
    assert "| oracle | ORACLE | nothing | — | none | — |\n" in markdown(found)
    assert "\n| metric_tensor_mae (Å²) ↓ | 0 |" in markdown(found)


def test_models_of_other_training_data_stand_in_tables_of_their_own(tmp_path, toy):
    data = {
        "text": ["substitution/train", "embedded/train"],
        "graph": ["substitution/train", "embedded/train"],
        "frames": ["embedded/train"],
        "published": ["MPtrj (Materials Project)"],
    }
    folders = [write(tmp_path, name, halfway, toy, training_data=x) for name, x in data.items()]
    for folder in folders:
        _change_identity(folder, family="gnn")
    folders.append(write(tmp_path, "identity", identity, toy))
    (made,) = make_boards(folders, [toy])
    tracks = markdown(made).split("\n## Tracks\n")[1].split("\n## ")[0]
    _, *parts = tracks.split("\n### ")
    found = {
        part.splitlines()[0]: [x.split(" | ")[1] for x in part.splitlines()[4:] if x]
        for part in parts
    }
    assert found == {
        "Equal data: embedded/train": ["frames", "identity"],
        "Equal data: embedded/train, substitution/train": ["graph", "text", "identity"],
        "Foundation": ["published", "identity"],
    }


def test_errors_below_that_of_the_references_say_nothing(tmp_path):
    measured = tmp_path / "convergence.json"
    rows = [
        {"lengths": x, "volume": v, "reason": ""} for x, v in ((0.01, -1), (0.02, 2), (0.06, 3))
    ]
    rows.append({"lengths": None, "volume": None, "reason": "time"})
    measured.write_text(json.dumps(rows))
    text = reference_uncertainty("embedded-v2", measured)
    assert "references of 3 prototype crystals" in text
    assert "0.020 Å in the largest of a, b, c (median; mean 0.030, largest 0.060)" in text
    assert "2.00 % in volume (mean 2.00, largest 3.00)" in text
    assert reference_uncertainty("substitution/test", measured) is None
    assert reference_uncertainty("embedded-v1/test+mine/own", measured) is None
    assert reference_uncertainty("embedded-v1", tmp_path / "absent") is None


def _change_identity(folder, **fields):
    (path,) = folder.rglob("run.json")
    header = json.loads(path.read_text())
    header["identity"] |= fields
    path.write_text(json.dumps(header))


def test_json_has_every_metric_of_every_row(toy, runs):
    content = json.loads(make_boards([runs], [toy])[0].to_json())
    assert [row["model"] for row in content["rows"]] == ["oracle", "half|way", "identity"]
    for row in content["rows"]:
        assert row["metrics"].keys() == METRICS.keys()
        assert row["coverage"] == dict.fromkeys(Status, 0) | {"ok": 8}
    strain = {"point": 0.0, "low": 0.0, "high": 0.0, "n": 8}
    assert content["rows"][0]["metrics"]["strain"] == strain
    assert content["metrics"]["lattice_mae"]["unit"] == "Å"
    assert content["metrics"]["lattice_mae"]["higher_is_better"] is False
    assert content["packages"] == {"numpy": "2"}


def test_a_row_says_what_the_training_cost(tmp_path, toy):
    """Of packaged weights as their card says, of others as the run recorded it, or nothing."""
    own = {"training_data": ["my own"]}
    recorded = [{"hours": 1.5, "device": "NVIDIA A100", "source": "measured"}, None]
    folders = [
        write(tmp_path, "mine", halfway, toy, training_cost=recorded, **own),
        write(tmp_path, "older", halfway, toy, **own),
        write(tmp_path, "gbr", halfway, toy, training_cost=[None], **own),
        write(tmp_path, "identity", identity, toy),
    ]
    card = find_weights(MODELS["gbr"], offline=True)
    _change_identity(folders[2], **weights_identity(card))
    (made,) = make_boards(folders, [toy])
    found = {row.model: [x and x.hours for x in row.training_cost] for row in made.rows}
    assert found == {"mine": [1.5, None], "older": [None], "gbr": [0.0469], "identity": []}
    lines = {line.split(" | ")[1]: line for line in markdown(made).splitlines()[4:8]}
    ends = {model: line.split(" | ")[-1] for model, line in lines.items()}
    assert ends == {
        "mine": "90 min A100 + — |",
        "older": "— |",
        "gbr": "3 min CPU |",
        "identity": "none |",
    }
    assert "| 90 min NVIDIA A100 (measured) + — |" in markdown(made)


def test_data_sets_never_share_a_table(tmp_path, toy, runs):
    other = Memory()
    other.name, other.split = "substitution/test", None
    write(tmp_path / "others", "identity", identity, other)
    files = publish([runs, tmp_path / "others"], tmp_path / "out", [toy, other]).files
    where = {path.parent.name for path in files}
    assert where == {"toy-test", "substitution-test"}
    text = (tmp_path / "out/substitution-test/board.md").read_text(encoding="utf-8")
    assert "not trajectories" in text
    assert "oracle" not in text


def test_check_names_the_cells_that_differ_and_writes_nothing(tmp_path, toy, runs, capsys):
    out = tmp_path / "out"
    publish([runs], out, [toy])
    arguments = [str(runs), "--out", str(out), "--check"]
    assert main(arguments) == 0
    text = (out / "board.json").read_text(encoding="utf-8")
    content = json.loads(text)
    content["rows"][0]["metrics"]["strain"]["point"] = 0.5
    cell = "rows.oracle.metrics.strain.point"
    (out / "board.json").write_text(json.dumps(content), encoding="utf-8")
    (out / "board.md").unlink()
    assert main(arguments) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"{out / 'board.json'}: {cell}: 0.5 in the file, the runs give 0.0",
        f"{out / 'board.md'} is missing",
    ]
    assert not (out / "board.md").exists()


def test_a_readme_has_the_tables_of_the_published_boards(tmp_path, toy, listed):
    readme = tmp_path / "README.md"
    title = "toy (pbe, unseen), split test, 6 samples"
    markers = ["<!-- leaderboard:toy/test -->", f"<!-- table:{title} -->"]
    old = "".join(f"Before\n{marker}\nold\n<!-- /leaderboard -->\nAfter\n" for marker in markers)
    readme.write_text(old)
    texts = published_documents(listed=listed).texts
    first = differing({readme: texts[readme]})[0]
    assert first == f'{readme}:3: "old" in the file, the runs give "### toy, split test, 8 samples"'
    readme.write_text(texts[readme].replace("| 8/8 |", "| 7/8 |", 1))
    rank, name = re.search(r"^\| (.+?) \| (.+?) \|.* 8/8 ", texts[readme], re.MULTILINE).groups()
    line = next(n for n, text in enumerate(readme.read_text().splitlines(), 1) if "7/8" in text)
    cell = f"{readme}:{line}: {rank} {name}: Scored: 7/8 in the file, the runs give 8/8"
    assert differing({readme: texts[readme]}) == [cell]
    whole, part = (
        each.split("<!-- /leaderboard -->")[0] for each in texts[readme].split("Before\n")[1:]
    )
    assert texts[readme].count("\n<!-- /leaderboard -->\nAfter\n") == 2
    assert whole.startswith(f"{markers[0]}\n### toy, split test, 8 samples\n\n| Rank |")
    assert "| Model | Name | Trained on |" in whole
    assert part.startswith(f"{markers[1]}\n#### {title}\n\n| Rank |")
    assert "| oracle |" in part
    assert "Trained on" not in part
    readme.write_text(f"Before\n{markers[0]}\nold\n")
    with pytest.raises(UserError, match="no <!-- /leaderboard --> after <!-- leaderboard:toy"):
        published_documents(listed=listed)


def test_mistakes_are_one_line_and_exit_2(tmp_path, toy, runs, capsys):
    publish([runs], tmp_path / "out", [toy])
    assert main([str(tmp_path / "nowhere"), "--out", str(tmp_path)]) == 2
    (runs / "oracle" / FILE).unlink()
    assert main([str(runs), "--out", str(tmp_path)]) == 2
    assert main([str(runs), "--archive", str(tmp_path / "a")]) == 2
    assert main([str(runs), "--published"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert "name the data with --data" in lines[1]
    assert "name toy with --data" in lines[2]
    assert "not both" in lines[3]


# what others measure, and what is published


def published(name="embedded-v1-test"):
    folder = PUBLISHED.parent / "boards" / name
    return Board.from_json((folder / "board.json").read_text(encoding="utf-8"))


def changed(board, model, name, by):
    """The board with one number of one model changed."""

    def row_of(row):
        if row.model != model:
            return row
        found = row.metrics[name]
        return replace(row, metrics=row.metrics | {name: replace(found, point=found.point + by)})

    return replace(board, rows=tuple(row_of(row) for row in board.rows))


def test_rows_of_another_machine_may_differ_by_the_tolerance_of_their_unit():
    stored = published()
    assert departures(stored, stored) == []
    for name, by in (("lattice_mae", 0.0019), ("score", 0.0049), ("wall_time_median", 9.0)):
        assert departures(changed(stored, "gbr", name, by), stored) == []
    point = next(row for row in stored.rows if row.model == "gbr").metrics["lattice_mae"].point
    (line,) = departures(changed(stored, "gbr", "lattice_mae", 0.0021), stored)
    assert line == f"gbr: lattice_mae {point + 0.0021}, stored {point}, may differ by 0.002"
    other = replace(stored, dataset=replace(stored.dataset, revision="sha256:0"))
    with pytest.raises(UserError, match="of different data: revision"):
        departures(other, stored)


def test_against_ends_with_1_and_names_the_number(tmp_path, monkeypatch, capsys):
    stored = published()
    monkeypatch.setattr("leaderboard.__main__.make_boards", lambda *_, **__: [stored])
    file = tmp_path / "board.json"
    file.write_text(stored.to_json(), encoding="utf-8")
    assert main(["runs", "--against", str(file)]) == 0
    file.write_text(changed(stored, "t5", "score", 0.01).to_json(), encoding="utf-8")
    assert main(["runs", "--against", str(file)]) == 1
    assert capsys.readouterr().out.startswith("t5: score 0.")
    file.unlink()
    assert main(["runs", "--against", str(file)]) == 2
    assert "board.json: cannot be read (FileNotFoundError)" in capsys.readouterr().err


@pytest.mark.parametrize("name", [entry.name for entry in read_entries()])
def test_published_numbers_are_numbers(name):
    def refuse(constant):
        raise AssertionError(constant)

    folder = PUBLISHED.parent / "boards" / name
    found = json.loads((folder / "board.json").read_text("utf-8"), parse_constant=refuse)
    models = [row["model"] for row in found["rows"]]
    assert len(models) >= 8
    assert len(set(models)) == len(models)
    for row in found["rows"]:
        assert row["metrics"].keys() == METRICS.keys()
        assert sum(row["coverage"].values()) >= row["n_samples"] == found["dataset"]["n_samples"]
        for metric in row["metrics"].values():
            low, point, high = (metric[each] for each in ("low", "point", "high"))
            if low is not None and point is not None:
                assert low - 1e-9 <= point <= high + 1e-9
