"""The site in headless Chromium, from a disk and a server; every other request is blocked."""

import csv
import io
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from leaderboard.board.summary import board
from leaderboard.site import packages
from leaderboard.site.pages import write_site
from tests.local_server import answering
from tests.site_runs import HOSTILE, scored_runs

CHROMIUM = Path("/usr/bin/chromium")
playwright = pytest.importorskip("playwright.sync_api", reason="pip install '.[browser]'")
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="apt-get install chromium")


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        software = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        opened = started.chromium.launch(executable_path=str(CHROMIUM), args=software)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    scored = scored_runs(folder / "runs")
    write_site([("toy", scored)], folder / "site")
    return scored, folder / "site"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module", params=["file", "server"])
def address(site, request):
    if request.param == "file":
        yield f"file://{site[1]}/"
        return
    quiet = partial(Quiet, directory=str(site[1]))
    with answering(ThreadingHTTPServer(("127.0.0.1", 0), quiet)) as server:
        yield f"http://127.0.0.1:{server.server_port}/"


@pytest.fixture
def visit(browser, address):
    """Opens a page; at the end no script may have failed, and nothing been asked for elsewhere."""
    contexts, faults = [], []

    def opened(path="index.html", **options):
        context = browser.new_context(accept_downloads=True, **options)
        contexts.append(context)

        def only_the_site(route):
            if not route.request.url.startswith((address, "data:", "blob:")):
                faults.append(route.request.url)
                route.abort()
            else:
                route.continue_()

        context.route("**/*", only_the_site)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda m: faults.append(m.text) if m.type == "error" else None)
        page.goto(address + path)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not faults


def one_of_each_kind(folder):
    """The pages of the folder itself, and one of each folder in it."""
    inner = {path.parent: path for path in folder.glob("*/*.html")}
    return [*folder.glob("*.html"), *inner.values()]


def models(page):
    return page.locator("#models tbody tr:visible th").all_inner_texts()


def column(page, key):
    cells = f"#models tbody tr:visible td:nth-child({position(page, key) + 1}) .x"
    return page.locator(cells).all_inner_texts()


def position(page, key):
    return page.evaluate(f"Table.position('{key}')")


def test_a_column_is_sorted_by_its_numbers_and_the_link_keeps_it(visit):
    page = visit()
    page.click("th[data-key=lattice_mae] .sort")
    assert models(page)[0] == "oracle", "the smallest error first"
    page.click("th[data-key=lattice_mae] .sort")
    assert models(page)[-1] == "oracle"
    assert page.get_attribute("th[data-key=lattice_mae]", "aria-sort") == "descending"
    again = visit("index.html" + page.evaluate("location.hash"))
    assert models(again) == models(page)


def test_a_filter_of_structures_gives_the_numbers_of_these_structures(visit, site):
    page = visit()
    page.click("summary:has-text('Structures')")
    page.click("[data-element=Ar]")
    page.wait_for_selector("#kept:has-text('2 of 8')")
    scored = site[0]
    tables = [table[table["group"].str.contains("Ar")] for table in scored.tables]
    wanted = {row.model: row for row in board(scored.runs, tables, replicates=50).rows}
    names = models(page)
    for key, digits in (("score", 3), ("lattice_mae", 3), ("skill_lattice", 2), ("strain", 4)):
        for name, text in zip(names, column(page, key), strict=True):
            assert float(text) == pytest.approx(
                wanted[name].metrics[key].point, abs=0.51 * 10**-digits
            ), (key, name)
    again = visit("index.html" + page.evaluate("location.hash"))
    again.wait_for_selector("#kept:has-text('2 of 8')")
    assert column(again, "score") == column(page, "score")
    page.click("[data-element=Ar]")
    page.wait_for_function("document.getElementById('kept').textContent === ''")
    assert column(page, "score")[0] == "1.000"
    assert "4/8" in column(page, "scored"), "what the page had before"


