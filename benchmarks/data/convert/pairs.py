"""Initial and relaxed structures without the steps between, as one table.

    python -m benchmarks.data convert pairs INPUT… --functional pbe --out FILE.parquet

An input is one of four:

- a folder that is walked: a `POSCAR` with a `CONTCAR` in one folder is a pair, and so are
  `NAME_unrelaxed.cif` with `NAME_relaxed.cif` (or `_initial`, `_start` with `_final`, `_relaxed`);
- two folders, INITIAL and RELAXED, with files of the same names;
- a CSV, JSON or JSON-lines file of which a row holds two structures, as pymatgen dictionaries or
  CIF texts;
- a folder with `train.csv`, `val.csv`, `test.csv` and structures, as papers on direct relaxation
  publish them: `--out DIR`, which gets a table for each split.

Sites are matched by their order; where a file has its species in another order, or its sites far
from where they were, by the assignment that moves them least. `FILE.pairs.csv` says which, and how
far the atoms moved.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from tqdm import tqdm

from benchmarks.core import Geometry, UserError
from benchmarks.core.files import READ_ERRORS, atomic_write
from benchmarks.core.geometry import best_assignment, displacements
from benchmarks.data.convert.conventions import FUNCTIONALS
from benchmarks.data.convert.layout import TableWriter, table
from benchmarks.data.convert.recognition import open_text
from benchmarks.data.convert.relaxation import ConversionError, Relaxation, Step
from benchmarks.data.structures.read import crystals_of_cif, read_structures

INITIAL: Final = ("_unrelaxed", "_initial", "_start", "-unrelaxed", "-initial", "-start")
RELAXED: Final = ("_relaxed", "_final", "_end", "-relaxed", "-final", "-end")
"""What the names of two files of a pair end with; the part before it is the name of the pair."""
INITIAL_COLUMNS: Final = (
    "initial_structure", "initial", "unrelaxed", "unrelaxed_structure", "start",
)  # fmt: skip
RELAXED_COLUMNS: Final = (
    "relaxed_structure", "final_structure", "final", "relaxed", "structure", "end",
)  # fmt: skip
ID_COLUMNS: Final = ("material_id", "id", "cif_id", "name")
SPLITS: Final = ("train", "val", "test")
REORDERED: Final = 0.5
"""Sites are matched anew where that leaves less than this part of the displacement by order."""
FAR: Final = 0.5
"""And only where the mean displacement by order is larger [Å]."""


@dataclass(frozen=True, slots=True)
class FoundPair:
    """A pair that was found, not yet read: two files, or two structures of a row."""

    name: str
    initial: Any
    relaxed: Any


@dataclass(frozen=True, slots=True)
class MatchedPair:
    """Two structures with the same sites in the same order."""

    name: str
    initial: Geometry
    relaxed: Geometry
    matched: str
    """How the sites were matched, in words."""
    displacement: float
    """Mean over the atoms [Å]."""


def find_pairs(inputs: Sequence[Path]) -> Iterator[FoundPair]:
    """The pairs of files or rows that the inputs hold.

    Args:
        inputs: A folder or a file of rows, or two folders.

    Raises:
        UserError: There is none, or an input is not one of the four kinds.
    """
    if len(inputs) == 2 and all(path.is_dir() for path in inputs):
        initial, relaxed = (_by_name(path) for path in inputs)
        for name in sorted(initial.keys() & relaxed.keys()):
            yield FoundPair(name, initial[name], relaxed[name])
        return
    for path in inputs:
        if path.is_dir():
            yield from _in_folder(path)
        elif path.is_file():
            yield from _in_rows(path)
        else:
            raise UserError(f"{path}: no such file or folder")


def _by_name(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted(folder.iterdir()) if path.is_file()}


def _in_folder(folder: Path) -> Iterator[FoundPair]:
    for inner in sorted({folder, *(path for path in folder.rglob("*") if path.is_dir())}):
        files = {path.name: path for path in sorted(inner.iterdir()) if path.is_file()}
        for name, initial in files.items():
            if name.startswith("POSCAR"):
                relaxed = files.get(name.replace("POSCAR", "CONTCAR", 1))
                if relaxed is not None:
                    parts = [*inner.relative_to(folder).parts, name.removeprefix("POSCAR")]
                    label = "-".join(filter(None, (part.strip("._-") for part in parts)))
                    yield FoundPair(label or folder.resolve().name, initial, relaxed)
        stems = {path.stem: path for path in files.values()}
        for stem, initial in stems.items():
            for ending in INITIAL:
                if not stem.endswith(ending):
                    continue
                name = stem.removesuffix(ending)
                relaxed = next((stems[name + e] for e in RELAXED if name + e in stems), None)
                if relaxed is not None:
                    yield FoundPair(name, initial, relaxed)


def _in_rows(path: Path) -> Iterator[FoundPair]:
    for number, row in enumerate(_rows(path)):
        initial, relaxed = (_column(row, names) for names in (INITIAL_COLUMNS, RELAXED_COLUMNS))
        if initial is None or relaxed is None:
            lacking = INITIAL_COLUMNS if initial is None else RELAXED_COLUMNS
            raise UserError(
                f"{path}: row {number + 1} has no {' or '.join(lacking[:3])} (it has "
                f"{', '.join(map(str, row))})"
            )
        name = _column(row, ID_COLUMNS)
        yield FoundPair(str(name if name is not None else number), initial, relaxed)


def _column(row: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((row[name] for name in names if row.get(name) not in (None, "")), None)


def _rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a CSV, JSON or JSON-lines file, which may be compressed."""
    try:
        with open_text(path) as file:
            text = file.read()
        if ".csv" in [each.lower() for each in path.suffixes]:
            csv.field_size_limit(1 << 28)
            return list(csv.DictReader(text.splitlines(keepends=True)))
        try:
            content = json.loads(text)
        except ValueError:
            content = [json.loads(line) for line in text.splitlines() if line.strip()]
    except READ_ERRORS as error:
        raise UserError(f"{path}: not a CSV, JSON or JSON-lines file ({error})") from error
    if isinstance(content, dict):
        columns = list(content.values())
        if columns and all(isinstance(column, dict) for column in columns):
            if set(content) & {*INITIAL_COLUMNS, *RELAXED_COLUMNS}:  # pandas: column, then row
                keys = list(columns[0])
                return [{name: column.get(key) for name, column in content.items()} for key in keys]
            return [{"id": key} | row for key, row in content.items()]
        content = [content]
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise UserError(f"{path}: its rows are no objects")
    return content


