"""Run folders to the files of the leaderboard."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.core import MissingFinalFrame, UserError

if TYPE_CHECKING:
    from benchmarks.data import Dataset
    from benchmarks.store import StoredRun
    from leaderboard.board.summary import Board


class PublishedBoards(NamedTuple):
    """What `publish` made."""

    boards: list[Board]
    """One per data set, by name."""
    files: list[Path]
    """What was written."""


def publish(
    run_folders: Iterable[Path],
    out: Path,
    datasets: Sequence[Dataset] = (),
    *,
    pages: Sequence[Path] = (),
) -> PublishedBoards:
    """Score runs and write their leaderboards.

    One data set is written to `out` itself, several each to a folder of `out`; they never share a
    table.

    Args:
        run_folders: Model folders, or folders of them.
        out: Where leaderboard.md, .json, .csv, .svg, .png, slices.md and differences.md go, and
            hybrids.md and .json where there are hybrids beside their last part.
        datasets: Data that the runs may be of; the embedded set is found without. Where a run's
            data are not at hand its stored scores are read.
        pages: Files whose sections up to `<!-- /leaderboard -->` are replaced: after
            `<!-- leaderboard:NAME -->`, NAME being a board's `name`, by the board, after
            `<!-- table:TITLE -->`, TITLE being its heading, by the board without its notes.

    Raises:
        UserError: A run is damaged, cannot be scored, or the pages have no section for any board.
    """
    from leaderboard.views.figures import error_against_time

    boards = make_boards(run_folders, datasets)
    texts = documents(boards, out, pages)
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    figures = [
        path
        for board, folder in zip(boards, _folders(boards, out), strict=True)
        for path in error_against_time(board, folder / "leaderboard")
    ]
    return PublishedBoards(boards, [*texts, *figures])


def outdated_files(
    run_folders: Iterable[Path],
    out: Path,
    datasets: Sequence[Dataset] = (),
    *,
    pages: Sequence[Path] = (),
) -> list[Path]:
    """The Markdown, JSON and CSV files that `publish` would change; nothing is written."""
    texts = documents(make_boards(run_folders, datasets, store=False), out, pages)
    return [
        path
        for path, text in texts.items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]


def make_boards(
    run_folders: Iterable[Path], datasets: Sequence[Dataset] = (), *, store: bool = True
) -> list[Board]:
    """Read and score runs, and compare those of one data set, revision and split.

    Args:
        run_folders: Model folders, or folders of them.
        datasets: As in `publish`.
        store: Keep the scores beside the runs.
    """
    from benchmarks.store import read_runs
    from leaderboard.board.scores import scores
    from leaderboard.board.summary import board

    by_dataset: dict[tuple[str, str, str], list[StoredRun]] = {}
    for run in read_runs(run_folders):
        by_dataset.setdefault(_key(run), []).append(run)
    boards = []
    for key in sorted(by_dataset):
        runs = sorted(by_dataset[key], key=lambda run: run.name)
        dataset = find_dataset(runs[0], datasets)
        whole = [run for run in runs if not run.provenance.get("aborted")]
        ended = [run for run in runs if run.provenance.get("aborted")]
        tables = [scores(run, dataset, store=store) for run in whole]
        boards.append(board(whole, tables, ended=ended))
    return boards


def find_dataset(run: StoredRun, datasets: Sequence[Dataset]) -> Dataset | None:
    """The data that a run was made on: one of `datasets`, the embedded set, or None."""
    from benchmarks.data import load
    from benchmarks.data.folders import EMBEDDED_SETS, MANIFEST

    policy = run.identity.get("end_missing", MissingFinalFrame.IF_RELAXED)
    for dataset in datasets:
        key = (dataset.name, dataset.revision, dataset.split or "")
        if _key(run) == key and dataset.missing_final_frame == policy:
            return dataset
    name = run.identity["dataset"].removesuffix("-v1")
    if name in EMBEDDED_SETS and (EMBEDDED_SETS[name] / MANIFEST).is_file():
        embedded = load(name, split=run.identity["split"])
        if embedded.revision == run.identity["revision"]:
            return embedded
    return None


def _key(run: StoredRun) -> tuple[str, str, str]:
    identity = run.identity
    return identity["dataset"], identity["revision"], identity.get("split") or ""


def documents(boards: Sequence[Board], out: Path, pages: Sequence[Path]) -> dict[Path, str]:
    """The text of every file of the boards, and of the pages that show them, by path."""
    from leaderboard.board import hybrids
    from leaderboard.views.markdown import markdown, title, to_csv, to_json, tracks

    texts = {}
    for board, folder in zip(boards, _folders(boards, out), strict=True):
        texts[folder / "leaderboard.md"] = markdown(board)
        texts[folder / "leaderboard.json"] = to_json(board)
        texts[folder / "leaderboard.csv"] = to_csv(board)
        texts[folder / "tracks.md"] = tracks(board)
        texts[folder / "slices.md"] = board.slices
        texts[folder / "differences.md"] = board.differences
        if board.hybrids:
            heading = title(board)
            texts[folder / "hybrids.md"] = hybrids.markdown(board.hybrids, heading)
            texts[folder / "hybrids.json"] = hybrids.to_json(board.hybrids, heading)
    return texts | _with_sections(pages, boards)


def _folders(boards: Sequence[Board], out: Path) -> list[Path]:
    """Folder of each board: `out` for one alone, else one each, named for its data set."""
    if len(boards) == 1:
        return [out]
    slugs = [board.name.replace("/", "-") for board in boards]
    # two revisions of one data set are two boards
    revisions = [str(board.dataset["revision"]).removeprefix("sha256:")[:8] for board in boards]
    names = (
        slug if slugs.count(slug) == 1 else f"{slug}-{revision}"
        for slug, revision in zip(slugs, revisions, strict=True)
    )
    return [out / name for name in names]


def _with_sections(pages: Sequence[Path], boards: Sequence[Board]) -> dict[Path, str]:
    """The texts of the pages with the tables of the boards between their markers."""
    from leaderboard.views.markdown import markdown, title

    sections = {}
    for board in boards:
        sections[f"<!-- leaderboard:{board.name} -->"] = markdown(board, heading="### ")
        sections[f"<!-- table:{title(board)} -->"] = markdown(board, heading="#### ", noted=False)
    texts: dict[Path, str] = {}
    shown = False
    for page in pages:
        if not page.exists():
            raise UserError(f"{page}: no such file")
        text = page.read_text(encoding="utf-8")
        for marker, section in sections.items():
            if marker not in text:
                continue
            shown = True
            before, rest = text.split(marker, 1)
            if CLOSING not in rest:
                raise UserError(f"{page}: no {CLOSING} after {marker}")
            after = rest.split(CLOSING, 1)[1]
            text = f"{before}{marker}\n{section}{CLOSING}{after}"
        texts[page] = text
    if pages and not shown:
        raise UserError(
            f"{', '.join(map(str, pages))} has none of the markers {', '.join(sections)}"
        )
    return texts


CLOSING = "<!-- /leaderboard -->"
"""Ends the section of a board on a page."""
