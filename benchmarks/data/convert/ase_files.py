"""Read extended XYZ files and ASE trajectories.

Neither format names its functional. Energies, forces and stress are those of the attached
calculator, as `ase.io` reads them (keys `energy`, `forces`, `stress`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.core.files import READ_ERRORS
from benchmarks.data.convert.conventions import ASE_STRESS
from benchmarks.data.convert.relaxation import (
    ConversionError,
    Relaxation,
    Step,
    largest_force,
    most_common,
    numbers,
)
from benchmarks.data.convert.xyz_frames import cut_frames
from benchmarks.data.lemat.quarantine import Reason

if TYPE_CHECKING:
    from ase import Atoms

_ENERGIES = ("free_energy", "energy")
"""The kinds of energy, the best first: forces are the slope of the free energy."""
_HARMLESS = ("FixSymmetry", "FixCom")
"""Constraints that a crystal's free relaxation may have: they take no state from it that the start
does not exclude by symmetry."""
_HELD = ("fixed", "frozen", "fix", "constrained")
_FREE = ("move_mask", "movable", "moveable", "selective_dynamics")
"""Columns of an extended XYZ file that say for each site whether it is held, or is free."""
_VELOCITIES = ("vel", "velo", "velocity", "velocities", "momenta", "momentum")
_DYNAMICS = ("md_step", "md_type", "ensemble")
_KINETIC = ("kinetic_energy", "ekin", "e_kin", "kinetic")
_TEMPERATURES = ("temperature", "temp", "temperature_k")
_OUTSIDE = ("electric_field", "efield", "external_field", "external_pressure", "scalar_pressure")
"""Keys of an extended XYZ file that stand for molecular dynamics or for something outside."""
_CALCULATORS = ("calculator", "calc", "potential")
"""Keys of an extended XYZ file that name what the energies are of."""
_NO_DFT = (
    *("chgnet", "mace", "m3gnet", "megnet", "matgl", "pescalculator", "sevennet", "nequip"),
    *("allegro", "orb", "fairchem", "ocpcalculator", "mattersim", "grace", "pace", "dpcalculator"),
    *("deepmd", "deeppot", "torchani", "schnet", "spkcalculator", "alignn", "nep", "gap", "aml"),
    *("lammps", "kim", "eam", "lennardjones", "morse", "tersoff", "gulp", "dftb", "xtb", "tblite"),
    *("dftd3", "dftd4", "sumcalculator", "mixing"),
)
"""Beginnings of the names of ASE calculators whose energies are not those of DFT alone: potentials,
tight binding, dispersion corrections and sums."""


def read_extxyz(path: Path) -> Relaxation:
    """All frames of an extended XYZ file, in order."""
    from ase.io.extxyz import read_xyz

    frames, unfinished = cut_frames(path)
    images = []
    for number, frame in enumerate(frames):
        try:
            images += read_xyz(StringIO(frame.text), index=slice(None))
        except READ_ERRORS as error:
            what = "not in the format of extended XYZ"
            if isinstance(error, KeyError) and error.args:
                what = f"{error.args[0]!r} is no element"
            elif word := re.search(r"could not convert string to float: (.+)", str(error)):
                what = f"{word[1]} stands where a number belongs"
            where = f"frame {number}, from line {frame.line}"
            raise ConversionError(f"not readable as extxyz: {where}: {what}") from error
    return _relaxation(images, unfinished=unfinished)


def read_traj(path: Path) -> Relaxation:
    """All frames of an ASE trajectory, in order.

    Raises:
        ConversionError: Its header says that it is no optimisation.
    """
    from ase.io.trajectory import TrajectoryReader, VersionTooOldError

    try:
        with TrajectoryReader(path) as trajectory:
            header = trajectory.description if isinstance(trajectory.description, dict) else {}
            images = [trajectory[i] for i in range(len(trajectory))]
    except VersionTooOldError as error:
        raise ConversionError("not readable as traj: written by a newer version of ASE") from error
    kind = str(header.get("type") or "optimization")
    if kind != "optimization":
        raise ConversionError(f"not a relaxation: its header says {kind}")
    relaxation = _relaxation(images)
    stopped = _stopped(header, relaxation.steps)
    if stopped and not relaxation.constraint:
        return replace(relaxation, unfinished=stopped)
    return relaxation


def _stopped(header: Mapping[str, Any], steps: Sequence[Step]) -> str:
    """What shows that an optimiser of ASE did not reach its criterion; empty if nothing does."""
    force = largest_force(steps[-1]) if steps else None
    criterion, most, interval = (header.get(key) for key in ("fmax", "max_steps", "interval"))
    if force is None or not isinstance(criterion, float | int) or force <= criterion:
        return ""
    left = f"with forces of {force:.3g} eV/Å, where fmax was {criterion}"
    if isinstance(most, int) and isinstance(interval, int) and (len(steps) - 1) * interval >= most:
        return f"{most} steps of the optimiser were reached {left}"
    # Between two frames it may have reached the criterion; kept symmetry changes forces a little.
    return f"the optimiser stopped {left}" if interval == 1 and force > 1.5 * criterion else ""


def _relaxation(images: Sequence[Atoms], unfinished: str = "") -> Relaxation:
    from ase.stress import voigt_6_to_full_3x3_stress

    for number, image in enumerate(images):
        _check_calculation(image, number)
    _check_dynamics(images)
    results = [image.calc.results if image.calc else {} for image in images]
    kind = most_common(_ENERGIES, results)
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
    constraint = next(filter(None, map(_constraint, images)), "")
    return Relaxation(steps=steps, constraint=constraint, unfinished=unfinished)


def _check_calculation(image: Atoms, number: int) -> None:
    """Check that energies are those of DFT in vacuum, as far as the frame tells."""
    names = [getattr(image.calc, "name", None), *map(image.info.get, _CALCULATORS)]
    for name in (str(name or "").lower() for name in names):
        if name.startswith(_NO_DFT):
            raise ConversionError(f"energies of the calculator {name}, which is not DFT alone")
    for key, value in image.info.items():
        if key.lower() in _OUTSIDE and np.any(value):
            raise ConversionError(f"relaxed under {key} = {value}: frame {number}")


def _check_dynamics(images: Sequence[Atoms]) -> None:
    """Check that no frame says that it is one of molecular dynamics."""
    temperatures = set()
    for number, image in enumerate(images):
        columns = image.arrays.items()
        moving = {key: values for key, values in columns if key.lower() in _VELOCITIES}
        known = {key.lower(): value for key, value in image.info.items()}
        if any(np.abs(values).max(initial=0) > 1e-8 for values in moving.values()):
            raise ConversionError(f"not a relaxation: the sites of frame {number} have velocities")
        for key in (*_DYNAMICS, *_KINETIC):
            if known.get(key):
                raise ConversionError(f"not a relaxation: frame {number} has {key} = {known[key]}")
        temperatures |= {str(known[key]) for key in _TEMPERATURES if key in known}
    if len(temperatures) > 1:
        raise ConversionError("not a relaxation: the temperature changes from frame to frame")


def _constraint(image: Atoms) -> str:
    """What is held fixed in a frame, in words; empty if nothing is known to be."""
    for constraint in image.constraints:
        name = type(constraint).__name__
        mask, index = getattr(constraint, "mask", True), getattr(constraint, "index", (0,))
        if name not in _HARMLESS and np.any(mask) and np.size(index):
            return f"some sites were held fixed: {name}"
    for columns, held in ((_HELD, True), (_FREE, False)):
        for name in columns:
            values: Any = image.arrays.get(name)
            if values is not None and (values.astype(bool) == held).any():
                return f"some sites were held fixed: column {name}"
    return ""
