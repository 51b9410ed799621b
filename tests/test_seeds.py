"""Trainings with other seeds: their scores beside the interval of the samples."""

import csv
from dataclasses import replace

import pytest

from benchmarks.models.registry import resolve
from leaderboard.board.schema import Board, SeedSpread
from leaderboard.scoring import SEEDS, with_seeds, with_studies
from leaderboard.site import board_table
from leaderboard.views.markdown import markdown
from studies import seeds
from tests.conftest import one_line
from tests.site_runs import scored_runs

NAMES = ("halfway", "oracle")


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    made = scored_runs(tmp_path_factory.mktemp("runs") / "runs").board()
    rows = tuple(replace(row, weights_sha256=f"sha of {row.model}") for row in made.rows)
    return replace(made, rows=rows)


def test_a_board_shows_what_the_trainings_of_a_model_reach(board, tmp_path):
    found = seeds.lines(board, NAMES)
    assert [line["training"] for line in found] == list(NAMES)
    assert {line["weights_sha256"] for line in found} == {"sha of halfway"}
    seeds.write(tmp_path / SEEDS, found)
    shown = with_seeds(board, tmp_path)
    scores = {row.model: row.metrics["score"].point for row in board.rows}
    spread = {row.model: row.seeds for row in shown.rows}
    assert spread.pop("halfway") == SeedSpread(
        trainings=2,
        lowest=pytest.approx(scores["halfway"], rel=1e-5),
        highest=pytest.approx(scores["oracle"], rel=1e-5),
    )
    assert scores["halfway"] < scores["oracle"]
    assert set(spread.values()) == {None}
    assert Board.from_json(shown.to_json()) == shown
    cell = f"{scores['halfway']:.3f}–{scores['oracle']:.3f} (2)"
    page = markdown(shown)
    assert f"| {cell} |" in page
    assert "Seeds (n): lowest and highest score of n trainings" in page
    cells = {line.row.model: line.cells["seeds"] for line in board_table.lines(shown, shown.rows)}
    assert (cells["halfway"].text, cells["oracle"].text) == (cell, "—")
    assert "seeds" in [column.key for column in board_table.columns(shown)]


def test_other_weights_have_no_spread_and_no_file_changes_nothing(board, tmp_path):
    assert with_studies(board, tmp_path) is board
    assert '"seeds"' not in board.to_json()
    assert "seeds" not in [column.key for column in board_table.columns(board)]
    other = replace(board, rows=tuple(replace(r, weights_sha256="new") for r in board.rows))
    seeds.write(tmp_path / SEEDS, seeds.lines(board, NAMES))
    assert not any(row.seeds for row in with_seeds(other, tmp_path).rows)


def test_lines_of_other_models_stay_and_those_of_the_model_are_written_anew(board, tmp_path):
    path = tmp_path / SEEDS
    for names in (NAMES, NAMES[::-1], NAMES):
        seeds.write(path, seeds.lines(board, names))
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [row["model"] for row in rows] == ["halfway", "halfway", "oracle", "oracle"]
    assert list(rows[0]) == list(seeds.COLUMNS)


def test_a_training_that_is_absent_or_the_same_is_one_line(board):
    one_line(lambda: seeds.lines(board, ("halfway", "nobody")), "nobody", "no run of it")
    one_line(lambda: seeds.lines(board, ("halfway", "halfway")), "weights of each training")


@pytest.mark.parametrize(
    ("old", "new", "word"), [("score", "points", "'score'"), ("sha of halfway,2", "x,2", "")]
)
def test_a_file_that_is_none_of_the_study_is_one_line(board, tmp_path, old, new, word):
    path = tmp_path / SEEDS
    text = "model,weights_sha256,n,score\nhalfway,sha of halfway,2,0.5\n"
    path.write_text(text.replace(old, new))
    if word:
        one_line(lambda: with_seeds(board, tmp_path), str(path), word, "studies.seeds")
    path.write_text(text.replace("0.5", "inf"))
    one_line(lambda: with_seeds(board, tmp_path), str(path), "inf", "studies.seeds")
    path.write_text(text.replace("0.5", ""))
    one_line(lambda: with_seeds(board, tmp_path), str(path), "studies.seeds")


def test_another_training_of_gradient_boosting_is_a_model(tmp_path):
    path = tmp_path / "other.skops"
    path.write_bytes(b"")
    spec = resolve(f"gbr-1=gbr:{path}")
    assert (spec.name, spec.kwargs) == ("gbr-1", {"path": str(path)})
