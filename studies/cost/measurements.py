"""Measurements of all models in one folder, a file each, so that an interrupted study goes on.

All are of one machine, device and number of threads. One command measures models whose packages
clash, each in the environment that has its packages. What is there is not measured again; but if
it is of other weights or packages than are here now, it is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks.core import UserError
from benchmarks.core.files import atomic_write
from benchmarks.models.provenance import load_average
from studies.cost.sites import RELAXED, SUPERCELLS, measure, relaxations, supercell
from studies.cost.timing import Machine, Measured

FOLDER: Final = "measured"
"""The folder of the measurements, beside the tables."""
RELAXED_WITH: Final = "relaxations"
"""Ends the name of the file with a model's relaxations."""


class Extent(NamedTuple):
    """How much is measured of each model."""

    largest: int = 200
    """The largest number of sites."""
    structures: int = RELAXED
    """The number of structures to relax."""


def measure_all(
    models: Sequence[Measured],
    folder: Path,
    machine: Machine,
    extent: Extent,
    say: Callable[[str], None],
) -> None:
    """Make every measurement that is not there: of each model the sizes, then the relaxations.

    A model ends at the first size that it fails at; one with random weights relaxes nothing.

    Args:
        models: The models.
        folder: The folder of the measurements; it is made.
        machine: Where.
        extent: How much.
        say: Told of each measurement and of each failure.

    Raises:
        UserError: The folder has measurements of another machine, or of a model with other weights
            or packages.
    """
    folder.mkdir(exist_ok=True)
    facts = {model.spec.name: _facts(model, machine) for model in models}
    for path, stored in read_measurements(folder).items():
        _require_equal(path, stored["machine"], machine.about())
        if stored["model"] in facts:
            _require_equal(path, stored["about"], facts[stored["model"]]["about"])
            asked = {"structures": extent.structures} if path.stem.endswith(RELAXED_WITH) else {}
            _require_equal(path, stored["measured"], stored["measured"] | asked)

    def made(name: str, model: Measured, measured: Callable[[], Any]) -> bool:
        path = folder / f"{model.spec.name}-{name}.json"
        return path.exists() or _made(path, facts[model.spec.name], measured, say)

    cells = [cell for cell in map(supercell, SUPERCELLS) if len(cell) <= extent.largest]
    for model in models:
        works = False
        for cell in cells:
            name = f"{len(cell):03d}-sites"
            if not made(name, model, partial(measure, model, cell, machine)):
                break
            works = True
        if works and model.weights != "random":
            made(RELAXED_WITH, model, partial(relaxations, model, extent.structures, machine))


def _facts(model: Measured, machine: Machine) -> dict[str, Any]:
    """What is written beside a measurement; `machine` and `about` have to be equal to go on."""
    return {
        "model": model.spec.name,
        "machine": machine.about(),
        "about": {
            "label": model.spec.label,
            "engine": model.spec.engine,
            "weights": model.weights,
            "weights_sha256": model.weights_sha256,
            "python": model.versions.get("python"),
            "packages": dict(model.versions.get("packages", {})),
        },
        "training_cost": [cost and asdict(cost) for cost in model.training_cost],
    }


def _made(
    path: Path, facts: Mapping[str, Any], measured: Callable[[], Any], say: Callable[[str], None]
) -> bool:
    """Make one measurement and keep it; False, with the reason said, if it fails."""
    load = load_average()
    try:
        found = asdict(measured())
    except UserError as error:
        say(f"{path.stem}: {error}")
        return False
    with atomic_write(path) as unfinished:
        whole = {**facts, "load_average": load, "measured": found}
        unfinished.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    say(f"{path.stem}: {json.dumps(found)}")
    return True


def read_measurements(folder: Path) -> dict[Path, dict[str, Any]]:
    """The measurements of a folder by path, in the order of their names.

    Raises:
        UserError: A file is damaged.
    """
    found: dict[Path, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            found[path] = json.loads(path.read_text(encoding="utf-8"))
            _ = [found[path][name] for name in ("model", "machine", "about", "measured")]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is no measurement: remove it") from error
    return found


def _require_equal(path: Path, stored: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Refuse a measurement that differs in a field from what would be measured now.

    Raises:
        UserError: With the field and both values.
    """
    for name in sorted(stored.keys() | here.keys()):
        there, now = stored.get(name), here.get(name)
        if isinstance(there, dict) and isinstance(now, dict):
            _require_equal(path, there, now)
        elif there != now:
            raise UserError(
                f"{path}: {name} is {there!r} there and {now!r} here: remove it, or give another "
                "--out"
            )
