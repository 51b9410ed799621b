"""Read a person's CIF: `read_cif(path.read_text(), path.name)`.

gemmi reads the format. The rest is done here because other readers do not do it: coordinates stay
as written and in the order of the file (pymatgen sorts sites and rounds 0.3333 to 1/3), a crystal
that is not ordered is refused (ASE drops partial occupancies), a damaged block does not cost the
others, and a file whose formula or space group contradicts its sites is refused.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from typing import Any

import gemmi
import numpy as np
from gemmi.cif import Block, as_string, is_null, read_string
from numpy.typing import NDArray

from benchmarks.core import Geometry
from benchmarks.data.structures import FoundStructure, StructureError
from benchmarks.data.structures.asymmetric_unit import cell_of, full_cell
from benchmarks.data.structures.contradictions import (
    Fields,
    compare_formula,
    compare_multiplicities,
    judge_dispute,
    number_of,
    odd_volume_or_density,
    stated_formula,
)
from benchmarks.data.structures.operations import stated_symmetry
from benchmarks.data.structures.words import FULL

_CELL = [f"_cell_{x}" for x in ("length_a", "length_b", "length_c")] + [
    f"_cell_angle_{x}" for x in ("alpha", "beta", "gamma")
]
_FRACT = [f"_atom_site_fract_{x}" for x in "xyz"]
_SYMBOL = re.compile(r"\d*([A-Za-z]{1,2})[\d.+-]*(?:,spin=[\d.+-]+)?")
"""`Fe`, `FE`, `Fe3+`, `7Li` and pymatgen's `Fe3+,spin=5`, but not `H2O` nor `Mn/Fe`."""
_LABEL = re.compile(r"([A-Za-z]{1,2}).*")
_HEADER = re.compile(r"(?im)^[ \t]*data_\S*")
_PLAIN = str.maketrans({"\r": "\n", "\xa0": " ", "\u2212": "-", "\f": " "})
"""Letters of word processors, which leave no doubt."""


def read_cif(text: str, name: str) -> list[FoundStructure]:
    """The crystals of a CIF: a full cell for each data block that lists sites.

    The cell has a along x and b in the xy plane. Listed coordinates stay as they are and in their
    order; the images that symmetry adds follow their site, in [0, 1).

    Args:
        text: The text of the file.
        name: Name of the file; of several structures the n-th is called `name@n`.

    Returns:
        A structure or a problem for each block with sites; a block that is damaged has a problem.
        The list is empty if there is no block with sites.
    """
    found: list[tuple[Geometry | None, str, tuple[str, ...]]] = []
    for block in _blocks(text.replace("\r\n", "\n").translate(_PLAIN).rstrip("\0\x1a")):
        try:
            if isinstance(block, StructureError):
                raise block
            fields = _fields(block)
            if any(tag.startswith("_atom_site_") for tag in fields) and (
                any(tag in fields for tag in (*_FRACT, "_atom_site_cartn_x"))
            ):
                geometry, warnings = _crystal(fields)
                found.append((geometry, "", warnings))
        except StructureError as error:
            problem = " ".join(str(error).split())
            found.append((None, f"{problem[:300]} …" if len(problem) > 310 else problem, ()))
    names = [name] if len(found) == 1 else [f"{name}@{i}" for i in range(len(found))]
    return [FoundStructure(n, *entry) for n, entry in zip(names, found, strict=True)]


def _blocks(text: str) -> Iterator[Block | StructureError]:
    """The data blocks of a text; a damaged one is an error, and the others are still read."""
    try:
        documents = _parsed(text)
    except StructureError as error:
        whole = error
    else:
        yield from documents
        return
    starts = [match.start() for match in _HEADER.finditer(text)]
    fields = [match.span() for match in re.finditer(r"(?ms)^;.*?^;", text)]
    begins = [low for low, _ in fields]
    before = [bisect_left(begins, start) - 1 for start in starts]
    outside = [s for s, i in zip(starts, before, strict=True) if i < 0 or s >= fields[i][1]]
    if len(outside) < 2:
        yield whole
        return
    lines = text.count("\n", 0, outside[0])
    for first, last in zip(outside, [*outside[1:], len(text)], strict=True):
        try:
            yield from _parsed(text[first:last], lines)
        except StructureError as error:
            yield error
        lines += text.count("\n", first, last)


