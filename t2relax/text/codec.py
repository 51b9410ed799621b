"""Structure to CIF text and back, and the relaxed structure as changes of the initial one.

The source text of the model is the CIF that ASE writes, with single spaces, with numbers at fixed
decimals and without the columns that never vary, and with local data items that follow from the
rest: the volume per site, the shortest contact of each two species, and for each site the shift
that would balance its bonds (`benchmarks.core.bonds`). The target text lists,
in the shape of a CIF, what relaxation changes: the six cell parameters and the fractional
coordinates of each site (minimum image, uniform translation removed). All in the input's own
setting and site order; a CIF forgets the orientation of the cell, so `apply_delta` takes it from
the initial structure.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations_with_replacement

import numpy as np
from ase import Atoms
from ase.cell import Cell
from ase.data import chemical_symbols
from ase.io.cif import write_cif as ase_write_cif
from numpy.typing import NDArray

from benchmarks.core import Geometry
from benchmarks.core.bonds import balancing_shifts, neighbours
from benchmarks.core.geometry import cell_parameters, displacements

CODEC_VERSION = 3
"""Raised when texts change their meaning; a checkpoint names the version that it was trained on."""
LENGTH_DECIMALS = 4
"""Lengths [Å]: rounding error at most 0.00005 Å."""
ANGLE_DECIMALS = 3
"""Angles [°]: rounding error at most 0.0005°."""
FRAC_DECIMALS = 5
"""Fractional coordinates: at most 0.00009 Å per 10 Å of cell length."""
DELTA_DECIMALS = 3
"""Changes: of lengths in % of the initial length (at most 0.00005 Å per 10 Å), of angles in °, of
fractional coordinates in hundredths, so with the rounding errors of the input."""
MAX_DELTA = 99.999
"""Changes are written with two integer digits."""
CONTACT_CUTOFF = 5.0
"""Species further apart than this [Å] are not listed as a contact."""
CONTACT_SHELL = 1.1
"""Neighbours within this multiple of the shortest distance are counted with it."""

CELL_TAGS = (
    "_cell_length_a",
    "_cell_length_b",
    "_cell_length_c",
    "_cell_angle_alpha",
    "_cell_angle_beta",
    "_cell_angle_gamma",
)
SITE_VOLUME_TAG = "_t2_volume_per_site"
SCALE_TAG = "_t2_mean_length"
"""Change of the cube root of the volume: said first, it is most of what relaxation does."""
DELTA_TAGS = (SCALE_TAG, *CELL_TAGS)
_DECIMALS = (LENGTH_DECIMALS,) * 3 + (ANGLE_DECIMALS,) * 3
SYMMETRY = (
    '_space_group_name_H-M_alt "P 1"\n_space_group_IT_number 1\n'
    "loop_\n_space_group_symop_operation_xyz\n'x, y, z'\n"
)
SITE_LOOP = (
    "loop_\n_atom_site_type_symbol\n_atom_site_label\n"
    "_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z"
)
CONTACT_LOOP = (
    "loop_\n_t2_contact_type_symbol_1\n_t2_contact_type_symbol_2\n"
    "_t2_contact_distance\n_t2_contact_multiplicity"
)
BALANCE_COLUMNS = "_t2_balance_fract_x\n_t2_balance_fract_y\n_t2_balance_fract_z"
"""The columns of `balancing_shifts`, behind the coordinates; hundredths, at one decimal."""
_NUMBER = r"([+-]\d{2}\.\d{3})"
_SITE = re.compile(r"([A-Z][a-z]?) ([A-Z][a-z]?)(\d+) " + " ".join([_NUMBER] * 3))


class CodecError(ValueError):
    """Text that is no structure, or a structure that the text cannot represent."""


@dataclass(frozen=True, slots=True)
class Crystal:
    """The content of a CIF in P 1: a cell without orientation, and sites."""

    cellpar: NDArray[np.float64]
    """(6,) a, b, c [Å], alpha, beta, gamma [°]."""
    frac_coords: NDArray[np.float64]
    """(n_sites, 3)."""
    numbers: NDArray[np.int16]
    """(n_sites,) atomic numbers."""

    @classmethod
    def of(cls, geometry: Geometry) -> Crystal:
        """Forget the orientation of the lattice."""
        return cls(cell_parameters(geometry.lattice), geometry.frac_coords, geometry.numbers)


@dataclass(frozen=True, slots=True)
class Delta:
    """Relaxed minus initial."""

    cellpar: NDArray[np.float64]
    """(6,) changes of a, b, c [Å], alpha, beta, gamma [°]."""
    frac_coords: NDArray[np.float64]
    """(n_sites, 3) changes of the fractional coordinates, each in [-0.5, 0.5]."""


def geometry_of(crystal: Crystal) -> Geometry:
    """A crystal in ASE's standard orientation (a along x, b in the xy plane)."""
    lattice = np.array(Cell.fromcellpar(crystal.cellpar).array)
    return Geometry(lattice, crystal.frac_coords, crystal.numbers)


