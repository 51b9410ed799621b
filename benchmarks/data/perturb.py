"""Starts whose relaxation is known without a calculation: DFT minima, strained and displaced.

    python -m benchmarks.data perturb embedded embedded-v2 --out DIR

The final structure of each sample is the reference; its starts are strained by a given amount in a
random direction and displaced by a given amount in random directions, so that "no change" has
exactly these errors. A start that is near enough to a minimum relaxes back; how many do was not yet
checked with DFT. The folder has the validation and test splits, in the layout of LeMat-Traj.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from tqdm import tqdm

from benchmarks.core import Geometry, UserError
from benchmarks.core.cli import whole_number
from benchmarks.core.files import atomic_write
from benchmarks.core.geometry import strained
from benchmarks.data.convert.layout import TableWriter, table
from benchmarks.data.convert.relaxation import Relaxation, Step
from benchmarks.data.dataset import Dataset, load
from benchmarks.data.folders import MANIFEST, split_names
from benchmarks.data.splits.manifest import manifest_text


class Perturbation(NamedTuple):
    """How far a start is from the minimum."""

    displacement: float
    """Mean over the atoms [Å], without a common shift."""
    strain: float
    """Frobenius norm of the logarithmic strain."""

    @property
    def label(self) -> str:
        """In hundredths: `d10s1` is 0.10 Å and 1 %."""
        return f"d{100 * self.displacement:.0f}s{100 * self.strain:.0f}"


PERTURBATIONS: Final = (
    Perturbation(0.05, 0.01),
    Perturbation(0.1, 0.01),
    Perturbation(0.2, 0.01),
    Perturbation(0.1, 0.03),
)
STRAINS: Final = (Perturbation(0, 0.01), Perturbation(0, 0.03))
"""Of a crystal with one site, which cannot be displaced."""
SEEDS: Final = 5
"""Starts of each crystal and perturbation."""


def perturbed(minimum: Geometry, how: Perturbation, name: str) -> Geometry:
    """A start of the minimum; it depends on the name alone.

    Args:
        minimum: Lattice, coordinates and numbers of the minimum.
        how: How far it is moved.
        name: Seeds the directions.

    Returns:
        The strained cell with the displaced atoms, in the order of the minimum. The displacements
        are measured in the minimum's cell, as the position error is.
    """
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    rng = np.random.default_rng(seed)
    free = rng.normal(size=(3, 3))
    direction = free + free.T
    lattice = strained(minimum.lattice, how.strain * direction / np.linalg.norm(direction))
    fracs = minimum.frac_coords
    if how.displacement:
        moved = rng.normal(size=fracs.shape)
        moved -= moved.mean(axis=0)
        moved *= how.displacement / np.linalg.norm(moved, axis=1).mean()
        fracs = fracs + moved @ np.linalg.inv(minimum.lattice)
    return Geometry(lattice, fracs, minimum.numbers)


def starts(dataset: Dataset, seeds: int = SEEDS) -> Iterator[tuple[str, str, Geometry, Geometry]]:
    """Material, functional, start and minimum of every start of a data set.

    Args:
        dataset: The final structures of its samples are the minima.
        seeds: Number of starts of each crystal and perturbation.
    """
    described = zip(dataset.materials, dataset.functionals, strict=True)
    for i, (material, functional) in enumerate(described):
        _, minimum = dataset.geometries(i)
        for how in PERTURBATIONS if len(minimum.numbers) > 1 else STRAINS:
            for seed in range(seeds):
                name = f"{material}-{how.label}-{seed}"
                yield name, functional, perturbed(minimum, how, name), minimum


def write_perturbed(sources: Sequence[str], out: Path, *, seeds: int = SEEDS) -> None:
    """Write the starts of the validation and test splits, and the manifest.

    Args:
        sources: Sources with splits, as `--data` names them.
        out: A folder that is made.
        seeds: Number of starts of each crystal and perturbation.

    Raises:
        UserError: A source cannot be read or has no such splits, or a material is in two.
    """
    out.mkdir(parents=True, exist_ok=True)
    for split in ("val", "test"):
        lacking = [source for source in sources if split not in split_names(source)]
        if lacking:
            raise UserError(f"{', '.join(lacking)}: no split {split}")
        written: set[str] = set()
        with (
            atomic_write(out / f"{split}.parquet") as partial,
            TableWriter(partial) as writer,
        ):
            for source in sources:
                found = starts(load(source, split=split), seeds)
                for name, functional, start, minimum in tqdm(found, unit="start", disable=None):
                    if name in written:
                        raise UserError(f"{source}: {name.rsplit('-', 2)[0]} is in another source")
                    written.add(name)
                    steps = [Step.of(start), Step.of(minimum)]
                    writer.add(
                        table(Relaxation(steps=steps), name, functional, f"{name}-{functional}")
                    )
    with atomic_write(out / MANIFEST) as partial:
        partial.write_text(manifest_text(out, name="perturbed"), encoding="utf-8")


def main(argv: Sequence[str]) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.data perturb",
        description="Write starts around the minima of data sets, whose relaxation is known.",
        allow_abbrev=False,
    )
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="a source with splits")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seeds", type=whole_number(1), default=SEEDS, metavar="N")
    args = parser.parse_args(argv)
    write_perturbed(args.sources, args.out, seeds=args.seeds)
    for split in ("val", "test"):
        count = len(load(str(args.out), split=split))
        sys.stdout.write(f"{split}: {count} starts in {args.out / split}.parquet\n")
    return 0
