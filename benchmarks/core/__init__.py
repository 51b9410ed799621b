"""The words that every part shares: samples, outcomes, the relaxer protocol, errors, units."""

from benchmarks.core.types import (
    ANSWERED,
    GPA,
    KBAR,
    SCORED,
    Geometry,
    MissingFinalFrame,
    Relaxed,
    Relaxer,
    RelaxSettings,
    Sample,
    Status,
    UserError,
)

__all__ = [
    "ANSWERED",
    "GPA",
    "KBAR",
    "SCORED",
    "Geometry",
    "MissingFinalFrame",
    "RelaxSettings",
    "Relaxed",
    "Relaxer",
    "Sample",
    "Status",
    "UserError",
]
