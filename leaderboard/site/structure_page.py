"""The facts of one structure's page: start, reference and every answer, as tables and for 3D.

Only data sets that may be published have such pages; of the others a site has ids and scores.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote

import numpy as np

from benchmarks.core import Geometry
from benchmarks.core.geometry import cell_parameters
from benchmarks.core.inert_text import file_names
from benchmarks.store import Record
from leaderboard.scoring import ScoredRuns

if TYPE_CHECKING:
    from benchmarks.data import Dataset

MOST: Final = 500
"""A data set with more samples has no pages of its structures."""
ERRORS: Final = (
    ("score", "Score", 3), ("lattice_error", "Lattice (Å)", 3), ("volume_error", "Volume (%)", 2),
    ("strain", "Strain", 4), ("position_error", "Displacement (Å)", 3),
    ("position_max", "Largest displacement (Å)", 3), ("rmsd", "Match RMSD", 3),
    ("seconds_per_structure", "Time (s)", -2), ("n_force_evals", "Force evals", 0),
)  # fmt: skip
"""Columns of a model's scores, their headers and decimals; -2 are two significant digits."""
_BORDER: Final = 0.02
"""An atom that is nearer to a face of the cell than this [fraction] is drawn on both faces."""


class Shown(NamedTuple):
    """One structure as it is shown."""

    label: str
    kind: str
    """`start`, `reference` or `model`."""
    parameters: list[float]
    """a, b, c [Å], alpha, beta, gamma [°], volume [Å³]."""
    sites: list[tuple[str, list[float]]]
    """Fractional coordinates; before them the symbol where it is not that of the start's site."""


class Answer(NamedTuple):
    """What one model answered."""

    model: str
    status: str
    errors: list[float | None]
    energy: float | None
    """By the model itself [eV/atom]."""
    written: str
    """The text or the reason that is stored with the answer."""


class StructurePage(NamedTuple):
    """One sample."""

    sample_id: str
    address: str
    facts: list[tuple[str, str]]
    labels: list[str]
    """Of the sites: `Na1`; of sites that only an answer has their number alone."""
    shown: list[Shown]
    answers: list[Answer]
    drawn: list[dict[str, Any]]
    """For the viewer: label, kind, the corners of the cell and the atoms [Å], border atoms twice.
    """


def structure_addresses(listed: Sequence[ScoredRuns]) -> dict[tuple[str, str], str]:
    """The address of each structure's page, by revision of the data and sample id."""
    keys = [
        (scored.dataset.revision, sample_id)
        for scored in listed
        if scored.dataset is not None and _published(scored.dataset)
        for sample_id in sorted({each for table in scored.tables for each in table["sample_id"]})
    ]
    counts: dict[str, set[str]] = {}
    for revision, sample_id in keys:
        counts.setdefault(sample_id, set()).add(revision)
    names = {
        key: key[1]
        if len(counts[key[1]]) == 1
        else f"{key[1]} {key[0].removeprefix('sha256:')[:8]}"
        for key in dict.fromkeys(keys)
    }
    files = file_names(names.values())
    return {key: f"structure/{quote(files[name])}.html" for key, name in names.items()}


def _published(dataset: Dataset) -> bool:
    return dataset.redistributable and len(dataset) <= MOST


def structure_pages(
    listed: Sequence[ScoredRuns], addresses: Mapping[tuple[str, str], str]
) -> Iterator[StructurePage]:
    """The page of each sample; of two boards of one data set the first that has the sample."""
    done: set[tuple[str, str]] = set()
    for scored in listed:
        dataset = scored.dataset
        if dataset is None or not _published(dataset):
            continue
        records: dict[str, list[Record]] = {}
        for run in scored.runs:
            for record in run.records:
                if record.repeat == 0:
                    records.setdefault(record.sample_id, []).append(record)
        scores = {
            run.name: table[table["repeat"] == 0].set_index("sample_id").to_dict("index")
            for run, table in zip(scored.runs, scored.tables, strict=True)
        }
        for position, sample_id in enumerate(dataset.ids):
            key = (dataset.revision, sample_id)
            if key not in addresses or key in done:
                continue
            done.add(key)
            yield _page(dataset, position, addresses[key], records.get(sample_id, []), scores)


