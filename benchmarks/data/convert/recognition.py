"""Which format a file has: its content decides, and its name where the content does not tell.

Programs rename their outputs (custodian's `vasprun.xml.relax1.gz`), so that no list of names is
complete. Compression is told by the first bytes as well.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Callable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import IO, Any, NamedTuple


class Format(NamedTuple):
    """A kind of file."""

    reader: str
    """`module:function` of a path that gives a `Relaxation`."""
    names: tuple[str, ...]
    """Patterns of the names of its files, without the suffix of a compression."""
    beginning: re.Pattern[str]
    """What stands in the first `_HEAD` characters of its files."""


_HERE = "benchmarks.data.convert"
_HEAD = 1 << 16
FORMATS: Mapping[str, Format] = {
    "nomad": Format(
        f"{_HERE}.nomad:read",
        ("*archive*.json",),
        re.compile(
            r"""\A\s*\{.*"(?:run"\s*:\s*\[\s*\{|workflow2"\s*:|archive"\s*:\s*\{)""", re.DOTALL
        ),
    ),
    "vasp": Format(
        f"{_HERE}.vasp:read",
        ("*vasprun*.xml", "*vasprun*.xml.*"),
        re.compile(r"\A\s*(?:<\?xml[^>]*>\s*)?<modeling>"),
    ),
    "extxyz": Format(
        f"{_HERE}.ase_files:read_extxyz",
        ("*.xyz", "*.extxyz"),
        re.compile(r"\A\s*\d+[ \t]*\r?\n[^\n]*\b(?:Lattice|Properties)=", re.IGNORECASE),
    ),
    "traj": Format(
        f"{_HERE}.ase_files:read_traj", ("*.traj",), re.compile(r"\A- of UlmASE-Trajectory")
    ),
}
_OPENERS: Mapping[bytes, Callable[..., IO[Any]]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}
COMPRESSIONS = (".gz", ".bz2", ".xz")


def format_of(path: Path) -> str | None:
    """The name of a file's format in `FORMATS`; None if neither content nor name tells one.

    Raises:
        OSError: The file cannot be opened.
    """
    try:
        with open_text(path) as file:
            head = file.read(_HEAD)
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile):
        head = ""
    for name, form in FORMATS.items():
        if form.beginning.search(head):
            return name
    plain = path.with_suffix("") if path.suffix in COMPRESSIONS else path
    for name, form in FORMATS.items():
        if any(fnmatch(plain.name, pattern) for pattern in form.names):
            return name
    return None


def open_text(path: Path) -> IO[str]:
    """Open a file for reading, compressed or not; what is no text becomes a replacement character.

    Raises:
        OSError: The file cannot be opened.
    """
    opened = (_opener(path) or open)(path, "rb")
    return io.TextIOWrapper(opened, encoding="utf-8-sig", errors="replace")


def is_compressed(path: Path) -> bool:
    """Whether a file's first bytes are those of a compression.

    Raises:
        OSError: The file cannot be opened.
    """
    return _opener(path) is not None


def _opener(path: Path) -> Callable[..., IO[Any]] | None:
    with path.open("rb") as file:
        first = file.read(6)
    return next((open_ for magic, open_ in _OPENERS.items() if first.startswith(magic)), None)
