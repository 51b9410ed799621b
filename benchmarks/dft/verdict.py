"""What DFT says of predicted structures, with the settings that made their references.

    python -m benchmarks.dft verdict RUNS --limit 2           # the two cheapest crystals, to try
    python -m benchmarks.dft verdict RUNS --models identity,t5,chgnet --relax 24

RUNS are run folders or archives on the embedded sets. Energy, forces and stress are computed at the
reference, at the start and at every prediction of a crystal, all on the grid of k-points of the
reference. `--relax N` relaxes from the start and from the predictions, too, and counts the ionic
steps. A structure that several models predict is computed once, and the same command goes on where
it stopped. The rows go into `verdict.parquet` beside the scores of the runs, and
`python -m leaderboard RUNS` has their table. Exit status as for `python -m benchmarks.dft`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.core import SCORED, Geometry, UserError
from benchmarks.core.cli import whole_number
from benchmarks.core.geometry import displacements
from benchmarks.data import Dataset
from benchmarks.dft.cost_order import kpoint_grid, sort_by_cost
from benchmarks.dft.data_card import MOVED
from benchmarks.dft.pool import Workers, add_worker_options, gpaw_versions, relax_all, workers_of
from benchmarks.dft.results import DFTResult, Folder, InitialStructure
from benchmarks.dft.settings import VERSION_3, DFTSettings
from benchmarks.store import StoredRun, read_runs
from leaderboard.board.dft_verdicts import COLUMNS, NUMBERS, write_verdicts
from leaderboard.board.scores import DATASET_KEYS
from leaderboard.scoring import find_dataset, scored

OUT: Final = Path("runs/verdict")
SETTINGS: Final = {
    "embedded-v1": DFTSettings(),
    "embedded-v2": DFTSettings(),
    "embedded-v3": VERSION_3,
    "perturbed-v1": DFTSettings(),
}
"""The settings of the references of each data set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """One answer of a model."""

    model: str
    sample_id: str
    repeat: int
    structures: str
    """The hash of its structures in the scores."""
    folder: Path
    """That of its run."""
    geometry: Geometry | None
    """None if the answer is no relaxed structure."""
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictedCrystal:
    """One sample with its predictions."""

    start: Geometry
    reference: Geometry
    kpt_grid: tuple[int, ...]
    """That of the reference."""
    predictions: tuple[Prediction, ...]

    @property
    def moves(self) -> bool:
        """True if an atom moves from the start to the reference."""
        moved = np.linalg.norm(displacements(self.reference, self.start), axis=1)
        return bool(moved.max() > MOVED)

    def point(self, geometry: Geometry) -> InitialStructure:
        """A structure that is to be computed once, named by its content."""
        grid = "-".join(map(str, self.kpt_grid))
        name = f"{InitialStructure('', geometry).sha256[:20]}-{grid}"
        return InitialStructure(name, geometry, self.kpt_grid)

    @property
    def points(self) -> list[InitialStructure]:
        """All structures that are to be computed once."""
        predicted = (each.geometry for each in self.predictions)
        wanted = (self.reference, self.start, *predicted)
        return [self.point(each) for each in wanted if each is not None]

    @property
    def relaxations(self) -> list[InitialStructure]:
        """All structures that can be relaxed; the predictions and the start."""
        wanted = (self.start, *(each.geometry for each in self.predictions))
        return [_to_relax(each) for each in wanted if each is not None]


