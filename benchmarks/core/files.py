"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.core import UserError


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary file to write beside `path`, which becomes `path` at the end of the block.

    On an exception nothing is left, and what was at `path` stays.

    Raises:
        UserError: There is no room, or no permission.
    """
    name = f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp"
    partial = path.with_name(name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        with suppress(OSError):  # where its folder is a file there is nothing to remove
            partial.unlink(missing_ok=True)
