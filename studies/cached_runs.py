"""Records of runs that are kept as they finish, and seeds, for studies of several trainings.

`python -m studies.ablation` and `python -m studies.comparison` use them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.core.files import atomic_write
from benchmarks.core.training_identity import require_same_training


def cached_run(
    path: Path, identity: Mapping[str, Any], run: Callable[[], Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the record of a run from its file; without a file run it, and write the file.

    Args:
        path: The file, which is written in one go.
        identity: Settings and data that the record depends on, as plain JSON values.
        run: Returns the record, as plain JSON values.

    Raises:
        UserError: The file is of another identity.
    """
    if path.is_file():
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        require_same_training(path, record.get("identity"), identity)
    else:
        record = {"identity": identity, **run()}
        with atomic_write(path) as partial:
            partial.write_text(json.dumps(record) + "\n", encoding="utf-8")
    return record


def seeds(text: str) -> tuple[int, ...]:
    """Read seeds of the command line, such as 0,1,2."""
    return tuple(sorted({int(seed) for seed in text.split(",")}))
