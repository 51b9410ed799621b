"""The columns of one sample: (initial, reference, prediction) -> numbers, pure functions."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

import numpy as np

from benchmarks.core import ANSWERED, SCORED, Geometry, Status
from benchmarks.core.geometry import (
    Floats,
    assigned_rmse,
    bond_errors,
    cell_parameters,
    displacements,
    free_angles,
    strain,
    symmetry,
)
from benchmarks.metrics.validity import LADDER, validity

EVALUATOR: Final = "1"
"""Raised whenever a column changes its meaning, not for a new column; stored scores of another
version are not used."""

PARAMETERS: Final = ("a", "b", "c", "alpha", "beta", "gamma")
SWAPPED: Final = 0.1
"""A structure has swapped atoms when assigning them lowers its RMSE by more than this [Å]."""
CHANGED: Final = 0.001
"""An error is improved or harmed when it differs from identity's by more than this [Å]."""
DISPLACEMENT_GRID: Final = np.arange(10, 501) / 1000
STRAIN_GRID: Final = np.arange(1, 101) / 1000
SYMPREC: Final = MappingProxyType({"": 1e-2, "_tight": 1e-5})
"""Suffix of the column -> tolerance of the symmetry search [Å]."""


def score(
    initial: Geometry, reference: Geometry, prediction: Geometry | None, status: Status
) -> dict[str, float]:
    """Compute the cheap columns of one sample; nan where a column does not apply.

    A prediction that fails the validity ladder is not scored, whatever its status says, and one
    of a failed status is not scored, whatever it looks like.

    Args:
        initial: The structure that the relaxer was given.
        reference: The DFT-relaxed structure, with the same sites in the same order.
        prediction: The structure that the relaxer returned; None if it returned nothing.
        status: The outcome that the relaxer reported.

    Returns:
        `COLUMNS`: lengths in Å, angles in °, volumes in %, rungs and flags 0 or 1.
    """
    row = dict.fromkeys(COLUMNS, np.nan)
    row["n_sites"] = float(len(reference.numbers))
    row |= _identity_errors(initial, reference)
    if status in ANSWERED:
        row |= validity(initial, prediction)
    row["scored"] = float(status in SCORED and row["valid_distance"] == 1.0)
    if prediction is not None and row["scored"]:
        row |= _cell_errors(reference.lattice, prediction.lattice)
        row |= _position_errors(reference, prediction)
        row["score"] = (row["adwt"] + row["strain_awt"]) / 2
        for part in ("lattice", "position"):
            gain = row[f"identity_{part}_error"] - row[f"{part}_error"]
            row[f"{part}_improved"] = float(gain > CHANGED)
            row[f"{part}_harmed"] = float(gain < -CHANGED)
    return row


def _identity_errors(initial: Geometry, reference: Geometry) -> dict[str, float]:
    """Compute the errors of the unchanged initial structure, and if there is room to improve."""
    errors = np.abs(cell_parameters(initial.lattice) - cell_parameters(reference.lattice))
    lattice = float(errors[:3].mean())
    position = float(np.linalg.norm(displacements(reference, initial), axis=1).mean())
    return {
        "identity_lattice_error": lattice,
        "identity_volume_error": _volume_error(reference.lattice, initial.lattice),
        "identity_position_error": position,
        "lattice_improvable": float(lattice > CHANGED),
        "position_improvable": float(position > CHANGED),
    }


def _volume_error(reference: Floats, lattice: Floats) -> float:
    """Relative error of the volume [%]."""
    return float(abs(abs(np.linalg.det(lattice) / np.linalg.det(reference)) - 1) * 100)


def _cell_errors(reference: Floats, lattice: Floats) -> dict[str, float]:
    errors = np.abs(cell_parameters(lattice) - cell_parameters(reference))
    stretch = strain(reference, lattice)
    return {
        **{f"{name}_error": float(x) for name, x in zip(PARAMETERS, errors, strict=True)},
        **{f"{name}_square": float(x**2) for name, x in zip(PARAMETERS, errors, strict=True)},
        "lattice_error": float(errors[:3].mean()),
        "volume_error": _volume_error(reference, lattice),
        "metric_tensor_error": float(np.abs(lattice @ lattice.T - reference @ reference.T).mean()),
        "strain": stretch,
        "strain_awt": _share_above(STRAIN_GRID, stretch),
    }