def _parsed(text: str, lines_before: int = 0) -> list[Block]:
    try:
        # gemmi takes ASCII, as CIF 1.1 has it; other letters stand in names and comments only
        document = read_string(text.encode("ascii", "replace"), check_level=0)
        for index, block in enumerate(document):
            block.name = str(index)
        document.check_for_missing_values()
        document.check_for_duplicates()
    except (ValueError, RuntimeError) as error:
        said = re.match(r"^\w+:(\d+)\S*(.*)", str(error), re.DOTALL)
        where = f"line {int(said[1]) + lines_before}:{said[2]}" if said else str(error)
        if text.startswith("#\\#CIF_2"):
            where += " (of CIF 2.0 only what CIF 1.1 has is read)"
        raise StructureError(f"a damaged CIF, {' '.join(where.split())}") from error
    return list(document)


def _fields(block: Block) -> Fields:
    """Values by tag in lower case, with underscores for the dots of newer dictionaries.

    Raises:
        StructureError: A tag stands there twice, with and without a dot, and the values differ.
    """
    fields: Fields = {}
    for item in block:
        pair: Any = item.pair  # its stubs do not say
        if pair:
            columns = {pair[0]: [pair[1]]}
        elif item.loop:
            width, values = item.loop.width(), list(item.loop.values)
            columns = {tag: values[i::width] for i, tag in enumerate(item.loop.tags)}
        else:
            continue
        for tag, values in columns.items():
            key = tag.lower().replace(".", "_")
            if fields.setdefault(key, values) != values:
                raise StructureError(f"{tag} stands there twice, with other values")
    symmetry = ("_space_group", "_symmetry", "_cell_", "_chemical_formula", "_magnetic")
    for key in [key for key in fields if key.startswith(symmetry)]:
        fields[key] = [as_string(value) for value in fields[key] if not is_null(value)]
        if not fields[key]:
            del fields[key]
    return fields


def _crystal(fields: Fields) -> tuple[Geometry, tuple[str, ...]]:
    """The full cell of a block and what is odd about it."""
    cell = _cell(fields)
    formula, warnings = stated_formula(fields)
    _require_no_alternatives(fields)
    labels, numbers, fracs, dummies = _sites(fields, set(formula))
    warnings += [f"site {label} is a dummy and left out" for label in dummies]
    symmetry = stated_symmetry(fields, cell)
    warnings += symmetry.warnings
    geometry, owners = full_cell(
        cell, (symmetry.rotations, symmetry.translations), numbers, fracs, labels
    )
    counted, more = compare_formula(formula, fields, geometry.numbers)
    warnings += more
    if not (counted or dummies):
        warnings += compare_multiplicities(fields, numbers, labels, np.bincount(owners))
    if symmetry.disputed:
        judge_dispute(symmetry, geometry, counted=counted)
        warnings.append(f"it names {symmetry.disputed}, which its operations are not")
    warnings += odd_volume_or_density(fields, geometry)
    return geometry, tuple(warnings)


def _cell(fields: Fields) -> gemmi.UnitCell:
    lengths_and_angles = [fields.get(tag, ["?"]) for tag in _CELL]
    if any(len(values) > 1 for values in lengths_and_angles):
        raise StructureError("several cells in one block: give each its own block")
    if not all(tag in fields for tag in _CELL[:3]):
        raise StructureError("no cell (_cell_length_a to _cell_angle_gamma): not a crystal")
    values = [number_of(each[0]) for each in lengths_and_angles]
    if not np.isfinite(values).all():
        raw = ", ".join(each[0] for each in lengths_and_angles)
        raise StructureError(f"no cell has the parameters {raw}")
    return cell_of(values)


