"""How the recipe of the substitution pairs was made: the settings and orders of a given set.

    python -m studies.substitution_recipe REFERENCE --sources DIR --out RECIPE

REFERENCE has train, val, test and provenance of the set as it was first made, with pymatgen. For
each pair this searches the axes and the order of sites that take the standardised target onto the
end of the pair, and those of the donor onto its start. RECIPE has a `sources.json`, whose files are
read in its order: where two have a crystal, the first counts.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import sys
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.core import Geometry, UserError
from benchmarks.core.cli import run_command
from benchmarks.data import load
from benchmarks.data.build.source_files import CIF_PATH, SourceFile, obtain, read_crystals
from benchmarks.data.build.substitution import (
    SAME,
    SPLITS,
    fingerprint,
    in_setting,
    matched_end,
    standard_cell,
)

_ROWS = np.array(list(itertools.product((0, 1, -1), repeat=9))).reshape(-1, 3, 3)
UNIMODULAR = _ROWS[np.abs(np.linalg.det(_ROWS)).round() == 1]
"""(6960, 3, 3) changes of axes between two reduced cells of one lattice, the simple ones first."""


def settings(cell: Geometry, lattice: NDArray[np.float64]) -> Iterator[str]:
    """The settings of a cell, from its reduced basis, in which its lattice has the given metric."""
    from moyopy import minkowski_reduce

    reduced = np.array(minkowski_reduce(cell.lattice.tolist())[0])
    basis = (reduced @ np.linalg.inv(cell.lattice)).round()
    wanted = lattice @ lattice.T
    axes = UNIMODULAR @ basis
    vectors = axes @ cell.lattice
    metrics = vectors @ vectors.transpose(0, 2, 1)
    close = np.abs(metrics - wanted).max(axis=(1, 2)) < 1e-5 * np.trace(wanted)
    for found in axes[close]:
        yield ";".join(",".join(f"{x:.0f}" for x in row) for row in found)


def order_of(moved: Geometry, fracs: NDArray[np.float64], numbers: Any) -> list[int] | None:
    """The site of the cell at each of the given sites, after some translation; None without one."""
    rarest = min(np.unique(numbers), key=lambda z: (numbers == z).sum())
    first = int(np.flatnonzero(numbers == rarest)[0])
    for origin in np.flatnonzero(moved.numbers == rarest):
        shifted = moved.frac_coords - moved.frac_coords[origin] + fracs[first]
        apart = fracs[:, None] - shifted
        far = np.abs(apart - apart.round()).max(axis=2)
        far[numbers[:, None] != moved.numbers] = np.inf
        order = far.argmin(axis=1)
        if far.min(axis=1).max() < 1e-5 and len(set(order.tolist())) == len(order):
            return [int(i) for i in order]
    return None


def error(found: Geometry, wanted: Geometry) -> float:
    """The largest difference of the cell or of a site, up to lattice vectors [Å]."""
    apart = found.frac_coords - wanted.frac_coords
    sites = np.abs((apart - apart.round()) @ wanted.lattice).max()
    return float(max(sites, np.abs(found.lattice - wanted.lattice).max()))


def start_setting(cell: Geometry, start: Geometry) -> str | None:
    """The setting in which the standardised donor is the start, in the order of its sites."""
    for setting in settings(cell, start.lattice):
        if error(in_setting(cell, setting), start) < SAME:
            return setting
    return None


def end_setting(
    cell: Geometry, start: Geometry, end: Geometry, likely: Sequence[str]
) -> tuple[str, str] | None:
    """The setting and the order of sites in which the standardised target is the end.

    Args:
        cell: The standardised target.
        start: The start of the pair.
        end: Its end.
        likely: Settings that are tried first.
    """
    for setting in itertools.chain(likely, settings(cell, end.lattice)):
        moved = in_setting(cell, setting)
        order = order_of(moved, end.frac_coords, end.numbers)
        if order and error(matched_end(start.frac_coords, moved, order), end) < SAME:
            return setting, ",".join(map(str, order))
    return None


def ids_in(path: Path) -> set[str]:
    """The ids of all crystals of a source file."""
    if path.name.endswith(".json.gz"):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            return {entry.get("material_id") or entry["mp_id"] for entry in json.load(lines)}
    with tarfile.open(path) as archive:
        matches = (CIF_PATH.fullmatch(name) for name in archive.getnames())
        return {match[2] for match in matches if match}


def make(reference: Path, sources: str, out: Path) -> None:
    """Write `structures.parquet` and `pairs.parquet` of a recipe.

    Raises:
        UserError: The reference or a source cannot be read, or a pair cannot be made.
    """
    about = json.loads((out / "sources.json").read_text(encoding="utf-8"))
    files = [SourceFile(**file) for file in about["files"]]
    rows = pq.read_table(reference / "provenance.parquet").to_pylist()
    used = {name for row in rows for name in (row["immutable_id"], row["donor_id"])}
    cells: dict[str, Geometry] = {}
    where: dict[str, str] = {}
    for file, path in zip(files, obtain(files, sources), strict=True):
        wanted = (used & ids_in(path)) - set(where)
        for name, crystal in tqdm(read_crystals(file, path, wanted).items(), desc=file.name):
            cells[name], where[name] = standard_cell(crystal), file.name
    geometries: dict[str, tuple[Geometry, Geometry]] = {}
    for split in SPLITS:
        data = load(str(reference / f"{split}.parquet"))
        geometries |= {name: data.geometries(i) for i, name in enumerate(data.ids)}
    starts: dict[str, str] = {}
    likely: dict[str, list[str]] = {}
    pairs, failed = [], []
    for row in tqdm(rows, desc="pairs"):
        name = f"{row['immutable_id']}-{row['trajectory']}"
        start, end = geometries[f"{name}-pbe"]
        donor = row["donor_id"]
        if donor not in starts:
            numbers = cells[donor].numbers  # the start has its elements replaced
            starts[donor] = start_setting(cells[donor], start._replace(numbers=numbers)) or ""
        tried = likely.setdefault(row["immutable_id"], [])
        found = end_setting(cells[row["immutable_id"]], start, end, tried)
        if not starts[donor] or found is None:
            failed.append(f"{name} ({'end' if starts[donor] else 'start'})")
            continue
        tried[:] = dict.fromkeys([found[0], *tried])
        pairs.append(
            {key: row[key] for key in ("immutable_id", "trajectory", "donor_id", "space_group")}
            | {"setting": found[0], "order": found[1]}
        )
    structures = [
        {
            "id": name,
            "file": where[name],
            "setting": starts.get(name, ""),
            "fingerprint": fingerprint(cells[name]),
        }
        for name in sorted(cells)
    ]
    for table, listed in (("structures", structures), ("pairs", pairs)):
        pq.write_table(
            pa.Table.from_pylist(listed),
            out / f"{table}.parquet",
            compression="zstd",
            compression_level=19,
        )
    sys.stdout.write(f"{len(pairs)} of {len(rows)} pairs, {len(structures)} structures\n")
    if failed:
        raise UserError(f"{len(failed)} pairs cannot be made, the first {failed[:5]}")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m studies.substitution_recipe")
    parser.add_argument("reference", type=Path, metavar="REFERENCE")
    parser.add_argument("--sources", required=True, metavar="DIR")
    parser.add_argument("--out", type=Path, required=True, metavar="RECIPE")
    args = parser.parse_args(argv)

    def command() -> int:
        make(args.reference, args.sources, args.out)
        return 0

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
