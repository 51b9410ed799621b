"""Groups of samples that belong together; no two parts of a split may share a group.

By composition, a group is tied together by the material id, the reduced composition, and
structures of one chemical system that are near-duplicates though their compositions differ a little
(one atom of 48 exchanged). Near-duplicates of one composition across sources need no fingerprint:
the composition ties them.

By prototype, it is tied by the material id, the prototype, and near-duplicates of one anonymous
formula, which have different labels where a distortion is near the tolerance of the symmetry. A
compound known in two prototypes does not tie these: such chains would tie nearly all prototypes.
What the composition ties is left out instead, see `assignment`.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from math import gcd
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.core import Geometry
from benchmarks.core.geometry import reduced_composition
from benchmarks.data.dataset import Dataset
from benchmarks.data.lemat.ids import source_of
from benchmarks.data.splits.fingerprint import NEIGHBOURS, TOLERANCE, fingerprint, near_duplicates
from benchmarks.data.splits.prototypes import SYMPREC, anonymous, prototypes

RULES: Final[Mapping[str, str]] = {
    "composition": "Samples of one material id, one reduced composition, or one chemical system "
    "with near-duplicate relaxed structures are a group.",
    "prototype": "Samples of one material id, one prototype (anonymous formula, space group at "
    f"{SYMPREC} Å, Wyckoff letters of the relaxed structure), or one anonymous formula with "
    "near-duplicate relaxed structures are a group.",
}
"""The rule that ties the samples of a group, by the kind of split."""
DILUTE: Final = 0.05
"""Near-duplicates may differ by this share of the atoms."""

Floats = NDArray[np.float64]


def describe(dataset: Dataset, by: str) -> pd.DataFrame:
    """Describe each sample and find its group.

    Args:
        dataset: The samples.
        by: A key of `RULES`.

    Returns:
        A row for each, sorted by id: sample_id, material_id, functional, source, n_sites,
        composition, prototype (only by prototype; None where there is no consistent group),
        near (equal for near-duplicates) and group (the smallest id in it).
    """
    finals = [dataset.geometries(i)[1] for i in range(len(dataset))]
    table = pd.DataFrame(
        {
            "sample_id": dataset.ids,
            "material_id": dataset.materials,
            "functional": dataset.functionals,
            "source": [source_of(material) for material in dataset.materials],
            "n_sites": [len(final.numbers) for final in finals],
            "composition": [reduced_composition(final.numbers.tolist()) for final in finals],
        }
    )
    prints = np.array([fingerprint(x) for x in tqdm(finals, "fingerprints", disable=None)])
    if by == "prototype":
        table["prototype"] = prototypes(finals)
        counts = [np.sort(np.unique(x.numbers, return_counts=True)[1]).tolist() for x in finals]
        formulas = [anonymous([n // gcd(*each) for n in each]) for each in counts]
        near = near_duplicates(prints, formulas)
    else:
        systems = [tuple(np.unique(final.numbers).tolist()) for final in finals]
        shares = _scaled_shares(finals)
        near = near_duplicates(np.hstack([prints[:, :NEIGHBOURS], shares]), systems)
    table["near"] = _smallest(dataset.ids, near)
    group = joined([list(table[key]) for key in ("material_id", by, "near")])
    table["group"] = _smallest(dataset.ids, group)
    return table.sort_values("sample_id", ignore_index=True)


def joined(keys: Sequence[Sequence[Hashable]]) -> NDArray[np.int64]:
    """Groups of samples that have a key in common, directly or through a chain of samples.

    Args:
        keys: Kinds of keys, (n,) each. A sample whose key is None has no key of that kind.

    Returns:
        (n,) the number of the group of each sample.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    n = len(keys[0])
    codes = [pd.factorize(np.array(key, dtype=object), use_na_sentinel=True)[0] for key in keys]
    samples, nodes, start = [], [], n
    for code in codes:
        samples.append(np.flatnonzero(code >= 0))
        nodes.append(start + code[code >= 0])
        start += int(code.max(initial=-1)) + 1
    edges = (np.concatenate(samples), np.concatenate(nodes))
    graph = coo_matrix((np.ones(len(edges[0]), dtype=bool), edges), shape=(start, start))
    return np.asarray(connected_components(graph, directed=False)[1][:n])


def _scaled_shares(geometries: Sequence[Geometry]) -> Floats:
    """Share of each element that occurs, so scaled that `DILUTE` is the tolerance: (n, m)."""
    numbers = np.unique(np.concatenate([geometry.numbers for geometry in geometries]))
    shares = [np.isin(numbers, geometry.numbers) * 0.0 for geometry in geometries]
    for share, geometry in zip(shares, geometries, strict=True):
        found, counts = np.unique(geometry.numbers, return_counts=True)
        share[np.searchsorted(numbers, found)] = counts / counts.sum()
    return np.array(shares) * (TOLERANCE / DILUTE)


def _smallest(ids: Sequence[str], groups: NDArray[np.int64]) -> pd.Series[str]:
    """The smallest id in the group of each sample, which does not depend on their order."""
    return pd.Series(ids).groupby(groups).transform("min")
