"""Relaxes one crystal, cell and positions, with GPAW; runs under GPAW's interpreter.

    OMP_NUM_THREADS=1 /usr/bin/python3 gpaw_worker.py < JOB.json > FRAMES.jsonl
    /usr/bin/python3 gpaw_worker.py --versions

It needs GPAW, ASE (3.22 or newer) and nothing of this project. A job is an object with `symbols`,
`lattice` (3, 3) [Å], `positions` (n_sites, 3) [Å] and `settings`. Each ionic step is answered by a
line as soon as it is known: lattice, positions, free energy [eV], forces (n_sites, 3) [eV/Å] and
stress (3, 3) [eV/Å^3] with the sign of ASE. The last line has `converged` and the PAW setups. An
error is raised: it ends with a traceback on stderr and an exit status that is not 0.
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
from ase.optimize import BFGS
from gpaw import GPAW, PW, FermiDirac

try:
    from ase.filters import ExpCellFilter
except ImportError:  # before ASE 3.23
    from ase.constraints import ExpCellFilter


def versions() -> dict[str, str]:
    """The versions of the programs on which the numbers can depend."""
    return {
        "gpaw": gpaw.__version__,
        "ase": ase.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def calculator(settings: dict[str, Any]) -> Any:
    """GPAW with plane waves; the estimated Pulay correction keeps the stress that of its cell."""
    return GPAW(
        mode=PW(settings["cutoff"], dedecut="estimate"),
        xc=settings["functional"],
        kpts={"density": settings["kpt_density"], "gamma": True},
        occupations=FermiDirac(settings["smearing"]),
        convergence={
            "density": settings["density_tolerance"],
            "eigenstates": settings["eigenstates_tolerance"],
        },
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


def relax(job: dict[str, Any], say: Callable[[dict[str, Any]], None]) -> None:
    """Relax the crystal of `job`, telling each step and the end."""
    settings, driver = job["settings"], os.getppid()
    atoms = Atoms(job["symbols"], cell=job["lattice"], positions=job["positions"], pbc=True)
    atoms.calc = calculator(settings)

    def step() -> None:
        if os.getppid() != driver:  # nobody is left to hear the answer
            sys.exit("the driver is gone")
        say(frame(atoms))

    optimizer = BFGS(ExpCellFilter(atoms), logfile=None, maxstep=settings["max_step"])
    optimizer.attach(step)
    converged = optimizer.run(fmax=settings["fmax"], steps=settings["max_steps"])
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
