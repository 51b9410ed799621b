"""Prototype crystals from a space group, the occupied positions, and tables of sizes.

Shapes (ratios of axes and free coordinates) are those of the compound that names the prototype,
as listed by AFLOW (Mehl et al., Comput. Mater. Sci. 136, S1 (2017)); what is left, the size of the
cell, follows from ionic or covalent radii or from the volumes of the elements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.core import Geometry


class Size(StrEnum):
    """The table that gives the size of the cell."""

    IONIC = "ionic"
    """Nearest unlike neighbours touch: average ionic radii (Shannon)."""
    COVALENT = "covalent"
    """Nearest neighbours touch: covalent radii (Cordero)."""
    METALLIC = "metallic"
    """Molar volumes of the elements add up."""


@dataclass(frozen=True, slots=True)
class Prototype:
    """A kind of crystal up to its elements and its size."""

    group: int
    """Space group."""
    sites: tuple[tuple[int, float, float, float], ...]
    """Index of the element in the compound, and the fractional coordinates of one of its sites."""
    size: Size
    c: float = 1.0
    """c/a."""
    b: float = 1.0
    """b/a."""
    gamma: float = 90.0
    """Angle of a and b [°]."""

    def crystal(self, symbols: Sequence[str]) -> Geometry:
        """The primitive cell of a compound.

        Args:
            symbols: Its elements, in the order in which `sites` counts them.
        """
        from ase.spacegroup import crystal

        atoms = crystal(
            [symbols[which] for which, *_ in self.sites],
            [place for _, *place in self.sites],
            spacegroup=self.group,
            cellpar=[1.0, self.b, self.c, 90, 90, self.gamma],
            primitive_cell=True,
        )
        # ASE's primitive cells carry rounding of 1e-16 that other machines may round otherwise.
        lattice = _length(atoms, self.size) * atoms.cell.array.round(10)
        numbers = atoms.numbers.astype(np.int16)
        return Geometry(lattice.round(8) + 0.0, atoms.get_scaled_positions().round(8), numbers)


_I, _C, _M = Size.IONIC, Size.COVALENT, Size.METALLIC
_T = 1 / 3, 2 / 3
PROTOTYPES: Final[dict[str, Prototype]] = {
    "A1": Prototype(225, ((0, 0, 0, 0),), _M),
    "A2": Prototype(229, ((0, 0, 0, 0),), _M),
    "A3": Prototype(194, ((0, *_T, 0.25),), _M, 1.6, gamma=120),
    "A4": Prototype(227, ((0, 0, 0, 0),), _C),
    "A7": Prototype(166, ((0, 0, 0, 0.233),), _C, 2.65, gamma=120),
    "A8": Prototype(152, ((0, 0.24, 0, 1 / 3),), _C, 1.2, gamma=120),
    "A11": Prototype(64, ((0, 0, 0.155, 0.081),), _M, 1.0, 1.69),
    "B1": Prototype(225, ((0, 0, 0, 0), (1, 0.5, 0.5, 0.5)), _I),
    "B1c": Prototype(225, ((0, 0, 0, 0), (1, 0.5, 0.5, 0.5)), _M),
    "B2": Prototype(221, ((0, 0, 0, 0), (1, 0.5, 0.5, 0.5)), _I),
    "B2m": Prototype(221, ((0, 0, 0, 0), (1, 0.5, 0.5, 0.5)), _M),
    "B3": Prototype(216, ((0, 0, 0, 0), (1, 0.25, 0.25, 0.25)), _C),
    "B4": Prototype(186, ((0, *_T, 0), (1, *_T, 0.375)), _C, 1.63, gamma=120),
    "B8": Prototype(194, ((0, 0, 0, 0), (1, *_T, 0.25)), _M, 1.35, gamma=120),
    "B11": Prototype(129, ((0, 0, 0.5, 0.10), (1, 0, 0.5, 0.65)), _M, 1.9),
    "B33": Prototype(63, ((0, 0, 0.146, 0.25), (1, 0, 0.44, 0.25)), _M, 0.97, 2.64),
    "Bh": Prototype(187, ((0, 0, 0, 0), (1, *_T, 0.5)), _M, 0.98, gamma=120),
    "C1": Prototype(225, ((0, 0, 0, 0), (1, 0.25, 0.25, 0.25)), _I),
    "C1b": Prototype(216, ((0, 0.5, 0.5, 0.5), (1, 0.25, 0.25, 0.25), (2, 0, 0, 0)), _M),
    "C6": Prototype(164, ((0, 0, 0, 0), (1, *_T, 0.25)), _I, 1.62, gamma=120),
    "C11b": Prototype(139, ((0, 0, 0, 0), (1, 0, 0, 0.335)), _M, 2.45),
    "C15": Prototype(227, ((0, 0, 0, 0), (1, 0.625, 0.625, 0.625)), _M),
    "C32": Prototype(191, ((0, 0, 0, 0), (1, *_T, 0.5)), _M, 1.07, gamma=120),
    "D09": Prototype(221, ((0, 0, 0, 0), (1, 0.5, 0, 0)), _I),
    "D52": Prototype(164, ((0, 0, 0, 0), (1, *_T, 0.63), (2, *_T, 0.24)), _M, 1.6, gamma=120),
    "E21": Prototype(221, ((0, 0, 0, 0), (1, 0.5, 0.5, 0.5), (2, 0.5, 0.5, 0)), _I),
    "GeTe": Prototype(160, ((0, 0, 0, 0), (1, 0, 0, 0.474)), _I, 2.56, gamma=120),
    "L10": Prototype(123, ((0, 0, 0, 0), (1, 0.5, 0.5, 0.5)), _M, 1.35),
    "L12": Prototype(221, ((0, 0, 0.5, 0.5), (1, 0, 0, 0)), _M),
    "L21": Prototype(225, ((0, 0.25, 0.25, 0.25), (1, 0.5, 0.5, 0.5), (2, 0, 0, 0)), _M),
}
"""The prototypes by Strukturbericht symbol or by the compound that names them. `B1c` and `B2m` are
`B1` and `B2` with another table of sizes."""


def _length(atoms: Any, size: Size) -> float:
    """The axis a [Å] of a crystal that is built with a = 1."""
    from pymatgen.core import Element

    if size is Size.METALLIC:
        volumes = [float(Element(x).molar_volume) / 0.602214076 for x in atoms.symbols]
        return float(np.cbrt(sum(volumes) / atoms.get_volume()))
    return float(np.exp(np.mean(np.log(_contacts(atoms, size)))))


def _contacts(atoms: Any, size: Size) -> NDArray[np.float64]:
    """The axis a with which each site touches its nearest neighbour: (n_sites,) [Å]."""
    from ase.neighborlist import neighbor_list

    i, j, distances = neighbor_list("ijd", atoms, 1.5 * float(atoms.cell.lengths().max()))
    radii = _radii(atoms, size)
    if size is Size.IONIC:
        unlike = atoms.numbers[i] != atoms.numbers[j]
        i, j, distances = i[unlike], j[unlike], distances[unlike]
    lengths = (radii[i] + radii[j]) / distances
    return np.array([lengths[i == site].max() for site in range(len(atoms))])


def _radii(atoms: Any, size: Size) -> NDArray[np.float64]:
    """Radius of each site [Å]; an ion is an anion if its element forms any in the table."""
    from ase.data import covalent_radii
    from pymatgen.core import Element

    if size is Size.COVALENT:
        return np.array([covalent_radii[z] for z in atoms.numbers])
    elements = [Element(symbol) for symbol in atoms.symbols]
    return np.array(
        [float(x.average_anionic_radius or x.average_cationic_radius) for x in elements]
    )
