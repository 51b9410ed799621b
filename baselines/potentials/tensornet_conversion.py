"""Convert a TensorNet of matgl before 2.2.0, like MatPES 2025.1, for the matgl of today.

    make env-matgl2
    python -m baselines.potentials.tensornet_conversion FOLDER --out NEW
    python -m benchmarks.run --models mine=matgl:NEW

Since 2.2.0 the embedding of TensorNet sums messages into the other end of each edge. With the two
halves of the columns of one matrix exchanged it is the same function. The command proves that:
energies, forces and stresses of crystals by matgl 2, computed in `.venv-matgl2`, and by this matgl
have to be equal to `TOLERANCE`, or nothing is kept. M3GNet cannot be converted so: use it by its
name, or as `LABEL=matgl2:FOLDER`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from baselines.potentials import matgl, matgl2
from baselines.potentials.loading import loading, nacl_energy, one_line
from benchmarks.core import UserError
from benchmarks.core.cli import run_command

TOLERANCE = 1e-5
"""Of energies [eV/atom], forces [eV/Å] and stresses [eV/Å^3]."""
MATRIX = "model.tensor_embedding.emb2.weight"
"""Takes the elements of both ends of an edge, one after the other."""
_ROOT = Path(__file__).parents[2]
_MODULE = "baselines.potentials.tensornet_conversion"
PYTHON = _ROOT / ".venv-matgl2" / "bin" / "python"
"""The interpreter that has matgl 2."""


def convert(folder: Path, out: Path) -> dict[str, float]:
    """Write the converted potential, if both versions of matgl say the same.

    Args:
        folder: A saved `Potential` with a TensorNet.
        out: The folder of the new one; it must not exist.

    Returns:
        The largest differences: `energy` [eV/atom], `forces` [eV/Å], `stress` [eV/Å^3].

    Raises:
        UserError: It is no TensorNet of an older matgl, the two differ, or one cannot be run.
    """
    matgl.whole_model(folder)
    if out.exists():
        raise UserError(f"--out {out} is there already")
    if not PYTHON.is_file():
        raise UserError(f"{PYTHON} is not there, to compare with matgl 2: make env-matgl2")
    done = subprocess.run(  # noqa: S603 - our own module
        [str(PYTHON), "-m", _MODULE, str(folder.absolute())],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(_ROOT)},
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UserError(f"matgl 2 does not run it: {last.removeprefix('error: ')}")
    before = json.loads(done.stdout.splitlines()[-1])
    with tempfile.TemporaryDirectory() as scratch:
        new = Path(scratch) / "new"
        _write(folder, new, before["nacl"])
        after = predictions(matgl.calculator(new))
        differences = {
            name: float(
                max(
                    np.max(np.abs(np.subtract(a, b)))
                    for a, b in zip(before[name], after[name], strict=True)
                )
            )
            for name in ("energy", "forces", "stress")
        }
        if not all(each <= TOLERANCE for each in differences.values()):
            raise UserError(f"{folder}: the versions of matgl differ by {differences}; not kept")
        shutil.copytree(new, out)
    return differences


def _write(folder: Path, new: Path, energy: float) -> None:
    with loading(folder):
        import torch

        matgl.refuse_foreign(folder)
        state = torch.load(folder / "state.pt", map_location="cpu", weights_only=True)
        saved = torch.load(folder / "model.pt", map_location="cpu", weights_only=True)
        about = json.loads((folder / "model.json").read_text())
        for model in (saved["model"], about["kwargs"]["model"]):
            if (model["@class"], model["@model_version"]) != ("TensorNet", 1):
                raise UserError(f"{folder} is no TensorNet of a matgl before 2.2.0")
            model |= {"@module": "matgl.models._tensornet", "@model_version": 2}
        about |= {
            "@module": "matgl.apps.pes",
            "metadata": {"nacl_energy": round(energy, 4), "converted_from": folder.name},
        }
        own, other = state[MATRIX].chunk(2, dim=1)
        state[MATRIX] = torch.cat([other, own], dim=1)
        new.mkdir()
        torch.save(saved, new / "model.pt")
        torch.save(state, new / "state.pt")
        (new / "model.json").write_text(json.dumps(about, indent=4))


def crystals() -> list[Atoms]:
    """Crystals of one to three elements, whose cells and atoms are away from their places."""
    from ase.build import bulk
    from ase.spacegroup import crystal

    found = [
        bulk("Cu", "fcc", a=3.7),
        bulk("Si", "diamond", a=5.4),
        bulk("NaCl", "rocksalt", a=5.64, cubic=True),
        bulk("MgO", "rocksalt", a=4.1),
        bulk("ZnS", "zincblende", a=5.4, cubic=True),
        crystal(
            ["Ti", "O"],
            [(0, 0, 0), (0.3, 0.3, 0)],
            spacegroup=136,
            cellpar=[4.6, 4.6, 3, 90, 90, 90],
        ),
        crystal(
            ["Sr", "Ti", "O"],
            [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0)],
            spacegroup=221,
            cellpar=[3.9, 3.9, 3.9, 90, 90, 90],
        ),
    ]
    random = np.random.default_rng(0)
    for atoms in found:
        strain = np.eye(3) + random.normal(0, 0.02, (3, 3))
        atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
        atoms.positions += random.normal(0, 0.05, atoms.positions.shape)
    return found


def predictions(potential: Any) -> Mapping[str, Any]:
    """What an ASE calculator gives `crystals`, and rocksalt NaCl [eV/atom], as plain values."""
    energy, forces, stress = [], [], []
    with one_line("it cannot compute the crystals"):
        for atoms in crystals():
            atoms.calc = potential
            energy.append(float(atoms.get_potential_energy()) / len(atoms))
            forces.append(np.asarray(atoms.get_forces(), dtype=float).tolist())
            stress.append(np.asarray(atoms.get_stress(), dtype=float).tolist())
    nacl = nacl_energy(potential, "it")
    return {"energy": energy, "forces": forces, "stress": stress, "nacl": nacl}


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {_MODULE}",
        description=(__doc__ or "").split("\n")[0],
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the saved potential")
    parser.add_argument(
        "--out", type=Path, metavar="NEW", help="a new folder; else matgl 2's answers are printed"
    )
    args = parser.parse_args(argv)

    def command() -> int:
        if args.out is None:
            potential = matgl2.calculator(matgl.whole_model(args.folder))
            sys.stdout.write(f"{json.dumps(predictions(potential))}\n")
        else:
            largest = convert(args.folder, args.out)
            told = ", ".join(f"{name} {value:.1e}" for name, value in largest.items())
            sys.stdout.write(f"{args.out}: equal to matgl 2 ({told}; eV/atom, eV/Å, eV/Å^3)\n")
        return 0

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
