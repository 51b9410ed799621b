"""Initial structures from files that ASE reads, or from tables in the layout of LeMat-Traj."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.core import Geometry, UserError
from benchmarks.core.files import READ_ERRORS
from benchmarks.dft.results import InitialStructure, safe_name


def from_files(paths: Sequence[Path]) -> list[InitialStructure]:
    """Structures of files: every image of a file, the first frame of every trajectory of a table.

    Raises:
        UserError: A file is not there, cannot be read, or holds something else than an ordered
            crystal; or two structures would have one name.
    """
    return distinct([start for path in paths for start in _from_file(path)])


def from_table(source: str) -> list[InitialStructure]:
    """First frames of a data set in the layout of LeMat-Traj, as `benchmarks.data.load` finds them.

    Raises:
        UserError: It cannot be read.
    """
    from benchmarks.data import load

    dataset = load(source)
    return [
        InitialStructure(safe_name(name.removeprefix("gpaw-")), dataset.geometries(i)[0])
        for i, name in enumerate(dataset.ids)
    ]


def distinct(starts: Iterable[InitialStructure]) -> list[InitialStructure]:
    """The starts, if their names differ (upper and lower case are one on some file systems).

    Raises:
        UserError: Two have one name.
    """
    found: dict[str, InitialStructure] = {}
    for start in starts:
        if found.setdefault(start.name.lower(), start) is not start:
            raise UserError(f"two structures are called {start.name}: rename a file")
    return list(found.values())


def _from_file(path: Path) -> list[InitialStructure]:
    from ase.io import read
    from ase.io.formats import UnknownFileTypeError

    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if path.suffix == ".parquet":
        return from_table(str(path))
    try:
        images: list[Any] = read(path, index=":")
    except (*READ_ERRORS, UnknownFileTypeError) as error:
        said = (str(error).splitlines() or [""])[0]
        raise UserError(f"{path}: ASE cannot read it ({type(error).__name__}: {said})") from error
    if not images:
        raise UserError(f"{path}: no structure in it")
    name = safe_name(path.stem if path.suffix else f"{path.parent.name}-{path.name}")
    names = [name] if len(images) == 1 else [f"{name}-{i}" for i in range(len(images))]
    return [
        InitialStructure(each, _geometry(atoms, path))
        for each, atoms in zip(names, images, strict=True)
    ]


def _geometry(atoms: Any, path: Path) -> Geometry:
    if not (len(atoms) and atoms.pbc.all() and atoms.cell.rank == 3):
        raise UserError(f"{path}: not a crystal (periodic in three dimensions)")
    # ASE keeps one element of each kind of site that the file gives an occupancy for.
    occupancies = (atoms.info.get("occupancy") or {}).values()
    if any(share != {next(iter(share)): 1.0} for share in occupancies):
        raise UserError(f"{path}: disordered: GPAW needs whole atoms")
    lattice = np.array(atoms.cell.array, dtype=np.float64)
    frac_coords = atoms.positions @ np.linalg.inv(lattice)
    return Geometry(lattice, frac_coords, atoms.numbers.astype(np.int16))