def main(argv: Sequence[str]) -> int:
    """The command; returns its exit status.

    Raises:
        UserError: GPAW is missing, or a run cannot be read, or a model is in none of them.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.dft verdict",
        description="Compute predicted structures with the settings of their references.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUNS", help="run folders or archives")
    add("--models", metavar="A,B", help="the predictions of these alone; default: all")
    add("--limit", type=whole_number(1), metavar="N", help="the N cheapest crystals of each set")
    add(
        "--relax",
        type=whole_number(0),
        default=0,
        metavar="N",
        help="relax as well, for the N cheapest crystals whose atoms move; default: 0",
    )
    add("--out", type=Path, default=OUT, metavar="DIR", help=f"calculations; default: {OUT}/")
    add_worker_options(parser)
    args = parser.parse_args(argv)
    versions = gpaw_versions(args.python)
    asked = {name.strip() for name in (args.models or "").split(",") if name.strip()}
    runs = read_runs(args.runs)
    if lacking := asked - (known := {run.name for run in runs}):
        raise UserError(
            f"--models {', '.join(sorted(lacking))}: not among {', '.join(sorted(known))}"
        )
    sets: dict[tuple[str, ...], list[StoredRun]] = {}
    for run in runs:
        if run.name in (asked or known) and run.table.num_rows:  # else only scores are stored
            key = tuple(str(run.identity.get(each)) for each in DATASET_KEYS)
            sets.setdefault(key, []).append(run)
    if not sets:
        raise UserError(f"{', '.join(map(str, args.runs))}: no structures are stored, only scores")
    refused, computed = False, 0
    for (name, revision, _), members in sets.items():
        dataset = find_dataset(members[0], ()) if name in SETTINGS else None
        if dataset is None:
            sys.stderr.write(
                f"{name} ({revision[:15]}) is left out: it is none of {', '.join(SETTINGS)}, or "
                "not the version that is here\n"
            )
            refused = True
            continue
        crystals = crystals_of(members, dataset, SETTINGS[name])[: args.limit]
        rows = compute(crystals, args.out / name, SETTINGS[name], args, versions)
        done = [row for row in rows if not row["reason"]]
        computed += len(done)
        told = f"{len(done)} of {len(rows)} predictions computed, of {len(crystals)} crystals"
        sys.stdout.write(f"{name}: {told}\n")
    if refused:
        return 2
    return 0 if computed else 1


def crystals_of(
    runs: Sequence[StoredRun], dataset: Dataset, settings: DFTSettings
) -> list[PredictedCrystal]:
    """The samples of which a model has an answer, the cheapest first.

    Args:
        runs: One per model.
        dataset: The data that they were made on.
        settings: Those of its references.
    """
    predictions: dict[str, list[Prediction]] = {}
    for run, table in zip(*scored(runs, dataset, store=False), strict=True):
        geometries = {(each.sample_id, each.repeat): each.geometry for each in run.records}
        names = ("sample_id", "repeat", "structures", "status")
        for sample_id, repeat, structures, status in zip(*(table[n] for n in names), strict=True):
            answer = Prediction(
                model=run.name,
                sample_id=sample_id,
                repeat=int(repeat),
                structures=structures,
                folder=run.folder,
                geometry=geometries[sample_id, repeat] if status in SCORED else None,
                status=status,
            )
            predictions.setdefault(sample_id, []).append(answer)
    pairs = {
        name: dataset.geometries(i) for i, name in enumerate(dataset.ids) if name in predictions
    }
    references = [InitialStructure(name, pair[1]) for name, pair in pairs.items()]
    found = []
    for each in sort_by_cost(references, settings):
        start, reference = pairs[each.name]
        ended_on = start if settings.fixed_grid else reference
        found.append(
            PredictedCrystal(
                start=start,
                reference=reference,
                kpt_grid=kpoint_grid(ended_on.lattice, settings.density(each.symbols)),
                predictions=tuple(predictions[each.name]),
            )
        )
    return found


def compute(
    crystals: Sequence[PredictedCrystal],
    folder: Path,
    settings: DFTSettings,
    args: argparse.Namespace,
    versions: Mapping[str, str],
) -> list[dict[str, Any]]:
    """Compute what is not there yet and write the rows, also those of an interrupted command.

    Args:
        crystals: The samples.
        folder: Keeps the calculations, in `points` and `relaxations`.
        settings: Those of the references.
        args: `--relax`, `--retry` and the options of the workers.
        versions: Those of GPAW and its libraries.

    Returns:
        The rows, with the columns of `leaderboard.board.dft_verdicts`.

    Raises:
        UserError: The folder has calculations with other settings or another GPAW.
    """
    workers: Workers = workers_of(args)
    once = replace(settings, max_steps=0)
    moving = [each for each in crystals if each.moves][: args.relax] if args.relax else []
    points = _distinct(each.points for each in crystals)
    relaxed = _distinct(each.relaxations for each in moving)
    method = {
        "name": f"GPAW {versions['gpaw']}, {settings.functional}",
        "settings": asdict(settings),
        **{name: versions[name] for name in ("gpaw", "ase")},
    }

    def rows() -> list[dict[str, Any]]:
        done = {each.name: Folder(folder / "points").read(each) for each in points}
        more = {each.name: Folder(folder / "relaxations").read(each) for each in relaxed}
        found = list(_rows(crystals, done, more))
        _write(found, crystals, method)
        return found

    try:
        relax_all(points, folder / "points", once, workers, versions, retry=args.retry)
        if relaxed:
            relax_all(
                relaxed, folder / "relaxations", settings, workers, versions, retry=args.retry
            )
    except KeyboardInterrupt:
        rows()
        raise
    return rows()


def _write(
    rows: Sequence[Mapping[str, Any]],
    crystals: Sequence[PredictedCrystal],
    method: Mapping[str, Any],
) -> None:
    """Write the rows beside the scores of their runs."""
    import pandas as pd

    folders = {each.model: each.folder for crystal in crystals for each in crystal.predictions}
    for folder in dict.fromkeys(folders.values()):
        own = [row for row in rows if folders[row["model"]] == folder]
        if own:
            table = pd.DataFrame(own, columns=list(COLUMNS))
            sys.stdout.write(f"wrote {write_verdicts(folder, table, method)}\n")


def _rows(
    crystals: Iterable[PredictedCrystal],
    points: Mapping[str, DFTResult | None],
    relaxations: Mapping[str, DFTResult | None],
) -> Iterator[dict[str, Any]]:
    """A row for each prediction whose calculations are done, be it that one failed."""
    for crystal in crystals:
        ends = [points[crystal.point(each).name] for each in (crystal.reference, crystal.start)]
        for each in crystal.predictions:
            row: dict[str, Any] = {
                "model": each.model,
                "sample_id": each.sample_id,
                "repeat": each.repeat,
                "structures": each.structures,
                "reason": f"no relaxed structure ({each.status})",
                "steps_reason": "",
                **dict.fromkeys(NUMBERS, np.nan),
            }
            if each.geometry is None:
                yield row
                continue
            named = dict(zip(("the reference", "the start"), ends, strict=True))
            named["the prediction"] = own = points[crystal.point(each.geometry).name]
            if any(found is None for found in named.values()):
                continue
            failed = [
                f"{name}: {found.reason}" for name, found in named.items() if found and found.reason
            ]
            row["reason"] = "; ".join(failed)
            if not failed and own is not None:
                row |= _numbers(own, *ends)
            row |= _steps(
                *(relaxations.get(_to_relax(g).name) for g in (each.geometry, crystal.start))
            )
            yield row


def _numbers(
    own: DFTResult, reference: DFTResult | None, start: DFTResult | None
) -> dict[str, Any]:
    """Energies per atom from the reference, and the largest force and stress of a prediction."""
    assert reference is not None
    assert start is not None
    (frame,), zero = own.frames, reference.frames[0]["energy"]
    sites = len(own.symbols)
    return {
        "energy_above_reference": (frame["energy"] - zero) / sites,
        "start_above_reference": (start.frames[0]["energy"] - zero) / sites,
        "max_force": float(np.linalg.norm(frame["forces"], axis=1).max()),
        "max_stress": float(np.abs(frame["stress"]).max()),
    }


def _steps(own: DFTResult | None, start: DFTResult | None) -> dict[str, Any]:
    """The numbers of ionic steps; nan where a relaxation did not converge or was not asked for."""
    named = {"from the prediction": own, "from the start": start}
    failed = [f"{name}: {found.reason}" for name, found in named.items() if found and found.reason]
    steps = [
        np.nan if found is None or found.reason else len(found.frames) for found in (own, start)
    ]
    return {
        "steps_reason": "; ".join(failed),
        "ionic_steps": steps[0],
        "start_ionic_steps": steps[1],
    }


def _to_relax(geometry: Geometry) -> InitialStructure:
    """A structure that is to be relaxed, named by its content."""
    return InitialStructure(InitialStructure("", geometry).sha256[:20], geometry)


def _distinct(groups: Iterable[Sequence[InitialStructure]]) -> list[InitialStructure]:
    """All structures, each once."""
    return list({each.name: each for group in groups for each in group}.values())