def _share_above(grid: Floats, error: float) -> float:
    """Count the share of thresholds above the error: one sample's area under its curve."""
    return 1 - int(np.searchsorted(grid, error, side="right")) / len(grid)


def _position_errors(reference: Geometry, prediction: Geometry) -> dict[str, float]:
    moved = displacements(reference, prediction)
    norms = np.linalg.norm(moved, axis=1)
    mean, square = float(norms.mean()), float((norms**2).mean())
    assigned = assigned_rmse(reference, prediction, moved)
    bonds = bond_errors(reference, prediction.lattice, moved)
    gap = np.sqrt(square) - assigned
    return {
        "position_error": mean,
        "position_square": square,
        "position_max": float(norms.max()),
        "component_error": float(np.abs(moved).mean()),
        "component_square": square / 3,
        "assigned_square": assigned**2,
        "swap_gap": float(gap),
        "swapped": float(gap > SWAPPED),
        "adwt": _share_above(DISPLACEMENT_GRID, mean),
        "bond_error": float(bonds.mean()) if len(bonds) else np.nan,
    }


def score_slow(initial: Geometry, reference: Geometry, prediction: Geometry) -> dict[str, float]:
    """Compute the columns that take milliseconds: structure matching and symmetry.

    `rmsd` is pymatgen's `StructureMatcher(stol=1, scale=False)`, in units of (V/n)^(1/3) and 1.0
    without a match, as Matbench Discovery reports it. It does not see the cell. Symmetry is lost
    (gained) where the prediction has fewer (more) operations per cell than the reference, and
    matches where number of operations and space group type agree.

    Args:
        initial: The structure that the relaxer was given.
        reference: The DFT-relaxed structure.
        prediction: A structure that `score` has scored.

    Returns:
        `SLOW_COLUMNS`.
    """
    from pymatgen.analysis.structure_matcher import StructureMatcher

    _, rotations = symmetry(initial, SYMPREC[""])
    free = free_angles(initial.lattice, rotations)
    row = {f"{name}_free": float(x) for name, x in zip(PARAMETERS[3:], free, strict=True)}
    for suffix, symprec in SYMPREC.items():
        wanted, wanted_rotations = symmetry(reference, symprec)
        found, found_rotations = symmetry(prediction, symprec)
        surplus = len(found_rotations) - len(wanted_rotations)
        row[f"symmetry_match{suffix}"] = float(found == wanted and surplus == 0)
        row[f"symmetry_lost{suffix}"] = float(surplus < 0)
        row[f"symmetry_gained{suffix}"] = float(surplus > 0)
    matcher = StructureMatcher(stol=1.0, scale=False)
    match = matcher.get_rms_dist(reference.structure(), prediction.structure())
    row["rmsd"] = 1.0 if match is None else float(match[0])
    row["matched"] = float(match is not None)
    return row


COLUMNS: Final = (
    "n_sites",
    "scored",
    *LADDER,
    *(f"{name}_error" for name in PARAMETERS),
    *(f"{name}_square" for name in PARAMETERS),
    *("lattice_error", "volume_error", "metric_tensor_error", "strain", "strain_awt"),
    *("position_error", "position_square", "position_max", "component_error", "component_square"),
    *("assigned_square", "swap_gap", "swapped", "adwt", "bond_error", "score"),
    *("identity_lattice_error", "identity_volume_error", "identity_position_error"),
    *("lattice_improvable", "lattice_improved", "lattice_harmed"),
    *("position_improvable", "position_improved", "position_harmed"),
)
"""The columns that `score` returns, in order."""
SLOW_COLUMNS: Final = (
    *("alpha_free", "beta_free", "gamma_free"),
    *(f"symmetry_{kind}{suffix}" for suffix in SYMPREC for kind in ("match", "lost", "gained")),
    *("rmsd", "matched"),
)
"""The columns that `score_slow` returns, in order."""
