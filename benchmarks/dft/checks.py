"""Checks against entries of the embedded set, converged settings and minima of `perturbed`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.core import Geometry
from benchmarks.core.files import atomic_write
from benchmarks.core.formatting import markdown_table
from benchmarks.core.geometry import displacements
from benchmarks.data import load
from benchmarks.dft.catalogue import starts as version_2
from benchmarks.dft.cost_order import sort_by_cost
from benchmarks.dft.results import DFTResult, InitialStructure
from benchmarks.dft.settings import DFTSettings

TOLERANCE: Final = 0.005
"""Å; how well a, b, c of a version should come out again."""
BACK: Final = 0.025
"""Å; a start that ends nearer to its minimum, in a, b, c and in mean displacement, came back."""
PERTURBED: Final = "-d10s1-0-pbe"
"""The end of the ids of `perturbed` that are checked: 0.1 Å and 1 %, the first of five."""
SPLITS: Final = ("train", "val", "test")
VERSION_1: Final = "embedded"
_PREFIX: Final = "gpaw-"
CONVERGENCE: Final = (
    "gpaw-A-fcc-Al-fcc-0-pbe",
    "gpaw-A-bcc-Na-bcc-0-pbe",
    "gpaw-B1-Ti-C-0-pbe",
    "gpaw-B3-Ga-P-0-pbe",
    "gpaw-B1-Li-Br-0-pbe",
    "gpaw-C32-Mg-B-0-pbe",
    "gpaw-B3-Be-O-0-pbe",
    "gpaw-C1-Cd-F-0-pbe",
    "B1-Mg-O-scaled",
    "B1-Li-F-scaled",
)
"""Metals, a semiconductor, salts, a layered one and four with oxygen or fluorine."""
CONVERGENCE_V3: Final = (
    "gpaw-A-bcc-Na-bcc-0-pbe",
    "gpaw-A-fcc-Al-fcc-0-pbe",
    "gpaw-B3-Ga-P-0-pbe",
    "gpaw-B1-Li-Br-0-pbe",
    "gpaw-B1-Mg-S-0-pbe",
    "B1-Mg-O-scaled",
    "B1-Li-F-scaled",
    "gpaw-B1-Ti-C-0-pbe",
)
"""Structures on which the settings of version 3 are checked; one is a sulfide."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Two ends of one start."""

    name: str
    lengths: float
    """Largest difference of a, b, c [Å]; NaN where one did not end relaxed."""
    displacement: float
    """Mean displacement of the atoms after the best common shift [Å]."""
    volume: float
    """Relative difference of the volumes [%], with its sign."""
    reason: str

    def within(self, tolerance: float) -> bool:
        """Whether both ends are there and are the same: atoms to `BACK` if that is more."""
        return self.lengths <= tolerance and self.displacement <= max(tolerance, BACK)


def tight(settings: DFTSettings) -> DFTSettings:
    """The same, converged: 1.5 times the cutoff, denser k-points, a sixth of the force.

    Where a relaxation stops counts too: in a soft crystal 0.03 eV/Å leave some 0.01 Å.
    """
    return replace(
        settings,
        cutoff_factor=1.5 * settings.cutoff_factor,
        kpt_density=1.6 * settings.kpt_density,
        fmax=settings.fmax / 6,
        max_stress=settings.max_stress and settings.max_stress / 6,
    )


def embedded_starts(
    n: int, source: str = VERSION_1, settings: DFTSettings | None = None
) -> list[InitialStructure]:
    """The first frames of the N cheapest entries of a version, named by their ids."""
    starts = [
        InitialStructure(name.removeprefix(_PREFIX), pair[0])
        for name, pair in _entries(source).items()
    ]
    cheap = sort_by_cost(starts, settings)[:n]
    return [start._replace(name=_PREFIX + start.name) for start in cheap]


