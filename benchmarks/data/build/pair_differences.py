"""Compare two folders of substitution pairs: ids, donors and geometries."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.core import UserError
from benchmarks.data import load
from benchmarks.data.folders import split_files


class SplitDifference(NamedTuple):
    """How one split of a folder differs from that of another one."""

    split: str
    both: int
    """Number of pairs with an id that is in both."""
    other: tuple[str, ...]
    """Pairs that are in one folder only, or have another donor or substitution."""
    largest: float
    """Largest difference of a cell or a site, up to lattice vectors [Å]; inf where the elements
    differ."""
    shifted: int
    """Number of pairs with a site one lattice vector away."""

    def same(self, tolerance: float) -> bool:
        """Whether the pairs are the same to within a tolerance [Å]."""
        return not self.other and self.largest <= tolerance

    def __str__(self) -> str:
        first = f" ({self.other[0]}, …)" if self.other else ""
        return (
            f"{self.split}: {self.both} pairs in both, {len(self.other)} in one or with another "
            f"donor{first}; largest difference {self.largest:.1e} Å, {self.shifted} pairs with a "
            "site one lattice vector away"
        )


def differences(built: Path, reference: Path) -> Iterator[SplitDifference]:
    """Compare two folders with the files that `write_substitution` writes, split by split.

    Raises:
        UserError: A folder lacks a file.
    """
    origins: list[dict[str, tuple[str, str]]] = []
    for folder in (built, reference):
        try:
            listed = pq.read_table(folder / "provenance.parquet").to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{folder}/provenance.parquet: cannot be read ({error})") from error
        ids = (f"{row['immutable_id']}-{row['trajectory']}-pbe" for row in listed)
        donors = ((row["donor_id"], row["substitution"]) for row in listed)
        origins.append(dict(zip(ids, donors, strict=True)))
    for split in split_files(built):
        ours, theirs = (load(str(folder / f"{split}.parquet")) for folder in (built, reference))
        places = {name: i for i, name in enumerate(theirs.ids)}
        other = set(ours.ids) ^ set(theirs.ids)
        largest, shifted = 0.0, 0
        common = [(i, name) for i, name in enumerate(ours.ids) if name in places]
        for i, name in common:
            if origins[0].get(name) != origins[1].get(name):
                other.add(name)
            images = False
            given = theirs.geometries(places[name])
            for mine, wanted in zip(ours.geometries(i), given, strict=True):
                if not np.array_equal(mine.numbers, wanted.numbers):
                    largest = np.inf
                    continue
                apart = mine.frac_coords - wanted.frac_coords
                images |= bool(apart.round().any())
                sites = np.abs((apart - apart.round()) @ wanted.lattice).max()
                largest = max(largest, sites, np.abs(mine.lattice - wanted.lattice).max())
            shifted += images
        yield SplitDifference(split, len(common), tuple(sorted(other)), float(largest), shifted)
