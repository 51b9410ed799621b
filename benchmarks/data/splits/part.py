"""One part of a held-out split as a source: the files of its sources, and the ids to keep."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.core import UserError
from benchmarks.data.sources import MANIFEST, Source, file_sha256, resolve_all


def part(folder: Path, manifest: Mapping[str, Any], split: str, *, offline: bool) -> Source:
    """Find the data that a folder of `benchmarks.data split` was made of.

    Args:
        folder: Where the manifest and the lists of ids are.
        manifest: Of a held-out split.
        split: One of its parts, whose list has been verified.
        offline: Of remote sources use the cache only.

    Raises:
        UserError: A source cannot be read, or is not what it was when the split was made.
    """
    path = folder / MANIFEST
    try:
        sources, limit, seed = manifest["sources"], manifest["n_drawn"], manifest["seed"]
        name, revision, inner = manifest["name"], manifest["revision"], manifest["source_split"]
        file = manifest["splits"][split]["file"]
    except KeyError as error:
        raise UserError(f"{path}: not a usable manifest (KeyError: {error})") from error
    whole = resolve_all(sources, inner, limit=limit, seed=seed, offline=offline)
    if whole.revision != revision:
        raise UserError(
            f"{path}: its sources ({', '.join(sources)}) are no longer at {revision}: split again"
        )
    with (folder / file).open(encoding="utf-8", newline="") as lines:
        ids = frozenset(row["sample_id"] for row in csv.DictReader(lines))
    digest = f"sha256:{file_sha256(path)}"
    parts = tuple(replace(part, ids=ids) for part in whole.parts)
    return replace(whole, name=name, split=split, revision=digest, ids=ids, parts=parts)