def read_pair(candidate: FoundPair) -> MatchedPair:
    """Read both structures of a pair and match their sites.

    Raises:
        ConversionError: One cannot be read, or they are not the same atoms.
    """
    initial, relaxed = (_geometry(each) for each in (candidate.initial, candidate.relaxed))
    if Counter(initial.numbers.tolist()) != Counter(relaxed.numbers.tolist()):
        raise ConversionError(
            f"not the same atoms: {len(initial.numbers)} and {len(relaxed.numbers)} sites"
        )
    matched = "order"
    if not np.array_equal(initial.numbers, relaxed.numbers):
        # the same species one after the other; the assignment then finds the sites
        order = np.empty(len(relaxed.numbers), dtype=np.intp)
        order[np.argsort(initial.numbers, kind="stable")] = np.argsort(
            relaxed.numbers, kind="stable"
        )
        relaxed = _reordered(relaxed, order)
        matched = "assignment: species in another order"
    by_order = displacements(relaxed, initial)
    mean = float(np.linalg.norm(by_order, axis=1).mean())
    if matched != "order" or mean > FAR:
        _, order = best_assignment(relaxed, initial, by_order)
        moved = displacements(relaxed, _reordered(initial, order))
        shorter = float(np.linalg.norm(moved, axis=1).mean())
        if matched != "order" or shorter < REORDERED * mean:
            # the initial structure keeps its order, and the relaxed one follows
            relaxed, mean = _reordered(relaxed, np.argsort(order)), shorter
            if matched == "order":
                matched = "assignment: sites in another order"
    return MatchedPair(candidate.name, initial, relaxed, matched, mean)


def _reordered(geometry: Geometry, order: Any) -> Geometry:
    return Geometry(geometry.lattice, geometry.frac_coords[order], geometry.numbers[order])