def test_rows_are_filtered_by_family(visit):
    page = visit()
    page.click("summary:has-text('Rows')")
    page.check("[data-row=family] input[value=gnn]")
    assert models(page) == ["halfway"]
    assert "r.family=gnn" in page.url


def test_weights_order_the_models_anew(visit):
    page = visit("index.html#?w=0|0|1")
    page.wait_for_selector("th[data-key=weighted]")
    assert models(page)[0] == "identity", "0.1 s is the shortest time"
    assert column(page, "weighted")[0] == "0.667", "(3 - log10 0.1) / 6"


def test_columns_are_hidden_and_added(visit):
    page = visit()
    page.click("summary:has-text('Columns')")
    page.uncheck("#columns input[value=track]")
    page.check("#columns input[value=a_mae]")
    assert not page.is_visible("th[data-key=track]")
    assert column(page, "a_mae")[models(page).index("oracle")] == "0"
    again = visit("index.html" + page.evaluate("location.hash"))
    assert again.is_visible("th[data-key=a_mae]")
    assert not again.is_visible("th[data-key=track]")


def test_csv_and_latex_have_what_is_shown(visit):
    page = visit("index.html#?hide=track&r.family=gnn")
    with page.expect_download() as download:
        page.click("text=CSV")
    rows = list(csv.reader(io.StringIO(Path(download.value.path()).read_text())))
    assert [row[1] for row in rows] == ["Model", "halfway"]
    assert "Track" not in rows[0]
    tex = page.evaluate("Table.latex()")
    assert tex.count("\\\\") == 2
    assert "Lattice MAE (\\AA{}) $\\downarrow$" in tex
    assert page.evaluate("Table.tex('a_b{\\\\input}')") == "a\\_b\\{\\textbackslash{}input\\}"


def test_a_formula_in_a_name_is_no_formula_in_the_csv(visit):
    page = visit()
    page.evaluate("document.querySelector('#models tbody th a').textContent = '=cmd()|\"x\"'")
    assert '"\'=cmd()|""x"""' in page.evaluate("Table.csv()")


@pytest.mark.skipif("3dmol.js" not in packages.vendored(), reason="leaderboard.site.packages")
def test_the_3d_view_is_turned_by_mouse_buttons_and_keys(visit):
    page = visit("structure/gpaw-0-0-pbe.html")
    page.wait_for_selector("#viewer canvas")
    page.click("[data-turn=left]")
    first = page.get_attribute("#viewer", "data-view")
    page.focus("#viewer")
    page.keyboard.press("ArrowUp")
    assert page.get_attribute("#viewer", "data-view") != first
    page.select_option("#which", "oracle")
    assert "model=oracle" in page.url
    assert "oracle" in page.inner_text("#legend")


def test_two_models_are_compared_and_a_point_opens_its_structure(visit, site):
    page = visit("compare.html#?a=halfway&b=identity&by=lattice_mae")
    page.wait_for_selector("#pair[data-ready]")
    (table,) = (each for each in site[0].board().differences if each.metric == "lattice_mae")
    wanted = table.cells["halfway"]["identity"]
    row = page.locator("#differences tbody tr").nth(1).inner_text().split("\t")
    assert row[0] == "lattice_mae"
    assert float(row[3].split()[0]) == pytest.approx(wanted.point, abs=1e-3)
    assert row[4:] == ["8", "halfway"]
    assert page.locator("#most tbody tr").count() == 8
    page.click("text=Exchange")
    assert page.input_value("#first") == page.evaluate("String(BOARD.models.indexOf('identity'))")
    if {"d3.js", "plot.js"} <= packages.vendored().keys():
        assert page.get_attribute("#chart", "data-points") == "8"
        page.locator("#chart a").first.dispatch_event("click")
    else:
        page.click("#most tbody a >> nth=0")
    page.wait_for_url("**/structure/gpaw-*.html")


