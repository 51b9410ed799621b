"""Cut an extended XYZ file into its frames, by line numbers.

ASE stops at the first blank line and says nothing of the frames behind it. Here every line belongs
to a frame, is blank between two frames, or is told.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.data.convert.recognition import open_text
from benchmarks.data.convert.relaxation import HYDROGEN, ConversionError

_PROPERTIES = re.compile(r"\bProperties=[\"']?(?P<columns>[^\s\"']+)", re.IGNORECASE)
_SPECIES = re.compile(r"\bProperties=[\"']?(?P<before>(?:\w+:\w:\d+:)*?)species:S:1\b", re.I)


class XyzFrame(NamedTuple):
    """One frame of an extended XYZ file."""

    line: int
    """Number of its first line, counted from 1."""
    text: str


def cut_frames(path: Path) -> tuple[list[XyzFrame], str]:
    """The complete frames of an extended XYZ file, D and T written as H.

    Args:
        path: The file, compressed or not.

    Returns:
        The frames, and what is wrong with the end of the file, in words; empty if it is complete.

    Raises:
        ConversionError: A line belongs to no frame.
    """
    with open_text(path) as file:
        lines = file.read().splitlines()
    frames: list[XyzFrame] = []
    at = 0
    while at < len(lines):
        count = lines[at].strip()
        if not count:
            at += 1
            continue
        if not count.isdecimal():
            raise ConversionError(
                f"not readable as extxyz: line {at + 1}: {_short(count)} where the number of atoms "
                f"of frame {len(frames)} belongs: mend or remove the line"
            )
        end = at + 2 + int(count)
        if end > len(lines):
            return frames, f"breaks off in frame {len(frames)}, which begins at line {at + 1}"
        for i in range(at + 2, end):
            if not lines[i].strip():
                raise ConversionError(
                    f"not readable as extxyz: line {i + 1}: blank where an atom of frame "
                    f"{len(frames)} belongs"
                )
        _check_columns(lines, at, len(frames))
        while end < len(lines) and lines[end].lstrip().startswith("VEC"):
            end += 1
        text = "\n".join([count, lines[at + 1], *_hydrogen(lines[at + 1], lines[at + 2 : end])])
        frames.append(XyzFrame(at + 1, text + "\n"))
        at = end
    return frames, ""


def _check_columns(lines: list[str], at: int, frame: int) -> None:
    """Check that the lines of a frame have the columns that it announces; ASE would make any many.

    Raises:
        ConversionError: The first line of an atom has fewer.
    """
    found = _PROPERTIES.search(lines[at + 1])
    counts = found["columns"].split(":")[2::3] if found else []
    there = len(lines[at + 2].split()) if int(lines[at]) else 0
    if sum(int(count) for count in counts if count.isdecimal()) > there:
        raise ConversionError(
            f"not readable as extxyz: line {at + 3}: {there} columns, fewer than the Properties of "
            f"frame {frame} name"
        )


def _hydrogen(comment: str, atoms: list[str]) -> Iterator[str]:
    """Lines of atoms in which isotopes have the symbol of their element."""
    found = _SPECIES.search(comment)
    before = found["before"].split(":")[2::3] if found else []
    column = sum(map(int, before)) if found or "Properties=" not in comment else None
    for line in atoms:
        words = line.split()
        if column is not None and column < len(words) and words[column] in HYDROGEN:
            words[column] = HYDROGEN[words[column]]
            yield " ".join(words)
        else:
            yield line


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}…")
