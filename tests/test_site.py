"""The site as files: what a reader without scripts sees, and what nobody may see."""

import json
import re
from dataclasses import replace
from urllib.parse import unquote

import numpy as np
import pytest

from benchmarks.core import Geometry
from benchmarks.core.inert_text import file_names, for_script, visible
from benchmarks.core.statistics import Estimate
from leaderboard.__main__ import main
from leaderboard.board.schema import Conclusion
from leaderboard.site import packages, structure_page, trust
from leaderboard.site.board_table import SHOWN
from leaderboard.site.drawing import Scale, element_places
from leaderboard.site.pages import write_site
from leaderboard.site.sample_data import _numbers, sample_ids
from leaderboard.site.sentences import sentences
from tests.conftest import one_line
from tests.site_runs import HOSTILE, MODELS, Page, Public, scored_runs
from tests.test_leaderboard import Memory


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    scored = scored_runs(folder / "runs")
    write_site([("toy", scored)], folder / "site", vendor=folder / "none")
    return scored, folder / "site"


def cells(page, table=0):
    return [[re.sub(r"\s+", " ", cell).strip() for cell in row] for row in page.tables[table]]


def test_the_table_is_whole_without_scripts(built):
    table = cells(Page((built[1] / "index.html").read_text()))
    assert [re.sub(r" \?.*", "", head) for head in table[0][:5]] == [
        "Rank", "Model", "Score ↑", "Level with", "Time (s) ↓",
    ]  # fmt: skip
    rows = {row[1]: row for row in table[1:]}
    assert set(rows) == set(MODELS)
    assert rows["oracle"][0].startswith("1")
    assert rows["oracle"][2].startswith("1.000")
    assert rows["text"][13] == "4/8", "a failure is not scored"
    assert all(len(row) == len(table[0]) for row in table)
    assert len(table[0]) == len(SHOWN) + 7, "no row has a declared time"


def test_the_front_is_what_nothing_beats_in_both_score_and_time(built):
    table = cells(Page((built[1] / "index.html").read_text()))
    # seconds: identity 0.1, halfway 0.2, text 0.3, oracle 0.4
    assert {row[1]: row[5] for row in table[1:]} == {
        "identity": "yes", "halfway": "yes", "text": "—", "oracle": "yes",
    }  # fmt: skip


def test_every_definition_stands_at_the_head_of_its_column(built):
    heads = cells(Page((built[1] / "index.html").read_text()))[0]
    assert all(len(head.partition("?")[2]) > 20 for head in heads)


def test_all_links_lead_to_a_file_and_a_place_in_it(built):
    pages = {path: Page(path.read_text()) for path in built[1].rglob("*.html")}
    assert len(pages) > 6
    for path, page in pages.items():
        for link in page.links:
            assert not re.match(r"[a-z]+:(?!,)", link), f"{path} takes {link} from elsewhere"
            file, _, place = link.partition("#")
            target = (path.parent / unquote(file)).resolve() if file else path
            assert link == "data:," or target.is_file(), f"{path}: {link}"
            if place and target.suffix == ".html":
                assert unquote(place) in pages[target].ids, f"{path}: {link}"
        assert len(set(page.ids)) == len(page.ids), path


def test_scripts_are_classic_and_ask_for_nothing(built):
    for path in (built[1] / "assets").glob("*.js"):
        text = path.read_text()
        assert not re.search(r"\bfetch\(|XMLHttpRequest|import\(|^import |^export ", text, re.M)
        assert set(re.findall(r"https?://[^\"' ]+", text)) <= {"http://www.w3.org/2000/svg"}
    assert "http" not in (built[1] / "assets/site.css").read_text()


def test_the_data_of_the_samples_add_up_to_the_board(built):
    scored, folder = built
    text = (folder / "data/toy.js").read_text()
    data = json.loads(text.removeprefix("window.BOARD=").removesuffix(";\n"))
    board = scored.board()
    assert data["models"] == [row.model for row in board.rows]
    assert len(data["ids"]) == 8
    (score,) = (each for each in data["metrics"] if each["name"] == "score")
    for row, values in zip(board.rows, score["values"], strict=True):
        assert sum(values) / 8 == pytest.approx(row.metrics["score"].point, abs=1e-5)


def test_a_structure_has_start_reference_and_answers(built):
    page = Page((built[1] / "structure/gpaw-0-0-pbe.html").read_text())
    answers, cells_, places = (cells(page, k) for k in range(3))
    by_model = {row[0]: row for row in answers[1:]}
    assert by_model["oracle"][1:7] == ["ok", "1.000", "0.000", "0.00", "0.0000", "0.000"]
    assert by_model["text"][1] == "invalid"
    parameters = {row[0]: row[1:] for row in cells_[1:]}
    angles = ["90.00", "90.00", "90.00"]
    assert parameters["DFT reference"] == ["4.0000", "4.2000", "4.4000", *angles, "73.92"]
    assert parameters["Start"][0] == "4.1200"
    assert parameters["halfway"][0] == "4.0600"
    assert places[0] == ["Structure", "Na1", "Cl2", "Na3", "Cl4"]
    assert places[2][1] == "0.00000.00000.0000"
    assert "structure/gpaw-0-0-pbe.html" in (built[1] / "data/toy.js").read_text()


