"""Figures and tables of a paper: right numbers, readable files, hostile names that do nothing."""

import csv
import re
import shutil
import subprocess
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.text import Text
from PIL import Image
from pymatgen.core import Element

from benchmarks.core import Status, UserError
from benchmarks.core.formatting import inert
from benchmarks.core.published_weights import PUBLISHED_WEIGHTS
from benchmarks.core.training_data import TRAINING_SETS
from leaderboard.__main__ import main
from leaderboard.paper import (
    PaperParts,
    board_figures,
    paper_figures,
    paper_page,
    paper_tables,
    property_figures,
    table_text,
    write_paper,
)
from leaderboard.paper import sample_figures as samples
from leaderboard.paper.paper_page import WIDTHS, paper_figure, place_names, shown_name
from leaderboard.paper.references import (
    bibliography,
    listed_references,
    references_of_model,
)
from leaderboard.paper.selection import PaperBoard, representatives
from leaderboard.paper.table_text import escape_markdown, escape_tex, tex_cell
from leaderboard.publish import publish
from leaderboard.scoring import score_runs
from leaderboard.views.markdown import to_csv
from tests.test_leaderboard import Memory, failing, halfway, identity, oracle, write

ROOT = Path(__file__).parents[1]
TEX = r"\input{/etc/passwd}$x_1^2$ 100% & #~"
FORMULA = "=cmd()|' !A0"
MARKUP = "<script>alert(1)</script>\u202e*x*"


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A board of nine rows, three of them with hostile names, and one that fails half the time."""
    folder, toy = tmp_path_factory.mktemp("runs"), Memory(12)
    write(folder, "identity", identity, toy, seconds=0.001)
    write(folder, "half", halfway, toy, seconds=0.1)
    write(folder, "slow", halfway, toy, seconds=0.7)
    write(folder, "best", oracle, toy, seconds=0.5)
    write(folder, "refuses", failing(Status.UNSUPPORTED, answer=halfway), toy)
    write(folder, "collapses", failing(Status.OK, answer=halfway), toy)
    hostile = {"tex": TEX, "formula": FORMULA, "markup": MARKUP}
    for name in hostile:
        write(folder, name, halfway, toy, seconds=0.3)
    (found,) = score_runs([folder], [toy])
    runs = [replace(run, name=hostile.get(run.name, run.name)) for run in found.runs]
    return replace(found, runs=tuple(runs))


@pytest.fixture(scope="module")
def board(scored):
    return scored.board()


@pytest.fixture(scope="module")
def paper(scored, board, tmp_path_factory):
    return PaperBoard.of(scored, board, (), tmp_path_factory.mktemp("none"))


def by_model(table, column):
    return dict(zip(table["model"], table[column], strict=True))


# data


def test_every_row_is_shown_and_few_are_curves(paper, board):
    assert len(paper.rows) == 9
    assert [row.model for row in representatives(board.rows, 2)] == ["best", "identity"]
    assert paper.curves[0] == "best"
    assert "identity" in paper.curves
    assert len(paper.curves) == 8


def test_named_models_alone_are_shown_in_the_order_of_the_board(scored, board, tmp_path):
    chosen = PaperBoard.of(scored, board, ("identity", "half"), tmp_path)
    assert chosen.models == ("half", "identity") == chosen.curves == chosen.in_column


def test_the_front_leaves_out_who_is_slower_and_no_better():
    times = pd.Series([1.0, 2.0, 3.0, 3.0, 0.5])
    errors = pd.Series([0.3, 0.2, 0.25, 0.1, 0.9])
    assert board_figures.on_front(times, errors).tolist() == [True, True, False, True, True]


def test_a_model_that_fails_on_half_the_samples_is_not_on_the_front(paper):
    table = board_figures.error_against_time_data(paper)
    front = by_model(table, "lattice_mae_on_front")
    assert front["identity"]
    assert front["half"]
    assert not front["slow"]  # as good as `half` in more time
    assert not front["refuses"]
    assert by_model(table, "scored")["refuses"] == 0.5


def test_a_failure_is_below_no_threshold(paper):
    table = samples.distributions_data(paper)
    last = table[table["quantity"] == "displacement"].groupby("model")["share"].max()
    assert last["best"] == 1.0
    assert last["refuses"] == 0.5
    assert last["collapses"] == 0.5


def test_parity_has_the_true_cell_and_says_which_data_it_needs(paper):
    table = samples.parity_data(paper)
    assert set(table["model"]) <= set(paper.curves) - {"identity"}
    best = table[table["model"] == "best"]
    assert len(best) == 12
    assert best["a_true"].tolist() == [pytest.approx(4.0)] * 12
    assert best["a_predicted"].to_numpy() == pytest.approx(4.0)
    assert best["a_initial"].iloc[0] == pytest.approx(4.12)
    assert best["volume_true"].iloc[0] == pytest.approx(4.0 * 4.2 * 4.4)
    without = samples.parity_data(replace(paper, dataset=None))
    assert without == "the structures are not at hand: name toy with --data"


def test_failures_are_told_by_their_reason(paper):
    table = samples.failures_data(paper)
    found = {(row.model, row.reason): row.share for row in table.itertuples()}
    assert found == {("refuses", "declined"): 0.5, ("collapses", "cell implausible"): 0.5}


def test_error_against_change_of_identity_is_the_change(paper, monkeypatch):
    assert samples.against_change_data(paper) == "fewer than 24 samples change"
    monkeypatch.setattr(samples, "IN_A_BIN", 4)
    table = samples.against_change_data(paper)
    same = table[(table["model"] == "identity") & (table["part"] == "lattice")]
    assert same["n"].sum() == 12
    assert same["error"].to_numpy() == pytest.approx(same["true_change"].to_numpy())


def test_error_by_element_is_over_the_samples_that_contain_it(paper):
    table = property_figures.elements_data(paper)
    half = table[table["model"] == "half"].set_index("element")
    assert half.loc["Na", "n"] == 12
    assert half.loc["Ar", "n"] == 2  # samples 2 and 3
    assert by_model(table[table["element"] == "Na"], "lattice_error")["best"] == 0.0
    places = {symbol: property_figures.place_in_table(Element(symbol)) for symbol in ("Na", "Fe")}
    assert places == {"Na": (3, 1), "Fe": (4, 8)}
    assert property_figures.place_in_table(Element("La")) == (8.4, 3)


def test_learning_curves_need_the_numbers_of_the_study(paper, tmp_path):
    assert "there is no curves.csv" in property_figures.learning_curves_data(paper)
    (tmp_path / "curves.csv").write_text("student,metric\nt5,score\n", encoding="utf-8")
    broken = replace(paper, learning_curves=tmp_path / "curves.csv")
    assert "lacks ci_high, ci_low, n_pairs, value" in property_figures.learning_curves_data(broken)


def test_the_stored_numbers_of_the_learning_curves_are_those_of_the_page():
    folder = ROOT / "leaderboard" / "boards" / "substitution-test"
    page = (folder / "curves.md").read_text(encoding="utf-8")
    table = pd.read_csv(folder / "curves.csv")
    cells = [f"{x.value:.3f} [{x.ci_low:.3f}, {x.ci_high:.3f}]" for x in table.itertuples()]
    assert len(cells) == 36
    assert [cell for cell in cells if cell not in page] == []


# files


@pytest.mark.parametrize("figure", paper_figures.FIGURES, ids=lambda each: each.name)
def test_every_figure_is_drawn_at_both_widths(figure, paper, tmp_path, monkeypatch):
    curves = ROOT / "leaderboard" / "boards" / "substitution-test" / "curves.csv"
    monkeypatch.setattr(samples, "IN_A_BIN", 4)
    table = figure.data(replace(paper, learning_curves=curves))
    if figure.name == "hybrids":
        assert table == "no row is a hybrid whose last part was run alone"
        table = pd.DataFrame({"model": ["t5+mace", FORMULA]})
        for column in ("force_evals_ratio", "seconds_ratio", "same_minimum"):
            for end, value in (("", 0.8), ("_low", 0.7), ("_high", 0.95)):
                table[column + end] = [value, np.nan]
    if figure.name == "reliability":
        assert table == "no row tells an expected error"
        table = pd.DataFrame(
            {
                "model": ["t5", "t5", FORMULA, FORMULA],
                "panel": ["groups", "kept"] * 2,
                "x": [0.02, 0.5, 0.1, 1.0],
                "n": 8,
                "error": [0.03, 0.05, 0.2, 0.1],
                "error_low": [0.02, np.nan, 0.1, 0.1],
                "error_high": [0.05, np.nan, 0.3, 0.2],
                "unchanged": 0.2,
            }
        )
    assert len(table)
    monkeypatch.setattr(paper_page, "paths_of", lambda stem: [])
    for wide in (False, True):
        width = WIDTHS["page" if wide else "column"]
        with paper_figure(tmp_path / "x", width, figure.height(table, wide=wide)) as drawn:
            figure.draw(drawn, table, paper, wide=wide)
            shown = [each for each in drawn.findobj(Text) if each.get_text().strip()]
        assert min(each.get_fontsize() for each in shown) >= 5
        # nothing is cut off at an edge
        inches = drawn.get_tightbbox(drawn.canvas.get_renderer())
        assert inches.x0 > -0.01
        assert inches.x1 < width + 0.01
        assert inches.y0 > -0.01
        assert inches.y1 < drawn.get_figheight() + 0.01


def test_a_figure_has_its_formats_its_data_and_embedded_fonts(paper, tmp_path, monkeypatch):
    (skill,) = (each for each in paper_figures.FIGURES if each.name == "skill")
    monkeypatch.setattr(paper_figures, "FIGURES", (skill,))
    contents = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        written = paper_figures.write_figures(paper, folder)
        assert written.left_out == []
        contents.append({path.name: path.read_bytes() for path in written.files})
    assert contents[0] == contents[1]
    kinds = {f"skill-{w}.{kind}" for w in ("column", "page") for kind in ("pdf", "svg", "png")}
    assert set(contents[0]) == kinds | {"skill.csv", "captions.md"}
    pdf = contents[0]["skill-column.pdf"]
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf
    assert b"<text" not in contents[0]["skill-page.svg"]
    with Image.open(tmp_path / "one" / "skill-column.png") as image:
        assert image.width == 1005  # 3.35 inch at 300 dpi
    rows = list(csv.DictReader((tmp_path / "one" / "skill.csv").open(encoding="utf-8")))
    assert [row["model"] for row in rows if row["model"].startswith("'")] == ["'" + FORMULA]
    assert float(next(r for r in rows if r["model"] == "best")["skill_lattice"]) == 1.0


def test_names_are_written_where_they_cover_nothing(tmp_path):
    with paper_figure(tmp_path / "x", 3.35, 2.0) as figure:
        axes = figure.subplots()
        axes.set(xlim=(0, 1), ylim=(0, 1))
        figure.draw_without_rendering()
        left_out = place_names(axes, [(0.5, 0.5, f"name-{k}") for k in range(30)])
        boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == 30 - len(left_out)
    assert 4 < len(boxes) < 30
    assert shown_name("$a$") == r"\$a\$"
    assert shown_name("a\u202eb\n") == "a\ufffdb\ufffd"
    assert shown_name("m" * 40) == "m" * 31 + "…"


# tables


def test_the_lattice_table_begins_with_identity_and_ends_with_the_quoted_numbers(paper):
    table = paper_tables.lattice(paper)
    assert table.blocks[0].heading == "identity (12/12 scored)"
    assert table.blocks[1].heading == "best (12/12 scored)"
    assert [line[0] for line in table.blocks[0].lines] == ["MAE", "MSE", "RMSE"]
    assert table.blocks[1].lines[0] == ["MAE", *["0.000"] * 6]
    # 4 Å times 3 % and 0.2 % more for each of 12 samples
    assert table.blocks[0].lines[0][1] == f"{4 * (0.03 + 0.001 * 11):.3f}" == "0.164"
    last = table.blocks[-1]
    assert last.heading == "T2, as published (other data, not comparable)"
    assert last.lines == [["MAE", "0.053", "0.053", "0.074", "0.086", "0.101", "0.160"]]
    assert paper_tables.positions(paper).blocks[-1].lines[0][1:] == ["0.066", "—", "0.502"]


def test_a_difference_is_bold_where_its_interval_excludes_0(paper):
    table = paper_tables.differences(paper)
    assert [column.header for column in table.columns][1] == "best"
    cells = {line[0]: line[1:] for line in table.lines}
    assert cells["best"][0] == "—"
    assert re.fullmatch(r"\*\*-0\.\d+ \[-0\.\d+, -0\.\d+\]\*\*", cells["identity"][0])
    assert "+0.000 [+0.000, +0.000]" in cells["half"]


def test_validity_and_cost_are_those_of_the_rows(paper):
    ladder = {line[0]: line[1:] for line in paper_tables.ladder(paper).lines}
    assert ladder["refuses"] == ["1.000"] * 6 + ["0.500", "6", "0", "0"]
    assert ladder["collapses"][4:7] == ["0.500", "0.500", "0.500"]
    cost = paper_tables.cost(paper)
    assert [block.heading for block in cost.blocks] == ["a cpu, cpu, 1 thread"]
    assert {line[0]: line[1] for line in cost.lines}["half"] == "0.1"


def test_any_text_is_shown_in_latex_and_runs_no_command():
    assert escape_tex(r"\a{b}") == r"\textbackslash{}a\{b\}"
    assert escape_tex("50% & $x_1^2$ #~") == (
        r"50\% \& \$x\_1\textasciicircum{}2\$ \#\textasciitilde{}"
    )
    assert escape_tex("a--b [c] *") == "a-{}-{}b {[}c{]} {*}"
    assert escape_tex("é模\u202e\n") == "é[U+6A21][U+202E] "
    assert tex_cell("0.123", numbers=True) == "0.123"
    assert tex_cell("—", numbers=True) == r"{\textemdash{}}"
    assert tex_cell("-0.1 [-0.2, 0.0]", numbers=False) == r"$-0.1\ [-0.2,\,0.0]$"
    assert escape_markdown("a|b<i>*c*") == r"a\|b&lt;i&gt;\*c\*"


def test_a_formula_in_a_csv_is_inert(board):
    assert [inert(text) for text in ("=1", "+1", "-1", "@a", "a=1")] == [
        "'=1", "'+1", "'-1", "'@a", "a=1",
    ]  # fmt: skip
    models = [row["model"] for row in csv.DictReader(to_csv(board).splitlines())]
    assert "'" + FORMULA in models
    assert not [model for model in models if model.startswith(("=", "+", "-", "@"))]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")
def test_the_tables_compile_and_show_hostile_names_as_they_are(paper, tmp_path, monkeypatch):
    monkeypatch.setattr(table_text, "LONGEST", 20)  # some are short, and some go over pages
    written = paper_tables.write_tables(paper, tmp_path)
    names = ["ranking", "lattice", "positions", "validity", "cost", "differences"]
    kinds = [f"{name}.{kind}" for name in names for kind in ("tex", "md")]
    rest = ["tables.tex", "references.bib", "references.md"]
    assert [path.name for path in written.files] == kinds + rest
    environments = {
        p.stem: p.read_text().split("}")[0] for p in written.files if p.suffix == ".tex"
    }
    assert environments["ranking"] == r"\begin{tabular"
    assert environments["lattice"] == r"\begin{longtable"
    command = ["pdflatex", "-no-shell-escape", "-halt-on-error", "-interaction=nonstopmode"]
    done = subprocess.run(
        [*command, "tables.tex"], cwd=tmp_path, capture_output=True, text=True, errors="replace",
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    assert "passwd" not in "".join(re.findall(r"\(\S*", done.stdout))  # no file of that name read
    assert "Overfull" not in done.stdout
    if shutil.which("pdftotext"):
        shown = subprocess.run(
            ["pdftotext", "-layout", "tables.pdf", "-"], cwd=tmp_path, capture_output=True,
            text=True, timeout=60, check=True,
        ).stdout  # fmt: skip
        assert r"\input{/etc/passwd}$x" in shown
        assert "<script>alert(1)</script>[U+202E]*x*" in shown


# references


def test_every_published_model_and_training_set_has_its_reference(paper):
    row = paper.rows[0]
    for name, weights in PUBLISHED_WEIGHTS.items():
        named = replace(row, model=name, training_data=weights.training_data)
        assert len(references_of_model(named)) >= 2, f"{name}: add it to references.bib"
    data = [pattern for each in listed_references() for pattern in each.data]
    for name in TRAINING_SETS:
        mine = replace(row, model="x", training_data=(name,))
        assert len(references_of_model(mine)) >= 2 or name.startswith("embedded"), name
    assert "MPtrj*" in data


def test_a_bibliography_has_what_a_row_needs_once(paper):
    hybrid = replace(paper.rows[0], model="t5+chgnet-r2scan", training_data=("OMat24",))
    text = bibliography(paper.board, [hybrid, hybrid])
    keys = re.findall(r"^@\w+\{([^,]+),$", text, re.MULTILINE)
    assert keys == [
        "t2relax-bench",
        "raffel2020t5",
        "deng2023chgnet",
        "huang2025crossfunctional",
        "barrosoluque2024omat24",
    ]
    assert "10.1038/s42256-023-00716-3" in text
    assert "models" not in text
    assert text.count("{") == text.count("}")


def test_references_are_whole():
    found = listed_references()
    assert len({each.key for each in found}) == len(found) == 22
    for each in found:
        fields = dict(re.findall(r"^  (\w+)\s*= \{(.*)\},?$", each.bibtex, re.MULTILINE))
        assert {"author", "title", "year"} <= set(fields), each.key
        assert "doi" in fields or "url" in fields or each.key == "t2relax-bench", each.key
        assert re.fullmatch(r"10\.\d{4,}/\S+", fields.get("doi", "10.1000/x"))
        assert not fields["year"].startswith("{")


def test_the_citation_file_agrees_with_package_and_bibliography():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["authors"] == [{"name": "The t2relax-bench authors"}]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"] == "MIT"
    ours = listed_references()[0]
    assert citation["title"] in ours.bibtex
    assert f"version {citation['version']}" in ours.bibtex


# the command


def test_the_command_writes_figures_and_tables_of_named_rows(tmp_path, monkeypatch, capsys):
    toy = Memory(4)
    for name, relax in (("identity", identity), ("half", halfway), ("best", oracle)):
        write(tmp_path / "runs", name, relax, toy)
    monkeypatch.setattr("leaderboard.__main__.load_datasets", lambda options: [toy])
    (skill,) = (each for each in paper_figures.FIGURES if each.name == "skill")
    (curves,) = (each for each in paper_figures.FIGURES if each.name == "learning-curves")
    monkeypatch.setattr(paper_figures, "FIGURES", (skill, curves))
    out = tmp_path / "out"
    flags = [str(tmp_path / "runs"), "--out", str(out), "--figures", "--tables"]
    assert main([*flags, "--models", "half,identity"]) == 0
    printed = capsys.readouterr().out
    assert "toy/test: figure learning-curves is left out: there is no curves.csv" in printed
    assert f"{out / 'figures'}, {out / 'tables'}" in printed
    assert (out / "board.json").is_file()
    models = pd.read_csv(out / "figures" / "skill.csv")["model"].tolist()
    assert models == ["half", "identity"]
    assert "best" not in (out / "tables" / "lattice.md").read_text(encoding="utf-8")


def test_a_model_that_no_board_has_is_one_line_before_anything_is_written(tmp_path, monkeypatch):
    toy = Memory(4)
    write(tmp_path / "runs", "identity", identity, toy)
    parts = PaperParts(tables=True, models=("identiti",))
    with pytest.raises(UserError, match="no ranked row is called 'identiti'; rows: identity"):
        publish([tmp_path / "runs"], tmp_path / "out", [toy], paper=parts)
    assert not (tmp_path / "out").exists()


def test_a_board_that_ranks_none_of_the_named_rows_is_passed_over(scored, board, tmp_path):
    parts = PaperParts(figures=True, tables=True, models=("elsewhere",))
    written = write_paper(scored, board, tmp_path / "out", parts, studies=tmp_path)
    assert written.files == []
    assert written.left_out == ["figures and tables are left out: no row to show is ranked"]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["x"], "name what is made"),
        (["x", "--archive", "a", "--tables"], "are about boards"),
        (["--published", "--tables"], "about the boards of --out DIR"),
        (["x", "--out", "a", "--models", "t5"], "--models is about --figures and --tables"),
        (["x", "--out", "a", "--tables", "--models", ","], "names no model"),
        (["--published", "--out", "a", "--check"], "leave --out DIR out"),
    ],
)
def test_flags_that_do_not_belong_together_are_one_line(flags, said, capsys):
    assert main(flags) == 2
    assert said in capsys.readouterr().err
