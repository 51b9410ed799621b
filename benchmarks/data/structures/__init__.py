"""Crystal structures as people bring them, in any format, read by one reader for every command."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.core import Geometry


class StructureError(ValueError):
    """Input that is no ordered crystal; the text is one line that does not name the file."""


@dataclass(frozen=True, slots=True)
class FoundStructure:
    """One structure of a file, or the reason why there is none."""

    name: str
    """`FILE`, or `FILE@INDEX` where the file has several."""
    geometry: Geometry | None = None
    problem: str = ""
    """Why there is no structure, in one line that does not name the file."""
    warnings: tuple[str, ...] = ()
    """What is odd about the structure, each in one line."""
