"""Frames with energy, forces and stress, and the errors of a potential on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks.core import UserError
from benchmarks.data import Frame, frames, load
from benchmarks.data.folders import split_names


def training_frames(sources: Sequence[str], limit: int | None = None) -> list[Frame]:
    """The frames that have all three labels; of a source that has splits, of its training split.

    Args:
        sources: `embedded`, or paths of data sets.
        limit: Largest number of relaxations of each source; of the Hub no more is read.

    Raises:
        UserError: A source has no such frame.
    """
    examples: list[Frame] = []
    for source in sources:
        split = "train" if split_names(source) else None
        found = [frame for frame in frames_of(source, split, limit) if _complete(frame)]
        if not found:
            raise UserError(f"{source}: no frame has energy, forces and stress")
        examples += found
    return examples


def validation_frames(sources: Sequence[str]) -> list[Frame]:
    """The labelled frames of the validation splits; sources without such a split have none."""
    held_out = (frames(source, "val") for source in sources if "val" in split_names(source))
    return [frame for each in held_out for frame in each if _complete(frame)]


def frames_of(source: str, split: str | None, limit: int | None) -> Iterator[Frame]:
    """Yield all frames; with a limit those of the relaxations that the limit chooses."""
    if limit is None:
        yield from frames(source, split)
        return
    chosen = load(source, split=split, limit=limit)
    ids = set(chosen.ids)
    yield from (frame for frame in chosen.frames() if frame.sample_id in ids)


def _complete(frame: Frame) -> bool:
    return frame.energy is not None and frame.forces is not None and frame.stress is not None


def to_atoms(frame: Frame) -> Any:
    """ASE's atoms of a frame, without its labels."""
    from ase import Atoms

    lattice, frac_coords, numbers = frame.geometry
    return Atoms(numbers, cell=lattice, scaled_positions=frac_coords, pbc=True)


def errors(potential: Any, elements: frozenset[int], examples: Sequence[Frame]) -> dict[str, Any]:
    """Root mean square errors over the frames whose elements a potential knows.

    Args:
        potential: An ASE calculator.
        elements: Atomic numbers.
        examples: Frames with all labels.

    Returns:
        `n` frames, `energy_per_atom` [eV], `force` component [eV/Å], `stress` component [eV/Å^3].
    """
    differences: dict[str, list[Any]] = {"energy_per_atom": [], "force": [], "stress": []}
    usable = [frame for frame in examples if elements.issuperset(frame.geometry.numbers.tolist())]
    for frame in usable:
        atoms = to_atoms(frame)
        atoms.calc = potential
        energy = atoms.get_potential_energy() - frame.energy
        differences["energy_per_atom"].append([energy / len(atoms)])
        differences["force"].append((atoms.get_forces() - frame.forces).ravel())
        differences["stress"].append((atoms.get_stress(voigt=False) - frame.stress).ravel())
    rmse = {
        name: round(float(np.sqrt(np.mean(np.concatenate(values) ** 2))), 5) if values else None
        for name, values in differences.items()
    }
    return {"n": len(usable), **rmse}