@pytest.mark.skipif("minisearch.js" not in packages.vendored(), reason="site.packages")
def test_the_search_finds_models_and_structures_by_their_beginning(visit):
    page = visit("metrics.html")
    page.fill("#search", "half")
    page.wait_for_selector("#found a:has-text('halfway')")
    page.fill("#search", "gpaw 3")
    page.wait_for_selector("#found a:has-text('gpaw-3-0-pbe')")
    page.keyboard.press("Enter")
    page.wait_for_url("**/structure/gpaw-3-0-pbe.html")


def test_hostile_names_run_nothing(browser, tmp_path):
    write_site([("</title>", scored_runs(tmp_path / "runs", renamed=HOSTILE))], tmp_path / "site")
    page = browser.new_page()
    faults = []
    page.on("dialog", lambda dialog: (faults.append(dialog.message), dialog.dismiss()))
    page.on("pageerror", lambda error: faults.append(str(error)))
    for path in one_of_each_kind(tmp_path / "site"):
        page.goto(f"file://{path}")
        assert page.locator("img").count() == 0
    page.goto(f"file://{tmp_path}/site/index.html#?s.source=gpaw&w=1|1|1")
    page.wait_for_selector("th[data-key=weighted]")
    assert "<script>alert(1)</script>" in models(page)
    assert "'=cmd()|' /C calc'!A0" in page.evaluate("Table.csv()")
    assert "\\textbackslash{}input\\{x\\}" in page.evaluate("Table.latex()")
    page.goto(f"file://{tmp_path}/site/compare.html")
    page.wait_for_selector("#pair[data-ready]")
    page.close()
    assert not faults


def test_the_theme_is_that_of_the_device_until_it_is_changed(visit):
    page = visit(color_scheme="dark")
    shade = "getComputedStyle(document.documentElement).backgroundColor"
    assert page.evaluate(shade) == "rgb(22, 24, 27)"
    page.click("#theme")
    assert page.evaluate(shade) == "rgb(255, 255, 255)"


def test_a_narrow_screen_does_not_scroll_sideways(visit, site):
    for path in one_of_each_kind(site[1]):
        page = visit(path.relative_to(site[1]).as_posix(), viewport={"width": 360, "height": 700})
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, path


def test_the_keyboard_alone_sorts_and_filters(visit):
    page = visit()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.focus("th[data-key=position_mae] .sort")
    page.keyboard.press("Enter")
    assert page.get_attribute("th[data-key=position_mae]", "aria-sort") == "ascending"
    page.focus("summary:has-text('Rows')")
    page.keyboard.press("Enter")
    page.wait_for_selector("#controls [data-row] input:visible")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    page.wait_for_function("/r\\.(track|family)=/.test(location.hash)")


def test_without_scripts_the_table_and_the_definitions_are_there(visit):
    page = visit(java_script_enabled=False)
    assert page.locator("#models tbody tr").count() == 4
    assert not page.is_visible("#controls")
    page.click("th[data-key=score] summary")
    assert page.is_visible("th[data-key=score] p")


def test_axe_finds_no_serious_fault(visit, site):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="'.[browser]'")
    for path in one_of_each_kind(site[1]):
        for scheme in ("light", "dark"):
            page = visit(path.relative_to(site[1]).as_posix(), color_scheme=scheme)
            found = axe.Axe().run(page, options={"preload": False}).response["violations"]
            grave = [each for each in found if each["impact"] in ("serious", "critical")]
            told = [(each["id"], [n["html"][:120] for n in each["nodes"][:3]]) for each in grave]
            assert not told, path


def test_the_time_for_many_structures_is_told_and_kept_in_the_link(visit, site):
    page = visit()
    page.fill("#many", "1200")
    place = position(page, "wall_time_median") + 1
    told = page.locator(f"#models tbody tr:visible td:nth-child({place}) small").all_inner_texts()
    seconds = [float(text) for text in column(page, "wall_time_median")]
    assert [text.strip() for text in told] == [f"· {20 * x:g} min in all" for x in seconds]
    again = visit("index.html" + page.evaluate("location.hash"))
    assert again.input_value("#many") == "1200"
    again.fill("#many", "")
    assert "in all" not in again.locator("#models").inner_text()
