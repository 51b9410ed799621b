"""Names that others chose stand in files, on the terminal and in figures, and do nothing."""

import csv
import io
from dataclasses import replace

import pytest

from benchmarks.core import UserError
from benchmarks.core.inert_text import single_line, with_texts
from benchmarks.models.registry import MODELS
from benchmarks.models.user_models import parse_user_model
from leaderboard.board.schema import Board
from leaderboard.publish import _folders
from leaderboard.scoring import PUBLISHED
from leaderboard.views.figures import error_against_time
from leaderboard.views.markdown import markdown, section, table, to_csv

HOSTILE = "<img src=x onerror=alert(1)>\n| 1 | forged | 0.999 |\x1b[31m\u202eexe $\\frac$ \udce9"
SHOWN = (
    "img src=x onerror=alert(1)> \\| 1 \\| forged \\| 0.999 \\|\\x1b[31m\\u202eexe $\\frac$ \\udce9"
)


@pytest.fixture(scope="module")
def hostile():
    """A published board in which a model, its label, its weights and the data have such names."""
    path = PUBLISHED.parent / "boards" / "embedded-v1-test" / "board.json"
    board = Board.from_json(path.read_text(encoding="utf-8"))
    ours = {board.rows[0].model, board.rows[0].label, board.rows[0].weights, board.dataset.name}
    board = with_texts(board, lambda text: HOSTILE if text in ours else text)
    rows = (replace(board.rows[0], training_data=(HOSTILE,), functional=HOSTILE), *board.rows[1:])
    return replace(board, rows=rows, notes=(f"Not ranked: {HOSTILE}.",))


def test_a_name_forges_no_row_and_no_html(hostile):
    path = PUBLISHED.parent / "boards" / "embedded-v1-test" / "board.md"
    text = markdown(hostile)
    n_tables = path.read_text(encoding="utf-8").count("\n| ")
    for found in (text, section(hostile, "### ", with_notes=True)):
        found.encode()
        assert f"| &lt;{SHOWN} |" in found
        assert not any(character in found for character in "\x1b\u202e\udce9")
        assert "<img" not in found
        assert "\n| 1 | forged" not in found
    assert text.count("\n| ") == n_tables
    assert "- Not ranked: &lt;img src=x" in text


def test_a_name_colours_no_terminal(hostile):
    text = table(hostile)
    assert "<img src=x onerror=alert(1)> | 1 | forged | 0.999 |\\x1b[31m\\u202eexe" in text
    assert not any(character in text for character in "\x1b\u202e\udce9")


@pytest.mark.parametrize("first", "=+-@")
def test_a_name_is_no_formula(hostile, first):
    named = with_texts(
        hostile, lambda text: f"{first}cmd|' /C calc'!A0" if text == HOSTILE else text
    )
    rows = list(csv.reader(io.StringIO(to_csv(named))))
    assert rows[1][1] == f"'{first}cmd|' /C calc'!A0"
    rows = list(csv.reader(io.StringIO(to_csv(hostile))))
    assert rows[1][1].startswith("<img src=x onerror=alert(1)> | 1 | forged")


def test_a_name_is_no_mathematics(hostile, tmp_path):
    (path,) = error_against_time(hostile, tmp_path / "x.svg")
    assert "onerror=alert(1)&gt;" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["..", ".", "/etc", "x" * 300, "a\0b", "COM1:", HOSTILE])
def test_boards_stay_in_their_folder(hostile, tmp_path, name):
    boards = [
        replace(hostile, dataset=replace(hostile.dataset, name=each, split=None))
        for each in (name, "embedded-v1")
    ]
    first, second = _folders(boards, tmp_path)
    assert first.resolve().parent == second.resolve().parent == tmp_path.resolve()
    first.mkdir()
    assert second.name == "embedded-v1"


def test_the_folder_of_a_board_is_named_for_data_and_split(hostile, tmp_path):
    boards = [
        replace(hostile, dataset=replace(hostile.dataset, name="substitution", split=split))
        for split in ("test", "val")
    ]
    assert [each.name for each in _folders(boards, tmp_path)] == [
        "substitution-test",
        "substitution-val",
    ]


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        ("board.md", "'board.md' is the name of a file of the board"),
        ("Board.JSON", "'Board.JSON' is the name of a file of the board"),
        ("T5", "'T5' is the name of a model already"),
    ],
)
def test_a_label_takes_no_place_of_another(label, reason):
    with pytest.raises(UserError, match=reason):
        parse_user_model(f"{label}=ase:toy:make", trust=False, known=MODELS)


def test_a_line_stays_one_line():
    assert single_line("a\r\nb\tc\x1b[0m\x85d") == "a b c\\x1b[0m d"
