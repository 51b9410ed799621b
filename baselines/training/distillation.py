"""Frames with a published potential's energies, forces and stresses, for another one to learn from.

    .venv-sevenn/bin/python -m baselines.training.distillation --teacher nequix-oam-1 \
        --data ../shared/data/substitution/train.parquet --data embedded --data embedded-v2 \
        --leave-out ../shared/data/substitution/test.parquet \
        --leave-out embedded --leave-out embedded-v2 --out runs/labels

The frames are made from pairs of initial and relaxed structures: the structures themselves, points
between them and along the teacher's own relaxations, displaced, strained, compressed and expanded
cells, the same structures with other elements on their way to the teacher's minimum, pairs of atoms
in a box, and each element alone. The table that results has the layout of LeMat-Traj, so that
`python -m baselines.train mace --data runs/labels/labels.parquet` reads it. The same command goes
on after an interruption.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tqdm import tqdm

from baselines.training.model_card import described, test_sets, training_sets, write_card
from baselines.training.potential_training import to_atoms
from benchmarks.core import Geometry, UserError
from benchmarks.core.cli import run_command, whole_number
from benchmarks.core.files import atomic_write, file_sha256
from benchmarks.core.geometry import log_strain, reduced_composition, strained
from benchmarks.core.published_weights import PUBLISHED_WEIGHTS
from benchmarks.core.training_identity import require_same_training
from benchmarks.data import Dataset
from benchmarks.data.convert.conventions import ASE_STRESS
from benchmarks.data.convert.layout import TableWriter, table
from benchmarks.data.convert.relaxation import Relaxation, Step

KINDS: Final = {
    "initial": 0.06,
    "between": 0.12,
    "relaxed": 0.05,
    "displaced": 0.15,
    "initial-displaced": 0.06,
    "volume": 0.15,
    "dense": 0.04,
    "pair": 0.04,
    "relaxation": 0.08,
    "substituted": 0.25,
}
"""The shares of the kinds of draws. Draws of `relaxation` and `substituted` give several frames."""
DRAWS: Final = 16_000
"""Draws beside the single atoms; they give some 40,000 frames."""
PART: Final = 200
"""Draws that are written together."""
LARGEST_FORCE: Final = 60.0
"""Frames with a larger force [eV/Å] are left out: nothing there is worth to be learnt exactly."""
BOX: Final = 14.0
"""Edge of the cell of an atom or a pair that sees no other [Å]."""
STEPS: Final = (1, 3, 6, 10, 15)
"""The steps of a relaxation that are kept; the first structure is one of another kind."""
SUBSTITUTED_STEPS: Final = (0, 2, 4, 7, 10, 14)
"""The steps that are kept where other elements have been put in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillationConfig:
    """The configuration of the labelling."""

    teacher: str
    """A name of published weights."""
    data: tuple[str, ...]
    """Sources of pairs; of a source that has splits the training split is used."""
    out: Path
    """Folder of the parts, `labels.parquet` and `labels.json`."""
    leave_out: tuple[str, ...] = ()
    """Sources whose compositions are not made by substitution; of one with splits the test one."""
    draws: int = DRAWS
    seed: int = 0


def label(config: DistillationConfig, command: str | None = None) -> dict[str, Any]:
    """Draw the structures, label them, and write the table with its card.

    Args:
        config: The configuration.
        command: The command line, for the card.

    Returns:
        The card.

    Raises:
        UserError: The teacher or the data are not there, or the folder holds other labels.
    """
    started = time.perf_counter()
    if config.teacher not in PUBLISHED_WEIGHTS:
        raise UserError(f"--teacher {config.teacher}: no name of published weights")
    entry = PUBLISHED_WEIGHTS[config.teacher]
    module = importlib.import_module(f"baselines.potentials.{entry.package}")
    file = module.weights(config.teacher)
    datasets, left_out = training_sets(config.data), test_sets(config.leave_out)
    identity = {
        "teacher": config.teacher,
        "weights": file_sha256(file),
        "data": {each["name"]: each["revision"] for each in described(datasets)},
        "left_out": {each["name"]: each["revision"] for each in described(left_out)},
        "draws": config.draws,
        "seed": config.seed,
    }
    config.out.mkdir(parents=True, exist_ok=True)
    kept = config.out / "identity.json"
    if kept.exists():
        require_same_training(config.out, json.loads(kept.read_text()), identity)
    else:
        with atomic_write(kept) as partial:
            partial.write_text(json.dumps(identity, indent=2) + "\n")
    potential = module.calculator(file)
    elements = sorted(int(z) for z in potential.atom_indices)
    draw = Drawing(datasets, elements, config.seed, compositions(left_out))
    starts = range(0, config.draws + len(elements), PART)
    for first in tqdm(starts, unit=f"{PART} draws", disable=None):
        path = config.out / f"part-{first:06d}.parquet"
        if path.exists():
            continue
        with atomic_write(path) as partial, TableWriter(partial) as writer:
            for number in range(first, min(first + PART, config.draws + len(elements))):
                kind, frames = draw(number, potential)
                steps = [step for step in map(_step, frames) if step]
                if steps:
                    name = f"label-{kind}-{number:06d}"
                    writer.add(table(Relaxation(steps=steps), name, "pbe", f"{name}-pbe"))
    parts = sorted(config.out.glob("part-*.parquet"))
    whole = pa.concat_tables([pq.read_table(part) for part in parts])
    with atomic_write(config.out / "labels.parquet") as partial:
        pq.write_table(whole, partial, compression="zstd")
    kinds = Counter(
        name.split("-", 1)[1].rsplit("-", 1)[0] for name in whole["immutable_id"].to_pylist()
    )
    card = {
        "command": command,
        **asdict(config) | {"out": str(config.out)},
        "teacher_label": entry.label,
        "teacher_licence": entry.licence,
        "teacher_training_data": entry.training_data,
        "training_data": described(datasets),
        "left_out": described(left_out),
        "n_frames": len(whole),
        "kinds": dict(kinds),
        "sha256": file_sha256(config.out / "labels.parquet"),
        "seconds_of_the_last_run": round(time.perf_counter() - started),
        "identity": identity,
    }
    write_card(config.out / "labels.json", **card)
    return card


