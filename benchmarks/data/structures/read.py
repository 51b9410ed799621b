"""Read structures from a file of any format, for every command: `read_structures("POSCAR")`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from ase.io.formats import open_with_compression
from ase.neighborlist import primitive_neighbor_list

from benchmarks.core import Geometry
from benchmarks.core.files import READ_ERRORS
from benchmarks.core.geometry import MIN_DISTANCE, MinimumImage
from benchmarks.data.structures import FoundStructure, StructureError
from benchmarks.data.structures.cif import read_cif
from benchmarks.data.structures.formats import format_of, read_images

MAX_SKEW = 1e4
"""Largest condition number of a cell that is read: flatter cells are damaged."""


def read_structures(source: str | Path) -> list[FoundStructure]:
    """All structures of a file, each an ordered crystal or the reason why there is none.

    A CIF is read by `benchmarks.data.structures.cif`, every other format by ASE and the readers
    beside it. What a file says of constraints, velocities and moments is dropped.

    Args:
        source: Path of the file, which may be compressed (gz, bz2, xz).

    Returns:
        At least one entry. Nothing is raised for a file that cannot be read; its entry says why.
    """
    name = str(source)
    try:
        if Path(source).is_dir():
            return [FoundStructure(name, problem="a folder: name its files")]
        if not Path(source).is_file():
            return [FoundStructure(name, problem="no such file")]
        form = format_of(Path(source))
        if form == "cif":
            with open_with_compression(name, "rb") as file:
                return crystals_of_cif(file.read(), name)
        images = read_images(Path(source), form)
    except StructureError as error:
        return [FoundStructure(name, problem=str(error))]
    except READ_ERRORS as error:
        said = error.strerror if isinstance(error, OSError) else str(error)
        reason = " ".join((said or "").split()) or type(error).__name__
        return [FoundStructure(name, problem=f"cannot be read: {reason}")]
    found = []
    for i, image in enumerate(images):
        each = name if len(images) == 1 else f"{name}@{i}"
        if isinstance(image, StructureError):
            found.append(FoundStructure(each, problem=str(image)))
        else:
            found.append(_checked(FoundStructure(each, image)))
    return found or [FoundStructure(name, problem="no structure is in it")]


def crystals_of_cif(data: bytes, name: str) -> list[FoundStructure]:
    """The structures of a CIF, as `read_structures` gives those of a file.

    Args:
        data: Content of the file, in UTF-8 or UTF-16; other letters stand in comments only.
        name: Name of the file.
    """
    wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")
    text = data.decode("utf-16" if wide else "utf-8-sig", "replace")
    found = [_checked(each) for each in read_cif(text, name)]
    return found or [FoundStructure(name, problem="no structure is in it")]


def _checked(found: FoundStructure) -> FoundStructure:
    """Refuse what no relaxation can begin with: a flat cell, or atoms on top of each other."""
    if found.geometry is None:
        return found
    problem = _fault(found.geometry)
    return replace(found, geometry=None, problem=problem) if problem else found


def _fault(geometry: Geometry) -> str:
    lattice, frac_coords, _ = geometry
    if not (np.isfinite(lattice).all() and np.isfinite(frac_coords).all()):
        return "its cell or its coordinates are not finite"
    if np.linalg.cond(lattice) > MAX_SKEW:
        return "its cell is flat, or so skewed that it is damaged"
    own = float(np.linalg.norm(MinimumImage.of(lattice).reduced, axis=1).min())
    if own < MIN_DISTANCE:  # so many images would be within reach that the search takes long
        return f"two of its atoms are {own:.2f} Å apart: disordered or damaged"
    distances = primitive_neighbor_list(  # linear in the atoms, own images included
        "d", [True] * 3, lattice, frac_coords, MIN_DISTANCE, use_scaled_positions=True
    )
    if len(distances):
        return f"two of its atoms are {distances.min():.2f} Å apart: disordered or damaged"
    return ""