def perturbed_starts(n: int) -> list[InitialStructure]:
    """Starts of `perturbed/test`, one a crystal, the cheapest: a third of them oxides if there are.

    They are named by their ids.
    """
    cheap = sort_by_cost(
        [
            InitialStructure(name, pair[0])
            for name, pair in _perturbed().items()
            if name.endswith(PERTURBED)
        ]
    )
    oxides = [start for start in cheap if "O" in start.symbols][: -(-n // 3)]
    names = {start.name for start in oxides}
    others = [start for start in cheap if start.name not in names][: n - len(oxides)]
    return sort_by_cost([*oxides, *others])


def convergence_starts(names: Sequence[str] = CONVERGENCE) -> list[InitialStructure]:
    """The starts of these names, from version 1 and from the list of version 2."""
    first = {name: pair[0] for name, pair in _entries(VERSION_1).items()}
    known = first | {start.name: start.geometry for start in version_2()}
    return [InitialStructure(name, known[name]) for name in names]


def against_embedded(records: Sequence[DFTResult], source: str = VERSION_1) -> list[Difference]:
    """Compare the ends of the records with those of a version, whose ids are their names."""
    pairs = _entries(source)
    return [_difference(record, pairs[record.name][1]) for record in records]


def against_minima(records: Sequence[DFTResult]) -> list[Difference]:
    """Compare the ends of the records with the minima that the starts were made from."""
    pairs = _perturbed()
    return [_difference(record, pairs[record.name][1]) for record in records]


def against(records: Sequence[DFTResult], better: Mapping[str, DFTResult]) -> list[Difference]:
    """Compare the ends of the records with those of better ones of the same names."""
    return [_difference(record, _end(better[record.name])) for record in records]


def ends(
    starts: Sequence[InitialStructure], records: Sequence[DFTResult]
) -> list[InitialStructure]:
    """The ends of the relaxations, as starts of better ones; a start that failed stays."""
    found = {record.name: record.geometry(-1) for record in records if not record.reason}
    return [start._replace(geometry=found.get(start.name, start.geometry)) for start in starts]


def report(title: str, differences: Sequence[Difference], tolerance: float | None) -> str:
    """The differences and their sums as Markdown."""
    head = ("structure", "a, b, c: largest difference (Å)", "displacement (Å)", "volume (%)", "")
    rows = [
        (d.name, f"{d.lengths:.4f}", f"{d.displacement:.4f}", f"{d.volume:+.2f}", d.reason)
        for d in differences
    ]
    known = [d for d in differences if not d.reason]
    lengths = np.array([d.lengths for d in known])
    volumes = np.array([abs(d.volume) for d in known])
    sums = f"{len(known)} of {len(differences)} compared"
    if known:
        sums += (
            f": largest difference {lengths.max():.4f} Å, mean {lengths.mean():.4f} Å; "
            f"displacement, mean {np.mean([d.displacement for d in known]):.4f} Å; "
            f"volume, mean of the absolute difference {volumes.mean():.2f} %"
        )
    if tolerance is not None:
        sums += f"; within {tolerance:g} Å: {sum(d.within(tolerance) for d in known)}"
    return f"# {title}\n\n{sums}.\n\n{markdown_table(head, rows)}\n"


def write(path: Path, text: str, differences: Sequence[Difference]) -> None:
    """The report as `path` and the same numbers as JSON beside it."""
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8")
    rows = [{k: None if v != v else v for k, v in asdict(d).items()} for d in differences]
    with atomic_write(path.with_suffix(".json")) as partial:
        partial.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def _entries(source: str) -> dict[str, tuple[Geometry, Geometry]]:
    """First and last geometries of all splits by id."""
    sets = [load(source, split=split) for split in SPLITS]
    return {name: each.geometries(i) for each in sets for i, name in enumerate(each.ids)}


def _perturbed() -> dict[str, tuple[Geometry, Geometry]]:
    """Starts and minima of `perturbed/test` by id."""
    found = load("perturbed", split="test")
    return {name: found.geometries(i) for i, name in enumerate(found.ids)}


def _difference(record: DFTResult, other: Geometry | None) -> Difference:
    end = _end(record)
    if end is None or other is None:
        reason = record.reason or "no end to compare with"
        return Difference(record.name, np.nan, np.nan, np.nan, reason)
    lengths = np.linalg.norm(end.lattice, axis=1) - np.linalg.norm(other.lattice, axis=1)
    moved = np.linalg.norm(displacements(other, end), axis=1).mean()
    volume = 100 * (np.linalg.det(end.lattice) / np.linalg.det(other.lattice) - 1)
    return Difference(record.name, float(np.abs(lengths).max()), float(moved), float(volume), "")


def _end(record: DFTResult) -> Geometry | None:
    return None if record.reason else record.geometry(-1)
