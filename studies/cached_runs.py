"""What the studies of several trainings share: runs kept as they finish, endings, flags.

Of `python -m studies.ablation.ablation` and `python -m studies.comparison.comparison`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.core import UserError


def cached_run(
    path: Path, identity: Mapping[str, Any], run: Callable[[], Mapping[str, Any]]
) -> dict[str, Any]:
    """The record of a run: from its file, or of `run`, which is called where there is none.

    Args:
        path: of the file, written in one go.
        identity: settings and data that the record depends on, as plain JSON values.
        run: gives the record, as plain JSON values.

    Raises:
        UserError: the file is of another identity.
    """
    if path.is_file():
        record: dict[str, Any] = json.loads(path.read_text())
        if record["identity"] != identity:
            raise UserError(f"{path} is of other settings or data: give another --out")
    else:
        record = {"identity": identity, **run()}
        part = path.with_suffix(".new")
        part.write_text(json.dumps(record) + "\n")
        part.replace(path)
    return record


def exit_code(study: Callable[[], str]) -> int:
    """Print what a study found; 0, or 2 for a user's mistake, 130 interrupted, with a line."""
    try:
        found = study()
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: the same command goes on with the unfinished run\n")
        return 130
    sys.stdout.write(found)
    return 0


def seeds(text: str) -> tuple[int, ...]:
    """Seeds of the command line, as 0,1,2."""
    return tuple(sorted({int(seed) for seed in text.split(",")}))


def positive(text: str) -> int:
    """A whole number of the command line, from 1."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return int(text)
