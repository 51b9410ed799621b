"""The pairs of prototype substitutions, built from public files.

    python -m benchmarks.data build substitution --out DIR [--sources DIR]

Each pair begins with the DFT-relaxed crystal of one compound, its elements replaced by those of
another one with the same prototype, and ends with the DFT-relaxed crystal of that other compound.

1. Both crystals become primitive cells as spglib standardises them (`SYMPREC`), their sites sorted
   by electronegativity.
2. The donor's cell is Niggli-reduced. Its axes, and what takes the target into this setting and
   this order of sites, stand in the recipe beside this module, as whole numbers: they were found by
   pymatgen's StructureMatcher (ltol 0.3, stol 0.5, angle_tol 10), which takes an hour.
3. A cell is turned so that c is along z and a is in the xz plane. The target is moved as a whole,
   so that the atoms stay where they are in the mean of the fractional coordinates.

Which compounds are paired is not a rule: the recipe lists the pairs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from ase.data import chemical_symbols
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.core import Geometry, UserError
from benchmarks.core.files import atomic_write
from benchmarks.data.build.pair_differences import differences
from benchmarks.data.build.source_files import SourceFile, obtain, read_crystals
from benchmarks.data.convert.layout import SCHEMA, TableWriter, rows
from benchmarks.data.convert.relaxation import Relaxation, Step
from benchmarks.data.splits.manifest import split_of

SYMPREC: Final = 0.1
"""Tolerance of the standardisation [Å], the one of the Materials Project."""
RECIPE: Final = Path(__file__).parent / "substitution_recipe"
SPLITS: Final = ("train", "val", "test")
DATABASES: Final = {"mp": "mp", "agm": "alexandria", "oqmd": "oqmd", "wbm": "wbm"}
"""The source of a crystal by what its id begins with."""
_AT_ONCE: Final = 1000
"""Frames that become one Arrow table; a table for each pair would take most of the time."""
SAME: Final = 1e-6
"""Largest difference between two geometries that are the same [Å]; of fingerprints, no unit."""


@dataclass(frozen=True, slots=True)
class PairRecipe:
    """What travels with the package instead of the structures."""

    files: tuple[SourceFile, ...]
    spglib: str
    """The version of spglib with which the recipe was made."""
    structures: tuple[dict[str, Any], ...]
    """Each crystal: `id`, the `file` that has it, the `setting` in which it is a donor, and the
    `fingerprint` of its standardised cell."""
    pairs: tuple[dict[str, Any], ...]
    """Each pair: `immutable_id` and `trajectory`, `donor_id`, the `setting` and `order` of the
    target's sites, and the `space_group` of the target."""

    @classmethod
    def read(cls, folder: Path) -> PairRecipe:
        """Read a recipe; the one of the package is in `RECIPE`.

        Raises:
            UserError: A file of it is missing or damaged.
        """
        try:
            about = json.loads((folder / "sources.json").read_text(encoding="utf-8"))
            files = tuple(SourceFile(**file) for file in about["files"])
            structures, pairs = (
                tuple(pq.read_table(folder / f"{name}.parquet").to_pylist())
                for name in ("structures", "pairs")
            )
            return cls(files, about["spglib"], structures, pairs)
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            raise UserError(f"{folder}: no usable recipe ({error}): install again") from error


@dataclass(frozen=True, slots=True)
class SubstitutionPair:
    """A pair with its geometries; both have the target's atoms in the donor's order of sites."""

    row: Mapping[str, Any]
    """Its row of the recipe."""
    start: Geometry
    end: Geometry
    substitution: str
    """The replaced elements, `Cr->Mo; Si->Si`."""

    @property
    def symbols(self) -> list[str]:
        """Symbols of the sites."""
        return [chemical_symbols[z] for z in self.end.numbers]


