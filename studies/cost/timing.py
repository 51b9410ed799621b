"""Calls of a relaxer in a fresh worker process: how long each took, and how far its memory went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.core import Geometry, Relaxed, RelaxSettings, UserError
from benchmarks.engine.process import Worker, threads
from benchmarks.engine.worker import BatchAnswer, Failure, Ready
from benchmarks.models.provenance import device_name
from benchmarks.models.specs import ModelSpec

LIMIT = 1800.0
"""For loading, and for each call [s]; only what hangs takes so long."""


class Machine(NamedTuple):
    """The device and the log of the workers."""

    device: str
    """`cpu` or `cuda`."""
    log: Path
    """File to which their output is appended."""

    def about(self) -> dict[str, Any]:
        """The columns of a row that describe the machine."""
        return {"threads": threads(), "device": device_name(self.device)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """The times and outcomes of the calls after the first."""

    seconds: tuple[float, ...]
    """Time of each call [s]."""
    outcomes: tuple[Relaxed, ...]
    """Outcomes of all calls; their structures stay in the worker."""
    loaded_mb: float
    """Peak memory before the first call [MB], see `benchmarks.engine.worker.peak_memory_mb`."""
    peak_mb: float
    """And in the end [MB]."""


def timed(
    spec: ModelSpec,
    settings: RelaxSettings,
    calls: Sequence[Sequence[Geometry]],
    machine: Machine,
) -> Timed:
    """Time the calls of `relax`; the first is a warm-up and does not count.

    Args:
        spec: The model.
        settings: What its relaxer gets; the device is that of `machine`, and it is offline.
        calls: The structures of each.
        machine: Where.

    Raises:
        UserError: The model cannot be loaded, or a call came to nothing.
    """
    settings = replace(settings, device=machine.device, offline=True)
    worker = Worker(spec, settings, machine.log)
    try:
        ready = _got(spec, worker.load(LIMIT))
        assert isinstance(ready, Ready)
        answers = [_got(spec, worker.ask(call, LIMIT)) for call in calls]
    finally:
        worker.kill()
    counted = [answer for answer in answers[1:] if isinstance(answer, BatchAnswer)]
    return Timed(
        seconds=tuple(answer.seconds for answer in counted),
        outcomes=tuple(outcome for answer in counted for outcome, _ in answer.answers),
        loaded_mb=ready.peak_memory_mb,
        peak_mb=counted[-1].peak_memory_mb,
    )


def _got(spec: ModelSpec, reply: Ready | BatchAnswer | Failure) -> Ready | BatchAnswer:
    if isinstance(reply, Failure):
        raise UserError(f"{spec.name}: {reply.detail}")
    return reply
