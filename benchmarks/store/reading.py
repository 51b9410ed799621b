"""Run folders and archives -> `StoredRun`: strict reading and merging."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.core import UserError
from benchmarks.store.archive import HEADERS, read_archive
from benchmarks.store.headers import FAMILIES, read_header
from benchmarks.store.records import SCHEMA
from benchmarks.store.stored_run import (
    StoredRun,
    read_table,
    require_equal,
    require_unique,
)

OUTCOME: Final = ("sample_id", "repeat", "status", "batch_id")
_PART = re.compile(r"part-(\d{5,})\.parquet")


def read_run(folder: Path) -> StoredRun:
    """Read one model's folder, all its shards, or one shard alone.

    A folder with a header and no parts has no records.

    Raises:
        UserError: A file is missing, damaged, of another schema version or of another model, the
            identities of two shards differ, or a (sample_id, repeat) occurs twice.
    """
    shards = [_read_shard(shard) for shard in shard_folders(folder) or [folder]]
    return _merged(shards, (folder,))


def read_outcomes(folder: Path) -> Any:
    """Read of each record only `OUTCOME`; all of it is checked, as by `read_run`."""
    shards = [_read_shard(shard, OUTCOME) for shard in shard_folders(folder) or [folder]]
    return _merged(shards, (folder,)).table


def shard_folders(folder: Path) -> list[Path]:
    """List the folders of a model that have a header: its shards, or itself in the old layout."""
    headers = [folder / "run.json", *sorted(folder.glob("shard-*/run.json"))]
    return [header.parent for header in headers if header.is_file()]


def _read_shard(folder: Path, columns: Sequence[str] = SCHEMA.names) -> StoredRun:
    header = read_header(folder)
    model = header["identity"]["model"]
    # Each segment names its first part; the parts up to the next segment's are its own.
    segments = [{**segment, "shard": folder.name} for segment in header["segments"]]
    for segment in segments:
        segment["n_records"] = 0
    tables = []
    for number, path in parts(folder):
        remedy = "delete it and run again, which computes what it held once more"
        table = read_table(path, SCHEMA, remedy)
        others = set(pc.unique(table["model"]).to_pylist()) - {model}
        if others:
            raise UserError(f"{path}: holds records of {min(map(str, others))}, not of {model}")
        begun = [segment for segment in segments if segment.get("first_part", 0) <= number]
        if begun:
            begun[-1]["n_records"] += table.num_rows
        tables.append(table.select(columns))
    # many small parts hold half as much memory again as their numbers
    empty = SCHEMA.empty_table().select(columns)
    table = pa.concat_tables([empty, *tables]).combine_chunks()
    return StoredRun(
        model,
        (folder,),
        header["identity"],
        tuple(segments),
        table,
        schema_version=header["schema_version"],
    )


def read_runs(paths: Iterable[Path]) -> list[StoredRun]:
    """Read model folders, archives, or folders of them, and merge runs that continue one another.

    Runs of one model on one data set, revision and split are one run, and must agree in their
    whole identity.

    Raises:
        UserError: As `read_run` and `read_archive`; or nothing is there, or identities differ.
    """
    groups: dict[tuple[Any, ...], list[StoredRun]] = {}
    for folder in dict.fromkeys(f.resolve() for path in paths for f in run_folders(path)):
        is_archive = (folder / HEADERS).is_file()
        for run in read_archive(folder) if is_archive else [read_run(folder)]:
            key = (run.name, *(run.identity.get(k) for k in ("dataset", "revision", "split")))
            groups.setdefault(key, []).append(run)
    merged = [_merged(group, tuple(run.folder for run in group)) for group in groups.values()]
    return [replace(run, identity=_whole(run.identity)) for run in merged]


def _whole(identity: dict[str, Any]) -> dict[str, Any]:
    """Give an identity the fields that a board needs, where an older or another program left them.

    Families that are not known are `other`.
    """
    family = identity.get("family")
    return {"split": None, "weights": None, **identity} | {
        "family": family if family in FAMILIES else "other"
    }


def _merged(runs: list[StoredRun], folders: tuple[Path, ...]) -> StoredRun:
    first = max(runs, key=lambda run: run.schema_version)  # the first one of the newest version
    version = min(run.schema_version for run in runs)
    for other in runs:
        if other is first:
            continue
        where = f"{first.folder} and {other.folder} cannot be merged"
        if first.changes is not None or other.changes is not None:
            raise UserError(f"{where}: '{first.name}' of an archive is a whole run")
        require_equal(
            first.identity, other.identity, where, resumed=False, version=other.schema_version
        )
    table = pa.concat_tables([run.table for run in runs])
    require_unique(table, [run.folder for run in runs])
    segments = tuple(segment for run in runs for segment in run.segments)
    return StoredRun(first.name, folders, first.identity, segments, table, first.changes, version)


def run_folders(path: Path) -> list[Path]:
    """List the model folders and archives at `path`, or else in it.

    Raises:
        UserError: There are none.
    """
    if not path.is_dir():
        raise UserError(f"{path}: no such run folder")
    for candidates in ([path], sorted(path.iterdir())):
        found = [
            folder
            for folder in candidates
            if folder.is_dir() and ((folder / HEADERS).is_file() or shard_folders(folder))
        ]
        if found:
            return found
    raise UserError(f"{path}: no run.json in it or in a folder of it")


def parts(folder: Path) -> list[tuple[int, Path]]:
    """List number and path of each part, in order; other files are passed over."""
    matches = ((_PART.fullmatch(path.name), path) for path in folder.iterdir())
    return sorted((int(match[1]), path) for match, path in matches if match)
