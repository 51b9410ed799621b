"""Structure to CIF text and back, and the relaxed structure as changes of the initial one.

The source text of the model is the CIF that ASE writes, with single spaces and with numbers at
`LENGTH_DECIMALS`, `ANGLE_DECIMALS` and `FRAC_DECIMALS`. The target text lists, in the shape of a
CIF, what relaxation changes: the six cell parameters and the fractional coordinates of each site
(minimum image, uniform translation removed). All in the input's own setting and site order; a CIF
forgets the orientation of the cell, so `apply_delta` takes it from the initial structure.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.cell import Cell
from ase.data import chemical_symbols
from ase.io.cif import parse_cif
from ase.io.cif import write_cif as ase_write_cif
from numpy.typing import NDArray

from benchmarks.core import Geometry
from benchmarks.metrics.geometry import displacements

CODEC_VERSION = 1
"""Raised when texts change their meaning; a checkpoint names the version that it was trained on."""
LENGTH_DECIMALS = 4
"""Lengths and their changes [Å]: rounding error at most 0.00005 Å."""
ANGLE_DECIMALS = 3
"""Angles and their changes [°]: rounding error at most 0.0005°."""
FRAC_DECIMALS = 5
"""Fractional coordinates and their changes: at most 0.00009 Å per 10 Å of cell length."""
MAX_CELL_CHANGE = 99.0
"""Cell changes are written with two integer digits [Å or °]."""

CELL_TAGS = (
    "_cell_length_a",
    "_cell_length_b",
    "_cell_length_c",
    "_cell_angle_alpha",
    "_cell_angle_beta",
    "_cell_angle_gamma",
)
_DECIMALS = (LENGTH_DECIMALS,) * 3 + (ANGLE_DECIMALS,) * 3
DELTA_HEADER = "data_delta\n"
DELTA_LOOP = (
    "loop_\n_atom_site_type_symbol\n_atom_site_label\n"
    "_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\n"
)
_SITE = re.compile(r"([A-Z][a-z]?) ([A-Z][a-z]?)(\d+) " + " ".join([r"([+-]0\.\d{5})"] * 3))


class CodecError(ValueError):
    """Text that is no structure, or a structure that the text cannot represent."""


@dataclass(frozen=True, slots=True)
class Crystal:
    """What a CIF in P 1 holds: a cell without orientation, and sites."""

    cellpar: NDArray[np.float64]
    """(6,) a, b, c [Å], alpha, beta, gamma [°]."""
    frac_coords: NDArray[np.float64]
    """(n_sites, 3)."""
    numbers: NDArray[np.int16]
    """(n_sites,) atomic numbers."""

    @classmethod
    def of(cls, geometry: Geometry) -> Crystal:
        """Forget the orientation of the lattice."""
        return cls(cellpar(geometry.lattice), geometry.frac_coords, geometry.numbers)


@dataclass(frozen=True, slots=True)
class Delta:
    """Relaxed minus initial."""

    cellpar: NDArray[np.float64]
    """(6,) changes of a, b, c [Å], alpha, beta, gamma [°]."""
    frac_coords: NDArray[np.float64]
    """(n_sites, 3) changes of the fractional coordinates, each in [-0.5, 0.5]."""


def cellpar(lattice: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cell parameters (6,) [Å, °] of row vectors (3, 3) [Å]."""
    return np.asarray(Cell(lattice).cellpar(), dtype=np.float64)


def geometry_of(crystal: Crystal) -> Geometry:
    """A crystal in ASE's standard orientation (a along x, b in the xy plane)."""
    lattice = np.array(Cell.fromcellpar(crystal.cellpar).array)
    return Geometry(lattice, crystal.frac_coords, crystal.numbers)


def site_labels(numbers: NDArray[np.int16]) -> list[str]:
    """`Na1 Na2 Cl1 …`: the labels that ASE's writer gives, counted within each species."""
    seen: dict[int, int] = {}
    labels = []
    for number in map(int, numbers):
        seen[number] = seen.get(number, 0) + 1
        labels.append(f"{chemical_symbols[number]}{seen[number]}")
    return labels


