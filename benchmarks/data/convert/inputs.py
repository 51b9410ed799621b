"""Read input files of any known format as checked relaxations with their ids."""

from __future__ import annotations

import gzip
import json
import os
import re
import warnings
import zlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from importlib import import_module
from lzma import LZMAError
from pathlib import Path

from benchmarks.core.files import READ_ERRORS, file_sha256
from benchmarks.data.convert.evidence import check
from benchmarks.data.convert.recognition import FORMATS, format_of
from benchmarks.data.convert.relaxation import ConversionError, Relaxation

_READ_ERRORS: tuple[type[Exception], ...] = (*READ_ERRORS, LZMAError, MemoryError)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertOptions:
    """Options for the reading of inputs."""

    functional: str | None = None
    """The functional of the inputs that name none."""
    format: str | None = None
    """The format of all inputs; None if their content or their names tell it."""
    keep: Collection[str] = ()
    """The kinds of `evidence.KEEP` that are converted, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """A file that is one relaxation."""

    relaxation: Relaxation
    material: str
    functional: str
    trajectory: str
    """`{material}-{number}-{functional}`, the id of its frames without the step."""
    sha256: str

    def settings(self, path: Path) -> dict[str, object]:
        """The settings of the calculation as text or numbers; empty where they are not known."""
        read = self.relaxation
        return {
            "sample_id": self.trajectory,
            "n_frames": len(read.steps),
            "functional": self.functional,
            "program": read.program or "",
            "cutoff_ev": "" if read.cutoff is None else round(read.cutoff, 6),
            "hubbard_u_ev": json.dumps({k: round(u, 6) for k, u in read.hubbard_u.items()}),
            "file": printable(path),
            "sha256": self.sha256,
        }


def printable(path: Path) -> str:
    """A path as one line of text; what is no character of it becomes a replacement character."""
    text = os.fsencode(path).decode("utf-8", "replace")
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


def find_inputs(paths: Sequence[Path], form: str | None) -> list[Path]:
    """The named files, and the relaxations in folders, each once.

    A folder without one, and a path that does not exist, stand in the list themselves: `read_input`
    says what is wrong with them.

    Args:
        paths: Files and folders.
        form: A key of `FORMATS`; None for files of all formats.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        files = [path]
        if os.path.isdir(path):  # noqa: PTH112 (no exception for a name that is too long)
            files = [
                file
                for file in sorted(path.rglob("*"))
                if not any(part.startswith(".") for part in file.relative_to(path).parts)
                and file.is_file()
                and _is_input(file, form)
            ]
        for file in files or [path]:
            found.setdefault(Path(os.path.realpath(file)), file)
    return list(found.values())


def _is_input(file: Path, form: str | None) -> bool:
    try:
        told = format_of(file)
    except OSError:  # `read_input` will say why, if its name is that of an input
        return any(file.match(name) for each in FORMATS.values() for name in each.names)
    return told is not None and form in (None, told)


def read_input(path: Path, options: ConvertOptions) -> Input:
    """Read and check one file.

    Raises:
        ConversionError: It cannot become a trajectory; the text is the reason.
    """
    if os.path.isdir(path):  # noqa: PTH112
        known = ", ".join(name for each in FORMATS.values() for name in each.names)
        raise ConversionError(f"no file in it that is called {known}, or has such a content")
    if not os.path.exists(path):  # noqa: PTH110
        raise ConversionError("no such file or folder")
    try:
        form = options.format or format_of(path)
    except OSError as error:
        raise ConversionError(f"cannot be read ({error.strerror or 'damaged'})") from error
    if form is None:
        raise ConversionError(
            "its content is not known, and its name tells no format: say it with --format"
        )
    module, _, function = FORMATS[form].reader.partition(":")
    try:
        reader: Callable[[Path], Relaxation] = getattr(import_module(module), function)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the checks below say what is wrong
            relaxation = reader(path)
        sha256 = file_sha256(path)
    except _READ_ERRORS as error:
        raise ConversionError(f"not readable as {form}: {_in_words(error)}") from error
    check(relaxation, options.keep)
    functional = relaxation.functional or options.functional
    if functional is None:
        raise ConversionError("names no functional: say it with --functional")
    # Files may name the same material. Their content then tells the trajectories apart.
    number = int(sha256[:8], 16) if relaxation.material else 0
    material = relaxation.material or f"{form}-{sha256[:10]}"
    return Input(
        relaxation=relaxation,
        material=material,
        functional=functional,
        trajectory=f"{material}-{number}-{functional}",
        sha256=sha256,
    )


def _in_words(error: Exception) -> str:
    """What a library's exception says about a file, for a reader who does not know the library."""
    said = (str(error).splitlines() or [""])[0]
    number = re.search(r"could not convert string(?: to float:)? ('[^']*')", said)
    if number:
        return f"{number[1]} stands where a number belongs"
    if isinstance(error, json.JSONDecodeError):
        return f"line {error.lineno}, column {error.colno}: {error.msg}"
    if isinstance(error, SyntaxError) and said:
        return re.sub(r" \([^()]*, line \d+\)$", "", said)
    if isinstance(error, MemoryError):
        return "damaged, or too large for the memory"
    if isinstance(error, EOFError | LZMAError | zlib.error | gzip.BadGzipFile):
        return "damaged, or it breaks off: get it again"
    if isinstance(error, KeyError) and error.args and isinstance(error.args[0], str):
        return f"{error.args[0]!r} is missing, or is not known"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return "its content is not what the format demands: damaged, or written by hand"