def standard_cell(crystal: Geometry) -> Geometry:
    """The primitive cell as spglib standardises it, its sites sorted by electronegativity.

    Raises:
        UserError: spglib finds none.
    """
    import spglib
    from pymatgen.core import Element

    cell = (crystal.lattice, crystal.frac_coords, crystal.numbers.tolist())
    found = spglib.find_primitive(cell, symprec=SYMPREC)
    if found is None:
        raise UserError("spglib finds no primitive cell")
    lattice, fracs, numbers = found
    elements = [Element.from_Z(int(z)) for z in numbers]
    order = sorted(range(len(elements)), key=elements.__getitem__)
    return Geometry(np.array(lattice), fracs[order], np.asarray(numbers, dtype=np.int16)[order])


def fingerprint(cell: Geometry) -> float:
    """A number that differs where two standardised cells do, also in the order of their sites."""
    angles = 2 * np.pi * cell.frac_coords
    places = np.sin(angles) + 1.5 * np.cos(angles)
    # cosines of whole numbers: no sums of small multiples of them are equal, as symmetry makes
    weights = np.cos(np.arange(angles.size)).reshape(-1, 3)
    metric = cell.lattice @ cell.lattice.T
    return float((weights * places).sum() + metric[np.triu_indices(3)] @ np.arange(1, 7))


def in_setting(cell: Geometry, setting: str) -> Geometry:
    """The same crystal with other axes, turned so that c is along z and a in the xz plane.

    Args:
        cell: A primitive cell.
        setting: The new axes in units of the old ones, as in `1,0,0;0,1,0;0,0,1`.
    """
    from pymatgen.core import Lattice

    axes = np.array([row.split(",") for row in setting.split(";")], dtype=np.float64)
    lattice = Lattice.from_parameters(*Lattice(axes @ cell.lattice).parameters).matrix
    return Geometry(np.array(lattice), cell.frac_coords @ np.linalg.inv(axes), cell.numbers)


def matched_end(start: NDArray[np.float64], target: Geometry, order: Sequence[int]) -> Geometry:
    """The target with its sites in the order of the start, at their images nearest to it.

    Args:
        start: (n_sites, 3) fractional coordinates.
        target: The target in the setting of the start.
        order: Number of the target's site at each site of the start.
    """
    moved = target.frac_coords[list(order)] - start
    moved -= moved[0]
    moved -= moved.round()
    moved -= moved.mean(axis=0)
    return Geometry(target.lattice, start + moved, target.numbers[list(order)])


def pairs_of(recipe: PairRecipe, crystals: Mapping[str, Geometry]) -> Iterator[SubstitutionPair]:
    """Make the pairs of a recipe, in its order.

    Args:
        recipe: The recipe.
        crystals: The crystals of the source files, by id.

    Raises:
        UserError: A standardised cell is not the one of the recipe.
    """
    import spglib

    cells, other = {}, []
    for row in tqdm(recipe.structures, desc="cells", unit="cell", disable=None):
        cells[row["id"]] = standard_cell(crystals[row["id"]])
        if abs(fingerprint(cells[row["id"]]) - row["fingerprint"]) > SAME:
            other.append(row["id"])
    if other:
        raise UserError(
            f"{len(other)} of {len(cells)} standardised cells ({other[0]}, …) are not those of the "
            f"recipe: spglib {spglib.__version__} is here, and the recipe was made with "
            f"{recipe.spglib}: pip install spglib=={recipe.spglib}"
        )
    donors = {}
    for row in recipe.structures:
        if row["setting"]:
            donor = in_setting(cells[row["id"]], row["setting"])
            wrapped = donor.frac_coords - np.floor(donor.frac_coords + 1e-9)
            donors[row["id"]] = donor._replace(frac_coords=wrapped)
    for row in recipe.pairs:
        donor = donors[row["donor_id"]]
        target = in_setting(cells[row["immutable_id"]], row["setting"])
        end = matched_end(donor.frac_coords, target, [int(i) for i in row["order"].split(",")])
        replaced = dict.fromkeys(zip(donor.numbers.tolist(), end.numbers.tolist(), strict=True))
        words = (f"{chemical_symbols[old]}->{chemical_symbols[new]}" for old, new in replaced)
        yield SubstitutionPair(row, donor._replace(numbers=end.numbers), end, "; ".join(words))


