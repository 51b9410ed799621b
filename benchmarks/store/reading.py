"""Run folders and archives -> `StoredRun`: strict reading and merging."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.core import UserError
from benchmarks.store.archive import HEADERS, read_archive
from benchmarks.store.records import SCHEMA
from benchmarks.store.stored_run import (
    StoredRun,
    read_header,
    read_table,
    require_equal,
    require_unique,
)

_PART = re.compile(r"part-(\d{5,})\.parquet")


def read_run(folder: Path) -> StoredRun:
    """Read one model's folder; a folder with only `run.json` has no records.

    Raises:
        UserError: A file is missing, damaged, of another schema version or of another model, or
            a (sample_id, repeat) occurs twice.
    """
    header = read_header(folder)
    model = header["identity"]["model"]
    tables = []
    for _, path in parts(folder):
        remedy = "delete it and run again, which computes what it held once more"
        tables.append(read_table(path, SCHEMA, remedy))
        others = set(pc.unique(tables[-1]["model"]).to_pylist()) - {model}
        if others:
            raise UserError(f"{path}: holds records of {min(map(str, others))}, not of {model}")
    table = pa.concat_tables([SCHEMA.empty_table(), *tables])
    require_unique(table, [folder])
    return StoredRun(model, (folder,), header["identity"], header["provenance"], table)


def read_runs(paths: Iterable[Path]) -> list[StoredRun]:
    """Read model folders, archives, or folders of them, and merge runs that continue one another.

    Runs of one model on one data set, revision and split are one run, and must agree in their
    whole identity. The provenance of a merged run is that of its first folder, but it counts as
    aborted where one of them was.

    Raises:
        UserError: As `read_run` and `read_archive`; or nothing is there, or identities differ.
    """
    groups: dict[tuple[Any, ...], list[StoredRun]] = {}
    for folder in dict.fromkeys(f.resolve() for path in paths for f in _folders(path)):
        is_archive = (folder / HEADERS).is_file()
        for run in read_archive(folder) if is_archive else [read_run(folder)]:
            key = (run.name, *(run.identity.get(k) for k in ("dataset", "revision", "split")))
            groups.setdefault(key, []).append(run)
    return [_merged(group) for group in groups.values()]


def _merged(runs: list[StoredRun]) -> StoredRun:
    first = runs[0]
    if len(runs) == 1:
        return first
    for other in runs[1:]:
        where = f"{first.folder} and {other.folder} cannot be merged"
        if first.changes is not None or other.changes is not None:
            raise UserError(f"{where}: '{first.name}' of an archive is a whole run")
        require_equal(first.identity, other.identity, where)
    table = pa.concat_tables([run.table for run in runs])
    folders = tuple(run.folder for run in runs)
    require_unique(table, folders)
    reasons = (run.provenance.get("aborted") for run in runs)
    provenance = first.provenance | {"aborted": next(filter(None, reasons), None)}
    return StoredRun(first.name, folders, first.identity, provenance, table)


def _folders(path: Path) -> list[Path]:
    """The model folders and archives at `path` or in it."""
    names = ("run.json", HEADERS)
    if any((path / name).is_file() for name in names):
        return [path]
    if not path.is_dir():
        raise UserError(f"{path}: no such run folder")
    found = sorted({header.parent for name in names for header in path.glob(f"*/{name}")})
    if not found:
        raise UserError(f"{path}: no run.json in it or in a folder of it")
    return found


def parts(folder: Path) -> list[tuple[int, Path]]:
    """Number and path of each part, in order; temporary and other files are passed over."""
    matches = ((_PART.fullmatch(path.name), path) for path in folder.iterdir())
    return sorted((int(match[1]), path) for match, path in matches if match)
