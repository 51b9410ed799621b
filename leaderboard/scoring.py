"""Stored runs to scored runs: what a board, a page or a figure is made from.

A board is over the runs of one data set, revision and split. `ScoredRuns` holds these runs with the
scores of each sample, and `board` compares them.
"""

from __future__ import annotations

import csv
import math
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.core import MissingFinalFrame, UserError

if TYPE_CHECKING:
    import pandas as pd

    from benchmarks.data import Dataset
    from benchmarks.store import StoredRun
    from leaderboard.board.schema import Board, Invariance, SeedSpread

PUBLISHED: Final = Path(__file__).with_name("boards.toml")
"""The list of the published boards; their runs and files lie beside it."""

CONTROL: Final = "control"
"""The family of the runs whose answer is known beforehand."""

INVARIANCE: Final = "invariance.csv"
"""`python -m studies.invariance --out DIR` writes it; beside a board, it is a column."""
SEEDS: Final = "seeds.csv"
"""`python -m studies.seeds --out DIR` writes it; beside a board, it is a column."""
MEAN: Final = "mean"
"""The writing that names, in that file, the mean over all writings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardEntry:
    """One published board, as `boards.toml` lists it."""

    name: str
    """Its folder in `boards`."""
    archive: str
    """The folder in `runs` that holds its runs."""
    dataset: str | None = None
    """Says which part of the samples it keeps; None: the name of the data set."""
    functional: str | None = None
    """Keeps the samples of this functional; None keeps all."""
    without_compositions: tuple[str, ...] = ()
    """Leaves out the samples of these reduced compositions."""
    figures: bool = False
    """Whether its figure is committed, as a page shows it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredRuns:
    """The runs of one data set, with the scores of each sample."""

    runs: tuple[StoredRun, ...]
    """One per model, by name; with their structures if the data are at hand."""
    tables: tuple[pd.DataFrame, ...]
    """`leaderboard.board.scores.scores` of each run, of the samples that the board keeps."""
    ended: tuple[StoredRun, ...]
    """Further runs, which the error budget ended."""
    controls: tuple[tuple[StoredRun, pd.DataFrame], ...] = ()
    """Further runs, of family control, with their scores: they are checked, and not ranked."""
    dataset: Dataset | None
    """The data that the runs were made on; None if they are not at hand."""
    beside: Path | None = None
    """The folder that may hold `INVARIANCE` and `SEEDS`; None: there is none."""

    def board(self) -> Board:
        """Compare the runs.

        Raises:
            UserError: The file of a study beside the board cannot be read.
        """
        from leaderboard.board.summary import board

        made = board(self.runs, self.tables, ended=self.ended, controls=self.controls)
        return made if self.beside is None else with_studies(made, self.beside)


def score_runs(
    run_folders: Iterable[Path],
    datasets: Sequence[Dataset] = (),
    *,
    store: bool = True,
    part: BoardEntry | None = None,
) -> list[ScoredRuns]:
    """Read and score runs; those of one data set, revision and split are together.

    Args:
        run_folders: Model folders, archives, or folders of them.
        datasets: Data that the runs may be of; the embedded sets are found without.
        store: Whether the scores are kept beside the runs.
        part: The samples to keep; None keeps all.

    Raises:
        UserError: A run is damaged or cannot be scored, or has no sample of `part`.
    """
    from benchmarks.store import read_runs

    by_dataset: dict[tuple[str, str, str], list[StoredRun]] = {}
    for run in read_runs(run_folders):
        by_dataset.setdefault(_key(run), []).append(run)
    found = []
    for key in sorted(by_dataset):
        runs = sorted(by_dataset[key], key=lambda run: run.name)
        whole = [run for run in runs if not run.provenance.get("aborted")]
        ended = [run for run in runs if run.provenance.get("aborted")]
        dataset = find_dataset(runs[0], datasets)
        whole, tables = scored(whole, dataset, store=store)
        if part is not None:
            tables = [_kept(run, table, part) for run, table in zip(whole, tables, strict=True)]
            name = part.dataset or runs[0].identity["dataset"]
            whole, ended = (
                [replace(run, identity=run.identity | {"dataset": name}) for run in listed]
                for listed in (whole, ended)
            )
        every = list(zip(whole, tables, strict=True))
        ranked = [pair for pair in every if pair[0].identity["family"] != CONTROL]
        found.append(
            ScoredRuns(
                runs=tuple(run for run, _ in ranked),
                tables=tuple(table for _, table in ranked),
                ended=tuple(ended),
                controls=tuple(pair for pair in every if pair[0].identity["family"] == CONTROL),
                dataset=dataset,
            )
        )
    return found


def score_published(
    datasets: Sequence[Dataset] = (), *, store: bool = True, listed: Path = PUBLISHED
) -> list[tuple[BoardEntry, ScoredRuns]]:
    """The scored runs of each published board, in the order of the list.

    Args:
        datasets: As in `score_runs`.
        store: Whether the scores are kept beside the runs.
        listed: The list of the boards; `runs` is beside it.

    Raises:
        UserError: An archive cannot be read or scored.
    """
    found = []
    for entry in read_entries(listed):
        folder = listed.parent / "runs" / entry.archive
        made = score_runs([folder], datasets, store=store, part=entry)
        if len(made) != 1:
            raise UserError(f"{folder}: a published board is of one data set, not of {len(made)}")
        found.append((entry, replace(made[0], beside=listed.parent / "boards" / entry.name)))
    return found


def with_studies(board: Board, folder: Path) -> Board:
    """The board with what the studies beside it say of its models, weights being equal.

    Raises:
        UserError: The file of a study is there and cannot be read.
    """
    return with_seeds(with_invariance(board, folder), folder)