def test_an_atom_on_the_border_is_drawn_on_all_sides():
    corner = Geometry(
        np.eye(3) * 3, np.array([[0.0, 0.0, 1e-9], [0.5, 0.5, 0.99]]), np.array([11, 17])
    )
    drawn = structure_page._drawn("x", "start", corner)
    assert [atom[0] for atom in drawn["atoms"]] == ["Na"] * 8 + ["Cl"] * 2
    assert ["Na", 3.0, 3.0, 3.0] in drawn["atoms"]
    assert ["Cl", 1.5, 1.5, -0.03] in drawn["atoms"]


def test_structures_that_may_not_be_published_are_on_no_page(tmp_path):
    write_site([("toy", scored_runs(tmp_path / "runs", Memory()))], tmp_path / "site")
    assert not (tmp_path / "site/structure").exists()
    assert "4.4" not in (tmp_path / "site/samples/toy-1.html").read_text()


def test_the_self_tests_pass_and_the_conclusions_are_tested_on_the_clean_part(built):
    page = Page((built[1] / "index.html").read_text())
    tables = [cells(page, k) for k in range(len(page.tables))]
    (tests,) = (table for table in tables if table[0][0] == "Answer")
    assert [row[3] for row in tests[1:]] == ["yes", "yes"]
    (clean,) = (table for table in tables if table[0][0] == "Against")
    rows = {row[0]: row for row in clean[1:]}
    assert set(rows) == {"oracle", "identity", "text"}
    assert rows["oracle"][3:] == ["8", "stays"], "nothing was trained"
    assert rows["oracle"][1].startswith("-0.")


def test_a_self_test_that_fails_is_seen(tmp_path):
    scored = scored_runs(tmp_path)
    table = scored.tables[0].copy()
    table.loc[2, "strain"] += 0.01
    wrong = replace(scored, tables=(table, *scored.tables[1:]))
    ids = sample_ids(wrong.board(), wrong)
    assert [test.passed for test in trust.self_tests(wrong, ids)] == [True, False]


@pytest.mark.parametrize(
    ("everywhere", "clean", "verdict"),
    [
        ((0.1, 0.3), (0.05, 0.4), "stays"),
        ((0.1, 0.3), (-0.1, 0.4), "no longer told apart"),
        ((0.1, 0.3), (-0.4, -0.1), "turns"),
        ((-0.1, 0.3), (0.1, 0.4), "told apart there alone"),
        ((0.1, 0.3), (None, None), "cannot be tested: one composition"),
    ],
)
def test_a_conclusion_survives_where_its_sign_does(everywhere, clean, verdict):
    first, second = (Estimate(point=0.0, low=a, high=b, n=3) for a, b in (everywhere, clean))
    conclusion = Conclusion(better="a", worse="b", everywhere=first, clean=second)
    assert conclusion.verdict == verdict
    none = Estimate(point=None, low=None, high=None, n=0)
    assert replace(conclusion, clean=none).verdict == "cannot be tested: no such structures"


def test_the_pages_on_data_and_changes_say_what_is_stored(built):
    data = (built[1] / "data.html").read_text()
    assert "sha256:00" in data
    assert built[0].board().dataset.ids_sha256 in data
    changes = cells(Page((built[1] / "changes.html").read_text()))
    assert changes[1][1:3] == ["toy", "identity, halfway, text, oracle"]


def test_hostile_names_are_shown_inert(tmp_path):
    class Hostile(Public):
        def __init__(self):
            super().__init__()
            self.ids = (*self.ids[:6], "</script><b>", "a&b\u202e\"'><i>")

    scored = scored_runs(tmp_path / "runs", Hostile(), renamed=HOSTILE)
    out = tmp_path / "site"
    write_site([("</title>\x07", scored)], out)
    files = {path.relative_to(out).as_posix() for path in out.rglob("*")}
    assert all(re.fullmatch(r"[A-Za-z0-9.+_/-]+", name) for name in files)
    for path in out.rglob("*.html"):
        text = path.read_text()
        page = Page(text)
        assert not {"img", "b", "i"} & {tag for tag, _ in page.tags}
        assert not any(name.startswith("on") for _, found in page.tags for name in found)
        inner = [found for tag, found in page.tags if tag == "script" and "src" not in found]
        assert all(found["type"] == "application/json" for found in inner)
        assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e]", text)
    rows = {row[1] for row in cells(Page((out / "index.html").read_text()))[1:]}
    assert "<script>alert(1)</script>" in rows, "it can be read"
    assert "../../\\x1b[31m\\u202eexe.\\input{x}__proto__" in rows, "what is hidden is written out"
    assert '"><img src=x onerror=alert(1)>{{ 7*7 }}' in rows
    for path in (out / "data").glob("*.js"):
        assert "<" not in path.read_text()
        assert path.read_text().isascii()


