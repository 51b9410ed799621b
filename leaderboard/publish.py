"""Run folders to boards, and boards to files: `board.json`, and `board.md` as a view of it."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from benchmarks.core import UserError
from benchmarks.core.inert_text import file_names
from leaderboard.board.scores import stale_scores
from leaderboard.scoring import (
    PUBLISHED,
    BoardEntry,
    ScoredRuns,
    find_dataset,
    score_published,
    score_runs,
    scored,
    with_studies,
)

if TYPE_CHECKING:
    from benchmarks.data import Dataset
    from leaderboard.board.schema import Board, Row
    from leaderboard.paper import PaperParts

BOARD: Final = "board.json"
PAGE: Final = "board.md"
CLOSING: Final = "<!-- /leaderboard -->"
"""Ends the table of a board in another page."""


class PublishedBoards(NamedTuple):
    """The result of `publish`."""

    boards: list[Board]
    """One per data set, by name."""
    files: list[Path]
    """The files that were written."""
    left_out: list[str]
    """A line for each figure or table of a paper whose data are missing."""


def publish(
    run_folders: Iterable[Path],
    out: Path,
    datasets: Sequence[Dataset] = (),
    *,
    csv: bool = False,
    figures: bool = False,
    paper: PaperParts | None = None,
) -> PublishedBoards:
    """Score runs and write their leaderboards.

    One data set is written to `out` itself, several each to a folder of `out`; they never share a
    table.

    Args:
        run_folders: Model folders, archives, or folders of them.
        out: The folder for `board.json` and `board.md`.
        datasets: Data that the runs may be of; the embedded set is found without. If a run's data
            are not at hand its stored scores are read.
        csv: Whether every metric is also written to `board.csv`.
        figures: Whether error against time is also drawn, as `leaderboard.svg`.
        paper: What a paper takes from each board: its figures, its tables.

    Raises:
        UserError: A run is damaged or cannot be scored, or no board ranks a model that `paper`
            names.
    """
    scored_runs = score_runs(run_folders, datasets)
    boards = [each.board() for each in scored_runs]
    folders = _folders(boards, out)
    boards = list(map(with_studies, boards, folders))
    made = list(zip(scored_runs, boards, folders, folders, strict=True))
    return _write_boards(made, csv=csv, figures=figures, paper=paper)


def publish_listed(
    out: Path,
    datasets: Sequence[Dataset] = (),
    *,
    csv: bool = False,
    figures: bool = False,
    paper: PaperParts | None = None,
) -> PublishedBoards:
    """As `publish`, for the published boards: each goes into the folder of `out` with its name."""
    listed = score_published(datasets, store=False)
    made = [
        (runs, runs.board(), out / entry.name, PUBLISHED.parent / "boards" / entry.name)
        for entry, runs in listed
    ]
    return _write_boards(made, csv=csv, figures=figures, paper=paper)


def _write_boards(
    made: Sequence[tuple[ScoredRuns, Board, Path, Path]],
    *,
    csv: bool,
    figures: bool,
    paper: PaperParts | None,
) -> PublishedBoards:
    """Write boards: the runs of each, its folder, and the folder where its studies may lie."""
    from leaderboard.paper import require_known_models, write_paper
    from leaderboard.views.figures import error_against_time

    boards = [board for _, board, _, _ in made]
    if paper is not None:
        require_known_models(paper.models, boards)
    texts: dict[Path, str] = {}
    for _, board, folder, _ in made:
        texts |= _documents(board, folder, csv=csv)
    write(texts)
    files, left_out = [*texts], []
    for runs, board, folder, studies in made:
        if figures:
            files += error_against_time(board, folder / "leaderboard.svg")
        if paper is not None:
            written = write_paper(runs, board, folder, paper, studies=studies)
            files += written.files
            left_out += [f"{board.name}: {line}" for line in written.left_out]
    return PublishedBoards(boards, files, left_out)


def write(texts: Mapping[Path, str]) -> None:
    """Write each text to its path."""
    from benchmarks.core.files import atomic_write

    for path, text in texts.items():
        with atomic_write(path) as partial:
            partial.write_text(text, encoding="utf-8")


def differing(texts: Mapping[Path, str]) -> list[str]:
    """Say, a line each, how files differ from these texts; of a board every cell is named."""
    lines = []
    for path, text in texts.items():
        old = path.read_text(encoding="utf-8") if path.exists() else None
        if old == text:
            continue
        if old is None:
            lines.append(f"{path} is missing")
        elif path.name == BOARD:
            cells = _different_cells(json.loads(old), json.loads(text), "")
            lines += [f"{path}: {cell}" for cell in cells]
        else:
            lines += [f"{path}:{line}" for line in _different_lines(old, text)]
    return lines


def _different_lines(old: str, new: str) -> Iterator[str]:
    """The lines in which two pages differ, by number; of rows of tables the cells."""
    ours, theirs = old.splitlines(), new.splitlines()
    matcher = difflib.SequenceMatcher(None, ours, theirs, autojunk=False)
    for tag, first, last, start, end in matcher.get_opcodes():
        if tag == "equal":
            continue
        for number, is_there, wanted in zip_longest(
            range(first + 1, last + 1), ours[first:last], theirs[start:end]
        ):
            if is_there is None:
                yield f'{last + 1}: the runs give "{wanted}" here too'
                continue
            if wanted is None:
                yield f'{number}: "{is_there}" in the file, the runs give no such line'
                continue
            cells, right = (line.strip("| ").split(" | ") for line in (is_there, wanted))
            if not is_there.startswith("|") or len(cells) != len(right):
                yield f'{number}: "{is_there}" in the file, the runs give "{wanted}"'
                continue
            rules = (n for n in range(1, number) if ours[n].startswith("| ---"))
            heads = ours[max(rules, default=1) - 1].strip("| ").split(" | ")
            for head, cell, other in zip(heads, cells, right, strict=False):
                if cell != other:
                    row = f"{number}: {' '.join(cells[:2])}: {head}"
                    yield f"{row}: {cell} in the file, the runs give {other}"


def _different_cells(old: Any, new: Any, where: str) -> Iterator[str]:
    """The places in which two JSON values differ; rows are named for their models."""
    if isinstance(old, list) and isinstance(new, list):
        old, new = (
            {
                each.get("model", k) if isinstance(each, dict) else k: each
                for k, each in enumerate(listed)
            }
            for listed in (old, new)
        )
    if not isinstance(old, dict) or not isinstance(new, dict):
        if old != new:
            yield f"{where}: {json.dumps(old)} in the file, the runs give {json.dumps(new)}"
        return
    for key in dict.fromkeys([*old, *new]):
        inside = f"{where}.{key}" if where else str(key)
        if key not in old or key not in new:
            yield f"{inside} is {'new' if key in new else 'gone'}"
        else:
            yield from _different_cells(old[key], new[key], inside)


def _counts(row: Row) -> str:
    return " ".join(f"{count} {status}" for status, count in row.coverage.items() if count)


TOLERANCES: Final = {"Å": 0.002, "Å²": 0.01, "°": 0.02, "%": 0.1, "": 0.005}
"""By the unit of a metric, how far its value may be from the stored one on another machine. Scores,
skills and rates have no unit; times and memory belong to a machine and are not compared."""
COUNTED: Final = {"n_force_evals": 1.0, "n_tokens": 1.0}
"""The same for medians of counts."""


def departures(board: Board, stored: Board) -> list[str]:
    """Say, a line each, where rows are farther from those of a stored board than `TOLERANCES`.

    Args:
        board: A board that was made again.
        stored: The board that it should agree with; it may have further models.

    Raises:
        UserError: The boards are of different data, or have no model in common.
    """
    for name in ("name", "split", "revision", "n_samples"):
        ours, theirs = getattr(board.dataset, name), getattr(stored.dataset, name)
        if ours != theirs:
            raise UserError(f"the boards are of different data: {name} {ours} and {theirs}")
    known = {row.model: row for row in stored.rows}
    rows = [row for row in board.rows if row.model in known]
    if not rows:
        raise UserError(f"the stored board of {stored.name} has none of these models")
    lines = []
    for row in rows:
        expected = known[row.model]
        if row.coverage != expected.coverage:
            lines.append(f"{row.model}: {_counts(row)}, stored {_counts(expected)}")
        for name, metric in board.metrics.items():
            tolerance = COUNTED.get(name, TOLERANCES.get(metric.unit))
            if tolerance is None or name not in expected.metrics:
                continue
            found, old = row.metrics[name].point, expected.metrics[name].point
            apart = math.nan if found is None or old is None else abs(found - old)
            if found != old and not apart <= tolerance:
                lines.append(
                    f"{row.model}: {name} {found}, stored {old}, may differ by {tolerance}"
                )
    return lines


def make_boards(
    run_folders: Iterable[Path],
    datasets: Sequence[Dataset] = (),
    *,
    store: bool = True,
    part: BoardEntry | None = None,
) -> list[Board]:
    """Compare the runs of each data set; the arguments are those of `score_runs`."""
    scored_runs = score_runs(run_folders, datasets, store=store, part=part)
    return [each.board() for each in scored_runs]


def write_archive_of(
    run_folders: Iterable[Path], folder: Path, datasets: Sequence[Dataset] = ()
) -> list[Path]:
    """Write the runs of one data set as an archive, with their scores.

    Args:
        run_folders: Model folders, archives, or folders of them.
        folder: The archive.
        datasets: The data that the runs were made on; the embedded set is found without.

    Returns:
        The files of the archive.

    Raises:
        UserError: The data are not at hand, or the runs are not all of one data set.
    """
    from benchmarks.store import read_runs, write_archive

    runs = sorted(read_runs(run_folders), key=lambda run: run.name)
    dataset = find_dataset(runs[0], datasets)
    if dataset is None:
        name = runs[0].identity["dataset"]
        raise UserError(f"an archive stores changes of initial structures: name {name} with --data")
    initial = {each: dataset.geometries(i)[0] for i, each in enumerate(dataset.ids)}
    write_archive(folder, [run.with_initial(initial) for run in runs], initial)
    scored(read_runs([folder]), dataset, store=True)
    return sorted(path for path in folder.iterdir() if path.is_file())


def documents(boards: Sequence[Board], out: Path, *, csv: bool = False) -> dict[Path, str]:
    """The text of every file of the boards, by path."""
    texts: dict[Path, str] = {}
    for board, folder in zip(boards, _folders(boards, out), strict=True):
        texts |= _documents(board, folder, csv=csv)
    return texts


def _documents(board: Board, folder: Path, *, csv: bool) -> dict[Path, str]:
    from leaderboard.views.markdown import markdown, to_csv

    texts = {folder / BOARD: board.to_json(), folder / PAGE: markdown(board)}
    return texts | ({folder / "board.csv": to_csv(board)} if csv else {})


def _folders(boards: Sequence[Board], out: Path) -> list[Path]:
    """The folder of each board: `out` for one alone, else one each, named for its data set."""
    if len(boards) == 1:
        return [out]
    slugs = [board.name.replace("/", "-") for board in boards]
    slugs = [file_names([slug])[slug] for slug in slugs]
    # two revisions of one data set are two boards
    revisions = [board.dataset.revision.removeprefix("sha256:")[:8] for board in boards]
    names = (
        slug if slugs.count(slug) == 1 else f"{slug}-{revision}"
        for slug, revision in zip(slugs, revisions, strict=True)
    )
    return [out / name for name in names]


class PublishedDocuments(NamedTuple):
    """The result of `published_documents`."""

    texts: dict[Path, str]
    """By path."""
    boards: list[tuple[BoardEntry, Board]]
    """In the order of the list."""
    stale: list[str]
    """Lines that name the stored scores which are not those that the records give; none where the
    scores have just been kept."""


def published_documents(
    datasets: Sequence[Dataset] = (), *, store: bool = True, listed: Path = PUBLISHED
) -> PublishedDocuments:
    """The files of the published boards, and the pages that show their tables.

    These pages are `README.md` and `docs/*.md` beside the folder of `listed`.

    Args:
        datasets: As in `publish`.
        store: Whether the scores are kept beside the runs.
        listed: The list of the boards; `runs` and `boards` are beside it.

    Raises:
        UserError: An archive cannot be read or scored, or a page lacks the end of a marker.
    """
    texts: dict[Path, str] = {}
    boards = []
    stale: dict[str, None] = {}  # boards share archives
    for entry, runs in score_published(datasets, store=store, listed=listed):
        board = runs.board()
        texts |= documents([board], listed.parent / "boards" / entry.name)
        boards.append((entry, board))
        if not store:
            for run, table in (*zip(runs.runs, runs.tables, strict=True), *runs.controls):
                stale |= dict.fromkeys(stale_scores(run, table))
    root = listed.parents[1]
    for page in (root / "README.md", *sorted((root / "docs").glob("*.md"))):
        if page.exists():
            texts[page] = _with_sections(page, [board for _, board in boards])
    return PublishedDocuments(texts, boards, [*stale])


def _with_sections(page: Path, boards: Sequence[Board]) -> str:
    """The page with the tables between its markers.

    After `<!-- leaderboard:NAME -->`, NAME being a board's `name`, the board stands with its notes,
    after `<!-- table:TITLE -->`, TITLE being its heading, without them.
    """
    from leaderboard.views.markdown import section, title

    text = page.read_text(encoding="utf-8")
    sections = {}
    for board in boards:
        sections[f"<!-- leaderboard:{board.name} -->"] = section(board, "### ", with_notes=True)
        sections[f"<!-- table:{title(board)} -->"] = section(board, "#### ", with_notes=False)
    for marker, found in sections.items():
        if marker not in text:
            continue
        before, rest = text.split(marker, 1)
        if CLOSING not in rest:
            raise UserError(f"{page}: no {CLOSING} after {marker}")
        after = rest.split(CLOSING, 1)[1]
        text = f"{before}{marker}\n{found}{CLOSING}{after}"
    return text
