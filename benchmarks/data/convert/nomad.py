"""NOMAD's processed archive (`archive.json`) of a geometry optimisation, by VASP or FHI-aims.

The sections `run/*/system`, `run/*/calculation` and `run/*/method` are in SI units. NOMAD's
parsers (github.com/nomad-coe/electronic-parsers, `vasp` and `fhiaims`) have these habits:

- the stress keeps the sign of the code: VASP's own, while that of FHI-aims is dE/dstrain/volume;
- FHI-aims has its forces under `forces.free`, and no stress of a calculation, only of its cycles;
- `energy.free` is the free energy, of which the forces are the slope, `energy.total` is not, and
  `energy.total_t0` of some versions of VASP is only the part of the entropy.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data.convert.conventions import (
    JOULE,
    METRE,
    NEWTON,
    PASCAL,
    check_tags,
    constraint_of_tags,
    functional_of_libxc,
    functional_of_tags,
    unfinished_of_tags,
    vasp_tags,
)
from benchmarks.data.convert.recognition import open_text
from benchmarks.data.convert.relaxation import (
    HYDROGEN,
    ConversionError,
    Relaxation,
    Step,
    largest_force,
    most_common,
    numbers,
)
from benchmarks.data.lemat.arrow import atomic_number
from benchmarks.data.lemat.quarantine import Reason

_ENERGIES = ("free", "total", "total_t0")
_STRESS_SIGN = {"vasp": 1, "fhi-aims": -1}
"""Factor that gives VASP's sign; the stress of another program is left out, its sign is unknown."""


def read(path: Path) -> Relaxation:
    """All calculations of an archive, in order; those of its n-th run are calculation n."""
    archive = _archive(path)
    runs = archive["run"]
    methods = [method for run in runs for method in run.get("method") or []]
    found = [
        (number, calculation)
        for number, run in enumerate(runs)
        for calculation in run.get("calculation") or []
    ]
    for method in methods:
        check_tags(_tags(method))
    _check_dynamics(runs)
    energies = [_at(calculation, "energy") or {} for _, calculation in found]
    kind = most_common(_ENERGIES, energies)
    program = _at(runs[0], "program", "name")
    material = _at(archive, "results", "material", "material_id")
    sign = _STRESS_SIGN.get(str(program).lower())
    if found:
        _check_labels(_system(runs, found[0][1]))
    steps = [_step(runs, number, calculation, kind, sign) for number, calculation in found]
    held = any(
        # VASP's selective dynamics has False where it stops a site in a direction
        not all(all(site) for site in _at(system, "x_vasp_selective_dynamics") or [])
        for run in runs
        for system in run.get("system") or []
    )
    by_tags = next(filter(None, (constraint_of_tags(_tags(method)) for method in methods)), "")
    return Relaxation(
        steps=steps,
        functional=_functional(methods),
        material=f"nomad-{material}" if re.fullmatch(r"[\w-]+", str(material or "")) else None,
        program=program,
        cutoff=_cutoff(archive, methods),
        hubbard_u=_hubbard_u(methods),
        constraint="some sites were held fixed" if held else by_tags,
        unfinished=_unfinished(archive, steps),
    )


def _unfinished(archive: Any, steps: list[Step]) -> str:
    runs = archive["run"]
    if any(run.get("clean_end") is False for run in runs):
        return f"breaks off after {len(steps)} ionic steps"
    older = [each for each in _at(archive, "workflow") or [] if isinstance(each, dict)]
    said = [_at(archive, "workflow2", "results", "is_converged_geometry")]
    said += [_at(each, "geometry_optimization", "is_converged_geometry") for each in older]
    if False in said:
        return "NOMAD says is_converged_geometry: false"
    last = [step for step in steps if step.calculation == len(runs) - 1]
    tags = [_tags(method) for method in runs[-1].get("method") or []]
    if not last or not tags:
        return ""
    energies = [step.energy for step in last]
    return unfinished_of_tags(tags[-1], len(last), largest_force(last[-1]), energies)


def _check_dynamics(runs: Any) -> None:
    for run in runs:
        for number, system in enumerate(run.get("system") or []):
            velocities = _at(system, "atoms", "velocities")
            if velocities is not None and np.any(velocities):
                raise ConversionError(
                    f"not a relaxation: the sites of system {number} have velocities"
                )


def _archive(path: Path) -> Any:
    """The part of the file that has the runs; the API wraps it in other objects.

    Raises:
        ConversionError: There are no runs, or they are no geometry optimisation.
    """
    with open_text(path) as file:
        archive = json.load(file)
    for key in ("data", "archive"):
        if _at(archive, "run") is None and isinstance(_at(archive, key), dict):
            archive = archive[key]
    if not _at(archive, "run"):
        raise ConversionError("no section `run`: not a processed archive of NOMAD's run schema")
    named = _at(archive, "workflow2", "m_def")
    if not named:
        named = next((_at(each, "type") for each in _at(archive, "workflow") or []), None)
    kind = str(named or "").rpartition(".")[2].replace("_", "").lower()
    if kind not in ("", "geometryoptimization") and not kind.endswith("workflow"):
        raise ConversionError(f"not a geometry optimisation: {named}")
    return archive


