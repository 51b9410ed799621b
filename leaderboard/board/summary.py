"""Scored runs of one data set to a board.

The board is over the samples of the largest set of runs that have the same samples; runs on more
are compared on these, and runs that lack some of them stand apart, so that one short run does not
take samples away from the others.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from benchmarks.core.statistics import Resampling
from benchmarks.core.training_data import Track
from benchmarks.data import ids_sha256
from benchmarks.data.folders import EMBEDDED
from benchmarks.metrics import METRICS, Reduce
from benchmarks.store import StoredRun
from leaderboard.board.comparisons import SAME_ERRORS, conclusions, control_gap, differences, slices
from leaderboard.board.dft_verdicts import dft_verdicts
from leaderboard.board.hybrids import SAME_MINIMUM, savings, with_ends
from leaderboard.board.reliability import reliability
from leaderboard.board.rows import ranked_rows, row_apart
from leaderboard.board.schema import (
    IDENTITY,
    Board,
    BoardDataset,
    MetricInfo,
    Row,
    TrackTable,
)
from leaderboard.board.scores import missing_columns

if TYPE_CHECKING:
    import pandas as pd

REPLICATES: Final = 1000
SEED: Final = 0
CONVERGENCE: Final = EMBEDDED / "convergence.json"
"""Written by `python -m benchmarks.dft --convergence`."""
CONVERGENCE_TESTED: Final = ("embedded-v1", "embedded-v2")
"""The data sets that were made with the settings whose convergence was tested."""
ABOUT: Final = {
    "substitution": "These are paired prototype substitutions, not trajectories: the start is the "
    "relaxed cell of a chemically similar compound, a pair exists only where the prototype "
    "survived, and the ends come from four databases. For a potential another nearby minimum can "
    "be a legitimate answer.",
    "hydrides": "All of these expand (their first stage had a low cutoff): a biased set.",
}
"""A reader must know this of the data; by the first part of the data set's name."""


def board(
    runs: Sequence[StoredRun],
    tables: Sequence[pd.DataFrame],
    *,
    ended: Sequence[StoredRun] = (),
    controls: Sequence[tuple[StoredRun, pd.DataFrame]] = (),
    replicates: int = REPLICATES,
    seed: int = SEED,
) -> Board:
    """Compare runs of one data set.

    Args:
        runs: One per model, all of one data set, revision and split.
        tables: `scores` of each run, in the same order.
        ended: Further runs, which the error budget ended: named in a note, not ranked.
        controls: Further runs with their scores, whose answer must be that of `IDENTITY`: checked
            in a note, not ranked.
        replicates: Number of replicates of the bootstrap.
        seed: Seed of the bootstrap.
    """
    everyone = [*runs, *ended] or [run for run, _ in controls]
    ids = _samples(tables)
    together = [k for k, table in enumerate(tables) if set(ids) <= set(table["sample_id"])]
    apart = tuple(
        row_apart(
            runs[k],
            tables[k],
            _resampling(tables[k], sorted(set(tables[k]["sample_id"])), replicates, seed),
        )
        for k in range(len(runs))
        if k not in together
    )
    identity = everyone[0].identity
    quarantined = max((run.provenance.get("quarantined") or [] for run in everyone), key=len)
    reasons = Counter(str(entry["reason"]) for entry in quarantined)
    return Board(
        dataset=BoardDataset(
            name=identity["dataset"],
            revision=identity["revision"],
            split=identity.get("split"),
            n_samples=len(ids),
            ids_sha256=ids_sha256(ids),
            quarantined=dict(sorted(reasons.items())),
        ),
        python=_joined(run.provenance.get("python") for run in everyone),
        packages=_packages(everyone),
        metrics={
            name: MetricInfo(
                unit=metric.unit,
                higher_is_better=metric.higher_is_better,
                description=metric.description,
            )
            for name, metric in METRICS.items()
        },
        apart=apart,
        about=ABOUT.get(identity["dataset"].split("/")[0])
        or reference_uncertainty(identity["dataset"]),
        notes=(
            *_on_other_samples(runs, tables, ids),
            *_unknown(runs, tables),
            *_not_ranked(ended),
            *_controlled(runs, tables, controls),
            *_submitted(everyone),
        ),
        same_minimum=SAME_MINIMUM,
        **_compared(
            [runs[k] for k in together], [tables[k] for k in together], ids, replicates, seed
        ),
    )


