"""Initial structures from files of any format, or from tables in the layout of LeMat-Traj."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.core import UserError
from benchmarks.data.structures.read import read_structures
from benchmarks.dft.results import InitialStructure, safe_name


def from_files(paths: Sequence[Path]) -> tuple[list[InitialStructure], list[str]]:
    """Structures of files: every one of a file, the first frame of every trajectory of a table.

    Returns:
        The structures, and a line for each file or structure that cannot be read and for each that
        is odd (which begins with `warning:`).

    Raises:
        UserError: Two structures would have one name.
    """
    found: list[InitialStructure] = []
    problems: list[str] = []
    for path in paths:
        if path.suffix == ".parquet":
            try:
                found += from_table(str(path))
            except UserError as error:
                problems.append(str(error))
            continue
        name = safe_name(path.stem if path.suffix else f"{path.parent.name}-{path.name}")
        read = read_structures(path)
        for i, each in enumerate(read):
            problems += [f"warning: {each.name}: {warning}" for warning in each.warnings]
            if each.geometry is None:
                problems.append(f"{each.name}: {each.problem}")
            else:
                whole = name if len(read) == 1 else f"{name}-{i}"
                found.append(InitialStructure(whole, each.geometry))
    return distinct(found), problems


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
