"""The header of a run, `run.json`: its schema, and reading it strictly, older versions too."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from benchmarks.core import UserError
from benchmarks.core.files import follow_schema, parse_json

SCHEMA_VERSION = 2
"""Version 1 had one block `provenance` in place of the segments; it is read as one segment."""

_TEXT: Final = {"type": "string"}
_MAYBE_TEXT: Final = {"type": ["string", "null"]}
_TEXTS: Final = {"type": ["array", "null"], "items": _TEXT}
_COUNT: Final = {"type": ["integer", "null"], "minimum": 0}
_NUMBER: Final = {"type": ["number", "null"]}
_IDENTITY: Final = {
    "type": "object",
    "required": ["model", "dataset", "revision"],
    "properties": {
        "model": {"type": "string", "minLength": 1},
        "dataset": _TEXT,
        "revision": _TEXT,
        "split": _MAYBE_TEXT,
        "family": _TEXT,
        "label": _TEXT,
        "weights": _MAYBE_TEXT,
        "weights_sha256": _MAYBE_TEXT,
        "settings": {"type": "object"},
        "missing_final_frame": _TEXT,
    },
}
_COST: Final = {
    "type": ["object", "null"],
    "required": ["hours", "device", "source"],
    "properties": {"hours": {"type": "number", "minimum": 0}, "device": _TEXT, "source": _TEXT},
    "additionalProperties": False,
}
_SPENT: Final = {
    "type": "object",
    "required": ["replies", "prompt_tokens", "completion_tokens"],
    "properties": {
        "replies": {"type": "integer", "minimum": 0},
        "prompt_tokens": {"type": "integer", "minimum": 0},
        "completion_tokens": {"type": "integer", "minimum": 0},
        "cost": {"type": "number", "minimum": 0},
    },
    "additionalProperties": False,
}
_SEGMENT: Final = {
    "type": "object",
    "properties": {
        "started": _MAYBE_TEXT,
        "ended": _MAYBE_TEXT,
        "aborted": _MAYBE_TEXT,
        "licence": _MAYBE_TEXT,
        "functional": _MAYBE_TEXT,
        "training_data": _TEXTS,
        "training_cost": {"type": ["array", "null"], "items": _COST},
        "authors": _TEXTS,
        "link": _MAYBE_TEXT,
        "chosen_by": _MAYBE_TEXT,
        "python": _MAYBE_TEXT,
        "packages": {"type": ["object", "null"], "additionalProperties": _MAYBE_TEXT},
        "cpu": _MAYBE_TEXT,
        "device": _MAYBE_TEXT,
        "threads": _COUNT,
        "batch_size": {"type": ["integer", "null"], "minimum": 1},
        "first_part": {"type": "integer", "minimum": 0},
        "n_samples": _COUNT,
        "limit": _COUNT,
        "peak_memory_mb": _NUMBER,
        "load_seconds": _NUMBER,
        "warmup_seconds": _NUMBER,
        "declared_seconds": _NUMBER,
        "spent": {"type": "object", "additionalProperties": _SPENT},
        "submitted": {"type": ["boolean", "object", "null"]},
        "redistributable": {"type": ["boolean", "null"]},
        "quarantined": {
            "type": ["array", "null"],
            "items": {
                "type": "object",
                "required": ["sample_id", "reason"],
                "properties": {"sample_id": _MAYBE_TEXT, "reason": _TEXT, "detail": _MAYBE_TEXT},
            },
        },
    },
}
_HEADER: Final = {
    "type": "object",
    "required": ["identity", "segments"],
    "properties": {"identity": _IDENTITY, "segments": {"type": "array", "items": _SEGMENT}},
}
"""What a board reads of a header. A header may hold more."""


FAMILIES: Final = ("llm", "gnn", "trivial", "hybrid", "control", "other")
"""The families of models that boards tell apart."""


def read_header(folder: Path) -> dict[str, Any]:
    """Read the header in `run.json`, see `checked_header`.

    Raises:
        UserError: The file is missing, damaged or too new.
    """
    path = folder / "run.json"
    remedy = f"remove {folder} and run again"
    try:
        header = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; is {folder} a run folder?") from error
    except (OSError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{path}: damaged ({reason}): {remedy}") from error
    return checked_header(header, path, remedy)


def checked_header(header: Any, path: Path, remedy: str) -> dict[str, Any]:
    """Bring one header of the file `path` into the form of the present schema version.

    Returns:
        `identity`: a dict; `segments`: a list of dicts; `schema_version`: the version of the file.

    Raises:
        UserError: A block or a field is missing or of another type, or the schema version is not
            known.
    """
    try:
        identity = dict(header["identity"])
        version = identity["schema_version"]
        blocks = [header["provenance"]] if version == 1 else header.get("segments", [])
        segments = [dict(block) for block in blocks]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{path}: damaged ({reason}): {remedy}") from error
    if version not in (1, SCHEMA_VERSION):
        raise UserError(
            f"{path}: schema version {version}, this program reads up to {SCHEMA_VERSION}: run "
            "again into another folder, or use the version that wrote it"
        )
    if not segments:
        raise UserError(f"{path}: damaged (no segments): {remedy}")
    if version == 1:
        identity["schema_version"] = SCHEMA_VERSION
        for block in (identity, *segments):
            if "end_missing" in block:
                block["missing_final_frame"] = block.pop("end_missing")
    try:
        follow_schema({"identity": identity, "segments": segments}, _HEADER)
    except ValueError as error:
        raise UserError(f"{path}: damaged ({error}): {remedy}") from error
    return {"identity": identity, "segments": segments, "schema_version": version}
