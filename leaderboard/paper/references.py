"""The references of a board in BibTeX: of the benchmark, of its models, of their data.

`references.bib` beside this module holds all of them. Each entry says itself which models and data
it belongs to, so that one entry is all that a new model needs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Final

from leaderboard.board.schema import Board, Row

LISTED: Final = Path(__file__).with_name("references.bib")
_ENTRY: Final = re.compile(r"^@\w+\{([^,]+),\n.*?^\}", re.MULTILINE | re.DOTALL)
_OWN_FIELD: Final = re.compile(r",?\n\s*(models|data)\s*=\s*\{([^}]*)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class BibReference:
    """One entry of the bibliography."""

    key: str
    bibtex: str
    """The entry without the fields that are this project's own."""
    models: tuple[str, ...]
    """Patterns of the names of models."""
    data: tuple[str, ...]
    """Patterns of the names of data sets and training sets."""


@cache
def listed_references() -> tuple[BibReference, ...]:
    """Every entry of `references.bib`, in its order."""
    found = []
    for entry in _ENTRY.finditer(LISTED.read_text(encoding="utf-8")):
        own = dict(_OWN_FIELD.findall(entry[0]))
        found.append(
            BibReference(
                key=entry[1],
                bibtex=_OWN_FIELD.sub("", entry[0]),
                models=_patterns(own.get("models", "")),
                data=_patterns(own.get("data", "")),
            )
        )
    return tuple(found)


def _patterns(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def references_of_model(row: Row) -> list[BibReference]:
    """The references of a row: of its parts, where it is a hybrid, and of their training data."""
    return [
        each
        for each in listed_references()
        if _matches(row.model.split("+"), each.models) or _matches(row.training_data, each.data)
    ]


def references_of_data(board: Board) -> list[BibReference]:
    """The references of a board's data set."""
    name = board.dataset.name
    return [each for each in listed_references() if _matches([name], each.data)]


def _matches(names: Sequence[str], patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


def bibliography(board: Board, rows: Sequence[Row]) -> str:
    """The BibTeX of a board: every entry that its data or one of the rows needs, each once.

    Args:
        board: The board.
        rows: The rows that are shown.
    """
    needed = {each.key for each in references_of_data(board)}
    needed |= {each.key for row in rows for each in references_of_model(row)}
    entries = [each.bibtex for each in listed_references() if each.key in needed]
    return "\n\n".join(entries) + "\n"
