"""The prototype of a crystal: which Wyckoff positions its kinds of atoms occupy, whatever they are.

The label reads `AB3_221_a_c`: anonymous formula, space group, Wyckoff letters of A, of B, …
(`2c` where a letter is taken twice), after AFLOW (Mehl et al., Comput. Mater. Sci. 136, S1 (2017)).
Which letter a site has depends on origin and axes; of all settings that the normalizer of the space
group relates, the one whose label sorts first is taken. Mirror images in chiral groups (152, 154)
and monoclinic cells of another choice of axes keep different labels: `fingerprint` joins them.
"""

from __future__ import annotations

import json
import string
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from math import gcd
from multiprocessing import get_context
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.core import Geometry
from benchmarks.core.symmetry import symmetry_dataset

SYMPREC = 0.1
"""Å, the Materials Project's: a distortion that DFT settings decide does not make a prototype."""
_ORTHORHOMBIC = range(16, 75)
_MANY = 1000
"""Structures from which on starting processes pays."""


def prototypes(geometries: Sequence[Geometry]) -> list[str | None]:
    """The label of each; many are shared out among the cores, at 5 ms each.

    Args:
        geometries: Valid structures.
    """
    n = len(geometries)
    if n < _MANY:
        return [prototype(x) for x in tqdm(geometries, "prototypes", disable=None)]
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        found = pool.map(prototype, geometries, chunksize=64)
        return list(tqdm(found, "prototypes", total=n, disable=None))


def prototype(geometry: Geometry) -> str | None:
    """The label of a relaxed structure; None where moyopy finds no consistent group.

    Args:
        geometry: A valid structure.
    """
    found = symmetry_dataset(geometry, SYMPREC)
    if found is None:
        return None
    numbers = found.std_cell.numbers
    settings = _any_axes(found).normalizer_wyckoff_positions().coset_representatives
    letters = min(_letters(numbers, positions) for _, positions in settings)
    shared = gcd(*(count for count, _ in letters))
    return "_".join(
        [
            anonymous([count // shared for count, _ in letters]),
            str(found.number),
            *(text for _, text in letters),
        ]
    )


def anonymous(counts: Sequence[int]) -> str:
    """The anonymous formula of the numbers of atoms: `AB3` for 1 and 3."""
    names = string.ascii_uppercase + string.ascii_lowercase
    pairs = zip(names, counts, strict=False)
    return "".join(f"{name}{count if count > 1 else ''}" for name, count in pairs)


def _letters(numbers: Sequence[int], positions: Sequence[Any]) -> list[tuple[int, str]]:
    """The number of atoms and the Wyckoff letters of each kind of atom, fewest atoms first."""
    kinds: dict[int, Counter[tuple[str, int]]] = {}
    for number, position in zip(numbers, positions, strict=True):
        kinds.setdefault(number, Counter())[position.letter, position.multiplicity] += 1
    found = []
    for counts in kinds.values():
        text = ""
        for (letter, multiplicity), atoms in sorted(counts.items()):
            times = atoms // multiplicity
            text += f"{times if times > 1 else ''}{letter}"
        found.append((counts.total(), text))
    return sorted(found)


def _any_axes(found: Any) -> Any:
    """The same crystal with axes of equal length if it is orthorhombic.

    moyopy's normalizer is the Euclidean one, which exchanges two axes only where they are equally
    long; whether they are says nothing about the prototype.
    """
    if found.number not in _ORTHORHOMBIC:
        return found
    plain = json.loads(found.serialize_json())
    lengths = np.diagonal(np.reshape(plain["std_cell"]["lattice"]["basis"], (3, 3)))
    for name in ("std_cell", "prim_std_cell"):
        basis = np.reshape(plain[name]["lattice"]["basis"], (3, 3))
        equal = basis / lengths * np.cbrt(np.prod(lengths))
        plain[name]["lattice"]["basis"] = equal.ravel().tolist()
    return type(found).deserialize_json(json.dumps(plain))