def write_substitution(
    out: Path, *, sources: str | None = None, offline: bool = False, recipe: Path = RECIPE
) -> dict[str, int]:
    """Write the three splits and where each pair comes from.

    Args:
        out: A folder that is made; it gets `train.parquet`, `val.parquet`, `test.parquet` and
            `provenance.parquet`.
        sources: As for `obtain`.
        offline: As for `obtain`.
        recipe: The folder of the recipe.

    Returns:
        The number of pairs of each split.

    Raises:
        UserError: A source file cannot be had, or is another one; or the folder cannot be written.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: it is a file")
    what = PairRecipe.read(recipe)
    crystals: dict[str, Geometry] = {}
    for file, path in zip(what.files, obtain(what.files, sources, offline=offline), strict=True):
        wanted = {row["id"] for row in what.structures if row["file"] == file.name}
        crystals |= read_crystals(file, path, wanted)
    counts, provenance = dict.fromkeys(SPLITS, 0), []
    held: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    with ExitStack() as stack:
        writers = {}
        for split in SPLITS:
            partial = stack.enter_context(atomic_write(out / f"{split}.parquet"))
            writers[split] = stack.enter_context(TableWriter(partial))
        listed = stack.enter_context(atomic_write(out / "provenance.parquet"))
        found = pairs_of(what, crystals)
        for pair in tqdm(found, desc="pairs", unit="pair", total=len(what.pairs), disable=None):
            name, number = pair.row["immutable_id"], pair.row["trajectory"]
            split = split_of(pair.symbols)
            steps = [Step.of(pair.start), Step.of(pair.end)]
            frames = rows(Relaxation(steps=steps), name, "pbe", f"{name}-{number}-pbe")
            counts[split] += 1
            held[split] += frames
            if len(held[split]) >= _AT_ONCE:
                writers[split].add(pa.Table.from_pylist(held[split], schema=SCHEMA))
                held[split] = []
            provenance.append(
                {
                    "immutable_id": name,
                    "trajectory": number,
                    "split": split,
                    "source": _database(name),
                    "donor_id": pair.row["donor_id"],
                    "donor_source": _database(pair.row["donor_id"]),
                    "substitution": pair.substitution,
                    "formula": frames[0]["chemical_formula_reduced"],
                    "chemical_system": "-".join(frames[0]["elements"]),
                    "space_group": pair.row["space_group"],
                }
            )
        for split, frames in held.items():
            writers[split].add(pa.Table.from_pylist(frames, schema=SCHEMA))
        pq.write_table(pa.Table.from_pylist(provenance), listed, compression="zstd")
    return counts


def _database(name: str) -> str:
    return DATABASES["agm" if name.startswith("agm") else name.split("-")[0]]


def main(argv: Sequence[str]) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.data build substitution",
        description="Build the pairs of prototype substitutions from public files.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR")
    add("--sources", metavar="DIR", help="a folder with the public files, or its http address")
    add("--offline", action="store_true", help="use --sources DIR, or what was fetched before")
    add("--against", type=Path, metavar="DIR", help="compare with these pairs; 1 if they differ")
    args = parser.parse_args(argv)
    counts = write_substitution(args.out, sources=args.sources, offline=args.offline)
    for split, count in counts.items():
        sys.stdout.write(f"{split}: {count} pairs in {args.out / split}.parquet\n")
    if args.against is None:
        return 0
    found = list(differences(args.out, args.against))
    sys.stdout.write("".join(f"{each}\n" for each in found))
    return 0 if all(each.same(SAME) for each in found) else 1