def site_labels(numbers: NDArray[np.int16]) -> list[str]:
    """`Na1 Na2 Cl3 …`: symbol and place in the list of sites.

    A number of its own makes a site easy to find again for who copies the list: the label of the
    last site says which is next. (Labels counted within each species do not.)
    """
    return [f"{chemical_symbols[number]}{i}" for i, number in enumerate(map(int, numbers), start=1)]


def write_cif(crystal: Crystal, balance: bool = True) -> str:
    """The CIF that ASE writes as the model reads it: numbers at fixed decimals, sites in [0, 1).

    Args:
        crystal: The structure.
        balance: Whether the sites have the columns of `balancing_shifts`; checkpoints of older
            vocabularies read a text without.

    Raises:
        CodecError: no sites, non-finite numbers, or a cell that is none.
    """
    if len(crystal.numbers) == 0 or not np.isfinite(crystal.frac_coords).all():
        raise CodecError("a CIF needs at least one site and finite coordinates")
    cellpar = np.array([round(x, d) for x, d in zip(crystal.cellpar, _DECIMALS, strict=True)])
    lattice = standard_lattice(cellpar)
    fracs = np.mod(np.round(np.mod(crystal.frac_coords, 1.0), FRAC_DECIMALS), 1.0)
    cell = "".join(
        f"{tag} {value:.{decimals}f}\n"
        for tag, value, decimals in zip(CELL_TAGS, cellpar, _DECIMALS, strict=True)
    )
    volume = f"{SITE_VOLUME_TAG} {np.linalg.det(lattice) / len(fracs):.3f}\n"
    before, after = _ase_text(tuple(crystal.numbers.tolist()))
    apart = neighbours(lattice, fracs, CONTACT_CUTOFF * CONTACT_SHELL)
    contacts = _contacts(np.linalg.norm(apart, axis=-1), crystal.numbers)
    columns = [[f" {x:.{FRAC_DECIMALS}f}" for x in row] for row in fracs]
    loop = SITE_LOOP
    if balance:
        loop = f"{SITE_LOOP}\n{BALANCE_COLUMNS}"
        shifts = 100 * balancing_shifts(apart, crystal.numbers) @ np.linalg.inv(lattice)
        for row, shift in zip(
            columns, np.clip(np.round(shifts, 1), -99.9, 99.9) + 0.0, strict=True
        ):
            row += [f" {x:+05.1f}" for x in shift]
    sites = after.format(*("".join(row) for row in columns))
    return f"{before}{volume}{cell}{SYMMETRY}{CONTACT_LOOP}{contacts}\n{loop}{sites}"


