"""What DFT says of the predictions: energies, forces and stresses at them, and the steps left.

`verdict.parquet` lies beside the scores of a run or an archive; `python -m benchmarks.dft verdict`
writes it. A row is of one prediction and names the hash of its structures (`structures` of the
scores), so that rows of an older prediction do not count. A board has the table where the file is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from benchmarks.core import GPA, UserError
from benchmarks.core.files import READ_ERRORS, atomic_write
from benchmarks.core.statistics import Estimate, Floats, Reduce, Resampling, estimates, interval
from benchmarks.store import StoredRun
from leaderboard.board.schema import DFTVerdict, DFTVerdicts, IonicSteps
from leaderboard.board.scores import KEY

if TYPE_CHECKING:
    import pandas as pd

FILE: Final = "verdict.parquet"
NUMBERS: Final = (
    "energy_above_reference",
    "start_above_reference",
    "max_force",
    "max_stress",
    "ionic_steps",
    "start_ionic_steps",
)
"""Energies [eV/atom], largest norm of a force [eV/Å], largest component of the stress [eV/Å^3] and
numbers of ionic steps of a row; nan where there is none."""
COLUMNS: Final = ("model", *KEY, "structures", "reason", "steps_reason", *NUMBERS)
"""`reason` says why there are no numbers, `steps_reason` why the steps are not known though they
were asked for; they are empty otherwise."""


def write_verdicts(folder: Path, rows: pd.DataFrame, method: Mapping[str, Any]) -> Path:
    """Write rows into the file of a run or an archive; what it holds of other predictions stays.

    Args:
        folder: The folder of the run or of the archive.
        rows: `COLUMNS`.
        method: How they were computed; `name` is what a reader is told.

    Returns:
        The path of the file.

    Raises:
        UserError: The file was computed in another way, or cannot be read or written.
    """
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / FILE
    if (found := _read(path)) is not None:
        old, known = found
        if known != dict(method):
            raise UserError(
                f"{path}: computed with {known.get('name')}, not with {method['name']}, or with "
                "other settings: remove it"
            )
        rows = pd.concat([old, rows], ignore_index=True)
        rows = rows.drop_duplicates(["model", *KEY], keep="last")
    rows = rows.sort_values(["model", *KEY], ignore_index=True)[list(COLUMNS)]
    arrow = pa.Table.from_pandas(rows, preserve_index=False)
    arrow = arrow.replace_schema_metadata({"method": json.dumps(method)})
    with atomic_write(path) as partial:
        pq.write_table(arrow, partial, compression="zstd")
    return path


def _read(path: Path) -> tuple[pd.DataFrame, dict[str, Any]] | None:
    """The rows of a file and how they were computed; None if there is no file."""
    import pyarrow.parquet as pq

    if not path.is_file():
        return None
    try:
        arrow = pq.read_table(path)
        method: dict[str, Any] = json.loads(arrow.schema.metadata[b"method"])
        _ = str(method["name"])
        return arrow.select(COLUMNS).to_pandas(), method
    except READ_ERRORS as error:
        raise UserError(
            f"{path}: damaged ({type(error).__name__}): remove it; "
            "python -m benchmarks.dft verdict writes it again"
        ) from error


def dft_verdicts(
    runs: Sequence[StoredRun],
    tables: Sequence[pd.DataFrame],
    ids: Sequence[str],
    resampling: Resampling,
) -> DFTVerdicts | None:
    """The table of all models whose predictions were computed; None if there are none.

    Args:
        runs: One per model, in the order of the rows.
        tables: `scores` of each run, in the same order.
        ids: Samples that all tables share.
        resampling: Bootstrap weights of these samples.

    Raises:
        UserError: A file is damaged, or two were computed in different ways.
    """
    found: list[DFTVerdict] = []
    methods: dict[str, Path] = {}
    for run, table in zip(runs, tables, strict=True):
        path = run.folder / FILE
        if (stored := _read(path)) is None:
            continue
        rows = stored[0].query("model == @run.name").drop(columns="model")
        rows = table[[*KEY, "structures", "scored"]].merge(rows, on=[*KEY, "structures"])
        rows = rows[rows["sample_id"].isin(ids)]
        if len(rows):
            methods.setdefault(json.dumps(stored[1], sort_keys=True), path)
            found.append(_of_model(run.name, rows, ids, resampling))
    if len(methods) > 1:
        raise UserError(f"{' and '.join(map(str, methods.values()))}: computed in different ways")
    names = [str(json.loads(each)["name"]) for each in methods]
    return DFTVerdicts(method=names[0], rows=tuple(found)) if found else None


def _of_model(
    model: str, rows: pd.DataFrame, ids: Sequence[str], resampling: Resampling
) -> DFTVerdict:
    """The row of a model; repeats of a sample are averaged first."""
    answered = rows["scored"] == 1
    below = (rows["energy_above_reference"] < rows["start_above_reference"]).astype(float)
    failed = answered & (rows["reason"] != "")  # that is no fault of the model
    values = rows.assign(below=below.mask(failed))
    values["max_stress"] /= GPA
    for name in ("energy_above_reference", "start_above_reference"):
        values[name] *= 1000
    unknown = values["ionic_steps"].isna() | values["start_ionic_steps"].isna()
    values.loc[unknown, ["ionic_steps", "start_ionic_steps"]] = np.nan
    means = values.groupby("sample_id")[[*NUMBERS, "below"]].mean().reindex(list(ids))
    column = {name: means[name].to_numpy(dtype=float) for name in means}
    ones = np.ones(len(ids))

    def estimate(values: Floats, weights: Floats = ones, reduce: Reduce = Reduce.MEAN) -> Estimate:
        """With an interval if the samples that count are of several compositions."""
        counts = np.isfinite(values) & np.isfinite(weights)
        found = estimates([reduce], values[:, None], weights[:, None], resampling)[:, 0]
        several = len(np.unique(resampling.membership[counts])) > 1
        return Estimate.of(
            float(found[0]), interval(found[1:]) if several else None, int(counts.sum())
        )

    energies = column["energy_above_reference"]
    ours, starts = column["ionic_steps"], column["start_ionic_steps"]
    both = np.isfinite(ours)
    return DFTVerdict(
        model=model,
        n_predictions=len(rows),
        n_without_structure=int((~answered).sum()),
        n_failed=int(failed.sum()),
        energy_above_reference=estimate(energies),
        median_energy_above_reference=estimate(energies, reduce=Reduce.MEDIAN),
        dft_max_force=estimate(column["max_force"]),
        dft_max_stress=estimate(column["max_stress"]),
        below_start=estimate(column["below"]),
        n_steps_failed=int((rows["steps_reason"] != "").sum()),
        ionic_steps=IonicSteps(
            predicted=float(f"{ours[both].mean():.6g}"),
            start=float(f"{starts[both].mean():.6g}"),
            # the mean of ratios, weighted by the divisor, is the ratio of the sums
            ratio=estimate(ours / starts, starts),
        )
        if both.any()
        else None,
    )