class Drawing:
    """Draws structures from pairs; a draw depends on the seed and its number alone.

    Materials are drawn with equal chances, and then one of a material's pairs.

    Args:
        datasets: The pairs.
        elements: Atomic numbers that the teacher knows, in order; pairs with others are not drawn.
        seed: Of all draws.
        left_out: Compositions that are not made by substitution.
    """

    def __init__(
        self,
        datasets: Sequence[Dataset],
        elements: Sequence[int],
        seed: int,
        left_out: Collection[str] = (),
    ) -> None:
        self._elements = elements
        self._seed = seed
        self._left_out = left_out
        self._pairs: dict[str, list[tuple[Geometry, Geometry]]] = defaultdict(list)
        for data in datasets:
            for i, material in enumerate(data.materials):
                pair = data.geometries(i)
                if set(pair[0].numbers.tolist()) <= set(elements):
                    self._pairs[material].append(pair)
        self._materials = sorted(self._pairs)

    def __call__(self, number: int, potential: Any) -> tuple[str, Iterator[Any]]:
        """The kind of a draw, and its structures as ASE's atoms that the potential is attached to.

        Args:
            number: Which draw; the first are the single atoms.
            potential: An ASE calculator.
        """
        rng = np.random.default_rng([self._seed, number])
        if number < len(self._elements):
            z = self._elements[number]
            atom = Geometry(np.eye(3) * BOX, np.zeros((1, 3)), np.array([z], dtype=np.int16))
            return "atom", iter([to_atoms(atom, potential)])
        kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
        if kind == "pair":
            return kind, iter([to_atoms(self._pair(rng), potential)])
        pairs = self._pairs[self._materials[rng.integers(len(self._materials))]]
        initial, relaxed = pairs[rng.integers(len(pairs))]
        if kind == "relaxation":
            return kind, _relaxation(to_atoms(initial, potential))
        if kind == "substituted":
            return kind, _approach(to_atoms(self._substituted(relaxed, rng), potential), rng)
        return kind, iter([to_atoms(_changed(kind, initial, relaxed, rng), potential)])

    def _pair(self, rng: np.random.Generator) -> Geometry:
        """Two atoms at 0.55 to 2 times the sum of their covalent radii."""
        from ase.data import covalent_radii

        numbers = rng.choice(self._elements, size=2)
        distance = covalent_radii[numbers].sum() * rng.uniform(0.55, 2.0)
        fracs = np.array([[0, 0, 0], [distance / BOX, 0, 0]])
        return Geometry(np.eye(3) * BOX, fracs, numbers.astype(np.int16))

    def _substituted(self, relaxed: Geometry, rng: np.random.Generator) -> Geometry:
        """Each element replaced by another one, half of the time one of its group.

        The cell grows or shrinks with the sum of the covalent radii.
        """
        from ase.data import covalent_radii

        lattice, fracs, numbers = relaxed
        old = np.unique(numbers)
        while True:
            new = [self._other(int(z), rng) for z in old]
            changed = np.array(new)[np.searchsorted(old, numbers)]
            if reduced_composition(changed) not in self._left_out:
                break
        ratio = covalent_radii[changed].sum() / covalent_radii[numbers].sum()
        return Geometry(lattice * ratio, fracs, changed.astype(np.int16))

    def _other(self, z: int, rng: np.random.Generator) -> int:
        from pymatgen.core import Element

        group = Element.from_Z(z).group
        like = [other for other in self._elements if Element.from_Z(other).group == group]
        return int(rng.choice(like if rng.random() < 0.5 else self._elements))


