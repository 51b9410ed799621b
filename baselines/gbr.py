"""The regression model of `GradientBoosting`: features, fitting, storing, and the predicted cell.

The features are the composition, the cell and the tightness of the contacts. They do not depend on
rotation or translation, and those of an axis are the same function for a, b and c, so that axes
that symmetry makes equal get the same answer.
"""

from __future__ import annotations

import math
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Element, Structure

from benchmarks.core import Geometry, UserError
from benchmarks.core.files import READ_ERRORS
from benchmarks.core.geometry import Floats, log_strain, strained
from benchmarks.core.symmetry import symmetry_dataset

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


TRUSTED = (
    "numpy.dtype",
    "sklearn._loss.link.IdentityLink",
    "sklearn._loss.link.Interval",
    "sklearn._loss.loss.HalfSquaredError",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
)
"""The types in the file, all of numpy and scikit-learn; any other is refused."""
SYMPREC = 0.01
"""Tolerance for the point group of the input [Å]."""


@dataclass(frozen=True, slots=True)
class BoostingSettings:
    """Hyperparameters, tuned on substitution/val."""

    max_iter: int = 800
    learning_rate: float = 0.04
    max_leaf_nodes: int = 31
    min_samples_leaf: int = 20
    l2_regularization: float = 1.0
    max_features: float = 0.3


