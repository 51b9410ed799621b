"""Read every frame with energy, forces and stress, for the training of potentials."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from benchmarks.core import KBAR, Geometry
from benchmarks.data.lemat.arrow import array, atomic_numbers, lengths, numpy, vectors
from benchmarks.data.lemat.ids import FRAME_ID
from benchmarks.data.lemat.reader import FrameFiles, FramePath
from benchmarks.data.sources import resolve

_COLUMNS = (
    "id",
    "relaxation_step",
    "species_at_sites",
    "lattice_vectors",
    "cartesian_site_positions",
    "energy",
    "forces",
    "stress_tensor",
)


class Frame(NamedTuple):
    """One ionic step; a quantity that the calculation did not keep is None."""

    sample_id: str
    step: int
    geometry: Geometry
    energy: float | None
    """Total [eV]."""
    forces: NDArray[np.float64] | None
    """(n_sites, 3) [eV/Å]."""
    stress: NDArray[np.float64] | None
    """(3, 3) [eV/Å^3], ASE's sign."""


def frames(source: str, split: str | None = None) -> Iterator[Frame]:
    """Walk through the frames of a split in file order, converted from VASP's units.

    Frames whose geometry cannot be used (not finite, singular cell, unknown elements, no id) are
    left out. A frame of a trajectory that `load` quarantines for another reason is kept: as a
    training point it is sound.

    Args:
        source: A source as `load` takes it.
        split: A split as `load` takes it.

    Yields:
        Frames, their arrays being copies that may be kept.

    Raises:
        UserError: The source cannot be read.
    """
    found = resolve(source, split)
    for frame in frames_in(found.paths):
        if found.ids is None or frame.sample_id in found.ids:
            yield frame


def frames_in(paths: Sequence[FramePath]) -> Iterator[Frame]:
    """Walk through the frames of parquet files, as `frames` does for a source."""
    for _, table in FrameFiles(paths).tables(_COLUMNS):
        species = array(table["species_at_sites"])
        count = lengths(species)
        numbers = atomic_numbers(species.flatten())
        three = np.full(len(table), 3)
        lattices = vectors(table["lattice_vectors"], three)[0].reshape(-1, 3, 3)
        stresses = vectors(table["stress_tensor"], three)[0].reshape(-1, 3, 3)
        positions = vectors(table["cartesian_site_positions"], count)[0]
        forces = vectors(table["forces"], count)[0]
        energies = numpy(array(table["energy"]))
        parts = pc.extract_regex(array(table["id"]), FRAME_ID)
        keys = pc.struct_field(parts, "key").to_pylist()
        steps = table["relaxation_step"].to_pylist()
        ends = np.cumsum(count)
        for i, (key, step) in enumerate(zip(keys, steps, strict=True)):
            sites = slice(ends[i] - count[i], ends[i])
            lattice, sites_z = lattices[i], numbers[sites]
            sound = len(sites_z) and sites_z.all() and np.isfinite(lattice).all()
            sound = sound and np.isfinite(positions[sites]).all()
            if key is None or step is None or not (sound and abs(np.linalg.det(lattice)) > 0):
                continue
            frac_coords = positions[sites] @ np.linalg.inv(lattice)
            energy = float(energies[i])
            yield Frame(
                sample_id=key,
                step=step,
                geometry=Geometry(lattice.copy(), frac_coords, sites_z.copy()),
                energy=energy if np.isfinite(energy) else None,
                forces=_finite(forces[sites]),
                stress=_finite(-KBAR * stresses[i]),
            )


def _finite(values: NDArray[np.float64]) -> NDArray[np.float64] | None:
    return values.copy() if np.isfinite(values).all() else None
