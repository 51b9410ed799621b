"""Run folders -> `Run`: strict reading and merging."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.core import UserError
from benchmarks.store.records import SCHEMA, Records

SCHEMA_VERSION = 1
_PART = re.compile(r"part-(\d{5,})\.parquet")


@dataclass(frozen=True)
class StoredRun:
    """One model's stored run, possibly merged from several folders."""

    name: str
    """The model."""
    folders: tuple[Path, ...]
    identity: dict[str, Any]
    provenance: dict[str, Any]
    table: Any
    """Arrow table in `SCHEMA`; empty where the structures may not be stored."""

    @property
    def folder(self) -> Path:
        """The (first) folder."""
        return self.folders[0]

    @cached_property
    def records(self) -> Records:
        """The rows as `Record` objects, built on access."""
        return Records(self.table)


def read_run(folder: Path) -> StoredRun:
    """Read one model's folder; a folder with only `run.json` has no records.

    Raises:
        UserError: A file is missing, damaged, of another schema version or of another model, or
            a (sample_id, repeat) occurs twice.
    """
    header = read_header(folder)
    model = header["identity"]["model"]
    tables = [_read_part(path, model) for _, path in parts(folder)]
    table = pa.concat_tables([SCHEMA.empty_table(), *tables])
    _require_unique(table, [folder])
    return StoredRun(model, (folder,), header["identity"], header["provenance"], table)


def read_runs(paths: Iterable[Path]) -> list[StoredRun]:
    """Read model folders, or folders of them, and merge those that continue one another.

    Folders of one model on one data set, revision and split are one run, and must agree in their
    whole identity. The provenance of a merged run is that of its first folder, but it counts as
    aborted where one of them was.

    Raises:
        UserError: As `read_run`; or nothing is there, or identities differ.
    """
    groups: dict[tuple[Any, ...], list[StoredRun]] = {}
    for folder in dict.fromkeys(f.resolve() for path in paths for f in _model_folders(path)):
        run = read_run(folder)
        key = (run.name, *(run.identity.get(k) for k in ("dataset", "revision", "split")))
        groups.setdefault(key, []).append(run)
    return [_merged(group) for group in groups.values()]


def _merged(runs: list[StoredRun]) -> StoredRun:
    first = runs[0]
    if len(runs) == 1:
        return first
    for other in runs[1:]:
        where = f"{first.folder} and {other.folder} cannot be merged"
        require_equal(first.identity, other.identity, where)
    table = pa.concat_tables([run.table for run in runs])
    folders = tuple(run.folder for run in runs)
    _require_unique(table, folders)
    reasons = (run.provenance.get("aborted") for run in runs)
    provenance = first.provenance | {"aborted": next(filter(None, reasons), None)}
    return StoredRun(first.name, folders, first.identity, provenance, table)


def _model_folders(path: Path) -> list[Path]:
    if (path / "run.json").is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"{path}: no such run folder")
    found = sorted(header.parent for header in path.glob("*/run.json"))
    if not found:
        raise UserError(f"{path}: no run.json in it or in a folder of it")
    return found


def read_header(folder: Path) -> dict[str, dict[str, Any]]:
    """The two blocks of `run.json`; a `UserError` where it is missing, damaged or too new."""
    path = folder / "run.json"
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
        identity, provenance = dict(header["identity"]), dict(header["provenance"])
        version = identity["schema_version"]
        _ = identity["model"]
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; is {folder} a run folder?") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{path}: damaged ({reason}): remove {folder} and run again") from error
    if version != SCHEMA_VERSION:
        raise UserError(
            f"{path}: schema version {version}, this program reads {SCHEMA_VERSION}: run again "
            "into another folder, or use the version that wrote it"
        )
    return {"identity": identity, "provenance": provenance}


def _read_part(path: Path, model: str) -> Any:
    remedy = "delete it and run again, which computes what it held once more"
    try:
        table = pq.ParquetFile(path, page_checksum_verification=True).read()
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: damaged ({first}): {remedy}") from error
    if not table.schema.equals(SCHEMA):
        raise UserError(f"{path}: its columns are not those of a record: {remedy}")
    others = set(pc.unique(table["model"]).to_pylist()) - {model}
    if others:
        raise UserError(f"{path}: holds records of {min(map(str, others))}, not of {model}")
    return table


def require_equal(old: Mapping[str, Any], new: Mapping[str, Any], where: str) -> None:
    """Raise a `UserError` that begins with `where` and names the first field that differs."""
    a, b = _flattened(old), _flattened(new)
    for name in sorted(a.keys() | b.keys()):
        if a.get(name) != b.get(name):
            raise UserError(
                f"{where}: {name} differs ({a.get(name)!r} stored, now {b.get(name)!r}): "
                "use another folder, or the same settings"
            )


def _flattened(block: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in block.items():
        if isinstance(value, Mapping):
            flat |= _flattened(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _require_unique(table: Any, folders: Sequence[Path]) -> None:
    seen: set[tuple[str, int]] = set()
    for key in keys(table):
        if key in seen:
            names = ", ".join(map(str, folders))
            raise UserError(f"{names}: sample {key[0]}, repeat {key[1]} is there twice")
        seen.add(key)


def keys(table: Any) -> Iterator[tuple[str, int]]:
    """(sample_id, repeat) of each row."""
    return zip(table["sample_id"].to_pylist(), table["repeat"].to_pylist(), strict=True)


def parts(folder: Path) -> list[tuple[int, Path]]:
    """Number and path of each part, in order; temporary and other files are passed over."""
    matches = ((_PART.fullmatch(path.name), path) for path in folder.iterdir())
    return sorted((int(match[1]), path) for match, path in matches if match)
