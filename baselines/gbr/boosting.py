"""The regression model of `GradientBoosting`: fitting, storing, and the predicted cell."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Structure

from baselines.gbr import features
from benchmarks.core import Geometry, UserError
from benchmarks.core.geometry import Floats, log_strain, strained
from benchmarks.core.symmetry import symmetry_dataset

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
    crystal, axes = features.of_cell(structure, len(rotations))
    return _Row(crystal, axes, np.log(structure.volume / len(structure))), rotations


def _tables(rows: Sequence[_Row], elements: Floats) -> tuple[Floats, Floats]:
    """Return the features of n crystals and of their 3n axes.

    The last feature of a crystal is the difference between the volume per atom that its elements
    have on average and its own (logarithms).
    """
    crystal = np.array([row.crystal for row in rows])
    expected = crystal[:, features.FRACTIONS] @ elements[:-1] + elements[-1]
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
    fractions = crystal[:, features.FRACTIONS]
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
        UserError: If it is missing, or holds types other than `TRUSTED`.
    """
    from skops.io import get_untrusted_types
    from skops.io import load as read

    if not path.is_file():
        message = f"{path} is not there: fit it with `python -m baselines.train gbr --data PATH`"
        raise UserError(message)
    foreign = sorted(set(get_untrusted_types(file=path)) - set(TRUSTED))
    if foreign:
        message = f"{path} holds types that are not trusted: {', '.join(foreign)}"
        raise UserError(message)
    return BoostingModel(**read(path, trusted=list(TRUSTED)))
