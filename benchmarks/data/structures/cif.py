"""Read a person's CIF: `read_cif(path.read_text(), path.name)`.

gemmi reads the format. The rest is done here because other readers do not do it: coordinates stay
as written and in the order of the file (pymatgen sorts sites and rounds 0.3333 to 1/3), a crystal
that is not ordered is refused (ASE drops partial occupancies), a damaged block does not cost the
others, and a file whose formula or space group contradicts its sites is refused.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gemmi
import numpy as np
from gemmi.cif import Block, as_number, as_string, is_null, read_string
from numpy.typing import NDArray

from benchmarks.core import Geometry
from benchmarks.core.symmetry import symmetry_dataset
from benchmarks.data.structures import FoundStructure, StructureError
from benchmarks.data.structures.asymmetric_unit import cell_of, full_cell
from benchmarks.data.structures.operations import StatedSymmetry, stated_symmetry
from benchmarks.data.structures.words import FULL

ODD_VOLUME = 0.02
"""A stated volume that is off by more than this share is odd."""
ODD_DENSITY = 0.2
"""So is a density, in which deuterium may count as hydrogen."""
DALTON = 1.66053907
"""Daltons per Å^3 in g/cm^3."""
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

Fields = dict[str, list[str]]


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
    formula, warnings = _formula(fields)
    _require_no_alternatives(fields)
    labels, numbers, fracs, dummies = _sites(fields, set(formula))
    warnings += [f"site {label} is a dummy and left out" for label in dummies]
    symmetry = stated_symmetry(fields, cell)
    warnings += symmetry.warnings
    geometry, owners = full_cell(
        cell, (symmetry.rotations, symmetry.translations), numbers, fracs, labels
    )
    counted, more = _compare_formula(formula, fields, geometry.numbers)
    warnings += more
    if not (counted or dummies):
        warnings += _compare_multiplicities(fields, numbers, labels, np.bincount(owners))
    if symmetry.disputed:
        _judge_dispute(symmetry, geometry, counted=counted)
        warnings.append(f"it names {symmetry.disputed}, which its operations are not")
    warnings += _odd_volume_or_density(fields, geometry)
    return geometry, tuple(warnings)


def _odd_volume_or_density(fields: Fields, geometry: Geometry) -> list[str]:
    """Say where the stated volume [Å^3] or density [g/cm^3] is not that of the crystal."""
    found = []
    volume = abs(float(np.linalg.det(geometry.lattice)))
    stated = _number(fields.get("_cell_volume", ["?"])[0])
    if np.isfinite(stated) and abs(stated / volume - 1) > ODD_VOLUME:
        found.append(f"it says a volume of {stated:g} Å^3, its cell has {volume:.1f}")
    mass = sum(gemmi.Element(z).weight for z in geometry.numbers.tolist())
    density = mass * DALTON / volume
    stated = _number(fields.get("_exptl_crystal_density_diffrn", ["?"])[0])
    if stated > 0 and abs(stated / density - 1) > ODD_DENSITY:
        found.append(f"it says a density of {stated:g} g/cm^3, its atoms give {density:.2f}")
    return found


def _number(value: str) -> float:
    """A number with or without quotes and standard uncertainty; NaN for anything else."""
    return float(as_number(as_string(value).strip()))


def _cell(fields: Fields) -> gemmi.UnitCell:
    lengths_and_angles = [fields.get(tag, ["?"]) for tag in _CELL]
    if any(len(values) > 1 for values in lengths_and_angles):
        raise StructureError("several cells in one block: give each its own block")
    if not all(tag in fields for tag in _CELL[:3]):
        raise StructureError("no cell (_cell_length_a to _cell_angle_gamma): not a crystal")
    values = [_number(each[0]) for each in lengths_and_angles]
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
        frac = [0.0 if icsd and value == "." else _number(value) for value in raw]
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
    if not is_null(occupancy) and not abs(_number(occupancy) - 1) <= FULL:
        raise StructureError(
            f"site {label} has occupancy {as_string(occupancy)}: only ordered crystals are read"
        )
    if not is_null(attached) and _number(attached) != 0:
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


def _formula(fields: Fields) -> tuple[dict[int, float], list[str]]:
    """Atoms per formula unit by atomic number; empty where no formula is stated."""
    text = " ".join(fields.get("_chemical_formula_sum", [""])[0].split())
    counts: dict[int, float] = {}
    if text in ("?", "."):  # in quotes, where it should be without
        return {}, []
    element = r"([A-Z][a-z]?|\S)"
    if re.fullmatch(r"[A-Za-z]{1,2}[\d.]*( [A-Za-z]{1,2}[\d.]*)+", text):
        element = r"([A-Za-z]+)"  # `CA1 O1`: each word is an element, however it is written
    for match in re.finditer(element + r"([\d.]*)(?:\(\d+\))?\s*", text):
        symbol = match[1]
        z = 1 if symbol in ("D", "T") else gemmi.Element(symbol).atomic_number
        try:
            n = float(match[2] or 1)
        except ValueError:
            n = 0.0
        if not z or not n > 0:
            return {}, [f"its formula {text!r} cannot be read, so it was not compared"]
        counts[z] = counts.get(z, 0.0) + n
    return counts, []


def _compare_formula(
    formula: Mapping[int, float], fields: Fields, numbers: NDArray[np.int16]
) -> tuple[bool, list[str]]:
    """Compare the stated formula with the sites.

    Returns:
        True if formula and Z together give the atoms that were read; what is odd.

    Raises:
        StructureError: Atoms are missing, or there are more than the formula has.
    """
    if not formula:
        return False, []
    read = Counter(numbers.tolist())
    z = _number(fields.get("_cell_formula_units_z", ["?"])[0])
    ratios = [read[e] / n for e, n in formula.items() if read[e]]
    units = z if np.isfinite(z) and z > 0 else float(np.median(ratios or [1.0]))
    stated = {e: n * units for e, n in formula.items()}
    off = {e: read[e] - stated.get(e, 0.0) for e in {*read, *stated}}
    worst = max(abs(x) / max(stated.get(e, 0.0), 1e-9) for e, x in off.items())
    if worst < 0.01:
        return units == z, []
    whole = all(float(n).is_integer() for n in formula.values())
    if whole and read == formula and z == np.gcd.reduce([int(n) for n in formula.values()]):
        return False, []  # pymatgen writes the whole cell as the formula, and Z beside it
    if worst < 0.1 and not whole:
        said = _text(formula)
        return False, [f"its formula {said} is not quite what its sites give ({_text(read)})"]
    says = f" and Z = {z:g} say" if units == z else " says"
    raise StructureError(
        f"its formula{says} {_text(stated)}, its sites and symmetry give {_text(read)}: "
        "atoms are missing or extra"
    )


def _text(counts: Mapping[int, float]) -> str:
    return "".join(f"{gemmi.Element(z).name}{n:g}" for z, n in sorted(counts.items()) if n)


def _compare_multiplicities(
    fields: Fields, numbers: Sequence[int], labels: Sequence[str], read: NDArray[np.intp]
) -> list[str]:
    """Say that each site stands for more atoms than its symmetry gives.

    Args:
        fields: Of the block.
        numbers: (n_sites,) atomic numbers of the listed sites.
        labels: (n_sites,) their names.
        read: (n_sites,) how many atoms came of each.

    Raises:
        StructureError: There is no symmetry, and the sites are not all listed either.
    """
    for tag in ("_atom_site_symmetry_multiplicity", "_atom_site_site_symmetry_multiplicity"):
        stated = [_number(value) for value in fields.get(tag, [])]
        kinds = Counter(zip(numbers, stated, strict=False))
        for label, kind in zip(labels, zip(numbers, stated, strict=False), strict=False):
            if read.max() == 1 and kind[1] > 1 and kinds[kind] % kind[1]:
                raise StructureError(
                    f"site {label} has a multiplicity of {kind[1]:g}, and no symmetry gives the "
                    "other atoms: name the space group or list the operations"
                )
        times = {share / n for share, n in zip(stated, read.tolist(), strict=False) if n}
        if read.max() > 1 and len(times) == 1 and min(times) > 1:
            return [f"its multiplicities are {min(times):g} times what its symmetry gives"]
    return []


def _judge_dispute(symmetry: StatedSymmetry, geometry: Geometry, *, counted: bool) -> None:
    """Refuse a list of operations that is not the named group, unless no atom can be missing.

    None is missing if formula and Z say so, or if the crystal that was read has the symmetry of
    the named group: the file then lists its cell in full.
    """
    if counted:
        return
    found = symmetry_dataset(geometry, 0.02)
    if not found or found.number != symmetry.named:
        n = len(symmetry.rotations)
        raise StructureError(
            f"it names {symmetry.disputed}, and its {n} listed operation{'s' * (n > 1)} are "
            "another group: correct one of them"
        )
