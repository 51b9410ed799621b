"""The words that every part shares: samples, outcomes, the relaxer protocol, errors, units.

This module imports nothing of the project and nothing heavy, so that listing models stays fast.
Lattices are row vectors. Lengths are in Å, energies in eV (total), forces in eV/Å, stress in
eV/Å^3 with ASE's sign, times in s.
"""

from __future__ import annotations

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
    """A mistake of the user's, or something missing: one line that says what to do, exit 2."""


class Status(StrEnum):
    """What became of one structure.

    `invalid` is nonsense from the model (unparsable text, atoms lost, exploded cell), `error` an
    exception, `unsupported` declared before trying, `resource` out of time or of memory.
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
"""Statuses in which the model gave an answer, whatever it was worth."""


class MissingFinalFrame(StrEnum):
    """What becomes of a trajectory whose last frame is missing; `--missing-final-frame`."""

    IF_RELAXED = "if-relaxed"
    """Used if residual force and stress of the most relaxed frame left are within the bounds."""
    KEEP = "keep"
    DROP = "drop"


@dataclass(frozen=True, slots=True, kw_only=True)
class RelaxSettings:
    """The settings of a relaxation, passed to a relaxer's constructor as one argument.

    A model honours some of them; its spec names which (`ModelSpec.honours`), and only these enter
    the identity of a run.
    """

    fmax: float = 0.05
    """A relaxation has converged when no force is larger [eV/Å] …"""
    max_stress: float = 0.1 * GPA
    """… and no component of the stress is larger [eV/Å^3]."""
    max_steps: int = 500
    """Largest number of steps of the optimiser."""
    keep_symmetry: bool = False
    """Whether the relaxed structure keeps the space group of the initial structure."""
    device: str = "cpu"
    """`cpu`, `cuda` or `cuda:N`."""
    seed: int = 0
    """Seed of everything that a model samples."""
    offline: bool = False
    """Whether the network must not be used."""
    batch_size: int | None = None
    """Structures per call of `relax`; None: the number that the model's spec gives."""
    timeout: float = 600.0
    """Time limit for one structure [s]. `benchmarks.engine.execute` says what a batch has."""


class Geometry(NamedTuple):
    """A structure as plain arrays, as a record stores it and as the metrics read it.

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
        """The arrays of an ordered structure, sites in order, coordinates as they are."""
        return cls(
            np.array(structure.lattice.matrix, dtype=np.float64),
            np.array(structure.frac_coords, dtype=np.float64).reshape(-1, 3),
            np.array([site.specie.Z for site in structure], dtype=np.int16),
        )

    def structure(self) -> Structure:
        """The same as a pymatgen `Structure`, coordinates as they are (not wrapped)."""
        from pymatgen.core import Structure

        return Structure(self.lattice, [int(z) for z in self.numbers], self.frac_coords)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One held-out relaxation: where it starts and where DFT ends."""

    sample_id: str
    """Unique in its data set: the frame id of LeMat-Traj without the step."""
    initial: Structure
    final: Structure
    """Reference, same sites in the same order as `initial`. Relaxers never see it."""
    material_id: str
    functional: str
    source: str
    """The prefix of the material id: `mp`, `agm`, `oqmd`, `gpaw`, …"""
    n_frames: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Relaxed:
    """What a relaxer returns for one structure. The defaults describe a failure."""

    status: Status
    structure: Structure | None = None
    """`ok`, `unconverged`: same sites, same order as the input. `invalid`: as decoded, or None."""
    energy: float | None = None
    """The model's own total energy [eV]; None for a text model."""
    max_force: float | None = None
    """Largest norm of a force at the returned structure [eV/Å]."""
    max_stress: float | None = None
    """Largest absolute component of the stress at the returned structure [eV/Å^3]."""
    n_force_evals: int | None = None
    n_tokens: int | None = None
    detail: str | None = None
    """`TypeError: …`, a reason, or the raw generated text."""


@runtime_checkable
class Relaxer(Protocol):
    """Anything that relaxes crystals. Device, weights, seed, fmax go to its constructor."""

    def relax(self, structures: Sequence[Structure], /) -> list[Relaxed]:
        """Relax each structure: one outcome per input, in input order; `[]` gives `[]`.

        Inputs are not modified, and the answer for a structure does not depend on its batch. A
        failure of one structure is an outcome with its status; an exception means "not about one
        structure", and the executor retries one at a time.
        """
        ...