def _compared(
    runs: Sequence[StoredRun],
    tables: Sequence[pd.DataFrame],
    ids: Sequence[str],
    replicates: int,
    seed: int,
) -> dict[str, Any]:
    """The parts of a board that are about ranked runs, all of which have the samples `ids`."""
    if not runs:
        names = "rows ties tracks differences conclusions slices training_slices hybrids"
        return dict.fromkeys(names.split(), ())
    resampling = _resampling(tables[0], ids, replicates, seed)
    rows, ties = ranked_rows(runs, tables, ids, resampling)
    by_model = {run.name: (run, table) for run, table in zip(runs, tables, strict=True)}
    models = [row.model for row in rows]
    rivals = [row.model for row in rows if row.family != "llm"]
    ordered, ordered_tables = zip(*(by_model[model] for model in models), strict=True)
    sliced, by_training = slices(runs, tables, ids)
    return {
        "rows": rows,
        "ties": ties,
        "tracks": _tracks(rows),
        "differences": differences(models, rivals, ordered_tables, ids, resampling),
        "conclusions": conclusions(ordered, ordered_tables, ids, replicates, seed),
        "slices": sliced,
        "training_slices": by_training,
        "hybrids": savings(runs, with_ends(runs, tables), ids, resampling),
        "dft_verdicts": dft_verdicts(ordered, ordered_tables, ids, resampling),
        "reliability": reliability(ordered, ordered_tables, ids, resampling),
    }


def _samples(tables: Sequence[pd.DataFrame]) -> list[str]:
    """The samples of the largest set of runs that have the same ones; the larger ones if equal."""
    sets = Counter(tuple(sorted(set(table["sample_id"]))) for table in tables)
    _, _, ids = max(((count, len(ids), ids) for ids, count in sets.items()), default=(0, 0, ()))
    return list(ids)


def _resampling(table: pd.DataFrame, ids: Sequence[str], replicates: int, seed: int) -> Resampling:
    groups = table.drop_duplicates("sample_id").set_index("sample_id")["group"]
    return Resampling.of(list(groups.loc[list(ids)]), replicates, np.random.default_rng(seed))


def _tracks(rows: Sequence[Row]) -> tuple[TrackTable, ...]:
    """Models that were trained on the same data together, and those trained on more by others."""
    groups: dict[tuple[Track, tuple[str, ...]], list[str]] = {}
    for track in (Track.EQUAL_DATA, Track.FOUNDATION, Track.UNKNOWN):
        for row in rows:
            if row.track == track:
                data = tuple(sorted(row.training_data)) if track == Track.EQUAL_DATA else ()
                groups.setdefault((track, data), []).append(row.model)
    trivial = [row.model for row in rows if row.track == Track.TRIVIAL]
    return tuple(
        TrackTable(track=track, training_data=data, models=(*models, *trivial))
        for (track, data), models in groups.items()
    )


def _packages(runs: Sequence[StoredRun]) -> dict[str, str]:
    """The versions of all packages; if runs differ, all versions of a package are named."""
    packages: dict[str, set[str]] = {}
    for run in runs:
        for package, version in (run.provenance.get("packages") or {}).items():
            packages.setdefault(package, set()).add(str(version))
    return {package: _joined(packages[package]) for package in sorted(packages)}


def _joined(values: Iterable[Any]) -> str:
    return "; ".join(sorted({str(value) for value in values if value is not None}))