def standard_lattice(cellpar: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lattice (3, 3) of cell parameters, a along x.

    Raises:
        CodecError: there is none.
    """
    if not np.isfinite(cellpar).all() or not (cellpar[:3] > 0).all() or not _is_cell(cellpar[3:]):
        raise CodecError(f"no cell has the parameters {np.round(cellpar, 4)}")
    lattice: NDArray[np.float64] = Cell.fromcellpar(cellpar).array
    return lattice


@lru_cache(maxsize=4096)
def _ase_text(numbers: tuple[int, ...]) -> tuple[str, str]:
    """The text that ASE writes before the cell, and its site lines with `{}` for their numbers."""
    buffer = io.BytesIO()
    atoms = Atoms(numbers=numbers, cell=np.eye(3), pbc=True)
    ase_write_cif(buffer, atoms, labels=[site_labels(np.array(numbers))])
    lines = [" ".join(raw.split()) for raw in buffer.getvalue().decode("latin-1").splitlines()]
    cell = lines.index(next(line for line in lines if line.startswith(CELL_TAGS[0])))
    head = [line for line in lines[:cell] if not line.startswith("_chemical_formula_structural")]
    sites = lines[lines.index("_atom_site_occupancy") + 1 :]
    names = [line.split(" ")[:2] for line in sites]
    return "\n".join(head) + "\n", "".join(f"\n{a} {b}{{}}" for a, b in names)


def _contacts(distances: NDArray[np.float64], numbers: NDArray[np.int16]) -> str:
    """A line for each two species: their shortest distance [Å], and how often that site has it.

    `distances` (n_sites, n_sites, n_images) are the lengths of `neighbours`.
    """
    species = list(dict.fromkeys(numbers.tolist()))
    nearest = distances.min(axis=2)
    lines = []
    for one, other in combinations_with_replacement(species, 2):
        rows, columns = np.flatnonzero(numbers == one), np.flatnonzero(numbers == other)
        block = nearest[np.ix_(rows, columns)]
        shortest = block.min()
        if shortest <= CONTACT_CUTOFF:
            row = rows[block.min(axis=1).argmin()]
            count = int((distances[row, columns] <= CONTACT_SHELL * shortest).sum())
            names = f"{chemical_symbols[one]} {chemical_symbols[other]}"
            lines.append(f"\n{names} {shortest:.3f} {count}")
    return "".join(lines)


def delta_between(initial: Geometry, final: Geometry) -> Delta:
    """The change by relaxation: cell parameters, and minimum-image fractional displacements.

    The uniform translation is removed and the rest wrapped again until nothing changes, as in the
    position metrics (`benchmarks.metrics`).

    Raises:
        CodecError: the two do not list the same species in the same order.
    """
    if not np.array_equal(initial.numbers, final.numbers):
        raise CodecError("initial and relaxed structure list different species")
    return Delta(
        cell_parameters(final.lattice) - cell_parameters(initial.lattice),
        -displacements(final, initial) @ np.linalg.inv(final.lattice),
    )


def write_delta(delta: Delta, initial: Crystal) -> str:
    """The target text: lengths in %, angles in °, fractional coordinates in hundredths.

    Raises:
        CodecError: a change that the fixed number of digits cannot hold.
    """
    relative = 100 * delta.cellpar[:3] / initial.cellpar[:3]
    values = np.array([*relative, *delta.cellpar[3:]])
    if not np.abs([*values, *(100 * delta.frac_coords.ravel())]).max() < MAX_DELTA:
        raise CodecError("a change of the cell or of a coordinate does not fit two integer digits")
    written = _changes(values.round(DELTA_DECIMALS), initial)
    volumes = [
        np.linalg.det(standard_lattice(x)) for x in (initial.cellpar, initial.cellpar + written)
    ]
    scale = 100 * (np.cbrt(volumes[1] / volumes[0]) - 1)
    values = np.array([scale, *values])
    cell = "".join(f"{tag} {_signed(x)}\n" for tag, x in zip(DELTA_TAGS, values, strict=True))
    sites = "".join(
        f"\n{label.rstrip('0123456789')} {label} " + " ".join(map(_signed, row))
        for label, row in zip(site_labels(initial.numbers), 100 * delta.frac_coords, strict=True)
    )
    return f"data_delta\n{cell}{SITE_LOOP}{sites}"


def _changes(values: NDArray[np.float64], initial: Crystal) -> NDArray[np.float64]:
    """(6,) changes [Å, °] of values (6,) [%, °] as they are written."""
    changes: NDArray[np.float64] = values * np.concatenate([initial.cellpar[:3] / 100, np.ones(3)])
    return changes


def _signed(value: float) -> str:
    """`+01.924`: a sign, zero-padded; a value that rounds to zero has a plus."""
    rounded = round(float(value), DELTA_DECIMALS) + 0.0
    return f"{rounded:+0{4 + DELTA_DECIMALS}.{DELTA_DECIMALS}f}"


def read_delta(text: str, initial: Crystal) -> tuple[Delta, NDArray[np.int16]]:
    """Changes and species (atomic numbers) that a target text lists, as generated.

    The change of the mean length is read and not used: a, b, c and the angles say the same again.

    Raises:
        CodecError: anything but header, seven cell lines, loop header and site lines with labels
            that belong to their symbols.
    """
    head, loop, body = text.partition(SITE_LOOP + "\n")
    if not loop:
        raise CodecError("no loop of sites")
    header, *cell_lines = head.splitlines() or [""]
    if header != "data_delta" or [x.split(" ")[0] for x in cell_lines] != list(DELTA_TAGS):
        raise CodecError("the header and the seven lines of the cell are not all there, in order")
    values = [re.fullmatch(rf"\S+ {_NUMBER}", line) for line in cell_lines]
    sites = [_SITE.fullmatch(line) for line in body.splitlines()]
    if not all(values) or not sites or not all(sites):
        raise CodecError("a line of the cell or of the sites cannot be read")
    rows = [m.groups() for m in sites if m]
    if any(r[0] != r[1] or r[0] not in chemical_symbols[1:] for r in rows):
        raise CodecError("a label that is not its element's")
    changes = _changes(np.array([float(m[1]) for m in values[1:] if m]), initial)
    fracs = np.array([[float(x) / 100 for x in r[3:]] for r in rows])
    return Delta(changes, fracs), np.array([chemical_symbols.index(r[0]) for r in rows], np.int16)


def apply_delta(initial: Geometry, delta: Delta, numbers: NDArray[np.int16]) -> Geometry:
    """The relaxed structure: the initial one plus the changes, in its orientation.

    With other sites than the input's the coordinates are the changes themselves: the model lost or
    added atoms, and there is nothing to add them to.

    Raises:
        CodecError: no cell has the changed parameters.
    """
    parameters = cell_parameters(initial.lattice)
    if not delta.cellpar.any():
        lattice = initial.lattice
    else:
        # lattice = standard(parameters) @ rotation; keep the rotation (improper if left-handed).
        rotation = np.linalg.solve(standard_lattice(parameters), initial.lattice)
        lattice = standard_lattice(parameters + delta.cellpar) @ rotation
    same = np.array_equal(numbers, initial.numbers)
    frac_coords = initial.frac_coords + delta.frac_coords if same else delta.frac_coords
    return Geometry(lattice, frac_coords, numbers)


def _is_cell(angles: NDArray[np.float64]) -> bool:
    """Three angles [°] span a volume: 1 - sum cos^2 + 2 prod cos > 0, each in (0, 180)."""
    cos = np.cos(np.radians(angles))
    return bool(
        (angles > 0).all() and (angles < 180).all() and 1 - (cos**2).sum() + 2 * cos.prod() > 1e-6
    )
