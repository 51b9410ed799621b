"""Results of the relaxations, one file for each structure, and the folder that holds them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.core import WHOLE, Geometry, Shard, UserError
from benchmarks.core.files import atomic_write
from benchmarks.dft.settings import DFTSettings
from benchmarks.store.locking import FolderLock, require_free
from benchmarks.store.stored_run import require_equal

SETTINGS = "settings.json"


class InitialStructure(NamedTuple):
    """A structure to relax."""

    name: str
    """Letters, digits, `-`, `_`, `.`; names the file and, after `gpaw-`, the material."""
    geometry: Geometry
    kpt_grid: tuple[int, ...] | None = None
    """Number of k-points along each reciprocal vector; None: by the density of the settings."""

    @property
    def symbols(self) -> list[str]:
        """Element symbols of the sites, in order."""
        from ase.data import chemical_symbols

        return [chemical_symbols[z] for z in self.geometry.numbers]

    @property
    def sha256(self) -> str:
        """Hash that is equal for equal structures (to 1e-8 in lattice and coordinates)."""
        lattice, frac_coords, numbers = self.geometry
        arrays = [lattice.round(8).tolist(), frac_coords.round(8).tolist(), numbers.tolist()]
        return hashlib.sha256(json.dumps(arrays).replace("-0.0", "0.0").encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class DFTResult:
    """The result of one relaxation, which may have failed."""

    name: str
    start: str
    """`InitialStructure.sha256`."""
    symbols: list[str]
    cutoff: float
    """Cutoff of the plane waves [eV]."""
    reason: str = ""
    """The reason why it did not end relaxed; empty if it did."""
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
    """The records of one set of settings. `Folder.open` makes and locks it.

    Attributes:
        path: The path of the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    @contextmanager
    def open(
        cls,
        path: Path,
        settings: DFTSettings,
        versions: Mapping[str, str],
        shard: Shard = WHOLE,
    ) -> Iterator[Folder]:
        """Create the folder, or continue with one that has equal settings and GPAW.

        Args:
            path: The folder.
            settings: Those of its records.
            versions: Those of GPAW and its libraries.
            shard: The part of the records that this process writes; others may write other parts.

        Raises:
            UserError: The settings, GPAW or ASE differ, or another process writes to it.
        """
        locks = path / "parts"
        lock = FolderLock(path if shard == WHOLE else locks / shard.folder)
        try:
            for other in locks.glob("*") if shard == WHOLE else [path]:
                require_free(other)
            for leftover in (path / "records").glob(".*.tmp"):
                if shard.holds(leftover.name[1:].partition(".json.")[0]):
                    leftover.unlink()
            identity = asdict(settings) | {name: versions[name] for name in ("gpaw", "ase")}
            header = path / SETTINGS
            if header.is_file():
                try:
                    stored = json.loads(header.read_text(encoding="utf-8"))["identity"]
                except (ValueError, KeyError) as error:
                    raise UserError(f"{header}: damaged ({error})") from error
                require_equal(stored, identity, f"{path}: cannot go on")
            else:
                content = {"identity": identity, "versions": dict(versions)}
                with atomic_write(header) as partial:
                    partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
            yield cls(path)
        finally:
            lock.close()

    def file(self, name: str) -> Path:
        """The path of the record of a structure."""
        return self.path / "records" / f"{name}.json"

    def read(self, start: InitialStructure) -> DFTResult | None:
        """The record of a structure; None if there is none yet.

        Raises:
            UserError: It is damaged, or belongs to another structure of the same name.
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
        """Write a record, whole or not at all."""
        with atomic_write(self.file(record.name)) as partial:
            partial.write_text(json.dumps(asdict(record)) + "\n", encoding="utf-8")


def safe_name(text: str) -> str:
    """`text` with the characters that a name of a structure may have."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.") or "crystal"