def test_file_names_differ_and_stay_in_their_folder():
    names = file_names(["t5+chgnet", "a/b", "A/b", "t5", "T5", "..", "", "x" * 300])
    assert names["t5+chgnet"] == "t5+chgnet"
    assert names["t5"] == "t5"
    assert names["T5"] == "T5-020d01e5"
    assert len({name.lower() for name in names.values()}) == 8
    for name in names.values():
        assert re.fullmatch(r"[A-Za-z0-9+_-][A-Za-z0-9.+_-]{0,99}", name)


def test_hidden_characters_are_written_out():
    assert visible("a\x1b[31mb\u202ec") == "a\\x1b[31mb\\u202ec"
    assert visible("Å → ≈ עברית") == "Å → ≈ עברית"
    assert for_script(["</script>", "\u2028"]) == '["\\u003c/script>","\\u2028"]'
    with pytest.raises(ValueError, match="JSON"):
        for_script([float("nan")])


def test_numbers_for_scripts_are_short():
    column = np.array([0.0123456789, 123456.7, 0.0, np.nan, -1 / 3, 2e-12])
    assert _numbers(column) == [0.012346, 123457.0, 0.0, None, -0.33333, 0.0]


def test_a_sentence_says_better_only_where_the_interval_excludes_0(built):
    board = built[0].board()
    text = " ".join(sentences(board))
    assert text.startswith("halfway has the highest score of all trained models, ")
    assert "Against no change halfway is better on the lattice by " in text
    assert "halfway (best graph network or potential) is better than text (best text model)" in text


def test_a_scale_is_logarithmic_over_decades_only():
    def estimate(point):
        return Estimate(point=point, low=None, high=None, n=1)

    assert Scale.of([estimate(1.0), estimate(19.0)]) == (1.0, 19.0, False)
    assert Scale.of([estimate(1.0), estimate(100.0), estimate(10.0)]).place(10.0) == 32.0
    assert Scale.of([estimate(0.5), estimate(None)]) is None


def test_elements_have_their_places():
    places = {symbol: (row, column) for symbol, row, column in element_places()}
    assert len(set(places.values())) == 118
    assert places["H"] == (1, 1)
    assert places["Zn"] == (4, 12)
    assert places["Lu"] == (8, 17)
    assert places["Hf"] == (6, 4)


def test_a_second_site_removes_pages_of_models_that_are_gone(tmp_path):
    scored = scored_runs(tmp_path / "runs")
    out = tmp_path / "site"
    write_site([("toy", scored)], out)
    (out / "notes.txt").write_text("the reader's own")
    few = dict(list(MODELS.items())[:2])
    write_site([("toy", scored_runs(tmp_path / "few", models=few))], out)
    assert {path.stem for path in (out / "model").iterdir()} == set(few)
    assert (out / "notes.txt").exists(), "files that are not of the site stay"


def test_a_folder_of_other_files_is_refused(tmp_path):
    (tmp_path / "index.html").write_text("mine")
    one_line(lambda: write_site([("toy", None)], tmp_path), str(tmp_path), "another folder")
    assert (tmp_path / "index.html").read_text() == "mine"


def test_what_is_lacking_is_said_on_the_pages(built, tmp_path):
    text = (built[1] / "index.html").read_text()
    assert "the 3D view of structures (3dmol)" in text
    assert packages.missing(tmp_path) == [
        "the 3D view of structures (3dmol)",
        "the search (minisearch)",
        "the scatter of two models (d3, @observablehq/plot)",
    ]


def test_packages_are_not_fetched_without_npm(tmp_path, monkeypatch):
    monkeypatch.setattr(packages.shutil, "which", lambda name: None)
    one_line(lambda: packages.fetch(tmp_path), "npm is not installed", "3D view")
    for package in packages.PACKAGES:
        (tmp_path / package.file).write_text("x")
        (tmp_path / packages.licence_name(package)).write_text("x")
    assert packages.fetch(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--site", "x"], "name the folders of runs"),
        (["runs", "--site", "x", "--check"], "not about --site"),
        (["runs", "--site", "x", "--out", "y"], "alone"),
        (["runs"], "name what is made"),
    ],
)
def test_options_that_do_not_go_together_are_one_line(arguments, word, capsys):
    assert main(arguments) == 2
    assert word in capsys.readouterr().err
