"""Write the site of scored runs: one folder that opens from `file://`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote

from markupsafe import Markup, escape

from benchmarks.core import UserError
from benchmarks.core.formatting import NOTHING, format_estimate
from benchmarks.core.inert_text import file_names, for_script, visible
from benchmarks.metrics import EVALUATOR, METRICS
from leaderboard.paper.references import references_of_model
from leaderboard.scoring import ScoredRuns
from leaderboard.site import model_page, packages, structure_page
from leaderboard.site.about_pages import changelog, data_facts, row_changes, search_entries
from leaderboard.site.board_page import (
    SAMPLES_PER_PAGE,
    BoardPage,
    board_context,
    board_pages,
    overview,
)
from leaderboard.views.table_columns import repeated

if TYPE_CHECKING:
    from jinja2 import Environment

ASSETS: Final = Path(__file__).with_name("assets")
MARKER: Final = ".t2relax-site"
"""Lists the files of a site in its folder, so that the next one removes what it no longer has."""
MENU: Final = (
    ("Leaderboard", "index.html"),
    ("Compare", "compare.html"),
    ("Metrics", "metrics.html"),
    ("Data", "data.html"),
    ("Submit", "submit.html"),
    ("Changes", "changes.html"),
)
"""The pages of the menu: labels and addresses."""


def write_site(
    listed: Sequence[tuple[str, ScoredRuns]], folder: Path, vendor: Path = packages.VENDOR
) -> list[Path]:
    """Write the pages of one or more boards.

    Args:
        listed: The boards: a name for the files (empty: that of the data set), and the runs.
        folder: New or empty, or a site that was written before.
        vendor: Where the packages from npm are, as far as they are there.

    Returns:
        The files.

    Raises:
        UserError: There is no board, or the folder holds other files.
    """
    if not listed:
        raise UserError("--site: there are no runs to show")
    old = _old_files(folder)
    written = []

    def put(path: str, content: bytes) -> None:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        written.append(path)

    try:
        for path, text in _texts(listed, packages.missing(vendor)):
            put(path, text.encode("utf-8"))
        assets = {path.name: path for path in sorted(ASSETS.iterdir())} | packages.vendored(vendor)
        for name, source in assets.items():
            put(f"assets/{name}", source.read_bytes())
        for path in old - set(written):
            (folder / path).unlink(missing_ok=True)
        put(MARKER, ("\n".join(sorted(written)) + "\n").encode())
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror or error})") from error
    return [folder / path for path in written]


def _old_files(folder: Path) -> set[str]:
    """The files of the site that is in the folder."""
    try:
        if folder.is_dir() and any(folder.iterdir()):
            if not (folder / MARKER).is_file():
                raise UserError(f"{folder} holds files that are no site: name another folder")
            return set((folder / MARKER).read_text(encoding="utf-8").splitlines())
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror or error}") from error
    return set()


def _texts(
    listed: Sequence[tuple[str, ScoredRuns]], missing: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """Path and text of every page and script."""
    addresses = structure_page.structure_addresses([scored for _, scored in listed])
    pages = board_pages(listed, addresses)
    order = [row.model for page in pages for row in (*page.board.rows, *page.board.apart)]
    models = {model: f"model/{quote(name)}.html" for model, name in file_names(order).items()}
    shared: dict[str, Any] = {
        "boards": pages, "models": models, "menu": MENU, "missing": missing, "root_board": "",
    }  # fmt: skip

    def page_of(template: str, address: str, **context: Any) -> tuple[str, str]:
        about = {"root": "../" * address.count("/"), "here": address}
        text = _environment().get_template(template).render(shared | about | context)
        return unquote(address), text

    yield page_of("index.html.j2", pages[0].address,
                  **board_context(pages[0]) | {"overview": overview(pages)})  # fmt: skip
    for page in pages[1:]:
        yield page_of("board.html.j2", page.address, **board_context(page))
    for page in pages:
        yield unquote(page.json), page.board.to_json()
        yield f"data/{page.name}.js", f"window.BOARD={for_script(page.data)};\n"
        for number, lines in enumerate(_sample_lists(page), 1):
            address = f"samples/{quote(page.name)}-{number}.html"
            count = -(-len(page.ids) // SAMPLES_PER_PAGE)
            yield page_of("samples.html.j2", address, page=page, lines=lines, number=number,
                          count=count)  # fmt: skip
        yield page_of("compare.html.j2", page.compare, page=page,
                      scatter=not any("scatter" in each for each in missing))  # fmt: skip
    for model, address in models.items():
        yield page_of("model.html.j2", address, **_model_context(pages, model))
    viewer = not any("3dmol" in each for each in missing)
    for each in structure_page.structure_pages([page.scored for page in pages], addresses):
        yield page_of("structure.html.j2", each.address, page=each, viewer=viewer,
                      errors=structure_page.ERRORS)  # fmt: skip
    yield page_of("metrics.html.j2", "metrics.html", metrics=METRICS)
    yield page_of("data.html.j2", "data.html", found=[data_facts(page) for page in pages])
    entries = search_entries(pages, models, MENU)
    yield "data/search.js", f"window.SEARCH={for_script(entries)};\n"
    yield page_of("submit.html.j2", "submit.html")
    yield page_of("changes.html.j2", "changes.html", rows=row_changes(pages),
                  entries=changelog(), evaluator=EVALUATOR)  # fmt: skip


def _model_context(pages: Sequence[BoardPage], model: str) -> dict[str, Any]:
    found = [
        facts
        for page in pages
        if (facts := model_page.on_board(page, page.board, page.scored, page.ids, model))
    ]
    runs = [run for page in pages for run in page.scored.runs if run.name == model]
    newest = max(runs, key=lambda run: str(run.provenance.get("ended") or ""))
    return {
        "model": model,
        "found": found,
        "card": model_page.card(newest, found[0].row),
        "references": [each.bibtex for each in references_of_model(found[0].row)],
        "reported": model_page.REPORTED,
        "costs": model_page.COSTS,
        "units": {name: METRICS[name].unit for name in model_page.COSTS},
    }


def _sample_lists(page: BoardPage) -> Iterator[list[dict[str, Any]]]:
    """The samples of a board in lists of `SAMPLES_PER_PAGE`, with the score of every model."""
    data = page.data
    score = next((each for each in data["metrics"] if each["name"] == "score"), None)
    for start in range(0, len(page.ids), SAMPLES_PER_PAGE):
        yield [
            {
                "id": page.ids[i],
                "address": page.sample_pages[page.ids[i]],
                "facts": [data[key][i] for key in ("group", "sites", "system", "source")],
                "scores": [values[i] for values in score["values"]] if score else [],
            }
            for i in range(start, min(start + SAMPLES_PER_PAGE, len(page.ids)))
        ]


def _with_code(text: str) -> Markup:
    """A note with the words between backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(visible(text)))))  # noqa: S704


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("leaderboard.site"),
        undefined=StrictUndefined,
        autoescape=True,
        finalize=visible,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "short": lambda x: NOTHING if x is None else f"{x:.4g}",
        "estimate": format_estimate,
        "signed": partial(format_estimate, signed=True),
        "code": _with_code,
        "repeated": repeated,
        "json": lambda value: Markup(for_script(value)),  # noqa: S704 - no `<` is in it
        "fragment": lambda text: quote(text, safe=""),
    }
    return environment
