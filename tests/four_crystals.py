"""What a published potential says of four crystals, as JSON.

    python -m tests.four_crystals MODEL

It runs under the Python of the potential's own environment, which need not have pytest.
"""

import json
import sys
from collections.abc import Iterator

import numpy as np
from ase import Atoms
from ase.build import bulk

from benchmarks.core import GPA, Geometry, RelaxSettings
from benchmarks.models.registry import MODELS, import_target

CRYSTALS = {
    "NaCl": ("rocksalt", 5.64),
    "Si": ("diamond", 5.43),
    "MgO": ("rocksalt", 4.21),
    "Cu": ("fcc", 3.61),
}
"""Prototype and measured lattice constant at room temperature [Å]."""
TIGHT = RelaxSettings(fmax=0.01, max_stress=0.02 * GPA, offline=True)


def measure(model: str) -> dict[str, dict[str, float]]:
    """Ask a model of the registry, whose weights are here, about the four crystals.

    Returns:
        `energy` at the lattice constants of `CRYSTALS` [eV/atom] and the relaxed `lattice` constant
        [Å] of each; and how far `forces` [eV/Å] and `stress` [eV/Å^3] of an `asymmetric` crystal
        are from central differences of the energy.
    """
    spec = MODELS[model]
    relaxer = import_target(spec.target)(**spec.kwargs, settings=TIGHT)
    energy, lattice = {}, {}
    for name, (prototype, a) in CRYSTALS.items():
        atoms = bulk(name, prototype, a=a)
        atoms.calc = relaxer.calculator
        energy[name] = float(atoms.get_potential_energy()) / len(atoms)
        geometry = Geometry(
            atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers.astype(np.int16)
        )
        (end,) = relaxer.relax([geometry.structure()])
        assert end.status == "ok", f"{model}: {name} is {end.status}"
        lattice[name] = float(4 * end.structure.volume) ** (1 / 3)
    return {"energy": energy, "lattice": lattice, "asymmetric": differences(relaxer.calculator)}


def differences(calculator: object) -> dict[str, float]:
    """Compare the forces and the stress of an MgO without symmetry with differences of energies."""
    start = bulk("MgO", "rocksalt", a=4.3)
    start.set_cell(start.cell.array @ [[1, 0.02, 0], [0, 0.98, 0.01], [-0.03, 0, 1.03]], True)
    start.positions[1] += [0.10, -0.06, 0.08]

    def energy(atoms: Atoms) -> float:
        atoms.calc = calculator
        return float(atoms.get_potential_energy())

    def moved(h: float) -> Iterator[Atoms]:
        for i in range(3):
            atoms = start.copy()
            atoms.positions[0, i] += h
            yield atoms

    def strained(h: float) -> Iterator[Atoms]:
        for i, j in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)):
            strain = np.eye(3)
            strain[i, j] += h / 2
            strain[j, i] += h / 2
            atoms = start.copy()
            atoms.set_cell(start.cell.array @ strain, scale_atoms=True)
            yield atoms

    def slope(change: object, h: float) -> np.ndarray:
        pairs = zip(change(h), change(-h), strict=True)
        return np.array([energy(up) - energy(down) for up, down in pairs]) / (2 * h)

    forces, stress = -slope(moved, 0.01), slope(strained, 0.004) / start.get_volume()
    energy(start)
    return {
        "forces": float(np.abs(start.get_forces()[0] - forces).max()),
        "stress": float(np.abs(start.get_stress() - stress).max()),
        "largest force": float(np.abs(forces).max()),
        "largest stress": float(np.abs(stress).max()),
    }


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1])))  # noqa: T201
