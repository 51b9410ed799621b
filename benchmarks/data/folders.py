"""Folders of parquet files: their splits, told by a manifest or by the names of the files.

A folder with a `manifest.json` has the splits that the manifest lists. Without one, files whose
names begin with `train`, `val`, `validation` or `test` are the splits, which is the convention of
the Hub. The embedded sets of this project are such folders.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePath
from typing import Any

from benchmarks.core import UserError
from benchmarks.core.files import follow_schema, parse_json

EMBEDDED = Path(__file__).parent / "embedded"
"""The embedded set: parquet files, manifest and data card."""
EMBEDDED_SETS = {
    "embedded": EMBEDDED,
    "embedded-v2": EMBEDDED.with_name("embedded_v2"),
    "embedded-v3": EMBEDDED.with_name("embedded_v3"),
    "perturbed": EMBEDDED.with_name("perturbed"),
}
"""The embedded sets by the name that `--data` takes; `embedded` stays version 1."""
MANIFEST = "manifest.json"
DEFAULT_SPLIT = "test"
_MANIFEST_SCHEMA = {
    "type": "object",
    "required": ["name", "version", "splits"],
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "version": {"type": ["integer", "string"]},
        "rule": {"type": "string"},
        "splits": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "required": ["file", "sha256"],
                "properties": {
                    "file": {"type": "string", "minLength": 1, "maxLength": 250},
                    "sha256": {"type": "string"},
                },
            },
        },
        "sources": {"type": "array", "items": {"type": "string"}},
        "n_drawn": {"type": ["integer", "null"], "minimum": 0},
        "seed": {"type": "integer"},
        "revision": {"type": "string"},
        "source_split": {"type": ["string", "null"]},
    },
}
"""What is read of a manifest, which may hold more."""
_SPLIT_NAME = re.compile(r"(train|val|validation|test)(?![a-z]).*\.parquet", re.IGNORECASE)


def embedded_folder(name: str) -> Path:
    """The folder of an embedded set.

    Args:
        name: A key of `EMBEDDED_SETS`.

    Raises:
        UserError: The set has not been computed yet.
    """
    folder = EMBEDDED_SETS[name]
    if not (folder / MANIFEST).is_file():
        raise UserError(
            f"--data {name}: not there: compute it (python -m benchmarks.dft --list {name} "
            f"--out DIR), then move DIR/{folder.name} to {folder}"
        )
    return folder


def has_manifest(folder: Path) -> bool:
    """Say whether there is a manifest in a folder, or False where its name is none."""
    try:
        return (folder / MANIFEST).is_file()
    except (OSError, ValueError):  # a name that is too long, no permission
        return False


def split_names(source: str) -> tuple[str, ...]:
    """The names of the splits that a local source has; empty for a single file or the Hub.

    Raises:
        UserError: Its manifest is not usable.
    """
    folder = embedded_folder(source) if source in EMBEDDED_SETS else Path(source)
    if has_manifest(folder):
        return tuple(read_manifest(folder)["splits"])
    return tuple(split_files(folder))


def made_of(source: str, above: tuple[Path, ...] = ()) -> tuple[str, ...]:
    """The sources that a held-out split was made of, followed to the end; else `source` alone.

    Args:
        source: A folder, or another source.
        above: The folders that were followed to it.

    Raises:
        UserError: Its manifest is not usable, or it is made of itself.
    """
    folder = Path(source)
    if source in EMBEDDED_SETS or not has_manifest(folder):
        return (source,)
    if folder.resolve() in above:
        raise UserError(f"{folder / MANIFEST}: the split is made of itself: split again")
    sources = read_manifest(folder).get("sources", ())
    above = (*above, folder.resolve())
    return tuple(inner for each in sources for inner in made_of(each, above)) or (source,)


def split_files(folder: Path) -> dict[str, list[Path]]:
    """Parquet files of `folder` by the split that their name begins with; others are left out."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*.parquet")):
        match = _SPLIT_NAME.fullmatch(path.name)
        if match:
            name = match[1].lower()
            found.setdefault("val" if name == "validation" else name, []).append(path)
    return found


def choose_split(name: str, split: str | None, splits: list[str]) -> str:
    """The split that is read: `split`, or `test` if none is named.

    Args:
        name: The name of the data set, for messages.
        split: The name that the user gave.
        splits: The names of the splits that the data set has.

    Raises:
        UserError: The data set has no such split.
    """
    chosen = DEFAULT_SPLIT if split is None else split
    if chosen in splits:
        return chosen
    known = ", ".join(sorted(splits))
    if split is None:
        raise UserError(f"{name} has no split '{DEFAULT_SPLIT}': choose with --split: {known}")
    raise UserError(f"{name} has no split '{split}': it has {known}")


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of `folder`, held to its schema; the files that it names lie in the folder.

    Raises:
        UserError: It is not JSON, or does not follow the schema.
    """
    path = folder / MANIFEST
    try:
        manifest: dict[str, Any] = parse_json(path.read_text(encoding="utf-8"))
        follow_schema(manifest, _MANIFEST_SCHEMA)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: not a usable manifest ({type(error).__name__}: {error})"
        ) from error
    for entry in manifest["splits"].values():
        inside = PurePath(entry["file"])
        if inside.is_absolute() or ".." in inside.parts or "\0" in entry["file"]:
            raise UserError(f"{path}: {entry['file']!r:.100} is no file of the folder")
    return manifest
