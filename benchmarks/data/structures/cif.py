"""Read a person's CIF: `[from_cif(block) for block in cif_blocks(path.read_text())]`.

gemmi reads the format and knows the space groups. Two things are done here because other readers do
not do them: coordinates stay as written and in the order of the file (pymatgen sorts sites and
rounds 0.3333 to 1/3), and a crystal that is not ordered is refused (ASE drops partial occupancies).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import gemmi
import numpy as np
from gemmi.cif import Block, as_number, is_null, read_string
from numpy.typing import NDArray

from benchmarks.core import Geometry
from benchmarks.data.structures import StructureError

SAME_SITE = 0.1
"""Images of a site nearer than this [Å] are one: 0.333 is as near to 1/3 as three digits are."""
FULL = 0.01
"""Occupancies this close to 1 are full: a refinement ends at 0.998."""
STRAIN = 0.02
"""Operations that turn the cell into itself but for this much fit it: parameters are rounded."""
_SYMBOL = re.compile(r"([A-Za-z]{1,2})[\d.+-]*")
"""`Fe`, `FE`, `Fe3+`, but not `H2O` nor `Mn/Fe`."""
_LABEL = re.compile(r"([A-Za-z]{1,2}).*")


def cif_blocks(text: str) -> list[Block]:
    """The data blocks of a CIF that list sites; their names may repeat.

    Raises:
        StructureError: the text breaks the format, or a block has a tag twice.
    """
    try:
        # gemmi takes ASCII, as CIF 1.1 has it; other letters stand in names and comments only
        document = read_string(text.encode("ascii", "replace"), check_level=0)
        for index, block in enumerate(document):
            block.name = str(index)
        document.check_for_missing_values()
        document.check_for_duplicates()
    except (ValueError, RuntimeError) as error:
        reason = re.sub(r"^\w+:(\d+)\S*", r"line \1:", str(error))
        raise StructureError(f"a damaged CIF, {reason}") from error
    return [block for block in document if block.find_values("_atom_site_fract_x")]


def from_cif(block: Block) -> Geometry:
    """The full cell of a block, in its setting; a site's images follow it in the file's order.

    Returns:
        The cell with a along x and b in the xy plane; listed coordinates as they are, the images
        that symmetry adds in [0, 1).

    Raises:
        StructureError: no cell, no coordinates, partial occupancy, or a symmetry that does not fit.
    """
    if block.find_values("_space_group_symop_magn_operation.xyz"):
        raise StructureError("a magnetic CIF, whose symmetry operations are not read")
    small = gemmi.make_small_structure_from_block(block)
    lattice = _lattice(small.cell)
    labels, numbers, fracs = _sites(block, small)
    operations = _operations(small)
    kept, owners = np.empty((0, 3)), np.empty(0, dtype=int)
    for i, frac in enumerate(fracs):
        for image in (frac, *(np.mod(op.apply_to_xyz(frac.tolist()), 1) for op in operations)):
            apart = kept - image
            near = np.linalg.norm((apart - apart.round()) @ lattice, axis=1) < SAME_SITE
            if not near.any():
                kept, owners = np.vstack([kept, image]), np.append(owners, i)
            elif (numbers[owners[near]] != numbers[i]).any():
                raise StructureError(
                    f"sites {labels[owners[near][0]]} and {labels[i]} share a position"
                )
    return Geometry(lattice, kept, numbers[owners])


def _lattice(cell: gemmi.UnitCell) -> NDArray[np.float64]:
    """(3, 3) row vectors [Å]."""
    if not cell.is_crystal():
        raise StructureError("no cell (_cell_length_a to _cell_angle_gamma): not a crystal")
    if not (min(cell.parameters) > 0 and max(cell.parameters[3:]) < 180 and cell.volume > 1e-3):
        raise StructureError(f"no cell has the parameters {cell.parameters}")
    return np.array(cell.orth.mat.tolist(), dtype=np.float64).T


def _sites(
    block: Block, small: gemmi.SmallStructure
) -> tuple[list[str], NDArray[np.int16], NDArray[np.float64]]:
    """Labels, atomic numbers and fractional coordinates (n_sites, 3) as they are listed."""
    if not small.sites or not block.find("_atom_site_fract_", ["x", "y", "z"]):
        raise StructureError("no sites with labels and fractional coordinates")
    for site in small.sites:
        if not np.isfinite(site.fract.tolist()).all():
            raise StructureError(f"site {site.label} has a coordinate that is no number")
    for site, value in zip(small.sites, block.find_values("_atom_site_occupancy"), strict=False):
        if not is_null(value) and not abs(as_number(value) - 1) <= FULL:
            what = f"site {site.label} has occupancy {value}"
            raise StructureError(f"{what}: the T5 reads ordered crystals only")
    typed = bool(block.find_values("_atom_site_type_symbol"))
    return (
        [site.label for site in small.sites],
        np.array([_element(site, typed) for site in small.sites], dtype=np.int16),
        np.array([site.fract.tolist() for site in small.sites]),
    )


def _element(site: gemmi.SmallStructure.Site, typed: bool) -> int:
    """Atomic number by the type symbol, or by a label (`OA1`) that leaves no doubt."""
    match = (_SYMBOL.fullmatch if typed else _LABEL.fullmatch)(site.type_symbol)
    letters = match[1] if match else ""
    names = [letters] if typed or letters[1:].islower() else {letters[:1], letters}
    elements = [e for e in map(gemmi.Element, names) if e.atomic_number and e.name != "D"]
    if len(elements) != 1:
        raise StructureError(f"site {site.label}: {site.type_symbol!r} does not name one element")
    return elements[0].atomic_number


def _operations(small: gemmi.SmallStructure) -> Sequence[gemmi.Op]:
    """The listed operations, else those of the space group that is named; none means P 1."""
    try:
        listed = [gemmi.Op(text) for text in small.symops if text]
    except RuntimeError as error:
        raise StructureError(f"its symmetry operations are misspelt: {error}") from error
    operations = listed or _named(small)
    for operation in operations:
        turn = np.array(small.cell.op_as_transform(operation).mat.tolist())
        if np.abs(turn.T @ turn - np.eye(3)).max() > STRAIN:
            raise StructureError(f"its symmetry ({operation.triplet()}) does not fit its cell")
    return operations


def _named(small: gemmi.SmallStructure) -> Sequence[gemmi.Op]:
    """Find the group by the Hall symbol, which says the origin, or by the H-M symbol or number."""
    small.determine_and_set_spacegroup("h")
    if small.spacegroup:
        return list(small.spacegroup.operations())
    name = small.spacegroup_hm
    small.determine_and_set_spacegroup("2n")
    group = small.spacegroup
    if not group:
        if name in ("", "?", "."):
            return []
        raise StructureError(f"space group {name!r} is unknown: the CIF must list its operations")
    if group.ext in ("1", "2") and ":" not in name:
        raise StructureError(
            f"space group {group.hm!r} has several origins: the CIF must list its operations"
        )
    return list(group.operations())
