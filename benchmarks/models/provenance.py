"""The provenance of a run: code, packages, machine, weights and what their training cost.

It is recorded with the run and never compared, apart from the hashes of the weights.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.core.published_weights import PUBLISHED_WEIGHTS
from benchmarks.core.training_cost import TrainingCost, measured_costs
from benchmarks.core.training_data import Track
from benchmarks.models.specs import MODELS, ModelSpec

PACKAGES = (
    "t2relax-bench",
    "accelerate",
    "ase",
    "chgnet",
    "dgl",
    "diep",
    "e3nn",
    "llguidance",
    "mace-torch",
    "matgl",
    "moyopy",
    "numpy",
    "pandas",
    "pyarrow",
    "pymatgen",
    "pymatgen-core",
    "safetensors",
    "scikit-learn",
    "scipy",
    "sevenn",
    "skops",
    "torch",
    "torch-sim-atomistic",
    "transformers",
)
"""Distributions whose version can move a number."""


def environment(device: str) -> dict[str, Any]:
    """Describe the code and the machine, for `run.json`.

    Args:
        device: The device of `--device`; a CUDA device is recorded with the name of the card.
    """
    return {
        **_git_state(),
        **versions(),
        "device": device_name(device),
        "cpu": _cpu_name(),
        "load_average": load_average(),
    }


def versions() -> dict[str, Any]:
    """Give the versions of this interpreter and of the `PACKAGES` that are installed for it."""
    packages = {}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            packages[name] = metadata.version(name)
    return {"packages": packages, "python": platform.python_version()}


def now() -> str:
    """Give the time as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def load_average() -> list[float]:
    """Give the load of the machine over the last 1, 5 and 15 minutes; empty where unknown."""
    try:
        return [round(value, 2) for value in os.getloadavg()]
    except OSError:
        return []


def weights_identity(paths: Sequence[Path]) -> dict[str, str | None]:
    """Name and hash the weights; several (a hybrid's) are joined by `+`, and none gives None."""
    return {
        "weights": "+".join(f"{path.parent.name}/{path.name}" for path in paths) or None,
        "weights_sha256": "+".join(_sha256(path) for path in paths) or None,
    }


def training_costs(spec: ModelSpec, weights: Sequence[Path]) -> list[TrainingCost | None]:
    """What the trainings of a model cost, of a hybrid those of all its parts in order.

    Args:
        spec: The model.
        weights: Its weights as `weights_identity` takes them.

    Returns:
        None stands for a training whose cost is not known; a part that was not trained has no
        entry.
    """
    paths = iter(weights)
    costs: list[TrainingCost | None] = []
    for part in spec.parts or (spec,):
        path = next(paths, None) if part.weights else None
        if part.track is Track.TRIVIAL:
            continue
        if part.name in PUBLISHED_WEIGHTS:
            costs.append(PUBLISHED_WEIGHTS[part.name].training_cost)
        else:
            costs += (measured_costs(path) if path else ()) or (None,)
    return costs


def known_training_costs(
    model: str, weights_sha256: str | None
) -> list[TrainingCost | None] | None:
    """The same of a stored run: published weights by their name, packaged ones by their hash.

    Args:
        model: The name of the run's model.
        weights_sha256: The hashes of its weights, as `weights_identity` gives them.

    Returns:
        None if a part is no model of the registry, or was not run with the packaged weights.
    """
    hashes = iter((weights_sha256 or "").split("+"))
    costs: list[TrainingCost | None] = []
    for name in model.split("+"):
        spec = MODELS.get(name)
        if spec is None:
            return None
        digest = next(hashes, "") if spec.weights else ""
        if spec.track is Track.TRIVIAL:
            continue
        if name in PUBLISHED_WEIGHTS:
            costs.append(PUBLISHED_WEIGHTS[name].training_cost)
        elif digest in _packaged_costs():
            costs += _packaged_costs()[digest] or (None,)
        else:
            return None
    return costs


@cache
def _packaged_costs() -> dict[str, tuple[TrainingCost, ...]]:
    """What the cards of the packaged weights say, by the hash of the weights."""
    root = Path(__file__).parents[2]
    carded = [p for p in (root / "baselines").iterdir() if p.with_suffix(".json").is_file()]
    checkpoints = (root / "t2relax").glob("*/model.safetensors")
    return {_sha256(path): measured_costs(path) for path in (*carded, *checkpoints)}


def _sha256(path: Path) -> str:
    """Hash a file's content, or for a folder the names and hashes of the files in it."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        lines = (f"{file.relative_to(path).as_posix()} {_sha256(file)}" for file in files)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _git_state() -> dict[str, Any]:
    """Give the commit, and if tracked files differ from it; None outside of a checkout."""
    here = Path(__file__)
    # A virtual environment can lie inside the checkout of something else.
    if _git_output("ls-files", "--error-unmatch", here.name) is None:
        return {"git_sha": None, "git_dirty": None}
    changed = _git_output("status", "--porcelain", "--untracked-files=no")
    return {"git_sha": _git_output("rev-parse", "HEAD"), "git_dirty": bool(changed)}


def _git_output(*arguments: str) -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - fixed
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def device_name(device: str) -> str:
    """Add the name of the card to a CUDA device: `cuda (NVIDIA H100 80GB HBM3)`."""
    if not device.startswith("cuda"):
        return device
    import torch

    return f"{device} ({torch.cuda.get_device_name(device)})"


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or f"{platform.machine()} ({sys.platform})"