def _page(
    dataset: Dataset, position: int, address: str, records: Sequence[Record],
    scores: Mapping[str, Mapping[Any, Mapping[Any, Any]]],
) -> StructurePage:  # fmt: skip
    sample_id = dataset.ids[position]
    initial, reference = dataset.geometries(position)
    geometries = [("Start", "start", initial), ("DFT reference", "reference", reference)]
    answers = []
    known: Mapping[Any, Any] = {}
    for record in records:
        found = scores.get(record.model, {}).get(sample_id)
        if found is None:
            continue
        known = found
        if record.geometry is not None and _drawable(record.geometry):
            geometries.append((record.model, "model", record.geometry))
        per_atom = None if record.energy is None else record.energy / len(initial.numbers)
        errors = [_finite(found.get(column)) for column, _, _ in ERRORS]
        answers.append(
            Answer(record.model, str(found["status"]), errors, per_atom, record.detail or "")
        )
    answers.sort(key=lambda each: (-(each.errors[0] or 0.0), each.model))
    facts = [
        ("Data set", dataset.name + (f", split {dataset.split}" if dataset.split else "")),
        ("Composition", str(known.get("group", ""))),
        ("Sites", str(len(initial.numbers))),
        ("Crystal system of the start", str(known.get("crystal_system", ""))),
        ("Functional", str(known.get("functional", ""))),
        ("Source", str(known.get("source", ""))),
    ]
    symbols = _symbols(initial)
    return StructurePage(
        sample_id=sample_id,
        address=address,
        facts=[(name, text) for name, text in facts if text],
        labels=[
            f"{symbols[k] if k < len(symbols) else ''}{k + 1}"
            for k in range(max(len(geometry.numbers) for _, _, geometry in geometries))
        ],
        shown=[_shown(*each, symbols) for each in geometries],
        answers=answers,
        drawn=[_drawn(*each) for each in geometries],
    )


def _finite(value: Any) -> float | None:
    return float(value) if value is not None and np.isfinite(value) else None


def _drawable(geometry: Geometry) -> bool:
    """Whether a structure, which may be nonsense, has finite numbers and a cell."""
    finite = np.isfinite(geometry.lattice).all() and np.isfinite(geometry.frac_coords).all()
    return bool(finite) and abs(float(np.linalg.det(geometry.lattice))) > 1e-6


def _symbols(geometry: Geometry) -> list[str]:
    from pymatgen.core import Element

    return [str(Element.from_Z(int(number)).symbol) for number in geometry.numbers]


def _shown(label: str, kind: str, geometry: Geometry, start: Sequence[str]) -> Shown:
    parameters = [*cell_parameters(geometry.lattice).tolist(), _volume(geometry)]
    notes = [
        "" if k < len(start) and symbol == start[k] else symbol
        for k, symbol in enumerate(_symbols(geometry))
    ]
    coordinates = (np.round(geometry.frac_coords, 4) + 0.0).tolist()  # no -0.0000
    return Shown(label, kind, parameters, list(zip(notes, coordinates, strict=True)))


def _volume(geometry: Geometry) -> float:
    return abs(float(np.linalg.det(geometry.lattice)))


def _drawn(label: str, kind: str, geometry: Geometry) -> dict[str, Any]:
    """A structure in Cartesian coordinates; an atom on a face, edge or corner stands on all."""
    atoms = []
    for symbol, site in zip(_symbols(geometry), geometry.frac_coords % 1.0, strict=True):
        images = [
            [0.0, 1.0] if x < _BORDER else [0.0, -1.0] if x > 1 - _BORDER else [0.0] for x in site
        ]
        for shift in itertools.product(*images):
            place = (site + np.array(shift)) @ geometry.lattice
            atoms.append([symbol, *np.round(place, 4).tolist()])
    return {
        "label": label,
        "kind": kind,
        "lattice": np.round(geometry.lattice, 4).tolist(),
        "atoms": atoms,
    }
