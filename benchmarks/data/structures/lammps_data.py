"""Read LAMMPS data files that say which elements their atom types are."""

from __future__ import annotations

import io
import re
from collections import defaultdict

import numpy as np
from ase import Atoms
from ase.data import atomic_masses, chemical_symbols
from ase.io.lammpsdata import read_lammps_data

from benchmarks.core.files import READ_ERRORS
from benchmarks.data.structures import StructureError
from benchmarks.data.structures.words import element, numbers

HEAVY_HYDROGEN = (2.014, 3.016)
"""Masses of deuterium and tritium [u]."""
_SECTION = r"^[ \t]*{}[ \t]*(?:#.*)?\n\s*\n((?:[ \t]*[^\s#A-Z].*\n?)+)"


def read_lammps_atoms(text: str) -> Atoms:
    """Read the atoms; the box is taken as periodic, which the format does not say.

    Raises:
        StructureError: Elements, the box or the units are not known.
    """
    units = re.search(r"\bunits\s*=\s*(\w+)", text.partition("\n")[0])
    if units and units[1] not in ("metal", "real"):
        raise StructureError(f"its units are {units[1]!r}, not metal or real: convert it")
    for axis in "xyz":
        edge = rf"\b{axis}lo[ \t]+{axis}hi\b"
        if not re.search(edge, text) and not re.search(r"\bavec\b", text):
            raise StructureError(f"no crystal: the box has no line '{axis}lo {axis}hi'")
    counted = re.search(r"^\s*(\d+)\s+atoms\b", text, re.MULTILINE)
    section = re.search(_SECTION.format("Atoms"), text, re.MULTILINE)
    listed = len(section[1].strip().splitlines()) if section else 0
    if not counted or int(counted[1]) != listed or not listed:
        stated = counted[1] if counted else "no"
        raise StructureError(f"it counts {stated} atoms, {listed} lines follow under Atoms")
    elements = _elements(text)
    bare = re.sub(_SECTION.format("Masses"), "", text, flags=re.MULTILINE)
    try:
        atoms = read_lammps_data(io.StringIO(bare), Z_of_type=defaultdict(lambda: 1))
    except READ_ERRORS as error:
        hint = "say the style of its lines: `Atoms # atomic`, `Atoms # charge` or `Atoms # full`"
        raise StructureError(f"the lines under Atoms cannot be read: {hint}") from error
    missing = sorted(set(atoms.arrays["type"].tolist()) - set(elements))
    if missing:
        raise StructureError(f"the file names no elements: type {missing[0]} has no mass")
    atoms.numbers = np.array([elements[kind] for kind in atoms.arrays["type"].tolist()])
    return atoms


def _elements(text: str) -> dict[int, int]:
    """Atomic numbers by atom type: by type labels, or by masses and the comments beside them."""
    labels = re.search(_SECTION.format("Atom Type Labels"), text, re.MULTILINE)
    masses = re.search(_SECTION.format("Masses"), text, re.MULTILINE)
    found: dict[int, int] = {}
    for line in labels[1].strip().splitlines() if labels else ():
        words = line.split()
        if len(words) > 1 and words[0].isdigit() and element(words[1]):
            found[int(words[0])] = element(words[1])
    for line in masses[1].strip().splitlines() if masses else ():
        values, _, comment = line.partition("#")
        words = values.split()
        if len(words) != 2 or not words[0].isdigit():
            raise StructureError(
                f"under Masses stands {line.strip()!r}: a type and its mass go there"
            )
        kind = int(words[0])
        mass = float(numbers(words[1:], 1, f"the mass of type {kind}")[0])
        named = element(comment.split()[0]) if comment.split() else 0
        named = found.get(kind, named)
        if named and abs(atomic_masses[named] - mass) > 1 and not (named == 1 and mass < 3.1):
            symbol = chemical_symbols[named]
            raise StructureError(f"type {kind} is called {symbol} and has another mass, {mass:g}")
        places = len(words[1].partition(".")[2])
        close = max(0.02, 0.5 * 10.0**-places)
        near = {int(z) for z in np.flatnonzero(np.abs(atomic_masses - mass) <= close) if z}
        near |= {1 for heavy in HEAVY_HYDROGEN if abs(heavy - mass) <= close}
        if not named and len(near) != 1:
            what = f"the mass {words[1]} of type {kind} is that of several or of none"
            raise StructureError(f"the file names no elements: {what}; write `# Na` after it")
        found[kind] = named or near.pop()
    if not found:
        raise StructureError("the file names no elements: add the section Masses")
    return found