def compositions(datasets: Sequence[Dataset]) -> frozenset[str]:
    """All compositions of some data sets."""
    return frozenset(
        reduced_composition(data.geometries(i)[0].numbers)
        for data in datasets
        for i in range(len(data))
    )


def _changed(kind: str, initial: Geometry, relaxed: Geometry, rng: np.random.Generator) -> Geometry:
    """A structure of a kind that is made from a pair."""
    lattice, fracs, numbers = initial if kind.startswith("initial") else relaxed
    shift = fracs * 0
    if kind == "between":
        part = rng.uniform(0, 1)
        metric = relaxed.lattice @ relaxed.lattice.T
        lattice = strained(initial.lattice, part * log_strain(initial.lattice, metric))
        apart = relaxed.frac_coords - initial.frac_coords
        fracs = initial.frac_coords + part * (apart - apart.round())
        shift = rng.normal(0, abs(rng.normal(0, 0.03)), fracs.shape)
    elif kind.endswith("displaced"):
        lattice = strained(lattice, _symmetric(rng, 0.02))
        shift = rng.normal(0, abs(rng.normal(0, 0.12)), fracs.shape)
    elif kind in ("volume", "dense"):
        low, high = (0.5, 1.6) if kind == "volume" else (0.25, 0.5)
        ratio = np.exp(rng.uniform(np.log(low), np.log(high)))
        lattice = lattice * np.cbrt(ratio)
        shift = rng.normal(0, abs(rng.normal(0, 0.05)), fracs.shape)
    return Geometry(lattice, fracs + shift @ np.linalg.inv(lattice), numbers)


def _symmetric(rng: np.random.Generator, width: float) -> NDArray[np.float64]:
    """A random symmetric strain (3, 3)."""
    free = rng.normal(0, width, (3, 3))
    return np.asarray((free + free.T) / 2)


def _relaxation(atoms: Any) -> Iterator[Any]:
    """Some steps of a relaxation with the attached potential."""
    from ase.filters import FrechetCellFilter
    from ase.optimize import FIRE

    optimizer = FIRE(FrechetCellFilter(atoms), logfile=None)
    for step, converged in enumerate(optimizer.irun(fmax=0.02, steps=max(STEPS))):
        if step in STEPS:
            yield atoms
        if converged:
            return


def _approach(atoms: Any, rng: np.random.Generator) -> Iterator[Any]:
    """Some steps to the minimum of a guessed cell, and a structure near the last one."""
    from ase.filters import FrechetCellFilter
    from ase.optimize import BFGS

    optimizer = BFGS(FrechetCellFilter(atoms), logfile=None)
    for step, _ in enumerate(optimizer.irun(fmax=0.01, steps=max(SUBSTITUTED_STEPS))):
        if step in SUBSTITUTED_STEPS:
            yield atoms
    atoms.set_cell(strained(atoms.cell.array, _symmetric(rng, 0.03)), scale_atoms=True)
    atoms.positions += rng.normal(0, abs(rng.normal(0, 0.1)), atoms.positions.shape)
    yield atoms


def _step(atoms: Any) -> Step | None:
    """The structure with its labels; None where the teacher is out of its depth."""
    energy = float(atoms.get_potential_energy())
    forces, stress = atoms.get_forces(), atoms.get_stress(voigt=False)
    finite = np.isfinite(energy) and np.isfinite(forces).all() and np.isfinite(stress).all()
    if not finite or np.linalg.norm(forces, axis=1).max() > LARGEST_FORCE:
        return None
    return Step(
        symbols=tuple(atoms.get_chemical_symbols()),
        lattice=atoms.cell.array.copy(),
        positions=atoms.positions.copy(),
        energy=energy,
        forces=np.asarray(forces, dtype=np.float64).copy(),
        stress=np.asarray(stress, dtype=np.float64) * ASE_STRESS,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="python -m baselines.training.distillation", description=(__doc__ or "").split("\n")[0]
    )
    add = parser.add_argument
    add("--teacher", required=True, metavar="NAME", help="published weights, like nequix-oam-1")
    add("--data", action="append", required=True, help="pairs: embedded, PATH or hf://…")
    add("--leave-out", action="append", default=[], help="pairs whose compositions are not made")
    add("--out", type=Path, required=True, metavar="DIR", help="the table, its parts and its card")
    add("--draws", type=whole_number(1), default=DRAWS, metavar="N")
    add("--seed", type=whole_number(0), default=0)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    def command() -> int:
        config = DistillationConfig(
            teacher=args.teacher,
            data=tuple(args.data),
            leave_out=tuple(args.leave_out),
            out=args.out,
            draws=args.draws,
            seed=args.seed,
        )
        card = label(config, " ".join(["python -m baselines.training.distillation", *argv]))
        sys.stdout.write(f"{card['n_frames']} frames in {args.out / 'labels.parquet'}\n")
        return 0

    return run_command(command, interrupted="interrupted; the same command goes on")


if __name__ == "__main__":
    sys.exit(main())
