"""Held-out relaxations: the LeMat-Traj reader, splits, and the embedded set."""

from benchmarks.data.dataset import Dataset, ids_sha256, load
from benchmarks.data.frames import Frame, frames
from benchmarks.data.lemat.quarantine import Quarantined, Reason

__all__ = [
    "Dataset",
    "Frame",
    "Quarantined",
    "Reason",
    "frames",
    "ids_sha256",
    "load",
]
