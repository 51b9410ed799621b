"""An archive: the runs of many models on one data set in three files, small enough to commit.

`runs.json` lists the header of each run. `predictions.parquet` has one row per model, sample and
repeat. An answer is stored as the change of its initial structure, so that an archive may be
published where the structures may not: the logarithmic strain of the cell, the displacements of
the sites in fractional coordinates (not wrapped), and the species where they differ. An answer
that is no change of its initial structure (another number of sites, a cell that is singular, of
the other handedness or not finite) is stored as given. `scores.parquet` is the leaderboard's.

The initial structures give the answers back (`StoredRun.with_initial`): lengths, cosines of the
angles and fractional coordinates to 1e-12. The orientation of the cell is not kept; no metric
depends on it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.core import Geometry, UserError
from benchmarks.core.files import atomic_write, parse_json
from benchmarks.store.changes import Change, change
from benchmarks.store.headers import checked_header
from benchmarks.store.records import ARCHIVE_SCHEMA, CHANGES, GEOMETRY, SCHEMA, list_column
from benchmarks.store.stored_run import StoredRun, read_table, require_unique

HEADERS: Final = "runs.json"
PREDICTIONS: Final = "predictions.parquet"


def write_archive(
    folder: Path, runs: Iterable[StoredRun], initial_geometries: Mapping[str, Geometry]
) -> None:
    """Write runs on one data set into an archive, in the order given.

    Args:
        folder: The archive; its files are replaced.
        runs: Runs with their records. Only the header is written for a run whose structures were
            never kept; its scores are all that there is.
        initial_geometries: The initial structure of each sample for which a run has an answer.

    Raises:
        UserError: A model occurs twice, two runs are on different data, an initial structure is
            missing, or the folder cannot be written.
    """
    runs = list(runs)
    models: set[str] = set()
    for run in runs:
        if run.name in models:
            raise UserError(f"{folder}: '{run.name}' occurs twice; an archive holds a model once")
        models.add(run.name)
        for key in ("dataset", "revision", "split"):
            if run.identity.get(key) != runs[0].identity.get(key):
                raise UserError(
                    f"{folder}: '{run.name}' and '{runs[0].name}' differ in {key}; an archive "
                    "holds the runs on one data set"
                )
    tables = [_with_changes(run, initial_geometries) for run in runs]
    with atomic_write(folder / PREDICTIONS) as partial:
        pq.write_table(
            pa.concat_tables([ARCHIVE_SCHEMA.empty_table(), *tables]),
            partial,
            compression="zstd",
            compression_level=19,
            use_dictionary=["model", "sample_id", "status", "detail"],
            # The bytes of the exponents are alike; side by side they compress better.
            use_byte_stream_split=[
                "strain.list.element",
                "displacements.list.element.list.element",
            ],
            write_page_checksum=True,
        )
    headers = [{"identity": run.identity, "segments": run.segments} for run in runs]
    text = json.dumps(headers, indent=1, ensure_ascii=False, allow_nan=False, sort_keys=True)
    with atomic_write(folder / HEADERS) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def _with_changes(run: StoredRun, initial_geometries: Mapping[str, Geometry]) -> Any:
    """Give the table of a run in `ARCHIVE_SCHEMA`: answers as changes, or else as given."""
    given: list[Geometry | None] = []
    changes: list[Change | None] = []
    for record in run.records:
        answer, found = record.geometry, None
        if answer is not None:
            if record.sample_id not in initial_geometries:
                raise UserError(
                    f"'{run.name}' has an answer for {record.sample_id}, whose initial structure "
                    "is not there: name the data that the run was made on"
                )
            found = change(initial_geometries[record.sample_id], answer)
        given.append(answer if found is None else None)
        changes.append(found)
    columns = {name: run.table[name] for name in SCHEMA.names if name not in GEOMETRY}
    rows = {name: [None if g is None else getattr(g, name) for g in given] for name in GEOMETRY}
    rows |= {name: [None if c is None else getattr(c, name) for c in changes] for name in CHANGES}
    rows["numbers"] = [
        numbers if found is None else found.numbers
        for numbers, found in zip(rows["numbers"], changes, strict=True)
    ]
    columns |= {name: list_column(rows[name], ARCHIVE_SCHEMA.field(name).type) for name in rows}
    return pa.table([columns[name] for name in ARCHIVE_SCHEMA.names], schema=ARCHIVE_SCHEMA)


def read_archive(folder: Path) -> list[StoredRun]:
    """Read all runs of an archive; their records need `StoredRun.with_initial`.

    Raises:
        UserError: A file is missing or damaged, or a row belongs to no run.
    """
    path = folder / HEADERS
    remedy = "write the archive again"
    try:
        headers = list(parse_json(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path}: damaged ({type(error).__name__}: {error}): {remedy}") from error
    checked = [checked_header(header, path, remedy) for header in headers]
    table = read_table(folder / PREDICTIONS, ARCHIVE_SCHEMA, remedy)
    models = [header["identity"]["model"] for header in checked]
    others = set(pc.unique(table["model"]).to_pylist()) - set(models)
    if others:
        raise UserError(f"{folder}: {HEADERS} does not name {min(map(str, others))}")
    if len(set(models)) < len(models):
        raise UserError(f"{path}: names a model twice")
    runs = []
    for model, header in zip(models, checked, strict=True):
        rows = table.filter(pc.equal(table["model"], model)).combine_chunks()
        require_unique(rows, [folder / PREDICTIONS])
        run = StoredRun(
            name=model,
            folders=(folder,),
            identity=header["identity"],
            segments=tuple(header["segments"]),
            table=rows.select(SCHEMA.names),
            changes=rows.select(list(CHANGES)),
        )
        runs.append(run)
    return runs