def with_seeds(board: Board, folder: Path) -> Board:
    """The board with what `SEEDS` in a folder says of its models, weights being equal.

    Raises:
        UserError: The file is there and cannot be read.
    """
    path = folder / SEEDS
    if not path.is_file():
        return board
    known = _read_seeds(path)
    rows = tuple(
        replace(row, seeds=known.get((row.model, row.weights_sha256 or ""))) for row in board.rows
    )
    return replace(board, rows=rows)


def _read_seeds(path: Path) -> dict[tuple[str, str], SeedSpread]:
    """The spread of the trainings of each model, by its name and the sha256 of its weights."""
    from leaderboard.board.schema import SeedSpread

    scores: dict[tuple[str, str], list[float]] = {}
    try:
        for line in csv.DictReader(path.read_text(encoding="utf-8").splitlines()):
            key = line["model"].removeprefix("'"), line["weights_sha256"]
            scores.setdefault(key, []).append(_number(line["score"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        raise _no_study(path, "seeds", error) from error
    return {
        key: SeedSpread(trainings=len(found), lowest=min(found), highest=max(found))
        for key, found in scores.items()
    }


def _no_study(path: Path, study: str, error: Exception) -> UserError:
    """The error of a file beside a board that its study did not write."""
    reason = f"it has no column {error}" if isinstance(error, KeyError) else str(error)
    return UserError(
        f"{path} is not what python -m studies.{study} writes ({reason}): remove it, or "
        "write it again"
    )


def with_invariance(board: Board, folder: Path) -> Board:
    """The board with what `INVARIANCE` in a folder says of its models, weights being equal.

    Raises:
        UserError: The file is there and cannot be read.
    """
    path = folder / INVARIANCE
    if not path.is_file():
        return board
    known = _read_invariance(path)
    rows, apart = (
        tuple(
            replace(row, invariance=known.get((row.model, row.weights_sha256 or "")))
            for row in listed
        )
        for listed in (board.rows, board.apart)
    )
    return replace(board, rows=rows, apart=apart)


def _read_invariance(path: Path) -> dict[tuple[str, str], Invariance]:
    """The means over the writings, by model and sha256 of its weights (empty without weights)."""
    from benchmarks.core.statistics import Estimate
    from leaderboard.board.schema import Invariance

    found = {}
    try:
        lines = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
        for line in lines:
            if line["writing"] != MEAN:
                continue
            strain, displacement = (
                Estimate(
                    point=_number_or_none(line[name]),
                    low=_number_or_none(line[f"{name}_low"]),
                    high=_number_or_none(line[f"{name}_high"]),
                    n=int(line["n"]),
                )
                for name in ("strain", "displacement")
            )
            split = f"/{line['split']}" if line["split"] else ""
            found[line["model"].removeprefix("'"), line["weights_sha256"]] = Invariance(
                dataset=line["dataset"] + split,
                structures=int(line["structures"]),
                strain=strain,
                displacement=displacement,
                status_changed=int(line["status_changed"]),
            )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        raise _no_study(path, "invariance", error) from error
    return found


def _number(text: str) -> float:
    """A number of the file; nan and infinity are refused."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no number")
    return number


def _number_or_none(text: str) -> float | None:
    """A number of the file, or None where a cell is empty."""
    return _number(text) if text else None


def scored(
    runs: Sequence[StoredRun], dataset: Dataset | None, *, store: bool
) -> tuple[list[StoredRun], list[pd.DataFrame]]:
    """The runs with their structures if the data are at hand, and the scores of each."""
    from leaderboard.board.hybrids import with_ends
    from leaderboard.board.scores import in_archive, scores, store_archive_scores

    restored = list(runs)
    if dataset is not None:
        initial = {each: dataset.geometries(i)[0] for i, each in enumerate(dataset.ids)}
        restored = [run.with_initial(initial) for run in runs]
    tables = [scores(run, dataset, store=store) for run in restored]
    archives = {run.folder for run in runs if in_archive(run)}
    whole = all(len(table) == run.table.num_rows for run, table in zip(runs, tables, strict=True))
    if store and dataset is not None and whole and archives:
        ends = with_ends(restored, tables)
        for folder in archives:
            inside = [k for k, run in enumerate(runs) if run.folder == folder]
            store_archive_scores(folder, [runs[k] for k in inside], [ends[k] for k in inside])
    return restored, tables


def _kept(run: StoredRun, table: pd.DataFrame, part: BoardEntry) -> pd.DataFrame:
    """The scores of the samples that a board keeps.

    Raises:
        UserError: There are none.
    """
    if part.functional is not None:
        table = table[table["functional"] == part.functional]
    table = table[~table["group"].isin(part.without_compositions)]
    if not len(table):
        raise UserError(f"{PUBLISHED.name}: '{run.name}' has no sample of the board '{part.name}'")
    return table.reset_index(drop=True)


def find_dataset(run: StoredRun, datasets: Sequence[Dataset]) -> Dataset | None:
    """The data that a run was made on: one of `datasets`, the embedded set, or None."""
    from benchmarks.data import load
    from benchmarks.data.folders import EMBEDDED_SETS, MANIFEST

    policy = run.identity.get("missing_final_frame", MissingFinalFrame.IF_RELAXED)
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


def read_entries(listed: Path = PUBLISHED) -> list[BoardEntry]:
    """The published boards.

    Raises:
        UserError: The file cannot be read, or an entry has a field that is not known.
    """
    try:
        entries: list[dict[str, Any]] = tomllib.loads(listed.read_text("utf-8"))["board"]
        for entry in entries:
            entry["without_compositions"] = tuple(entry.get("without_compositions", ()))
        return [BoardEntry(**entry) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{listed}: {error}") from error
