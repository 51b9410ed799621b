"""Models that cannot share this environment: their worker runs under a Python of its own.

`make env-NAME` makes it, as `.venv-NAME` beside the code (sevenn needs another e3nn than mace-torch
pins). The worker there runs this same code, which `PYTHONPATH` points to, with the packages of
that environment. What passes between the two are classes of ours, numpy arrays and plain values,
which pickle alike in every Python from 3.11 and numpy from 2; a structure of pymatgen or a tensor
never does.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.core import UserError
from benchmarks.models.provenance import versions
from benchmarks.models.registry import find_weights, missing, require
from benchmarks.models.specs import ModelSpec

ROOT = Path(__file__).parents[2]
"""The folder of the code, which has the environments beside it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocatedModel:
    """The weights and versions that the environment of a model reports."""

    weights: tuple[Path, ...]
    versions: Mapping[str, Any] = field(default_factory=dict)
    """`python` and `packages`, as in `run.json`; empty where they are this interpreter's."""


def interpreter(spec: ModelSpec) -> str:
    """Choose the Python that runs a model: this one if it has what the model needs, or its own.

    Raises:
        UserError: Neither has it, with the line that installs it.
    """
    own = ROOT / f".venv-{spec.environment}" / "bin" / "python"
    if spec.environment and missing(spec) and own.is_file():
        return str(own)
    require(spec)
    return sys.executable


def search_path(python: str) -> dict[str, str]:
    """Set the variables by which another Python finds this code, and nothing else of ours."""
    return {} if python == sys.executable else {"PYTHONPATH": str(ROOT)}


def locate_model(spec: ModelSpec, *, offline: bool) -> LocatedModel:
    """Find the model's weights in the environment that will run it, and what is installed there.

    Raises:
        UserError: It lacks a package or the weights, or does not run at all.
    """
    python = interpreter(spec)
    if python == sys.executable:
        return LocatedModel(weights=find_weights(spec, offline=offline))
    done = subprocess.run(  # noqa: S603 - our own module
        [python, "-m", "benchmarks.models.environments"],
        input=pickle.dumps((spec, offline)),
        capture_output=True,
        check=False,
        env=os.environ | search_path(python),
    )
    if done.returncode:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"])[
            -1
        ]
        raise UserError(f"{python} does not run ({last}): make env-{spec.environment}")
    answer = json.loads(done.stdout)
    if "error" in answer:
        raise UserError(answer["error"])
    return LocatedModel(weights=tuple(map(Path, answer["weights"])), versions=answer["versions"])


def main() -> None:
    """Answer `locate_model` from within the environment: it sends a pickle and reads JSON."""
    spec, offline = pickle.load(sys.stdin.buffer)  # noqa: S301 - from our own parent
    answer: dict[str, Any]
    if lacking := missing(spec):
        error = (
            f"{spec.name} needs {', '.join(lacking)}, which .venv-{spec.environment} has not: "
            f"make env-{spec.environment} again if it is old; not every pair can share it"
        )
        answer = {"error": error}
    else:
        try:
            weights = [str(path.absolute()) for path in find_weights(spec, offline=offline)]
            answer = {"weights": weights, "versions": versions()}
        except UserError as found:
            answer = {"error": str(found)}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
