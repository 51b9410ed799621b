"""The features of `gbr`: the composition, the cell, and the tightness of the contacts.

Everything is a function of the structure up to rotation and translation. The features of an axis
are the same function for a, b and c, so that axes that cannot be told apart get the same answer.
"""

from __future__ import annotations

import warnings
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Element, Structure

from benchmarks.core import Geometry

Floats = NDArray[np.float64]

PROPERTIES = (
    "X",
    "mendeleev_no",
    "row",
    "group",
    "atomic_mass",
    "molar_volume",
    "van_der_waals_radius",
    "melting_point",
    "ionization_energy",
    "electron_affinity",
    "average_cationic_radius",
    "average_anionic_radius",
)
N_ELEMENTS = 94
"""H to Pu: the elements that occur in materials databases and that pymatgen has data for."""
FRACTIONS = slice(4 * len(PROPERTIES) + 1, 4 * len(PROPERTIES) + 1 + N_ELEMENTS)
"""Columns of `of_cell` with the share of each element."""
CUTOFF = 6.0
"""Largest distance between atoms that can touch [Å]."""


@lru_cache(maxsize=1)
def _element_table() -> Floats:
    """Return (N_ELEMENTS + 1, n_properties) with row = atomic number; nan if a value is unknown."""
    table = np.full((N_ELEMENTS + 1, len(PROPERTIES)), np.nan)
    with warnings.catch_warnings():  # pymatgen warns of every value it lacks
        warnings.simplefilter("ignore")
        for z in range(1, N_ELEMENTS + 1):
            values = (getattr(Element.from_Z(z), name) for name in PROPERTIES)
            table[z] = [np.nan if value is None else float(value) for value in values]
    return table


@lru_cache(maxsize=1)
def _radii() -> Floats:
    """Return (3, N_ELEMENTS + 1): covalent radii, and r and k of pymatgen's DLS bond lengths [Å].

    For an element without bond lengths the covalent radius is used for r.
    """
    from ase.data import covalent_radii
    from pymatgen.core.structure_prediction.volume_predictor import bond_params

    radii = np.zeros((3, N_ELEMENTS + 1))
    radii[:2] = covalent_radii[: N_ELEMENTS + 1]
    for symbol, bond in bond_params.items():
        if Element(symbol).Z <= N_ELEMENTS:
            radii[1:, Element(symbol).Z] = float(bond["r"]), float(bond["k"])
    return radii


def fractions(geometry: Geometry) -> Floats:
    """Return the (N_ELEMENTS,) share of each element among the sites."""
    counts = np.bincount(geometry.numbers, minlength=N_ELEMENTS + 1)[1:]
    shares: Floats = counts / counts.sum()
    return shares


def composition(geometry: Geometry) -> Floats:
    """Return (4 n_properties + 1,): mean, spread, least and greatest value of each property."""
    numbers, counts = np.unique(geometry.numbers, return_counts=True)
    values = _element_table()[numbers]
    weights = counts[:, None] / counts.sum()
    mean = (values * weights).sum(axis=0)
    spread = np.sqrt((weights * (values - mean) ** 2).sum(axis=0))
    return np.concatenate([mean, spread, values.min(axis=0), values.max(axis=0), [len(numbers)]])


def contacts(structure: Structure, geometry: Geometry) -> tuple[Floats, Floats]:
    """Return the tightness of the contacts and their directions.

    Returns:
        (7,) logarithms of the smallest distances over sums of radii (least and mean over sites,
        for covalent and for DLS radii), of those between unlike sites, and the mean number of
        contacts; (3,) mean squared cosine between a contact and a, b, c. nan without neighbours.
    """
    center, other, image, distance = structure.get_neighbor_list(CUTOFF)
    if len(center) == 0:
        return np.full(7, np.nan), np.full(3, np.nan)
    numbers, n_sites = geometry.numbers.astype(int), len(geometry.numbers)
    covalent, r, k = _radii()
    polarity = np.nan_to_num(np.std(_element_table()[numbers, 0]))
    z1, z2 = numbers[center], numbers[other]
    ratios = distance / (covalent[z1] + covalent[z2])
    dls = distance / (r[z1] + r[z2] + (k[z1] + k[z2]) * polarity)
    unlike = np.where(z1 == z2, np.inf, ratios)
    tight = _least(ratios, center, n_sites)
    values = [*_summary(tight), *_summary(_least(dls, center, n_sites))]
    values += _summary(_least(unlike, center, n_sites))
    touching = ratios < 1.1 * tight[center]
    bonds = image[touching] + (geometry.frac_coords[other] - geometry.frac_coords[center])[touching]
    axes = geometry.lattice / np.linalg.norm(geometry.lattice, axis=1, keepdims=True)
    cosines = (bonds @ geometry.lattice) @ axes.T / distance[touching, None]
    return np.array([*values, touching.sum() / n_sites]), (cosines**2).mean(axis=0)


def _least(ratios: Floats, center: NDArray[np.intp], n_sites: int) -> Floats:
    least = np.full(n_sites, np.inf)
    np.minimum.at(least, center, ratios)
    return least


def _summary(per_site: Floats) -> list[float]:
    with np.errstate(invalid="ignore"):
        values = np.log(np.where(np.isfinite(per_site), per_site, np.nan))
    known = values[np.isfinite(values)]
    return [float(known.min()), float(known.mean())] if len(known) else [np.nan, np.nan]


def of_cell(structure: Structure, order: int) -> tuple[Floats, Floats]:
    """Return all features except the learned volume of the composition.

    Args:
        structure: Ordered.
        order: Number of operations of its point group.

    Returns:
        (n_features,) for the crystal and (3, n_axis_features) for a, b and c.
    """
    geometry = Geometry.of(structure)
    volume = abs(np.linalg.det(geometry.lattice)) / len(geometry.numbers)
    touch, alignment = contacts(structure, geometry)
    size = [np.log(volume), len(geometry.numbers), order]
    crystal = np.concatenate([composition(geometry), fractions(geometry), touch, size])
    return crystal, _axes(np.array(structure.lattice.parameters), alignment, volume)


def _axes(parameters: Floats, alignment: Floats, volume: float) -> Floats:
    """Return (3, 8): length of each axis, of the others, its angles, the contacts along it."""
    lengths, angles = np.log(parameters[:3] / np.cbrt(volume)), parameters[3:]
    rows = []
    for axis in range(3):
        others = [other for other in range(3) if other != axis]
        rows.append(
            [
                lengths[axis],
                *np.sort(lengths[others]),
                angles[axis],
                *np.sort(angles[others]),
                alignment[axis],
                np.sort(alignment[others])[0],
            ]
        )
    return np.array(rows)
