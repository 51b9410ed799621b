"""Texts of files, their words as numbers and elements, and what a crystal cannot have."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import gemmi
import numpy as np
from ase.io.formats import get_compression
from numpy.typing import NDArray

from benchmarks.core import Geometry
from benchmarks.data.structures import StructureError

MIN_VOLUME = 1e-3
"""Cells smaller than this [Å³] are damaged."""
FULL = 0.01
"""Occupancies this close to 1 are full: a refinement ends at 0.998."""
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eEdD][+-]?\d+)?")
"""Also Fortran's `1.5D-3`, but not `nan` and not Python's `1_000`."""


def text_of(path: Path, size: int = -1) -> str:
    """The text of a file, which may be compressed, or of its first `size` bytes.

    Raises:
        StructureError: It is a folder, it cannot be opened, or its compression is damaged.
    """
    openers = {"gz": gzip.open, "bz2": bz2.open, "xz": lzma.open}
    if path.is_dir():
        raise StructureError("a folder, not a file")
    opened: Callable[[Path], io.BufferedIOBase] = openers.get(  # type: ignore[assignment]
        str(get_compression(path.name)[1]), lambda file: file.open("rb")
    )
    try:
        with opened(path) as file:
            data = file.read(size)
    except FileNotFoundError as error:
        raise StructureError("no such file") from error
    except (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile) as error:
        raise StructureError("its compression is damaged or cut short") from error
    except OSError as error:
        raise StructureError(f"cannot be opened: {error.strerror or 'damaged'}") from error
    return data.decode("utf-8-sig", "replace")


def numbers(words: Sequence[str], count: int, where: str) -> NDArray[np.float64]:
    """Read `count` numbers from the first words.

    Args:
        words: Of a line; what follows the numbers is a comment.
        count: How many there have to be.
        where: What they are, for the message: `line 7, a coordinate`.

    Raises:
        StructureError: There are fewer words, or a word is no finite number.
    """
    if len(words) < count:
        raise StructureError(f"{where}: {count} numbers are needed, {len(words)} stand there")
    values = np.empty(count)
    for i, word in enumerate(words[:count]):
        if not _NUMBER.fullmatch(word):
            raise StructureError(f"{where}: {word!r} is no number")
        values[i] = float(re.sub("[dD]", "e", word))
    if not np.isfinite(values).all():
        raise StructureError(f"{where}: a number is too large")
    return values


def element(symbol: str) -> int:
    """Atomic number of a symbol, 0 for none; deuterium and tritium are hydrogen."""
    if symbol in ("D", "T"):
        return 1
    known = symbol.isascii() and symbol.isalpha() and symbol == symbol.capitalize()
    number = gemmi.Element(symbol).atomic_number if known else 0
    return number if gemmi.Element(number).name == symbol else 0


def crystal(
    lattice: NDArray[np.float64], positions: NDArray[np.float64], species: Iterable[int]
) -> Geometry:
    """The geometry of Cartesian positions.

    Args:
        lattice: (3, 3) row vectors [Å].
        positions: (n_sites, 3) [Å].
        species: (n_sites,) atomic numbers.

    Raises:
        StructureError: The cell has no volume.
    """
    check_lattice(lattice)
    fractional = np.asarray(np.linalg.solve(lattice.T, positions.T).T, dtype=np.float64)
    return Geometry(lattice, fractional, atomic_numbers(species))


def atomic_numbers(species: Iterable[int]) -> NDArray[np.int16]:
    """(n_sites,) as `Geometry` has them."""
    return np.array(list(species), dtype=np.int16)


def check_lattice(lattice: NDArray[np.float64]) -> None:
    """Refuse a cell without a volume, or one that is no number.

    Raises:
        StructureError: It is such a cell.
    """
    volume = abs(float(np.linalg.det(lattice)))
    if not (np.isfinite(volume) and volume > MIN_VOLUME):
        raise StructureError(f"its cell vectors span no volume ({volume:g} Å³)")


def check_occupancies(stated: object) -> None:
    """Refuse a crystal that is not ordered.

    Args:
        stated: Occupancies of the sites, or as ASE keeps those of a CIF, a dict with a dict of
            occupancies by element for each site; None for none.

    Raises:
        StructureError: A site is shared or partly empty.
    """
    if isinstance(stated, dict):
        shares = [list(kinds.values()) for kinds in stated.values() if isinstance(kinds, dict)]
        values = [value for share in shares for value in share]
    else:
        values = [] if stated is None else np.ravel(np.asarray(stated)).tolist()
    for value in values:
        if not (isinstance(value, int | float) and abs(value - 1) <= FULL):
            raise StructureError(f"an occupancy of {value}: only ordered crystals can be read")