def _sites(
    fields: Fields, formula: set[int]
) -> tuple[list[str], list[int], NDArray[np.float64], list[str]]:
    """Labels, atomic numbers and fractional coordinates (n_sites, 3), and labels of dummies."""
    if not all(tag in fields for tag in _FRACT):
        has = "only Cartesian ones are there" if "_atom_site_cartn_x" in fields else "none are"
        raise StructureError(f"its sites need fractional coordinates (_atom_site_fract_x): {has}")
    n_sites = len(fields[_FRACT[0]])

    def column(tag: str) -> list[str]:
        values = fields.get(f"_atom_site_{tag}", ["?"] * n_sites)
        if len(values) != n_sites:
            raise StructureError("its lists of sites differ in length")
        return values

    types, labels = column("type_symbol"), column("label")
    if all(map(is_null, types)) and all(map(is_null, labels)):
        raise StructureError("its sites have neither labels nor type symbols, so no elements")
    # These exports write a full stop for a coordinate that is 0.
    icsd = any("icsd" in tag for tag in fields)
    occupancies, attached = column("occupancy"), column("attached_hydrogens")
    flags = column("calc_flag")
    found, dummies = [], []
    for i, raw_label in enumerate(labels):
        label = as_string(raw_label)
        if is_null(raw_label):
            label = f"{as_string(types[i])} number {i + 1}"
        if as_string(flags[i]).lower() == "dum":
            dummies.append(label)
            continue
        _require_whole(label, occupancies[i], attached[i])
        raw = [fields[tag][i] for tag in _FRACT]
        frac = [0.0 if icsd and value == "." else number_of(value) for value in raw]
        bad = [value for value, number in zip(raw, frac, strict=True) if not abs(number) < 1e6]
        if bad:
            hint = ": write 0 if 0 is meant" if bad[0] == "." else ""
            raise StructureError(
                f"site {label} has a coordinate that is no number ({bad[0]}){hint}"
            )
        found.append((label, _element(label, types[i], raw_label, formula), frac))
    if not found:
        raise StructureError("all its sites are dummies: no atom is left")
    names, elements, fracs = zip(*found, strict=True)
    return list(names), list(elements), np.array(fracs), dummies


def _require_no_alternatives(fields: Fields) -> None:
    """Refuse groups of sites of which one or the other is there, if no occupancy says so."""
    groups = fields.get("_atom_site_disorder_group", [])
    assemblies = fields.get("_atom_site_disorder_assembly", ["."] * len(groups))
    shares = fields.get("_atom_site_occupancy", ["?"] * len(groups))
    stated = zip(assemblies, groups, shares, strict=False)
    found = {(a, g) for a, g, share in stated if is_null(share) and g not in (".", "?", "0")}
    if len(found) > len({assembly for assembly, _ in found}):
        raise StructureError("its disorder groups are alternatives: only ordered crystals are read")


def _require_whole(label: str, occupancy: str, attached: str) -> None:
    """Refuse a site that is shared or partly empty, or whose hydrogens have no place."""
    if not is_null(occupancy) and not abs(number_of(occupancy) - 1) <= FULL:
        raise StructureError(
            f"site {label} has occupancy {as_string(occupancy)}: only ordered crystals are read"
        )
    if not is_null(attached) and number_of(attached) != 0:
        raise StructureError(
            f"the {as_string(attached)} hydrogens attached to site {label} have no coordinates: "
            "add them as sites"
        )


def _element(label: str, type_symbol: str, raw_label: str, formula: set[int]) -> int:
    """Atomic number by the type symbol, or by a label (`OA1`) that leaves no doubt.

    Deuterium and tritium are hydrogen. Where a label leaves a doubt, the formula may end it.
    """
    typed = not is_null(type_symbol)
    text = as_string(type_symbol if typed else raw_label).strip()
    match = (_SYMBOL.fullmatch if typed else _LABEL.fullmatch)(text)
    letters = match[1] if match else ""
    names = {letters} if typed or letters[1:].islower() else {letters[:1], letters}
    if typed and letters.upper() in ("D", "T"):
        return 1
    elements = {gemmi.Element(x).atomic_number for x in names if x.upper() not in ("D", "X", "")}
    elements.discard(0)
    if "D" in names and 1 in formula:
        elements.add(1)
    if formula and (len(elements) > 1 or not (elements or typed)):
        elements = (elements or {gemmi.Element(letters[:1]).atomic_number}) & formula
    if len(elements) != 1:
        raise StructureError(
            f"site {label}: {text!r} does not name one element: give it a type symbol"
        )
    return elements.pop()
