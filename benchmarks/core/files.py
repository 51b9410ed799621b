"""Files are written whole or not at all, hashed, and read with one list of possible errors."""

from __future__ import annotations

import hashlib
import json
import math
import os
import pickle
import struct
import threading
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from benchmarks.core import UserError

READ_ERRORS: Final[tuple[type[Exception], ...]] = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    StopIteration,
    SyntaxError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
"""Exceptions that libraries raise when a file is damaged or is not what its reader expects."""


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a temporary file beside `path`, which becomes `path` at the end of the block.

    After the block the file survives a power cut. After an exception no temporary file is left,
    and the old file at `path` stays.

    Raises:
        UserError: The file cannot be written (no room, no permission).
    """
    name = f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp"
    partial = path.with_name(name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        with suppress(OSError):  # where its folder is a file there is nothing to remove
            partial.unlink(missing_ok=True)


def parse_json(text: str) -> Any:
    """Read JSON that others may have written; what is no Unicode becomes a question mark.

    Raises:
        ValueError: It is no JSON, is nested too deeply, or holds numbers that are not finite or
            integers beyond 64 bits.
    """

    def finite(digits: str) -> float:
        if not math.isfinite(number := float(digits)):
            raise ValueError(f"{digits:.20} is not finite")
        return number

    def bounded(digits: str) -> int:
        if len(digits) > 19 or not -(2**63) <= int(digits) < 2**63:
            raise ValueError(f"{digits:.20}… is too large")
        return int(digits)

    try:
        content = json.loads(text, parse_float=finite, parse_constant=finite, parse_int=bounded)
        plain = json.dumps(content, ensure_ascii=False).encode("utf-8", "replace")
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return json.loads(plain)


def follow_schema(content: Any, schema: Mapping[str, Any]) -> None:
    """Hold what JSON or YAML gave to a JSON schema.

    Raises:
        ValueError: It does not follow the schema; the message names the place.
    """
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    found = best_match(Draft202012Validator(schema).iter_errors(content))
    if found is not None:
        raise ValueError(f"{found.json_path.removeprefix('$.')}: {found.message:.200}")


def file_sha256(path: Path) -> str:
    """Compute the sha256 of a file's content, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def bundled_file(path: str) -> Path:
    """Give the path of a fitted model's parameters, which come with the package.

    Raises:
        UserError: The file is not there.
    """
    if not Path(path).is_file():
        raise UserError(f"{path} is missing: install the package again, or fit the model")
    return Path(path)