@dataclass(frozen=True, slots=True)
class BoostingModel:
    """Three regressors, and the volumes of the elements for one of their features."""

    volume: Any
    """Predicts ln(V_f / V_i) from the features of the crystal."""
    axis: Any
    """Predicts ln(a_f / a_i) - ln(V_f / V_i) / 3 from the features of the crystal and an axis."""
    angle: Any
    """Predicts the change of the angle opposite the axis [°] from the same features."""
    elements: Floats
    """(N_ELEMENTS + 1,) ln(volume per atom) by the fractions of the elements; last the constant."""

    def lattices(self, structures: Sequence[Structure]) -> list[Floats]:
        """Predict the (3, 3) cell of each structure, in the orientation of the input [Å]."""
        if not structures:
            return []
        described = [_describe(structure) for structure in structures]
        crystal, axes = _tables([row for row, _ in described], self.elements)
        stretch = self.volume.predict(crystal)[:, None] / 3
        stretch = stretch + self.axis.predict(axes).reshape(-1, 3)
        turn = self.angle.predict(axes).reshape(-1, 3)
        cells = np.array([structure.lattice.parameters for structure in structures])
        cells = np.column_stack([cells[:, :3] * np.exp(stretch), cells[:, 3:] + turn])
        return [
            apply(cell, structure.lattice.matrix, rotations)
            for cell, structure, (_, rotations) in zip(cells, structures, described, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class _Row:
    crystal: Floats
    axes: Floats
    ln_volume: float


def _describe(structure: Structure) -> tuple[_Row, NDArray[np.int_]]:
    rotations = point_group(Geometry.of(structure))
    crystal, axes = of_cell(structure, len(rotations))
    return _Row(crystal, axes, np.log(structure.volume / len(structure))), rotations


def _tables(rows: Sequence[_Row], elements: Floats) -> tuple[Floats, Floats]:
    """Return the features of n crystals and of their 3n axes.

    The last feature of a crystal is the difference between the volume per atom that its elements
    have on average and its own (logarithms).
    """
    crystal = np.array([row.crystal for row in rows])
    expected = crystal[:, FRACTIONS] @ elements[:-1] + elements[-1]
    crystal = np.column_stack([crystal, expected - [row.ln_volume for row in rows]])
    axes = np.concatenate([row.axes for row in rows])
    return crystal, np.column_stack([np.repeat(crystal, 3, axis=0), axes])


def point_group(geometry: Geometry) -> NDArray[np.int_]:
    """Return the (n, 3, 3) rotations of the crystal, on columns of fractional coordinates."""
    found = symmetry_dataset(geometry, SYMPREC)
    if found is None:  # two atoms in one place, say; then nothing is known to be conserved
        return np.eye(3, dtype=int)[None]
    return np.unique(np.array(found.operations.rotations), axis=0)


def apply(parameters: Floats, lattice: Floats, rotations: NDArray[np.int_]) -> Floats:
    """Strain a lattice towards cell parameters as far as its point group allows.

    Args:
        parameters: (6,) wanted lengths [Å] and angles [°].
        lattice: (3, 3) row vectors [Å].
        rotations: (n, 3, 3) of the point group, on columns of fractional coordinates.

    Returns:
        (3, 3) row vectors: `lattice` times the exponential of a symmetric strain, which is the
        mean over the group of the logarithmic strain between the two cells.
    """
    strain = log_strain(lattice, _metric(parameters))
    cartesian = lattice.T @ rotations @ np.linalg.inv(lattice).T
    strain = (cartesian @ strain @ cartesian.transpose(0, 2, 1)).mean(axis=0)
    return strained(lattice, strain)


def _metric(parameters: Floats) -> Floats:
    """Return the metric tensor, (3, 3) scalar products of the cell vectors [Å^2]."""
    cosines = np.cos(np.radians(parameters[3:]))
    metric = np.eye(3)
    metric[[1, 0, 0], [2, 2, 1]] = metric[[2, 2, 1], [1, 0, 0]] = cosines
    product: Floats = metric * np.outer(parameters[:3], parameters[:3])
    return product


def fit(
    pairs: Sequence[tuple[Structure, Structure]],
    settings: BoostingSettings = BoostingSettings(),
    *,
    seed: int = 0,
) -> BoostingModel:
    """Fit on initial and final structures, sites in the same order, cells in the same setting."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    rows = [_describe(initial)[0] for initial, _ in pairs]
    cells = np.array([[s.lattice.parameters for s in pair] for pair in pairs])
    ln_volume = np.log([[s.volume / len(s) for s in pair] for pair in pairs])
    growth = ln_volume[:, 1] - ln_volume[:, 0]
    elements = _element_volumes(np.array([row.crystal for row in rows]), ln_volume[:, 1])
    crystal, axes = _tables(rows, elements)
    stretch = np.log(cells[:, 1, :3] / cells[:, 0, :3]) - growth[:, None] / 3
    turn = cells[:, 1, 3:] - cells[:, 0, 3:]

    def regressor(share: float) -> Any:
        fixed = {**asdict(settings), "max_iter": math.ceil(settings.max_iter * share)}
        return HistGradientBoostingRegressor(**fixed, early_stopping=False, random_state=seed)

    return BoostingModel(
        regressor(1.0).fit(crystal, growth),
        regressor(0.5).fit(axes, stretch.ravel()),
        # symmetry fixes nearly all angles
        regressor(0.1).fit(axes, turn.ravel()),
        elements,
    )


def _element_volumes(crystal: Floats, ln_volume: Floats) -> Floats:
    """Ridge regression of ln(volume per atom) on the fractions of the elements."""
    fractions = crystal[:, FRACTIONS]
    constant = ln_volume.mean()
    normal = fractions.T @ fractions + np.eye(fractions.shape[1])
    return np.append(np.linalg.solve(normal, fractions.T @ (ln_volume - constant)), constant)


def save(model: BoostingModel, path: Path) -> None:
    """Write a skops file, compressed."""
    from skops.io import dump

    parts = {name: getattr(model, name) for name in BoostingModel.__slots__}
    dump(parts, path, compression=zipfile.ZIP_DEFLATED, compresslevel=9)


def load(path: Path) -> BoostingModel:
    """Read a file of `save`; it can contain no code.

    Raises:
        UserError: If it is missing or damaged, or holds types other than `TRUSTED`.
    """
    from skops.io import get_untrusted_types
    from skops.io import load as read

    if not path.is_file():
        message = f"{path} is not there: fit it with `python -m baselines.train gbr --data PATH`"
        raise UserError(message)
    try:
        foreign = sorted(set(get_untrusted_types(file=path)) - set(TRUSTED))
    except READ_ERRORS as error:
        raise UserError(f"{path} is no file of `baselines.train gbr`, or is damaged") from error
    if foreign:
        message = f"{path} holds types that are not trusted: {', '.join(foreign)}"
        raise UserError(message)
    return BoostingModel(**read(path, trusted=list(TRUSTED)))
