"""The data card of a set of reference relaxations, written from the records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.core import GPA
from benchmarks.core.formatting import markdown_table
from benchmarks.core.geometry import displacements
from benchmarks.dft.cost_order import kpoint_grid
from benchmarks.dft.results import DFTResult
from benchmarks.dft.settings import DFTSettings

_COLUMNS = """The columns and types of LeMat-Traj, one row per frame; `id` is
`{immutable_id}-{trajectory}-{functional}-{step}`. Lattices and positions in Å, energies (free
energies, eV per cell) with the zero of GPAW's setups, forces in eV/Å, stress in kB with VASP's
sign (minus ASE's). What LeMat-Traj has and was not computed is null."""
_STRESS = 0.1
"""Largest stress of a crystal that the potentials call relaxed [GPa]."""
MOVED = 0.005
"""Smallest displacement that counts as a move [Å]."""
_LIMITS = """Not spin-polarised, so {magnetic} are left out; no dispersion, so layered
crystals are as PBE makes them. Only what converged within the limits of time and steps is in the
tables. `python -m benchmarks.dft --convergence` measures the error of the basis."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """The contents of a data card beside the counts."""

    title: str
    about: str
    """The origin of the initial structures."""
    licence: str
    settings: DFTSettings
    versions: Mapping[str, str]
    records: Sequence[DFTResult]
    """All records, also those of failures."""

    def text(self, splits: Mapping[str, Sequence[DFTResult]]) -> str:
        """The card as Markdown.

        Args:
            splits: The relaxed structures of each file.
        """
        failed = [record for record in self.records if record.reason]
        used = [record for record in self.records if not record.reason]
        pairs = {pair for record in self.records for pair in record.setups.items()}
        setups = ", ".join(f"{symbol} {found[:8]}" for symbol, found in sorted(pairs))
        left_out = ("structure", "reason", "frames", "time (s)")
        rows = [(r.name, r.reason, len(r.frames), f"{r.seconds:.0f}") for r in failed]
        sections = [
            f"# {self.title}",
            f"{len(used)} of {len(self.records)} structures relaxed. {self.about}",
            f"Licence: {self.licence}.",
            "## Sizes",
            _sizes(splits),
            "## How it was computed",
            _computed(self.settings, self.versions),
            _residuals(used, self.settings),
            _grids(used, self.settings),
            f"PAW setups (fingerprint of the file): {setups}.",
            "## Columns",
            _COLUMNS,
            "## Left out",
            markdown_table(left_out, rows) if failed else "Nothing.",
            "## Limits",
            _LIMITS.format(
                magnetic="crystals known as magnetic"
                if self.settings.known_nonmagnetic
                else "magnetic elements"
            ),
        ]
        return "\n\n".join(sections) + "\n"


def _sizes(splits: Mapping[str, Sequence[DFTResult]]) -> str:
    head = (
        *("", "relaxations", "frames", "chemical systems", f"atoms move (> {MOVED:g} Å)"),
        *("a, b, c change (Å)", "volume (%)"),
    )
    rows = [(name, *_size(records)) for name, records in splits.items()]
    used = [record for records in splits.values() for record in records]
    elements = sorted({symbol for record in used for symbol in record.symbols})
    sites = [len(record.symbols) for record in used]
    note = (
        f"{min(sites)} to {max(sites)} sites, {len(elements)} elements: {' '.join(elements)}. The "
        "changes are means of the absolute change from the first frame to the last."
    )
    return f"{markdown_table(head, rows)}\n\n{note}"


def _size(records: Sequence[DFTResult]) -> tuple[object, ...]:
    moves = [displacements(record.geometry(-1), record.geometry(0)) for record in records]
    largest = [np.linalg.norm(moved, axis=1).max() for moved in moves]
    ends = np.array([[r.frames[0]["lattice"], r.frames[-1]["lattice"]] for r in records])
    lengths, volumes = np.linalg.norm(ends, axis=3), np.abs(np.linalg.det(ends))
    return (
        len(records),
        sum(len(record.frames) for record in records),
        len({frozenset(record.symbols) for record in records}),
        sum(moved > MOVED for moved in largest),
        f"{np.abs(lengths[:, 1] - lengths[:, 0]).mean():.3f}",
        f"{100 * np.abs(volumes[:, 0] / volumes[:, 1] - 1).mean():.1f}",
    )


def _computed(settings: DFTSettings, versions: Mapping[str, str]) -> str:
    factor = settings.cutoff_factor
    cutoffs = ", ".join(
        f"{factor * energy:g} eV {_where(names)}" for names, energy in settings.cutoffs.items()
    )
    densities = f"{settings.kpt_density:g} per Å^-1"
    if len(settings.kpt_factors) > 1:
        densities = ", ".join(
            f"{settings.kpt_density * factor:g} per Å^-1 {_where(names)}"
            for names, factor in settings.kpt_factors.items()
        )
    pulay = (
        "by the slope of the energy over the cutoff, measured at the start"
        if settings.pulay == "measured"
        else f"(`dedecut='{settings.pulay}'`)"
    )
    basis = f"plane waves, {cutoffs}; Pulay correction of the stress {pulay}"
    tolerances = (settings.density_tolerance, settings.eigenstates_tolerance)
    rows = {
        "code": f"GPAW {versions['gpaw']} through ASE {versions['ase']}",
        "Python, NumPy": f"{versions['python']}, {versions['numpy']}",
        "functional": f"{settings.functional}, not spin-polarised",
        "basis": basis,
        "k-points": f"Gamma-centred, density {densities}",
        "occupations": f"Fermi-Dirac, {settings.smearing:g} eV",
        "self-consistency": "density {:g}, eigenstates {:g}, ".format(*tolerances)
        + f"at most {settings.max_iterations} iterations",
        "optimiser": f"BFGS on `ExpCellFilter`, fmax {settings.fmax:g} eV/Å, "
        + (f"stress {settings.max_stress:g} GPa, " if settings.max_stress else "")
        + f"at most {settings.max_steps} steps, maximum step {settings.max_step:g} Å",
    }
    return markdown_table(("setting", "value"), rows.items())


def _residuals(used: Sequence[DFTResult], settings: DFTSettings) -> str:
    force = max(np.linalg.norm(record.frames[-1]["forces"], axis=1).max() for record in used)
    stress = [np.abs(record.frames[-1]["stress"]).max() / GPA for record in used]
    loose = sorted(r.name for r, each in zip(used, stress, strict=True) if each > _STRESS)
    return (
        f"At the last frames the largest force is {force:.3f} eV/Å and the largest component of "
        f"the stress {max(stress):.2f} GPa"
        + (
            "."
            if settings.max_stress
            else f" (over {_STRESS:g} GPa: {', '.join(loose) or 'none'}); "
            "fmax bounds the virial per atom, which is lenient for a small cell."
        )
    )


def _grids(used: Sequence[DFTResult], settings: DFTSettings) -> str:
    if settings.fixed_grid:
        return "All frames of a trajectory stand on the grid of k-points of the first."
    grids = [
        {kpoint_grid(frame["lattice"], settings.density(record.symbols)) for frame in record.frames}
        for record in used
    ]
    n = sum(len(each) > 1 for each in grids)
    return (
        f"The grid of k-points follows the cell, so that frames of one trajectory can stand on "
        f"different ones ({n} of {len(used)} trajectories): their energies differ by more than "
        "their forces say."
    )


def _where(names: str) -> str:
    return f"with {names}" if names else "otherwise"
