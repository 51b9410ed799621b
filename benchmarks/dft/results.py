"""What became of each structure, a file each, and the folder that holds them."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.core import Geometry, UserError
from benchmarks.core.files import atomic_write
from benchmarks.dft.settings import DFTSettings
from benchmarks.store.stored_run import require_equal
from benchmarks.store.writing import locked

SETTINGS = "settings.json"


class InitialStructure(NamedTuple):
    """A structure to relax."""

    name: str
    """Letters, digits, `-`, `_`, `.`; names the file and, after `gpaw-`, the material."""
    geometry: Geometry

    @property
    def symbols(self) -> list[str]:
        """Of the sites, in order."""
        from ase.data import chemical_symbols

        return [chemical_symbols[z] for z in self.geometry.numbers]

    @property
    def sha256(self) -> str:
        """Tells whether it is the same start (to 1e-8 in lattice and coordinates)."""
        lattice, frac_coords, numbers = self.geometry
        arrays = [lattice.round(8).tolist(), frac_coords.round(8).tolist(), numbers.tolist()]
        return hashlib.sha256(json.dumps(arrays).replace("-0.0", "0.0").encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class DFTResult:
    """What became of one structure, failures included."""

    name: str
    start: str
    """`Start.sha256`."""
    symbols: list[str]
    cutoff: float
    """Plane waves [eV]."""
    reason: str = ""
    """Why it did not end relaxed; empty if it did."""
    seconds: float = 0.0
    """Wall time."""
    setups: dict[str, str] = field(default_factory=dict)
    """Fingerprint of the PAW setup by element."""
    frames: list[dict[str, Any]] = field(default_factory=list)
    """Ionic steps as the worker wrote them, also those before a failure."""

    def geometry(self, step: int) -> Geometry:
        """The structure at an ionic step; -1 for the last."""
        from ase.data import atomic_numbers

        lattice = np.array(self.frames[step]["lattice"], dtype=np.float64)
        positions = np.array(self.frames[step]["positions"], dtype=np.float64)
        numbers = np.array([atomic_numbers[symbol] for symbol in self.symbols], dtype=np.int16)
        return Geometry(lattice, positions @ np.linalg.inv(lattice), numbers)


class Folder:
    """Records of one set of settings; made by `Folder.open`, which locks it.

    Attributes:
        path: Where it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    @contextmanager
    def open(
        cls, path: Path, settings: DFTSettings, versions: Mapping[str, str]
    ) -> Iterator[Folder]:
        """Create the folder, or go on with one of equal settings and GPAW.

        Raises:
            UserError: The settings, GPAW or ASE differ, or somebody else writes to it.
        """
        lock = locked(path)
        try:
            for leftover in (path / "records").glob(".*.tmp"):
                leftover.unlink()
            computed_with = {name: versions[name] for name in ("gpaw", "ase")}
            _agree(path / SETTINGS, {**asdict(settings), **computed_with}, versions)
            yield cls(path)
        finally:
            os.close(lock)

    def file(self, name: str) -> Path:
        """Where the record of a structure is, or will be."""
        return self.path / "records" / f"{name}.json"

    def read(self, start: InitialStructure) -> DFTResult | None:
        """The record of a structure; None if there is none yet.

        Raises:
            UserError: It is damaged, or of another start under the same name.
        """
        path = self.file(start.name)
        if not path.is_file():
            return None
        try:
            record = DFTResult(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise UserError(f"{path}: not a record ({error}): remove it") from error
        if record.start != start.sha256:
            raise UserError(f"{path}: relaxed from another start of that name: use another --out")
        return record

    def write(self, record: DFTResult) -> None:
        """Store a record, whole or not at all."""
        with atomic_write(self.file(record.name)) as partial:
            partial.write_text(json.dumps(asdict(record)) + "\n", encoding="utf-8")


def _agree(path: Path, identity: dict[str, Any], versions: Mapping[str, str]) -> None:
    header = {"identity": identity, "versions": dict(versions)}
    if path.is_file():
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))["identity"]
        except (ValueError, KeyError) as error:
            raise UserError(f"{path}: damaged ({error})") from error
        require_equal(stored, identity, f"{path.parent}: cannot go on")
        return
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(header, indent=1) + "\n", encoding="utf-8")


def safe_name(text: str) -> str:
    """`text` as a name of a structure."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.") or "crystal"
