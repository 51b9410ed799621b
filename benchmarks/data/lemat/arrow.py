"""Arrow columns of numbers, vectors, element symbols and species as numpy arrays."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


def lengths(lists: Any) -> NDArray[np.int64]:
    """Number of entries of each list of an Arrow list column; a null has none."""
    return numpy(pc.fill_null(pc.list_value_length(lists), 0)).astype(np.int64)


def numpy(column: Any) -> NDArray[Any]:
    """An Arrow array of numbers or booleans as numpy; nulls become NaN."""
    return np.asarray(column.to_numpy(zero_copy_only=False))


def array(column: Any) -> Any:
    """One Arrow array from a column that may be chunked."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def row_sums(values: NDArray[Any], counts: NDArray[np.int64]) -> NDArray[Any]:
    """Sums over consecutive runs of `values`: (sum(counts),) -> (len(counts),).

    Unsigned integers wrap around, which the hashes want.
    """
    total = np.concatenate([np.zeros(1, values.dtype), np.cumsum(values, dtype=values.dtype)])
    ends = np.cumsum(counts)
    return np.asarray(total[ends] - total[ends - counts])


def vectors(lists: Any, counts: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Flatten a column of lists of 3-vectors.

    Args:
        lists: Arrow column, list<list<double>>, one list of vectors per row.
        counts: (n_rows,) how many vectors each row should have.

    Returns:
        (sum(counts), 3) vectors, NaN where a row is null or of another shape or has nulls
        inside; (n_rows,) which rows have the right shape.
    """
    lists = array(lists)
    shaped = (lengths(lists) == counts) & numpy(lists.is_valid()).astype(bool)
    inner = lengths(pc.list_flatten(lists))
    shaped &= row_sums((inner != 3).astype(np.int64), lengths(lists)) == 0
    result = np.full((int(counts.sum()), 3), np.nan)
    flat = pc.list_flatten(pc.list_flatten(lists.filter(pa.array(shaped))))
    result[np.repeat(shaped, counts)] = numpy(flat).reshape(-1, 3)
    return result, shaped


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
    """1 if every species of the JSON text is one element at full occupation, or if it is null."""
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
