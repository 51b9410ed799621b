"""Settings of the reference relaxations.

The defaults are the settings of the embedded set, versions 1 and 2. `VERSION_3` holds those of
version 3; `benchmarks/dft/convergence_v3.json` in the repository holds the errors that they leave.
This prints its two tables as Markdown:

    found = json.loads(Path("benchmarks/dft/convergence_v3.json").read_text())
    for rows in (found["cutoff"], found["kpoints"]):
        print(markdown_table(tuple(rows[0]), [tuple(row.values()) for row in rows]))

with `markdown_table` from `benchmarks.core.formatting`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

MAGNETIC: Final = frozenset({"Cr", "Mn", "Fe", "Co", "Ni"})
"""Elements of GPAW's setups that can be magnetic; the settings are not spin-polarised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DFTSettings:
    """The settings that must be equal for two relaxations to stand in one table."""

    functional: str = "PBE"
    cutoffs: dict[str, float] = field(
        default_factory=lambda: {"F N O": 800.0, "B C H": 700.0, "": 600.0}
    )
    """Plane-wave cutoff [eV] where one of these elements is present; the first that applies."""
    cutoff_factor: float = 1.0
    """Factor on the cutoff of `cutoffs`."""
    pulay: str = "estimate"
    """The correction of the stress for the finite basis: GPAW's `estimate`, which can be wrong by
    several times, or the slope of the energy over the cutoff, `measured` at the start."""
    kpt_density: float = 2.5
    """Points per Å^-1, Gamma-centred."""
    kpt_factors: dict[str, float] = field(default_factory=lambda: {"": 1.0})
    """Factor on the density where one of these elements is present; the first that applies."""
    fixed_grid: bool = False
    """True if all frames of a trajectory have the grid of k-points of the first."""
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
    max_stress: float | None = None
    """Largest component of the stress [GPa]; if given, `fmax` bounds the forces alone."""
    stiffness: float = 70.0
    """Curvature that the optimiser assumes for displacements at first [eV/Å^2]."""
    cell_stiffness: float | None = None
    """Curvature that it assumes for strains, per volume [eV/Å^3]; None: `stiffness` as well."""
    known_nonmagnetic: bool = False
    """True if compounds of `MAGNETIC` are computed: the list names non-magnetic ones only."""

    def cutoff(self, symbols: Collection[str]) -> float:
        """Plane-wave cutoff of a crystal [eV]."""
        return self.cutoff_factor * _first(self.cutoffs, symbols)

    def density(self, symbols: Collection[str]) -> float:
        """Density of k-points of a crystal [Å^-1]."""
        return self.kpt_density * _first(self.kpt_factors, symbols)

    def job(self, symbols: Collection[str]) -> dict[str, Any]:
        """The settings as the worker reads them, with the cutoff and density of this crystal."""
        return {
            **asdict(self),
            "cutoff": self.cutoff(symbols),
            "kpt_density": self.density(symbols),
        }

    def unsupported(self, symbols: Collection[str]) -> str:
        """The reason why a crystal cannot be computed with these settings; empty if it can."""
        magnetic = ", ".join(sorted(MAGNETIC & set(symbols)))
        if not magnetic or self.known_nonmagnetic:
            return ""
        return f"unsupported: {magnetic} can be magnetic, spin is left out"


VERSION_3: Final = DFTSettings(
    cutoffs={"F": 700.0, "B C H N O": 600.0, "": 500.0},
    pulay="measured",
    kpt_density=3.5,
    kpt_factors={"H N P S As Se Te Br I": 0.75, "F O Cl": 0.6, "": 1.0},
    fixed_grid=True,
    fmax=0.01,
    max_steps=60,
    max_step=0.15,
    max_stress=0.03,
    stiffness=30.0,
    cell_stiffness=0.6,
    known_nonmagnetic=True,
)
"""The settings of the embedded set's version 3: the basis costs less than 0.005 Å in a, b, c."""


def _first(table: Mapping[str, float], symbols: Collection[str]) -> float:
    """The first entry that names one of the elements; the one without names is for all others."""
    present = set(symbols)
    return next(value for names, value in table.items() if not names or present & {*names.split()})