def write_cif(crystal: Crystal) -> str:
    """The CIF that ASE writes, single-spaced, numbers at the stated decimals, sites in [0, 1).

    Raises:
        CodecError: no sites, non-finite numbers, or a cell that is none.
    """
    if len(crystal.numbers) == 0 or not np.isfinite(crystal.frac_coords).all():
        raise CodecError("a CIF needs at least one site and finite coordinates")
    try:
        cell = Cell.fromcellpar(np.round(crystal.cellpar, 10))
    except (AssertionError, ValueError) as error:
        raise CodecError(f"no cell has the parameters {crystal.cellpar}") from error
    if not np.isfinite(cell.array).all() or cell.rank != 3:
        raise CodecError(f"no cell has the parameters {crystal.cellpar}")
    atoms = Atoms(numbers=crystal.numbers, cell=cell, pbc=True)
    # Set apart, so that ASE neither wraps nor loses digits by way of Cartesian coordinates.
    buffer = io.BytesIO()
    ase_write_cif(buffer, atoms)
    return _canonical(buffer.getvalue().decode("latin-1"), crystal)


def _canonical(text: str, crystal: Crystal) -> str:
    """Single spaces and fixed decimals; ASE's text gives everything but the numbers."""
    fixed = dict(zip(CELL_TAGS, _cell_values(crystal.cellpar), strict=True))
    fracs = iter(np.mod(np.round(np.mod(crystal.frac_coords, 1.0), FRAC_DECIMALS), 1.0))
    lines, in_sites = [], False
    for line in filter(None, (" ".join(raw.split()) for raw in text.splitlines())):
        tag = line.split(" ", 1)[0]
        if tag in fixed:
            lines.append(f"{tag} {fixed[tag]}")
        elif in_sites:
            symbol, label, multiplicity, *_, occupancy = line.split(" ")
            xyz = " ".join(f"{x:.{FRAC_DECIMALS}f}" for x in next(fracs))
            lines.append(f"{symbol} {label} {multiplicity} {xyz} {occupancy}")
        else:
            lines.append(line)
        in_sites = in_sites or tag == "_atom_site_occupancy"
    return "\n".join(lines) + "\n"


def _cell_values(values: NDArray[np.float64]) -> list[str]:
    return [f"{x:.{d}f}" for x, d in zip(values, _DECIMALS, strict=True)]


def read_cif(text: str) -> Crystal:
    """What a CIF in P 1 lists, sites in file order, through ASE's reader without symmetry.

    Raises:
        CodecError: the text is no CIF with one structure.
    """
    try:
        (block,) = parse_cif(io.StringIO(text))
        atoms = block.get_unsymmetrized_structure()
        parameters = np.asarray(block.get_cellpar(), dtype=np.float64)
        fracs = np.array([block[f"_atom_site_fract_{x}"] for x in "xyz"], dtype=np.float64).T
    except (ValueError, KeyError, TypeError, RuntimeError, AssertionError, IndexError) as error:
        raise CodecError(f"not a CIF with one structure: {error}") from error
    return Crystal(parameters, fracs, atoms.numbers.astype(np.int16))


def delta_between(initial: Geometry, final: Geometry) -> Delta:
    """What relaxation changed: cell parameters, and minimum-image fractional displacements.

    The uniform translation is removed and the rest wrapped again until nothing changes, as in the
    position metrics (`benchmarks.metrics`).

    Raises:
        CodecError: the two do not list the same species in the same order.
    """
    if not np.array_equal(initial.numbers, final.numbers):
        raise CodecError("initial and relaxed structure list different species")
    return Delta(
        cellpar(final.lattice) - cellpar(initial.lattice),
        -displacements(final, initial) @ np.linalg.inv(final.lattice),
    )


