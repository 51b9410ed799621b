"""Assign groups to parts: test and val get the sizes asked for and the proportions of the whole.

Groups are walked through in the order of sha256(seed + smallest id). The first time a group is
taken where each of its strata (functional, source, number of sites) still has room. Then, as long
as one fits into the part at all, the one that brings the strata nearest to their room, for each of
its samples: the part gets its size as nearly as the groups allow. A group that is larger than the
part never fits and stays in train: a part holds the smaller groups, and where groups are large
(prototypes) its proportions are further from those of the whole (of substitution/train 11 % of the
test and 15 % of the val part are in another stratum than they would have to be).

Samples that are in no group of a part but have the composition of a sample in it are left out of
the parts that follow: a reduced composition never spans two parts either. By composition there are
none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np
import pandas as pd

from benchmarks.data.lemat.ids import seeded_hash

TRAIN: Final = "train"
LEFT_OUT: Final = "left_out"
SIZES: Final = (4, 8, 16, 64)
"""Largest number of sites of each stratum; one more stratum has no upper bound."""
SIZE_CLASSES: Final = (*(f"up to {size}" for size in SIZES), f"over {SIZES[-1]}")


def assign(table: pd.DataFrame, sizes: Mapping[str, int], seed: int) -> pd.Series[str]:
    """The part of each sample: a name of `sizes`, `train` or `left_out`.

    Args:
        table: Has the columns sample_id, group, composition, functional, source and n_sites.
        sizes: Number of samples of each part but train, in the order in which they are filled.
        seed: Seed of the hash.
    """
    names = {group: seeded_hash(seed, group) for group in table["group"].unique()}
    order = sorted(names, key=names.__getitem__)
    stratum = strata(table)
    part = pd.Series(TRAIN, index=table.index)
    for name, size in sizes.items():
        free = part == TRAIN
        quota = _quota(Counter(stratum[free]), size)
        counts: dict[str, Counter[str]] = {}
        for group, each in zip(table["group"][free], stratum[free], strict=True):
            counts.setdefault(group, Counter())[each] += 1
        taken = set(_fill({group: counts[group] for group in order if group in counts}, quota))
        part[free & table["group"].isin(taken)] = name
        shared = table["composition"].isin(table["composition"][part == name])
        part[(part == TRAIN) & shared] = LEFT_OUT
    return part


def strata(table: pd.DataFrame) -> pd.Series[str]:
    """Functional, source and class of size of each sample, as one text."""
    return table["functional"] + " " + table["source"] + " " + size_class(table["n_sites"])


def size_class(n_sites: pd.Series[int]) -> pd.Series[str]:
    """The class of `SIZE_CLASSES` to which each number of sites belongs."""
    classes = np.array(SIZE_CLASSES)[np.searchsorted(SIZES, n_sites)]
    return pd.Series(classes, index=n_sites.index, dtype="str")


def _quota(counts: Counter[str], size: int) -> Counter[str]:
    """`size` in proportion to the counts, as whole numbers (largest remainders)."""
    total = counts.total()
    quota = Counter({stratum: size * n // total for stratum, n in counts.items()})
    by_remainder = sorted(counts, key=lambda stratum: (-(size * counts[stratum] % total), stratum))
    quota.update(by_remainder[: size - quota.total()])
    return quota


def _fill(groups: Mapping[str, Counter[str]], quota: Counter[str]) -> Iterator[str]:
    """Groups, in their order, that fill the quota; then those that come nearest to it."""
    room = Counter(quota)
    waiting = {}
    for group, counts in groups.items():
        if counts <= room:
            room.subtract(counts)
            yield group
        elif counts.total() <= room.total():
            waiting[group] = counts
    yield from _nearest(waiting, room)


def _nearest(groups: Mapping[str, Counter[str]], room: Counter[str]) -> Iterator[str]:
    """Again and again the group that fits as a whole and lacks least room in its strata."""
    names, among = list(groups), sorted(room)
    rows = [[groups[name][stratum] for stratum in among] for name in names]
    counts = np.array(rows, np.int32).reshape(len(names), len(among))
    size = counts.sum(axis=1)
    free = np.array([room[stratum] for stratum in among])
    fits = np.ones(len(names), dtype=bool)
    while (fits := fits & (size <= free.sum())).any():
        at = np.flatnonzero(fits)
        nearer = np.abs(free).sum() - np.abs(free - counts[at]).sum(axis=1)
        best = at[np.argmax(nearer / size[at])]
        free -= counts[best]
        fits[best] = False
        yield names[best]
