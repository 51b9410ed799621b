"""Relaxes one crystal, cell and positions, with GPAW; runs under GPAW's interpreter.

    OMP_NUM_THREADS=1 /usr/bin/python3 gpaw_worker.py < JOB.json > FRAMES.jsonl
    /usr/bin/python3 gpaw_worker.py --versions

It needs GPAW, ASE (3.22 or newer) and nothing of this project. A job is an object with `symbols`,
`lattice` (3, 3) [Å], `positions` (n_sites, 3) [Å] and `settings`. Each ionic step is answered by a
line as soon as it is known: lattice, positions, free energy [eV], forces (n_sites, 3) [eV/Å] and
stress (3, 3) [eV/Å^3] with the sign of ASE. The last line has `converged` and the PAW setups. An
error is raised: it ends with a traceback on stderr and an exit status that is not 0.

`settings` may name a grid of k-points, `kpt_grid`, in place of a density. With `max_steps` 0 the
crystal is computed once and stays as it is, which counts as converged.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable
from typing import IO, Any

import ase
import gpaw
import numpy as np
from ase import Atoms
from ase.calculators.calculator import kpts2sizeandoffsets
from ase.optimize import BFGS
from gpaw import GPAW, PW, FermiDirac, Mixer

try:
    from ase.filters import ExpCellFilter
except ImportError:  # before ASE 3.23
    from ase.constraints import ExpCellFilter

MIXING = 0.25, 5, 50.0
"""Share of the new density, number of old densities that are kept, weight of long waves. GPAW's own
values mix 0.05 and need a third more iterations, which end with forces that are wrong by up to
0.01 eV/Å."""
SYMPREC = 1e-5
"""Tolerance of the symmetry search. Positions are given to 1e-8, and with GPAW's own 1e-7 some
groups come out incomplete."""
SPAN = 0.05
"""Half of the range of cutoffs in which the slope is measured, as a share of the cutoff."""
COARSE = 1.0
"""Density of k-points with which the slope is measured [Å^-1]."""
GPA = 1 / 160.21766208
"""1 GPa [eV/Å^3]."""


def versions() -> dict[str, str]:
    """The versions of the programs on which the numbers can depend."""
    return {
        "gpaw": gpaw.__version__,
        "ase": ase.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def calculator(atoms: Atoms, settings: dict[str, Any]) -> Any:
    """GPAW with plane waves; a Pulay correction keeps the stress that of its cell."""
    density = settings["kpt_density"]
    kpts: dict[str, Any] = {"density": density, "gamma": True}
    size = settings.get("kpt_grid")
    if size is None and settings["fixed_grid"]:
        size, _ = kpts2sizeandoffsets(density=density, gamma=True, atoms=atoms)
    if size is not None:
        kpts = {"size": tuple(map(int, size)), "gamma": True}
    measured = settings["pulay"] == "measured"
    slope = cutoff_slope(atoms, settings) if measured else settings["pulay"]
    return _gpaw(settings, settings["cutoff"], slope, kpts)


def cutoff_slope(atoms: Atoms, settings: dict[str, Any]) -> float:
    """The slope of the energy over the cutoff, dE/dE_cut (no unit).

    The slope depends on the cores, so that a coarse grid of k-points is enough; it hardly changes
    along a relaxation.
    """
    cutoffs = settings["cutoff"] * (1 - SPAN), settings["cutoff"] * (1 + SPAN)
    kpts = {"density": COARSE, "gamma": True}
    energies = []
    for cutoff in cutoffs:
        trial = atoms.copy()
        trial.calc = _gpaw(settings, cutoff, None, kpts)
        energies.append(float(trial.get_potential_energy(force_consistent=True)))
    slope: float = (energies[1] - energies[0]) / (cutoffs[1] - cutoffs[0])
    return slope


def _gpaw(settings: dict[str, Any], cutoff: float, slope: Any, kpts: dict[str, Any]) -> Any:
    return GPAW(
        mode=PW(cutoff, dedecut=slope),
        xc=settings["functional"],
        kpts=kpts,
        occupations=FermiDirac(settings["smearing"]),
        convergence={
            "density": settings["density_tolerance"],
            "eigenstates": settings["eigenstates_tolerance"],
        },
        mixer=Mixer(*MIXING),
        symmetry={"tolerance": SYMPREC},
        maxiter=settings["max_iterations"],
        spinpol=False,
        txt=None,
    )


def frame(atoms: Atoms) -> dict[str, Any]:
    """One ionic step."""
    return {
        "lattice": atoms.cell.array.tolist(),
        "positions": atoms.positions.tolist(),
        # Forces are the slope of the free energy, not of the energy extrapolated to 0 K.
        "energy": float(atoms.get_potential_energy(force_consistent=True)),
        "forces": atoms.get_forces().tolist(),
        "stress": atoms.get_stress(voigt=False).tolist(),
    }


class Optimizer(BFGS):
    """BFGS with a first curvature and a limit for the cell that differ from those for the atoms."""

    def __init__(self, crystal: Any, settings: dict[str, Any]) -> None:
        super().__init__(
            crystal, logfile=None, maxstep=settings["max_step"], alpha=settings["stiffness"]
        )
        self.crystal, self.max_stress = crystal.atoms, settings["max_stress"]
        if settings["cell_stiffness"]:  # the last nine coordinates are those of the cell
            cell = range(3 * len(self.crystal), 3 * len(self.crystal) + 9)
            self.H0[cell, cell] = settings["cell_stiffness"] * self.crystal.get_volume()

    def converged(self, forces: Any = None) -> bool:
        """True if forces and stress are within their limits."""
        if self.max_stress is None:
            return bool(super().converged(forces))
        force = np.linalg.norm(self.crystal.get_forces(), axis=1).max()
        stress = np.abs(self.crystal.get_stress()).max() / GPA
        return bool(force <= self.fmax and stress <= self.max_stress)

    def gradient_converged(self, gradient: Any) -> bool:
        """The same; newer versions of ASE ask this one."""
        if self.max_stress is None:
            return bool(super().gradient_converged(gradient))
        return self.converged()


def relax(job: dict[str, Any], say: Callable[[dict[str, Any]], None]) -> None:
    """Relax the crystal of `job`, or compute it once, telling each step and the end."""
    settings, driver = job["settings"], os.getppid()
    atoms = Atoms(job["symbols"], cell=job["lattice"], positions=job["positions"], pbc=True)
    atoms.calc = calculator(atoms, settings)

    def step() -> None:
        if os.getppid() != driver:  # nobody is left to hear the answer
            sys.exit("the driver is gone")
        say(frame(atoms))

    converged = True
    if settings["max_steps"]:
        optimizer = Optimizer(ExpCellFilter(atoms), settings)
        optimizer.attach(step)
        converged = optimizer.run(fmax=settings["fmax"], steps=settings["max_steps"])
    else:
        step()
    setups = {setup.symbol: setup.fingerprint for setup in atoms.calc.wfs.setups}
    say({"converged": bool(converged), "setups": setups})


def main() -> None:
    """Read a job from stdin, answer on stdout; whatever the libraries print goes to stderr."""
    answers: IO[str] = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def say(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")

    if "--versions" in sys.argv[1:]:
        say(versions())
    else:
        relax(json.load(sys.stdin), say)


if __name__ == "__main__":
    main()
