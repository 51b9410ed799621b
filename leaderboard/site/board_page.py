"""A board with the addresses of its pages, and what its own page shows beside the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from benchmarks.core.formatting import NOTHING, format_number
from benchmarks.core.geometry import elements
from benchmarks.core.inert_text import file_names
from leaderboard.board.comparisons import power
from leaderboard.board.schema import Board
from leaderboard.paper.references import bibliography
from leaderboard.scoring import ScoredRuns
from leaderboard.site import trust
from leaderboard.site.board_table import Cell, columns, format_interval, lines
from leaderboard.site.drawing import Scale, element_places, interval
from leaderboard.site.sample_data import board_data, sample_ids
from leaderboard.site.sentences import sentences
from leaderboard.views.markdown import notes, title

SAMPLES_PER_PAGE: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardPage:
    """A board, the data of its samples, and the addresses of its pages."""

    board: Board
    scored: ScoredRuns
    ids: tuple[str, ...]
    """The samples, sorted."""
    name: str
    """Of its files."""
    short: str
    """Stands on its tab."""
    title: str
    address: str
    compare: str
    """The page that compares two of its models."""
    samples: str
    """The script with the scores of its samples."""
    sample_pages: Mapping[str, str]
    """The address of each sample: its page, or its line in a list."""
    data: Mapping[str, Any]
    """`board_data` of it."""

    @property
    def json(self) -> str:
        """The board's data."""
        return f"data/{quote(self.name)}.json"

    @property
    def samples_page(self) -> str:
        """The first list of its samples; empty without samples."""
        return f"samples/{quote(self.name)}-1.html" if self.ids else ""


def board_pages(
    listed: Sequence[tuple[str, ScoredRuns]], structures: Mapping[tuple[str, str], str]
) -> list[BoardPage]:
    """The boards with their addresses; the first is the one on the index.

    Args:
        listed: The boards: a name (empty: that of the data set), and the runs. Those with a name
            stay in their order, the others come the largest first.
        structures: The address of each structure's page, by revision of the data and sample id.
    """
    made = [(name, scored, scored.board()) for name, scored in listed]
    made.sort(key=lambda each: 0 if each[0] else -each[2].dataset.n_samples)
    shorts = [name or board.name.replace("/", "-") for name, _, board in made]
    if len(set(shorts)) < len(shorts):  # two revisions of one data set are two boards
        shorts = [
            f"{short} {board.dataset.revision.removeprefix('sha256:')[:8]}"
            for short, (_, _, board) in zip(shorts, made, strict=True)
        ]
    files = file_names(shorts)
    pages = []
    for k, (_, scored, board) in enumerate(made):
        name = files[shorts[k]]
        ids = sample_ids(board, scored)
        addresses = {
            each: structures.get((board.dataset.revision, each))
            or f"samples/{quote(name)}-{1 + i // SAMPLES_PER_PAGE}.html#{quote(each, safe='')}"
            for i, each in enumerate(ids)
        }
        pages.append(
            BoardPage(
                board=board,
                scored=scored,
                ids=tuple(ids),
                name=name,
                short=shorts[k],
                title=title(board),
                address="index.html" if k == 0 else f"board/{quote(name)}.html",
                compare="compare.html" if k == 0 else f"compare/{quote(name)}.html",
                samples=f"data/{quote(name)}.js",
                sample_pages=addresses,
                data=board_data(board, scored, addresses, ids),
            )
        )
    return pages


def board_context(page: BoardPage) -> dict[str, Any]:
    """What the template of a board's page shows."""
    return {
        "page": page,
        "sentences": sentences(page.board),
        "columns": columns(page.board),
        "lines": lines(page.board, page.board.rows),
        "apart": lines(page.board, page.board.apart),
        "notes": notes(page.board),
        "facets": _facets(page),
        "bibtex": bibliography(page.board, page.board.rows),
        "root_board": page.json,
        **_trust(page),
        "overview": {},
    }


def _trust(page: BoardPage) -> dict[str, Any]:
    """What the fold-out on trust shows."""
    leader, found = trust.of_leader(page.board)
    return {
        "tests": trust.self_tests(page.scored, page.ids),
        "power": power(page.board.conclusions),
        "pairs": len(page.board.conclusions),
        "conclusions": found,
        "leader": leader,
        "repeated": [row for row in page.board.rows if row.spread],
    }


def _facets(page: BoardPage) -> dict[str, Any]:
    """What rows and structures can be filtered by, with the values that occur."""
    rows = []
    for key, label in (("track", "Track"), ("family", "Family"), ("functional", "Trained on")):
        values = sorted({str(getattr(row, key) or "") for row in page.board.rows})
        if len(values) > 1:
            rows.append((key, label, values))
    samples = []
    for key, label in (
        ("functional", "Functional"),
        ("source", "Source"),
        ("system", "Crystal system of the start"),
    ):
        values = sorted(set(page.data.get(key, ())))
        if len(values) > 1:
            samples.append((key, label, values))
    groups = set(page.data.get("group", ()))
    inside = {symbol for group in groups for symbol in elements(group)}
    places = [each for each in element_places() if each[0] in inside]
    return {"rows": rows, "samples": samples, "elements": places}


def overview(pages: Sequence[BoardPage]) -> dict[str, list[Cell]]:
    """The score of each model on each board; models on many boards first, then by mean rank."""
    places: dict[str, list[float]] = {}
    for page in pages:
        for row in page.board.rows:
            places.setdefault(row.model, []).append((row.rank or 0) / len(page.board.rows))
    order = sorted(places, key=lambda m: (-len(places[m]), sum(places[m]) / len(places[m]), m))
    found: dict[str, list[Cell]] = {model: [] for model in order}
    for page in pages:
        by_model = {row.model: row.metrics["score"] for row in page.board.rows}
        scale = Scale.of(by_model.values())
        for model in order:
            score = by_model.get(model)
            cell = Cell(NOTHING)
            if score is not None:
                text, small = format_number(score.point, 3), format_interval(score, 3)
                cell = Cell(text, score.point, interval(score, scale), small)
            found[model].append(cell)
    return found
