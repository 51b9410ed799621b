"""Settings of the reference relaxations; the defaults are those of the embedded set, version 1."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any, Final

CUTOFFS: Final[tuple[tuple[frozenset[str], float], ...]] = (
    (frozenset("OFN"), 800.0),
    (frozenset("BCH"), 700.0),
    (frozenset(), 600.0),
)
"""Plane-wave cutoff [eV] where one of these elements is present; the first that applies."""
MAGNETIC: Final = frozenset({"Cr", "Mn", "Fe", "Co", "Ni"})
"""Elements of GPAW's setups that can be magnetic; the settings are not spin-polarised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DFTSettings:
    """The settings that must be equal for two relaxations to stand in one table."""

    functional: str = "PBE"
    cutoff_factor: float = 1.0
    """Factor on the cutoff of `CUTOFFS`."""
    kpt_density: float = 2.5
    """Points per Å^-1, Gamma-centred."""
    smearing: float = 0.1
    """Width of the Fermi-Dirac occupations [eV]."""
    density_tolerance: float = 1e-4
    """Convergence of the density in the self-consistency cycle [electrons per valence electron]."""
    eigenstates_tolerance: float = 1e-7
    """Convergence of the eigenstates in that cycle [eV^2 per valence electron]."""
    max_iterations: int = 120
    """Largest number of iterations of that cycle."""
    fmax: float = 0.03
    """Largest norm of a force and of a row of the cell's generalised force [eV/Å]."""
    max_steps: int = 40
    """Largest number of steps of the optimiser."""
    max_step: float = 0.1
    """Largest displacement in one step [Å]."""

    def cutoff(self, symbols: Collection[str]) -> float:
        """Plane-wave cutoff of a crystal [eV]."""
        present = set(symbols)
        base = next(energy for light, energy in CUTOFFS if not light or light & present)
        return self.cutoff_factor * base

    def job(self, symbols: Collection[str]) -> dict[str, Any]:
        """The settings as the worker reads them, with the cutoff of this crystal."""
        return {**asdict(self), "cutoff": self.cutoff(symbols)}


def unsupported(symbols: Collection[str]) -> str:
    """The reason why a crystal cannot be computed with these settings; empty if it can."""
    magnetic = ", ".join(sorted(MAGNETIC & set(symbols)))
    return f"unsupported: {magnetic} can be magnetic, spin is left out" if magnetic else ""