def write_delta(delta: Delta, numbers: NDArray[np.int16]) -> str:
    """The target text, numbers at the stated decimals, zero always positive.

    Raises:
        CodecError: a change that the fixed number of digits cannot hold.
    """
    if not (np.abs(delta.cellpar) < MAX_CELL_CHANGE).all():
        raise CodecError(f"cell changes of {delta.cellpar} do not fit two integer digits")
    if not (np.abs(delta.frac_coords) < 1.0 - 10.0**-FRAC_DECIMALS).all():
        raise CodecError("changes of fractional coordinates must be below 1")
    cell = "".join(
        f"{tag} {_signed(x, d, 3)}\n"
        for tag, x, d in zip(CELL_TAGS, delta.cellpar, _DECIMALS, strict=True)
    )
    sites = "".join(
        f"{label.rstrip('0123456789')} {label} "
        + " ".join(_signed(x, FRAC_DECIMALS, 2) for x in row)
        + "\n"
        for label, row in zip(site_labels(numbers), delta.frac_coords, strict=True)
    )
    return DELTA_HEADER + cell + DELTA_LOOP + sites


def _signed(value: float, decimals: int, integer_width: int) -> str:
    """`+00.0531`: a sign, zero-padded; a value that rounds to zero has a plus."""
    rounded = round(float(value), decimals) + 0.0
    return f"{rounded:+0{integer_width + 1 + decimals}.{decimals}f}"


def read_delta(text: str) -> tuple[Delta, NDArray[np.int16]]:
    """Changes and species (atomic numbers) that a target text lists, as generated.

    Raises:
        CodecError: anything but header, six cell lines, loop header and site lines with labels
            that belong to their symbols.
    """
    head, loop, body = text.partition(DELTA_LOOP)
    if not loop or not head.startswith(DELTA_HEADER):
        raise CodecError("no header or no loop of sites")
    cell_lines = head.removeprefix(DELTA_HEADER).splitlines()
    if [line.split(" ")[0] for line in cell_lines] != list(CELL_TAGS):
        raise CodecError("the six cell parameters are not all there, in order")
    pattern = re.compile(r"\S+ ([+-]\d{2}\.\d{3,4})")
    values = [pattern.fullmatch(line) for line in cell_lines]
    sites = [_SITE.fullmatch(line) for line in body.splitlines()]
    if not all(values) or not sites or not all(sites):
        raise CodecError("a line of the cell or of the sites cannot be read")
    rows = [m.groups() for m in sites if m]
    if any(r[0] != r[1] or r[0] not in chemical_symbols[1:] for r in rows):
        raise CodecError("a label that is not its element's")
    delta = Delta(
        np.array([float(m[1]) for m in values if m]),
        np.array([[float(x) for x in r[3:]] for r in rows]),
    )
    return delta, np.array([chemical_symbols.index(r[0]) for r in rows], dtype=np.int16)


def apply_delta(initial: Geometry, delta: Delta, numbers: NDArray[np.int16]) -> Geometry:
    """The relaxed structure: the initial one plus the changes, in its orientation.

    With other sites than the input's the coordinates are the changes themselves: the model lost or
    added atoms, and there is nothing to add them to.

    Raises:
        CodecError: no cell has the changed parameters.
    """
    parameters = cellpar(initial.lattice)
    changed = parameters + delta.cellpar
    if not delta.cellpar.any():
        lattice = initial.lattice
    elif not (changed[:3] > 0).all() or not _is_cell(changed[3:]):
        raise CodecError(f"no cell has the parameters {np.round(changed, 4)}")
    else:
        # lattice = standard(parameters) @ rotation; keep the rotation (improper if left-handed).
        rotation = np.linalg.solve(Cell.fromcellpar(parameters).array, initial.lattice)
        lattice = Cell.fromcellpar(changed).array @ rotation
    same = np.array_equal(numbers, initial.numbers)
    frac_coords = initial.frac_coords + delta.frac_coords if same else delta.frac_coords
    return Geometry(lattice, frac_coords, numbers)


def _is_cell(angles: NDArray[np.float64]) -> bool:
    """Three angles [°] span a volume: 1 - sum cos^2 + 2 prod cos > 0, each in (0, 180)."""
    cos = np.cos(np.radians(angles))
    return bool(
        (angles > 0).all() and (angles < 180).all() and 1 - (cos**2).sum() + 2 * cos.prod() > 1e-6
    )
