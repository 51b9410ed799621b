"""Reduced compositions as text: `O3SrTi`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from math import gcd


def reduced_composition(numbers: Iterable[int]) -> str:
    """Symbols in alphabetical order with reduced counts: `O3SrTi`.

    Args:
        numbers: Atomic numbers of the sites, in any order.
    """
    from ase.data import chemical_symbols

    symbols = [chemical_symbols[z] for z in numbers]
    counts = {symbol: symbols.count(symbol) for symbol in sorted(set(symbols))}
    shared = gcd(*counts.values())
    return "".join(
        f"{symbol}{count // shared if count > shared else ''}" for symbol, count in counts.items()
    )


def elements(composition: str) -> list[str]:
    """The symbols of a reduced composition: `O3SrTi` -> O, Sr, Ti."""
    return re.findall(r"[A-Z][a-z]?", composition)