def _geometry(source: Any) -> Geometry:
    """The structure of a file, a pymatgen dictionary or a CIF text."""
    if isinstance(source, Path):
        found = read_structures(source)
    elif isinstance(source, str) and not source.lstrip().startswith("{"):
        found = crystals_of_cif(source.encode(), "CIF")
    else:
        from pymatgen.core import Structure

        try:
            content = json.loads(source) if isinstance(source, str) else source
            structure = Structure.from_dict(content)
            if not structure.is_ordered:
                raise ConversionError("mixed sites")
            return Geometry.of(structure)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConversionError(f"no structure of pymatgen ({error!r})") from error
    if len(found) != 1 or found[0].geometry is None:
        reason = found[0].problem or f"{len(found)} structures"
        where = f"{source.name}: " if isinstance(source, Path) else ""
        raise ConversionError(f"{where}{reason}")
    return found[0].geometry


def write_pairs(candidates: Sequence[FoundPair], out: Path, functional: str) -> list[str]:
    """Write the pairs that can be read to a table, and how they were matched beside it.

    Args:
        candidates: The pairs.
        out: The table, `FILE.parquet`; `FILE.pairs.csv` is written beside it.
        functional: Of the relaxed structures.

    Returns:
        A line for each pair that was not converted.

    Raises:
        UserError: None was converted.
    """
    refused, names = [], Counter[str]()
    audit = out.with_suffix(".pairs.csv")
    with atomic_write(out) as parquet, atomic_write(audit) as listed:
        rows = []
        with TableWriter(parquet) as writer:
            for candidate in tqdm(candidates, desc="pairs", unit="pair", disable=None):
                try:
                    pair = read_pair(candidate)
                except ConversionError as error:
                    refused.append(f"{candidate.name}: {error}")
                    continue
                names[pair.name] += 1
                again = names[pair.name] - 1
                trajectory = f"{pair.name}-{again}-{functional}"
                steps = [Step.of(pair.initial), Step.of(pair.relaxed)]
                writer.add(table(Relaxation(steps=steps), pair.name, functional, trajectory))
                volumes = [abs(np.linalg.det(g.lattice)) for g in (pair.initial, pair.relaxed)]
                rows.append(
                    {
                        "sample_id": trajectory,
                        "sites": len(pair.initial.numbers),
                        "matched_by": pair.matched,
                        "mean_displacement": round(pair.displacement, 6),
                        "volume_change_percent": round(100 * (volumes[1] / volumes[0] - 1), 4),
                    }
                )
        if not rows:
            first = refused[0] if refused else "no pair found"
            raise UserError(f"nothing converted: {first}")
        with listed.open("w", encoding="utf-8", newline="") as file:
            lines = csv.DictWriter(file, rows[0], lineterminator="\n")
            lines.writeheader()
            lines.writerows(rows)
    return refused


def _by_split(folder: Path, candidates: Sequence[FoundPair]) -> dict[str, list[FoundPair]]:
    """The pairs that each of `train.csv`, `val.csv` and `test.csv` names in one of its columns."""
    by_name = {candidate.name: candidate for candidate in candidates}
    found = {}
    for split in SPLITS:
        path = folder / f"{split}.csv"
        if path.is_file():
            with path.open(encoding="utf-8-sig", newline="") as file:
                cells = [cell.strip() for row in csv.reader(file) for cell in row]
            found[split] = [by_name[cell] for cell in dict.fromkeys(cells) if cell in by_name]
    return found


def main(argv: Sequence[str]) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.data convert pairs",
        description="Make a LeMat-Traj table of initial and relaxed structures.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("inputs", nargs="+", type=Path, metavar="INPUT", help="folder, two folders, or rows")
    add("--functional", required=True, choices=FUNCTIONALS, help="of the relaxed structures")
    add("--out", type=Path, required=True, metavar="FILE.parquet", help="a folder where are splits")
    args = parser.parse_args(argv)
    candidates = list(find_pairs(args.inputs))
    if not candidates:
        raise UserError(f"{args.inputs[0]}: no pair of initial and relaxed structures in it")
    splits = _by_split(args.inputs[0], candidates) if args.inputs[0].is_dir() else {}
    if not splits and args.out.suffix != ".parquet":
        raise UserError(f"--out {args.out}: must end in .parquet")
    if splits:
        args.out.mkdir(parents=True, exist_ok=True)
    files = {args.out / f"{name}.parquet": part for name, part in splits.items()}
    failed = False
    for path, part in (files or {args.out: candidates}).items():
        refused = write_pairs(part, path, args.functional)
        failed |= bool(refused)
        sys.stdout.write("".join(f"not converted: {line}\n" for line in refused))
        count = len(part) - len(refused)
        sys.stdout.write(f"wrote {count} of {len(part)} pairs to {path}\n")
    return 2 if failed else 0
