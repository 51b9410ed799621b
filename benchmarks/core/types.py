"""Types that every part shares: samples, outcomes, the relaxer protocol, errors, units.

This module imports nothing of the project and nothing heavy, so that listing models stays fast.
Lattices are row vectors. Lengths are in Å, energies in eV (total), forces in eV/Å, stress in
eV/Å^3 with ASE's sign, times in s.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pymatgen.core import Structure

GPA = 1 / 160.21766208
"""One gigapascal in eV/Å^3 (CODATA 2014, as in ASE)."""
KBAR = GPA / 10
"""One kilobar in eV/Å^3; VASP's stress in kB has the opposite sign of ASE's."""


class UserError(Exception):
    """The user made a mistake, or something is missing; a command tells it in one line, exit 2."""


class UnavailableError(Exception):
    """What a relaxer has to ask is out of reach, through no fault of a structure.

    A relaxer raises it in `relax` (its server is gone, or refuses the key). The run ends there, no
    outcome is recorded, and the same command goes on later.
    """


class Status(StrEnum):
    """The outcome of one structure.

    `ok` and `unconverged` have a relaxed structure. `invalid` means that the model answered
    nonsense (text that cannot be parsed, lost atoms, an exploded cell), `error` that it raised an
    exception, `unsupported` that it declined before trying, and `resource` that it ran out of time
    or memory.
    """

    OK = "ok"
    UNCONVERGED = "unconverged"
    INVALID = "invalid"
    UNSUPPORTED = "unsupported"
    RESOURCE = "resource"
    ERROR = "error"


SCORED = frozenset({Status.OK, Status.UNCONVERGED})
"""Statuses whose structure enters the error metrics."""
ANSWERED = SCORED | {Status.INVALID}
"""Statuses in which the model gave an answer, good or bad."""


class MissingFinalFrame(StrEnum):
    """The treatment of a trajectory whose last frame is missing (`--missing-final-frame`)."""

    IF_RELAXED = "if-relaxed"
    """It is used if force and stress of the last frame that is left are within the bounds."""
    KEEP = "keep"
    DROP = "drop"


@dataclass(frozen=True, slots=True, kw_only=True)
class RelaxSettings:
    """The settings of a relaxation, passed to a relaxer's constructor as one argument.

    A model honours some of them; its spec names which (`ModelSpec.honours`), and of fmax,
    max_stress, max_steps, keep_symmetry and seed only these enter the identity of a run. The time
    limit always does; device, batch size and offline never do.
    """

    fmax: float = 0.05
    """Largest force of a converged structure [eV/Å]."""
    max_stress: float = 0.1 * GPA
    """Largest component of the stress of a converged structure [eV/Å^3]."""
    max_steps: int = 500
    """Largest number of steps of the optimiser."""
    keep_symmetry: bool = False
    """The relaxed structure keeps the space group of the initial structure."""
    device: str = "cpu"
    """The device that the model runs on: `cpu`, `cuda` or `cuda:N`."""
    seed: int = 0
    """The seed of everything that a model samples."""
    offline: bool = False
    """The network must not be used."""
    batch_size: int | None = None
    """Structures per call of `relax`. None means the number that the model's spec gives."""
    timeout: float = 600.0
    """Time limit for one structure [s]. `benchmarks.engine.execute` says what a batch has."""


class Geometry(NamedTuple):
    """A structure as plain arrays. Records store it, and the metrics read it.

    Unlike `Structure` it can hold nonsense (a collapsed cell, no sites), which an `invalid`
    outcome has to keep.
    """

    lattice: NDArray[np.float64]
    """(3, 3) row vectors [Å]."""
    frac_coords: NDArray[np.float64]
    """(n_sites, 3), not wrapped."""
    numbers: NDArray[np.int16]
    """(n_sites,) atomic numbers."""

    @classmethod
    def of(cls, structure: Structure) -> Geometry:
        """Take the arrays of an ordered structure; sites keep their order and their coordinates."""
        return cls(
            np.array(structure.lattice.matrix, dtype=np.float64),
            np.array(structure.frac_coords, dtype=np.float64).reshape(-1, 3),
            np.array([site.specie.Z for site in structure], dtype=np.int16),
        )

    def structure(self) -> Structure:
        """Give the same geometry as a pymatgen `Structure`; coordinates are not wrapped."""
        from pymatgen.core import Structure

        return Structure(self.lattice, [int(z) for z in self.numbers], self.frac_coords)


class Shard(NamedTuple):
    """A part of the samples: number `number` of `total`, counted from 1.

    A sample belongs to a part by its id alone (sha256 modulo `total`), so that each sample is in
    exactly one of the `total` parts, whatever `--limit` and the order of the data are. The default
    is the whole.
    """

    number: int = 0
    total: int = 1

    def holds(self, sample_id: str) -> bool:
        """Say whether a sample belongs to this part."""
        return self.total == 1 or self.of(sample_id, self.total) == self

    @classmethod
    def of(cls, sample_id: str, total: int) -> Shard:
        """Give the one of `total` parts to which a sample belongs."""
        digest = hashlib.sha256(sample_id.encode()).digest()
        return cls(int.from_bytes(digest[:8]) % total or total, total)

    @property
    def folder(self) -> str:
        """The name of its folder: `shard-0000` for the whole, `shard-0001`, … for parts."""
        return f"shard-{self.number:04d}"


WHOLE = Shard()
"""All samples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One held-out relaxation: its initial structure and the final structure of DFT."""

    sample_id: str
    """The frame id of LeMat-Traj without the step. It is unique in its data set."""
    initial: Structure
    final: Structure
    """The reference; it has the sites of `initial` in the same order. Relaxers never see it."""
    material_id: str
    functional: str
    source: str
    """The prefix of the material id: `mp`, `agm`, `oqmd`, `gpaw`, …"""
    n_frames: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Relaxed:
    """The answer of a relaxer for one structure. The defaults describe a failure."""

    status: Status
    structure: Structure | None = None
    """With `ok` and `unconverged` it has the sites of the input in the same order. With `invalid`
    it is the structure as it was decoded, or None."""
    energy: float | None = None
    """The total energy by the model itself [eV]; None for a text model."""
    max_force: float | None = None
    """Largest norm of a force at the returned structure [eV/Å]."""
    max_stress: float | None = None
    """Largest absolute component of the stress at the returned structure [eV/Å^3]."""
    n_force_evals: int | None = None
    n_tokens: int | None = None
    expected_error: float | None = None
    """How large the model expects the error of its answer to be [Å]: the mean over a, b and c plus
    the mean displacement of the sites, both from the relaxed structure. None if it does not say."""
    detail: str | None = None
    """An exception (`TypeError: …`), a reason, or the raw text that was generated."""


@runtime_checkable
class Relaxer(Protocol):
    """Anything that relaxes crystals. Its constructor takes the weights and the settings."""

    def relax(self, structures: Sequence[Structure], /) -> list[Relaxed]:
        """Relax each structure: one outcome per input, in input order; `[]` gives `[]`.

        Inputs are not modified, and the answer for a structure does not depend on its batch. A
        failure of one structure is an outcome with its status; an exception means "not about one
        structure", and the executor retries one at a time.
        """
        ...
