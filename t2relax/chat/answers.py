"""What a prompted model answers: its text read as a crystal, and the file that keeps each reply."""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
from ase.cell import Cell

from benchmarks.core import Geometry, UnavailableError, UserError
from benchmarks.core.files import READ_ERRORS
from benchmarks.core.geometry import cell_parameters
from benchmarks.data.structures.cif import read_cif
from t2relax.chat.server import Reply

LONGEST: Final = 20_000
"""Characters of a CIF, beside `PER_SITE` for each site of the question, that are read."""
PER_SITE: Final = 200
_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(\(\d+\))?")


def cif_in(text: str) -> str:
    """Find the CIF in a text: without code fences, what was thought before it, and prose around it.

    Of several the last is taken. It ends with the rows of its sites.

    Returns:
        The empty text if no cell is in it.
    """
    blocks: list[list[str]] = [[]]
    for line in text.rpartition("</think>")[2].splitlines():
        if line.lstrip().startswith(("```", "~~~")):
            blocks.append([])
        else:
            blocks[-1].append(line.strip())
    lines = next((b for b in reversed(blocks) if any("_cell_length_a" in x for x in b)), [])
    heads = [i for i, line in enumerate(lines) if line.lower().startswith("data_")]
    tags = [i for i, line in enumerate(lines) if line.lower().startswith(("_", "loop_"))]
    lines = lines[(heads or tags or [0])[-1 if heads else 0] :]
    columns = [i for i, line in enumerate(lines) if line.startswith("_atom_site_fract_")]
    if columns:
        first = last = columns[-1]
        while first and lines[first - 1].startswith("_atom_site_"):
            first -= 1
        while last + 1 < len(lines) and lines[last + 1].startswith("_atom_site_"):
            last += 1
        places = [i - first for i in columns if i >= first]
        end = last + 1
        for i, line in enumerate(lines[last + 1 :], start=last + 1):
            words = line.split()
            if not words:
                continue
            if len(words) != last - first + 1 or not all(
                _NUMBER.fullmatch(words[k]) for k in places
            ):
                break
            end = i + 1
        lines = lines[:end]
    if lines and not heads:
        lines.insert(0, "data_answer")
    return "\n".join(lines)


def read_answer(text: str, initial: Geometry) -> tuple[Geometry | None, str]:
    """Read the crystal that a text answers with, in the orientation of the question.

    Coordinates are those within half a cell of where the site was, as a CIF leaves whole cells out.

    Args:
        text: The text, which may be anything; nothing in it is executed.
        initial: The crystal of the question.

    Returns:
        The crystal as it stands in the text, whatever its atoms, or None and the reason.
    """
    cif = cif_in(text)
    if not cif:
        return None, "no CIF is in the text" if text.strip() else "the text is empty"
    if len(cif) > LONGEST + PER_SITE * len(initial.numbers):
        return None, f"a CIF of {len(cif)} characters, for {len(initial.numbers)} sites"
    try:
        found = read_cif(cif, "answer")[-1:]
    except READ_ERRORS:
        found = []
    if not found or found[0].geometry is None:
        return None, found[0].problem if found else "no crystal is in the text"
    standard = np.array(Cell.fromcellpar(cell_parameters(initial.lattice)).array)
    lattice, frac_coords, numbers = found[0].geometry
    lattice = lattice @ np.linalg.solve(standard, initial.lattice)
    if np.array_equal(numbers, initial.numbers):
        frac_coords = frac_coords + np.round(initial.frac_coords - frac_coords)
    return Geometry(lattice, frac_coords, numbers), ""


class AnswerFile:
    """Every reply of a server, one JSON object a line, so that none is paid for twice.

    A line has `request` (a hash of all that was sent), `seconds`, and the fields of `Reply`.

    Args:
        path: The file; None keeps the replies in memory.

    Raises:
        UserError: The file is there and cannot be read.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._lock = threading.Lock()
        lines = _lines(path) if path is not None and path.exists() else []
        self._kept = {line["request"]: _reply(line) for line in lines}
        self.version = next((reply.version for reply in self._kept.values()), None)
        """The model that answered first, as the server named it; None if there is no reply."""

    def get(self, request: str) -> Reply | None:
        """Give the reply that is kept for a request."""
        return self._kept.get(request)

    def keep(self, request: str, reply: Reply, seconds: float) -> None:
        """Keep a reply; it is on disk when this returns.

        Raises:
            UnavailableError: The file cannot be written, so that nothing more must be asked.
        """
        with self._lock:
            self._kept[request] = reply
            self.version = reply.version if self.version is None else self.version
            if self.path is None:
                return
            line = {"request": request, "seconds": round(seconds, 3), **asdict(reply)}
            try:
                # Unbuffered: each line is one write, whatever another worker appends meanwhile.
                with self.path.open("ab", buffering=0) as file:
                    # A write that was cut off has left half a line.
                    start = "\n" if file.tell() else ""
                    file.write(f"{start}{json.dumps(line)}".encode())
                    os.fsync(file.fileno())
            except OSError as error:
                reason = f"{self.path}: cannot be written ({error.strerror})"
                raise UnavailableError(reason) from error


def request_hash(request: Mapping[str, Any], sample: int) -> str:
    """Name a request by all that is sent, and by the sample where one is asked several times."""
    text = json.dumps([request, sample], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def token_counts(path: Path) -> dict[str, int]:
    """Add up the replies of a file: their number, and the tokens of their prompts and texts."""
    replies = [_reply(line) for line in _lines(path)] if path.exists() else []
    return {
        "replies": len(replies),
        "prompt_tokens": sum(reply.prompt_tokens or 0 for reply in replies),
        "completion_tokens": sum(reply.completion_tokens or 0 for reply in replies),
    }


def _lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file of replies; one that was cut off is passed over."""
    found = []
    try:
        for line in path.read_bytes().splitlines():
            try:
                entry = json.loads(line)
                _reply(entry)
            except (ValueError, TypeError, LookupError):
                continue
            found.append(entry)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    return [entry for entry in found if isinstance(entry.get("request"), str)]


def _reply(line: Mapping[str, Any]) -> Reply:
    return Reply(**{name: line[name] for name in Reply.__dataclass_fields__})
