"""One input file as a checked relaxation with its ids, whatever wrote it."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
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
    """How its files are called."""


_HERE = "benchmarks.data.convert"
FORMATS: Mapping[str, Format] = {
    "nomad": Format(f"{_HERE}.nomad:read", ("*archive*.json", "*archive*.json.gz")),
    "vasp": Format(f"{_HERE}.vasp:read", ("*vasprun*.xml", "*vasprun*.xml.gz")),
    "extxyz": Format(f"{_HERE}.ase_files:read_extxyz", ("*.xyz", "*.extxyz", "*.xyz.gz")),
    "traj": Format(f"{_HERE}.ase_files:read_traj", ("*.traj",)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertOptions:
    """How inputs are to be read."""

    functional: str | None = None
    """Of the inputs that name none."""
    format: str | None = None
    """Of all inputs; without it their names tell."""
    keep: Collection[str] = ()
    """Which of `relaxation.KEEP` to let pass."""


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
        """What is known of the calculation, as text or numbers; empty where nothing is."""
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


def find(paths: Sequence[Path], form: str | None) -> list[Path]:
    """The files to read: those named, and in folders those whose name tells a format, each once.

    Raises:
        UserError: A path does not exist, or a folder holds no such file.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: no such file or folder")
        files = [path] if path.is_file() else list(_walk(path, form))
        if not files:
            raise UserError(f"{path}: no file in it that is called {', '.join(_names(form))}")
        for file in files:
            found.setdefault(file.resolve(), file)
    return list(found.values())


def _walk(folder: Path, form: str | None) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and path.is_file() and any(fnmatch(path.name, n) for n in _names(form)):
            yield path


def _names(form: str | None) -> list[str]:
    return [name for each in ([form] if form else FORMATS) for name in FORMATS[each].names]


def read(path: Path, options: ConvertOptions) -> Input:
    """Read and check one file.

    Raises:
        ConversionError: It cannot become a trajectory, and why.
    """
    form = options.format or _format(path)
    try:
        relaxation = _reader(form)(path)
        sha256 = file_sha256(path)
    except READ_ERRORS as error:
        said = (str(error).splitlines() or [""])[0]
        raise ConversionError(f"not readable as {form} ({type(error).__name__}: {said})") from error
    check(relaxation, options.keep)
    functional = relaxation.functional or options.functional
    if functional is None:
        raise ConversionError("names no functional: say it with --functional")
    # Where a file names the material, that is shared: its content then tells trajectories apart.
    number = int(sha256[:8], 16) if relaxation.material else 0
    material = relaxation.material or f"{form}-{sha256[:10]}"
    return Input(
        relaxation=relaxation,
        material=material,
        functional=functional,
        trajectory=f"{material}-{number}-{functional}",
        sha256=sha256,
    )


def _format(path: Path) -> str:
    for form, (_, names) in FORMATS.items():
        if any(fnmatch(path.name, name) for name in names):
            return form
    raise ConversionError("its name tells no format: say it with --format")


def _reader(form: str) -> Callable[[Path], Relaxation]:
    module, _, function = FORMATS[form].reader.partition(":")
    reader: Callable[[Path], Relaxation] = getattr(import_module(module), function)
    return reader
