"""Read input files of any known format as checked relaxations with their ids."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from benchmarks.core import UserError
from benchmarks.core.files import READ_ERRORS, file_sha256
from benchmarks.data.convert.relaxation import ConversionError, Relaxation, check


class Format(NamedTuple):
    """A kind of file."""

    reader: str
    """`module:function` of a path that gives a `Relaxation`."""
    names: tuple[str, ...]
    """Patterns of the names of its files."""


_HERE = "benchmarks.data.convert"
FORMATS: Mapping[str, Format] = {
    "nomad": Format(f"{_HERE}.nomad:read", ("*archive*.json", "*archive*.json.gz")),
    "vasp": Format(f"{_HERE}.vasp:read", ("*vasprun*.xml", "*vasprun*.xml.gz")),
    "extxyz": Format(f"{_HERE}.ase_files:read_extxyz", ("*.xyz", "*.extxyz", "*.xyz.gz")),
    "traj": Format(f"{_HERE}.ase_files:read_traj", ("*.traj",)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertOptions:
    """Options for the reading of inputs."""

    functional: str | None = None
    """The functional of the inputs that name none."""
    format: str | None = None
    """The format of all inputs; None if the names of the files tell it."""
    keep: Collection[str] = ()
    """The kinds of `relaxation.KEEP` that are converted, too."""


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
            "file": str(path),
            "sha256": self.sha256,
        }


def find_inputs(paths: Sequence[Path], form: str | None) -> list[Path]:
    """The named files, and the files in folders whose names tell a format, each once.

    Raises:
        UserError: A path does not exist, or a folder holds no such file.
    """
    names = [name for each in ([form] if form else FORMATS) for name in FORMATS[each].names]
    found: dict[Path, Path] = {}
    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: no such file or folder")
        files = [path]
        if not path.is_file():
            files = [
                file
                for file in sorted(path.rglob("*"))
                if not any(part.startswith(".") for part in file.relative_to(path).parts)
                and file.is_file()
                and any(fnmatch(file.name, name) for name in names)
            ]
        if not files:
            raise UserError(f"{path}: no file in it that is called {', '.join(names)}")
        for file in files:
            found.setdefault(file.resolve(), file)
    return list(found.values())


def read_input(path: Path, options: ConvertOptions) -> Input:
    """Read and check one file.

    Raises:
        ConversionError: It cannot become a trajectory; the text is the reason.
    """
    form = options.format
    if form is None:
        for each, (_, names) in FORMATS.items():
            if any(fnmatch(path.name, name) for name in names):
                form = each
                break
        else:
            raise ConversionError("its name tells no format: say it with --format")
    module, _, function = FORMATS[form].reader.partition(":")
    try:
        reader: Callable[[Path], Relaxation] = getattr(import_module(module), function)
        relaxation = reader(path)
        sha256 = file_sha256(path)
    except READ_ERRORS as error:
        said = (str(error).splitlines() or [""])[0]
        raise ConversionError(f"not readable as {form} ({type(error).__name__}: {said})") from error
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
