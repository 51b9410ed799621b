"""Cheap structures first, and of every kind some early, so that a part of a list is of use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import chain, zip_longest

import numpy as np

from benchmarks.core import Geometry
from benchmarks.reference.records import Start
from benchmarks.reference.settings import Settings
from benchmarks.symmetry import symmetry_dataset

_SYMPREC = 1e-4
"""Å; what a calculation of the start can make use of."""


def useful(starts: Sequence[Start]) -> list[Start]:
    """Cheap ones first, by turns without and with coordinates that the symmetry leaves free."""
    queues: dict[bool, list[Start]] = {False: [], True: []}
    for start in cheap_first(starts):
        queues[internal_freedom(start.geometry) > 0].append(start)
    turns = chain.from_iterable(zip_longest(*queues.values()))
    return [start for start in turns if start is not None]


def cheap_first(starts: Sequence[Start]) -> list[Start]:
    """By cost, the later ones of a kind (the name up to the first `-`) moved back.

    Of a kind the second counts as twice as expensive, the third as three times, and so on.
    """
    costs = {start.name: cost(start) for start in starts}
    seen: Counter[str] = Counter()
    for name in sorted(costs, key=lambda name: (costs[name], name)):
        kind = name.partition("-")[0]
        seen[kind] += 1
        costs[name] *= seen[kind]
    return sorted(starts, key=lambda start: (costs[start.name], start.name))


def cost(start: Start) -> float:
    """What one step of a relaxation costs, up to a factor.

    The number of k-points falls with the volume as that of plane waves grows, so that what is left
    is the cutoff, the square of the electrons, and the symmetry.
    """
    found = symmetry_dataset(start.geometry, _SYMPREC)
    operations = len(found.operations) if found else 1
    waves = float(Settings().cutoff(start.symbols) ** 1.5)
    return waves * len(start.symbols) ** 2 / operations


def internal_freedom(geometry: Geometry) -> int:
    """How many coordinates of the sites the symmetry leaves free, translations apart.

    The number of displacements that every operation maps onto themselves: the mean over the
    operations of (sites that stay - 1) times the trace of the rotation.
    """
    found = symmetry_dataset(geometry, _SYMPREC)
    if found is None:
        return 3 * len(geometry.numbers) - 3
    turned = np.array(found.operations.rotations)
    moved = np.array(found.operations.translations)
    images = np.einsum("oij,sj->osi", turned, geometry.frac_coords) + moved[:, None]
    apart = images - geometry.frac_coords
    distances = np.linalg.norm((apart - apart.round()) @ geometry.lattice, axis=2)
    stay = (distances < 10 * _SYMPREC).sum(axis=1)
    return int(np.rint(np.mean((stay - 1) * np.trace(turned, axis1=1, axis2=2))))