def _on_other_samples(
    runs: Sequence[StoredRun], tables: Sequence[pd.DataFrame], ids: Sequence[str]
) -> list[str]:
    more, other = [], []
    for run, table in zip(runs, tables, strict=True):
        own = set(table["sample_id"])
        if set(ids) < own:
            more.append(f"{run.name} {len(own)}")
        elif not set(ids) <= own:
            other.append(f"{run.name} {len(own & set(ids))}")
    notes = []
    if more:
        notes.append(
            f"Compared on the {len(ids)} samples that all rows share; run on more: "
            f"{', '.join(more)}."
        )
    if other:
        notes.append(
            f"Not ranked, as they were run on some of the {len(ids)} samples only: "
            f"{', '.join(other)}."
        )
    return notes


def _unknown(runs: Sequence[StoredRun], tables: Sequence[pd.DataFrame]) -> list[str]:
    """The metrics that stored scores lack, with the data that would give them."""
    lacking: dict[str, list[str]] = {}
    without_predictions = set()
    for run, table in zip(runs, tables, strict=True):
        for metric in METRICS.values():
            # the weight `clean` is no stored column
            missing = set(missing_columns(table, metric)) - {"clean"}
            if metric.reduce is not Reduce.PER_RUN and missing:
                lacking.setdefault(metric.name, []).append(run.name)
                without_predictions |= set() if run.table.num_rows else {run.name}
    if not lacking:
        return []
    models = sorted({model for names in lacking.values() for model in names})
    older = f"the stored scores of {', '.join(models)} are older"
    data = runs[0].identity["dataset"].split(" (")[0]  # a part is named in parentheses
    remedy = f"to compute, name {data} with --data"
    if without_predictions:
        again = ", ".join(sorted(without_predictions))
        remedy = f"to compute, run {again} again (no predictions are stored)"
    return [f"Unknown, as {older}: {', '.join(lacking)}; {remedy}."]


def _controlled(
    runs: Sequence[StoredRun],
    tables: Sequence[pd.DataFrame],
    controls: Sequence[tuple[StoredRun, pd.DataFrame]],
) -> list[str]:
    """Say of each control whether its errors are those of no change."""
    by_model = {run.name: table for run, table in zip(runs, tables, strict=True)}
    notes = []
    for run, table in controls:
        if IDENTITY not in by_model:
            notes.append(f"{run.name} is a control: {IDENTITY} must run beside it.")
            continue
        gap = control_gap(table, by_model[IDENTITY])
        notes.append(
            f"{run.name} is a control and not ranked: its errors are those of {IDENTITY} "
            f"{'' if gap < SAME_ERRORS else 'NOT '}as they must be (largest difference {gap:.1e})."
        )
    return notes


def _not_ranked(ended: Sequence[StoredRun]) -> list[str]:
    return [
        f"Not ranked: {run.name}, whose run ended early ({run.provenance['aborted']})."
        for run in ended
    ]


def _submitted(runs: Sequence[StoredRun]) -> list[str]:
    """Who predicted the rows that were not computed here."""
    listed = [
        f"{run.name} ({', '.join(run.provenance.get('authors') or ['no authors named'])})"
        for run in runs
        if run.provenance.get("submitted")
    ]
    return [f"Submitted as predictions, not run here: {'; '.join(listed)}."] if listed else []


def reference_uncertainty(dataset: str, measured: Path = CONVERGENCE) -> str | None:
    """How far the references of this project's own sets are from converged ones.

    Args:
        dataset: Name of the data set.
        measured: Differences between relaxed structures with the usual and with converged settings.

    Returns:
        A sentence; None if nothing was measured for this data set.
    """
    if dataset not in CONVERGENCE_TESTED or not measured.is_file():
        return None
    found = [row for row in json.loads(measured.read_text()) if not row["reason"]]
    lengths = np.array([row["lengths"] for row in found])
    volumes = np.abs([row["volume"] for row in found])
    return (
        "Floor: with converged settings (1.5 times the cutoff, 1.6 times the density of k-points, "
        f"a sixth of the force at which to stop) the references of {len(found)} prototype crystals "
        f"change by {np.median(lengths):.3f} Å in the largest of a, b, c (median; mean "
        f"{lengths.mean():.3f}, largest {lengths.max():.3f}) and {np.median(volumes):.2f} % in "
        f"volume (mean {volumes.mean():.2f}, largest {volumes.max():.2f}): errors below that say "
        "nothing."
    )