def _at(section: Any, *keys: str) -> Any:
    """The value at a path of nested objects; None where one is missing."""
    for key in keys:
        section = section.get(key) if isinstance(section, dict) else None
    return section


def _step(
    runs: Any, number: int, calculation: Mapping[str, Any], kind: str, sign: int | None
) -> Step:
    atoms = _system(runs, calculation)
    lattice = atoms.get("lattice_vectors")
    if lattice is None or not all(atoms.get("periodic") or (True,)):
        raise ConversionError(Reason.NOT_PERIODIC)
    symbols = _symbols(atoms)
    energy = numbers(_at(calculation, "energy", kind, "value"), (), JOULE)
    forces = _at(calculation, "forces", "total", "value")
    if forces is None:
        forces = _at(calculation, "forces", "free", "value")
    stress = _at(calculation, "stress", "total", "value") if sign else None
    return Step(
        symbols=symbols,
        lattice=np.asarray(lattice, dtype=np.float64) * METRE,
        positions=np.asarray(atoms.get("positions"), dtype=np.float64) * METRE,
        energy=None if energy is None else float(energy),
        forces=numbers(forces, (len(symbols), 3), NEWTON),
        stress=numbers(stress, (3, 3), PASCAL * (sign or 1)),
        calculation=number,
    )


def _system(runs: Any, calculation: Mapping[str, Any]) -> Any:
    """The atoms that a calculation is of.

    Raises:
        ConversionError: It does not refer to a system.
    """
    reference = str(calculation.get("system_ref"))
    match = re.search(r"run/(\d+)/system/(\d+)$", reference)
    if not match:
        raise ConversionError(f"a calculation without its system (system_ref: {reference})")
    return _at(runs[int(match[1])]["system"][int(match[2])], "atoms") or {}


def _symbols(atoms: Mapping[str, Any]) -> tuple[str, ...]:
    """The elements, by the labels; where a label is none (`Na1`), by the atomic numbers.

    Raises:
        ConversionError: A label names no element and there is no atomic number.
    """
    by_number = _elements(atoms)
    symbols = []
    for site, label in enumerate(atoms.get("labels") or by_number):
        symbol = HYDROGEN.get(label, label)
        if not atomic_number(symbol):
            symbol = by_number[site] if site < len(by_number) else None
        if symbol is None:
            raise ConversionError(
                f"{Reason.UNKNOWN_ELEMENT}: site {site} has the label {label!r}, and no atomic "
                "number (`species`) says what it is"
            )
        symbols.append(symbol)
    return tuple(symbols)


def _elements(atoms: Mapping[str, Any]) -> list[str | None]:
    """The elements by the atomic numbers of the section, which an archive need not have."""
    from ase.data import chemical_symbols

    numbers = atoms.get("species") or []
    return [chemical_symbols[z] if 0 < z < len(chemical_symbols) else None for z in numbers]


def _check_labels(atoms: Any) -> None:
    """Check that labels and atomic numbers of the first system do not contradict each other."""
    for site, symbol in enumerate(_elements(atoms)):
        label = atoms["labels"][site] if site < len(atoms.get("labels") or ()) else None
        if symbol and atomic_number(label) and label != symbol:
            raise ConversionError(
                f"site {site} has the label {label!r} and the atomic number of {symbol}: mend one"
            )


def _tags(method: Any) -> dict[str, Any]:
    asked, used = (_at(method, f"x_vasp_incar_{key}") or {} for key in ("in", "out"))
    return vasp_tags(asked, used)


def _functional(methods: list[Any]) -> str | None:
    named = (functional_of_tags(_tags(method)) for method in methods)
    by_tags = next((functional for functional in named if functional), None)
    for method in methods:
        correction = _at(method, "electronic", "van_der_waals_method")
        if correction:
            raise ConversionError(f"functional with a van der Waals correction: {correction}")
    names: list[str] = []
    for method in methods:
        functional = _at(method, "dft", "xc_functional")
        parts = [
            part["name"]
            for key in ("exchange", "correlation", "hybrid", "contributions")
            for part in _at(functional, key) or []
        ]
        names += parts or filter(None, str(_at(functional, "name") or "").split("+"))
    return by_tags or functional_of_libxc(names)


def _cutoff(archive: Any, methods: list[Any]) -> float | None:
    """The cutoff of the plane waves [eV]."""
    cutoff = _at(archive, "results", "method", "simulation", "precision", "planewave_cutoff")
    sets = (
        basis
        for method in methods
        for container in _at(method, "electrons_representation") or []
        for basis in _at(container, "basis_set") or []
        if "valence" in (_at(basis, "scope") or ())
    )
    cutoff = cutoff or next((_at(basis, "cutoff") for basis in sets), None)
    return None if cutoff is None else float(cutoff) * JOULE


def _hubbard_u(methods: list[Any]) -> dict[str, float]:
    effective = {}
    for parameters in (each for m in methods for each in _at(m, "atom_parameters") or []):
        model = _at(parameters, "hubbard_kanamori_model") or _at(parameters, "hubbard_model") or {}
        u = model.get("u_effective")
        u = (model.get("u") or 0.0) - (model.get("j") or 0.0) if u is None else u
        if u:
            effective[str(parameters.get("label"))] = u * JOULE
    return effective
