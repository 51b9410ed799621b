"""The figure of error against time: which models are on its front, and that it can be read."""

from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.core.statistics import Estimate
from leaderboard.board.schema import Board, Hardware
from leaderboard.views import figures
from leaderboard.views.figures import error_against_time, pareto_front

PATH = Path(__file__).parents[1] / "leaderboard/boards/embedded-v1-test/board.json"
HERE = (Hardware(cpu="a cpu", device="cpu", threads=1),)
ELSEWHERE = (Hardware(cpu="another cpu", device="cpu", threads=1),)


@pytest.fixture(scope="module")
def board():
    return Board.from_json(PATH.read_text(encoding="utf-8"))


@pytest.fixture
def made(board):
    """A row of `board` with another name, time and error."""

    def row(model, seconds, error, family="gnn", scored=53, hardware=HERE):
        first = board.rows[0]
        numbers = {
            "wall_time_median": Estimate.of(seconds, (0.8 * seconds, 1.3 * seconds), 53),
            "lattice_mae": Estimate.of(error, (0.8 * error, 1.3 * error), 53),
        }
        coverage = dict.fromkeys(first.coverage, 0) | {"ok": scored, "error": 53 - scored}
        return replace(
            first, model=model, family=family, coverage=coverage, hardware=hardware,
            metrics={**first.metrics, **numbers},
        )  # fmt: skip

    return row


@pytest.fixture
def drawn(board, tmp_path, monkeypatch):
    """Draw rows and give the figure."""
    kept = []
    save = figures.save_figure

    @contextmanager
    def keeping(*arguments):
        with save(*arguments) as figure:
            kept.append(figure)
            yield figure

    monkeypatch.setattr(figures, "save_figure", keeping)

    def draw(rows):
        error_against_time(replace(board, rows=tuple(rows)), tmp_path / "figure.svg")
        return kept[-1]

    return draw


def test_the_front_holds_what_no_other_model_beats_in_both(made):
    rows = [
        made("slow and best", 10.0, 0.01),
        made("beaten by fast", 2.0, 0.05),
        made("fast", 1.0, 0.04),
        made("as fast, worse", 1.0, 0.06),
        made("fastest", 0.1, 0.2),
    ]
    assert [row.model for row in pareto_front(rows)] == ["fastest", "fast", "slow and best"]


def test_neither_another_machine_nor_few_scored_samples_make_a_front(made):
    rows = [
        made("a", 1.0, 0.04),
        made("b", 2.0, 0.03),
        made("on a fast machine", 0.01, 0.01, hardware=ELSEWHERE),
        made("fails on the hard ones", 0.01, 0.01, scored=50),
    ]
    assert [row.model for row in pareto_front(rows)] == ["a", "b"]


def test_no_label_of_35_models_covers_another_or_leaves_the_figure(made, drawn):
    """The published potentials lie together: similar errors, similar times."""
    rng = np.random.default_rng(0)
    families = (*["gnn"] * 25, *["llm"] * 4, *["hybrid"] * 4, "trivial", "other")
    rows = [
        made(
            f"tensornet-matpes-r2scan-2025.{k}", *np.exp(rng.normal((-1, -3), 0.35)), family=family
        )
        for k, family in enumerate(families)
    ]
    figure = drawn(rows)
    axes, key = figure.axes
    numbers = [text for text in axes.texts if text.get_text()]
    assert sorted(int(text.get_text()) for text in numbers) == list(range(1, 36))
    boxes = [text.get_window_extent() for text in numbers]
    covered = [b for a, b in enumerate(boxes) if any(b.overlaps(other) for other in boxes[:a])]
    assert covered == []
    names = {text.get_text() for text in key.texts}
    assert {row.model for row in rows} <= names
    for text in key.texts:
        box = text.get_window_extent()
        assert 0 <= box.x0 < box.x1 <= figure.bbox.x1, text.get_text()
        assert 0 <= box.y0 < box.y1 <= figure.bbox.y1, text.get_text()


def test_the_key_says_what_hollow_and_dagger_mean_where_they_occur(made, drawn):
    plain = [made("a", 1.0, 0.04), made("b", 2.0, 0.03)]
    texts = {text.get_text() for text in drawn(plain).axes[1].texts}
    assert texts == {"graph networks", "1", "2", "a", "b", "bold: on the front (dashed)"}
    other = [made("c", 1.0, 0.02, scored=10), made("d", 1.0, 0.02, hardware=ELSEWHERE)]
    texts = {text.get_text() for text in drawn([*plain, *other]).axes[1].texts}
    assert {"d †", "hollow: scored < 95%", "†: on another machine"} <= texts


def test_rows_without_a_time_or_without_an_error_are_left_out(board, made, tmp_path):
    rows = (made("no time", 0.0, 0.1), made("oracle", 1.0, 0.0))
    assert error_against_time(replace(board, rows=rows), tmp_path / "figure.svg") == []
