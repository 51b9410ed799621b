"""The findings of the study: samples, pairs of relaxations, numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.core import UserError
from benchmarks.store import StoredRun, read_runs
from leaderboard.board.scores import DATASET_KEYS, scores
from leaderboard.scoring import find_dataset
from studies.dft_settings.materials import describe, pairs, settings_of
from studies.dft_settings.tables import (
    IDENTITY,
    SettingEstimate,
    by_pair,
    by_setting,
    errors_of,
    errors_of_identity,
)

if TYPE_CHECKING:
    import pandas as pd

    from benchmarks.data import Dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """All that is written down."""

    name: str
    """Data set and split."""
    samples: pd.DataFrame
    """`materials.describe`, with the columns `known.SETTINGS`."""
    pairs: pd.DataFrame
    """`materials.pairs`."""
    models: tuple[str, ...]
    """`IDENTITY` first."""
    estimates: tuple[SettingEstimate, ...]


def find(
    run_folders: Iterable[Path], datasets: Sequence[Dataset], sources: Iterable[str]
) -> Findings:
    """Read runs, score them and compare; runs that the error budget ended are passed over.

    Args:
        run_folders: Model folders of one data set, or folders of them; scores are enough.
        datasets: Data that the runs may be of; the embedded set is found without.
        sources: What these were loaded from; settings are looked for there.

    Raises:
        UserError: The runs are not all of one data set that is at hand, or a file is damaged.
    """
    runs = [run for run in read_runs(run_folders) if not run.provenance.get("aborted")]
    dataset = _dataset(runs, datasets)
    errors = {run.name: errors_of(scores(run, dataset, store=False)) for run in runs}
    if IDENTITY not in errors:
        errors[IDENTITY] = errors_of_identity(dataset)
    models = sorted(errors, key=lambda name: (name != IDENTITY, name))
    errors = {model: errors[model] for model in models}
    samples = describe(dataset).join(settings_of(dataset, sources))
    twice = pairs(dataset, samples)
    return Findings(
        name=dataset.name + (f"/{dataset.split}" if dataset.split else ""),
        samples=samples,
        pairs=twice,
        models=tuple(models),
        estimates=(*by_setting(errors, samples), *by_pair(errors, twice)),
    )


def _dataset(runs: Sequence[StoredRun], datasets: Sequence[Dataset]) -> Dataset:
    if not runs:
        raise UserError("all of these runs ended early: there is nothing to compare")
    first = runs[0]
    for run in runs:
        if any(run.identity.get(key) != first.identity.get(key) for key in DATASET_KEYS):
            raise UserError(f"'{run.name}' and '{first.name}' are of two data sets: name one")
    found = find_dataset(first, datasets)
    if found is None:
        name = first.identity["dataset"]
        raise UserError(f"relaxed structures are compared: name {name} with --data")
    return found
