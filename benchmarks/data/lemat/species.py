"""Element symbols and OPTIMADE species of many frames as numbers, once per distinct text."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from benchmarks.data.lemat.arrow import array, numpy, row_sums


class Memo:
    """Apply a function of a string to an Arrow column, once per distinct value."""

    def __init__(self, function: Callable[[str | None], int]) -> None:
        self._function = function
        self._known: dict[str | None, int] = {}

    def of(self, column: Any) -> NDArray[np.int64]:
        """The function of each row of a column of text, nulls included."""
        encoded = pc.dictionary_encode(column, null_encoding="encode")
        values = encoded.dictionary.to_pylist()
        for value in values:
            if value not in self._known:
                self._known[value] = self._function(value)
        table = np.array([self._known[value] for value in values], dtype=np.int64)
        return np.asarray(table[numpy(encoded.indices)])


def atomic_number(symbol: str | None) -> int:
    """Z of an element symbol; 0 for anything else, isotopes and vacancies included."""
    from ase.data import atomic_numbers

    return int(atomic_numbers.get(symbol, 0))


def is_ordered(species: str | None) -> int:
    """Whether every species of the JSON text is one element at full occupation; null passes."""
    if species is None:
        return 1
    try:
        entries = json.loads(species)
        return int(
            all(
                len(entry["chemical_symbols"]) == 1
                and entry["chemical_symbols"][0] != "vacancy"
                and abs(entry["concentration"][0] - 1) < 1e-6
                for entry in entries
            )
        )
    except (ValueError, KeyError, TypeError, IndexError):
        return 0


def atomic_numbers(species: Any) -> NDArray[np.int16]:
    """Atomic numbers of a flat Arrow column of element symbols; 0 where unknown."""
    return Memo(atomic_number).of(array(species)).astype(np.int16)


def site_hashes(
    numbers: NDArray[np.int64], count: NDArray[np.int64]
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Two hashes of each frame's sites: one blind to their order, one not.

    Args:
        numbers: (sum(count),) atomic numbers, frame after frame.
        count: (n_frames,) number of sites of each frame.

    Returns:
        (n_frames,) hashes of the composition; (n_frames,) hashes of the sequence of elements.
    """
    place = np.arange(len(numbers)) - np.repeat(np.cumsum(count) - count, count)
    composition = row_sums(_mix(numbers.astype(np.uint64)), count)
    return composition, row_sums(_mix(((numbers << 32) + place).astype(np.uint64)), count)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scatter 64-bit integers (the finaliser of splitmix64)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
