"""Read extended XYZ files and ASE trajectories.

Neither format names its functional. Energies, forces and stress are those of the attached
calculator, as `ase.io` reads them (keys `energy`, `forces`, `stress`).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.data.convert.conventions import ASE_STRESS
from benchmarks.data.convert.relaxation import (
    ConversionError,
    Relaxation,
    Step,
    most_common,
    numbers,
)
from benchmarks.data.lemat.quarantine import Reason

_ENERGIES = ("free_energy", "energy")
"""The kinds of energy, the best first: forces are the slope of the free energy."""


def read_extxyz(path: Path) -> Relaxation:
    """All frames of an extended XYZ file, in order."""
    return _read(path, "extxyz")


def read_traj(path: Path) -> Relaxation:
    """All frames of an ASE trajectory, in order."""
    return _read(path, "traj")


def _read(path: Path, form: str) -> Relaxation:
    from ase.constraints import FixAtoms, FixCartesian, FixScaled
    from ase.io import read
    from ase.stress import voigt_6_to_full_3x3_stress

    images = read(path, index=":", format=form)
    results = [image.calc.results if image.calc else {} for image in images]
    kind = most_common(_ENERGIES, results)
    fixing = FixAtoms | FixCartesian | FixScaled
    steps = []
    for atoms, found in zip(images, results, strict=True):
        if not atoms.pbc.all():
            raise ConversionError(Reason.NOT_PERIODIC)
        stress = found.get("stress")
        if stress is not None and np.shape(stress) == (6,):
            stress = voigt_6_to_full_3x3_stress(stress)
        energy = numbers(found.get(kind), ())
        step = Step(
            symbols=tuple(atoms.get_chemical_symbols()),
            lattice=atoms.cell.array,
            positions=atoms.positions,
            energy=None if energy is None else float(energy),
            forces=numbers(found.get("forces"), (len(atoms), 3)),
            stress=numbers(stress, (3, 3), ASE_STRESS),
        )
        steps.append(step)
    return Relaxation(
        steps=steps,
        held_sites=any(isinstance(each, fixing) for image in images for each in image.constraints),
    )
