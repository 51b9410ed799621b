"""The JSON card beside what is fitted: on which data, by which command, with which versions."""

from __future__ import annotations

import importlib.metadata
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.core.files import atomic_write
from benchmarks.data import Dataset, load
from benchmarks.data.folders import split_names

log = logging.getLogger(__name__)


def training_sets(names: Sequence[str], limit: int | None = None) -> list[Dataset]:
    """The data sets named on the command line; of one that has splits the training split only.

    Args:
        names: What `benchmarks.data.load` reads.
        limit: At most so many relaxations of each; of a data set of the Hub no more is read.

    Raises:
        UserError: One cannot be read.
    """
    return [load(n, split="train" if split_names(n) else None, limit=limit) for n in names]


def validation_sets(names: Sequence[str]) -> list[Dataset]:
    """The data sets named on the command line, of each the validation split.

    Raises:
        UserError: One cannot be read.
    """
    return [load(n, split="val" if split_names(n) else None) for n in names]


def test_sets(names: Sequence[str]) -> list[Dataset]:
    """The data sets named on the command line; of one that has splits the test split only.

    Raises:
        UserError: One cannot be read.
    """
    return [load(n, split="test" if split_names(n) else None) for n in names]


def described(datasets: Sequence[Dataset]) -> list[dict[str, Any]]:
    """Name, revision (a hash of the content) and size of each, for the card."""
    return [
        {
            "name": data.name if data.split is None else f"{data.name}/{data.split}",
            "revision": data.revision,
            "n": len(data),
            "quarantined": len(data.quarantined),
        }
        for data in datasets
    ]


def versions(*packages: str) -> dict[str, str]:
    """Installed versions, for the card."""
    return {name: importlib.metadata.version(name) for name in packages}


def write_card(path: Path, **entries: Any) -> None:
    """Write JSON, keys in the order given.

    Raises:
        UserError: There is no room, or no permission.
    """
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(entries, indent=2) + "\n")
    log.info("wrote %s", path)
