"""The words that every part shares: samples, outcomes, the relaxer protocol, errors, units."""

from benchmarks.core.types import (
    ANSWERED,
    GPA,
    KBAR,
    SCORED,
    WHOLE,
    Geometry,
    MissingFinalFrame,
    Relaxed,
    Relaxer,
    RelaxSettings,
    Sample,
    Shard,
    Status,
    UnavailableError,
    UserError,
)

__all__ = [
    "ANSWERED",
    "GPA",
    "KBAR",
    "SCORED",
    "WHOLE",
    "Geometry",
    "MissingFinalFrame",
    "RelaxSettings",
    "Relaxed",
    "Relaxer",
    "Sample",
    "Shard",
    "Status",
    "UnavailableError",
    "UserError",
]
