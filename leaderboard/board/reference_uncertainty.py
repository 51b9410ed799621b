"""How far the references of this project's own sets are from converged ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.data.folders import EMBEDDED

SETS: Final = ("embedded-v1", "embedded-v2")
"""Made with the settings that were tested."""
MEASURED: Final = EMBEDDED / "convergence.json"
"""Written by `python -m benchmarks.dft --convergence`."""


def reference_uncertainty(dataset: str, measured: Path = MEASURED) -> str | None:
    """What to know of the references before reading an error; None where nothing was measured.

    Args:
        dataset: Name of the data set.
        measured: Differences between ends with the usual and with converged settings.
    """
    if dataset not in SETS or not measured.is_file():
        return None
    found = [row for row in json.loads(measured.read_text()) if not row["reason"]]
    lengths = np.array([row["lengths"] for row in found])
    volumes = np.abs([row["volume"] for row in found])
    return (
        "Floor: with converged settings (1.5 times the cutoff, 1.6 times the density of k-points, "
        f"a sixth of the force at which to stop) the references of {len(found)} prototype crystals "
        f"change by {np.median(lengths):.3f} Å in the largest of a, b, c (median; mean "
        f"{lengths.mean():.3f}, largest {lengths.max():.3f}) and {np.median(volumes):.2f} % in "
        f"volume (mean {volumes.mean():.2f}, largest {volumes.max():.2f}): errors below that say "
        "nothing."
    )
