"""The child process that holds one relaxer: builds it once, then answers batches and times them.

Started by `benchmarks.engine.process` as `python -m benchmarks.engine.worker FD`, by another Python
than the driver's where a model has an environment of its own (`benchmarks.models.environments`). It
speaks over a socket of its own, so whatever a model prints cannot be mistaken for an answer, and it
ends with its driver.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from benchmarks.core import SCORED, Geometry, Relaxed, Relaxer, RelaxSettings, Status, UserError
from benchmarks.core.geometry import shortest_distance
from benchmarks.metrics.columns import MIN_DISTANCE
from benchmarks.models.registry import ModelSpec, import_target

if TYPE_CHECKING:
    from pymatgen.core import Structure

OUT_OF_MEMORY = ("MemoryError", "OutOfMemoryError")
"""Class names, so that torch's is known without importing torch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRequest:
    """The first message: what to build, with what, and where modules are found."""

    spec: ModelSpec
    settings: RelaxSettings
    sys_path: tuple[str, ...]
    """The driver's; empty in another environment, which keeps its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The relaxer stands. Times in s, memory in MB."""

    load_seconds: float
    peak_memory_mb: float


class EncodedOutcome(NamedTuple):
    """A `Relaxed`, its structure taken out and sent as arrays."""

    outcome: Relaxed
    geometry: Geometry | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchAnswer:
    """One answer per structure of the batch, and the time that `relax` took [s]."""

    answers: list[EncodedOutcome]
    seconds: float
    peak_memory_mb: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The batch, or the load, came to nothing; the driver finds the culprit."""

    status: Status
    detail: str
    seconds: float = 0.0
    out_of_memory: bool = False
    late: bool = False
    """No answer came within the time limit."""
    lost: bool = False
    """The worker is dead, late, or not to be trusted (a CUDA error stays for its lifetime)."""
    user_error: bool = False


class ContractError(Exception):
    """A relaxer broke the contract of `benchmarks.core.Relaxer`."""


class Chain:
    """`A+B`: each relaxer starts from the structure of the one before; a failure is final."""

    def __init__(self, parts: Sequence[Relaxer]) -> None:
        self.parts = parts

    def relax(self, structures: Sequence[Structure], /) -> list[Relaxed]:
        """As `Relaxer.relax`; counts of tokens and force evaluations add up over the parts."""
        outcomes = _relax_checked(self.parts[0], structures)
        for part in self.parts[1:]:
            alive = [i for i, outcome in enumerate(outcomes) if outcome.status in SCORED]
            starts = [structure for i in alive if (structure := outcomes[i].structure)]
            for i, after in zip(alive, _relax_checked(part, starts), strict=True):
                outcomes[i] = _joined(outcomes[i], after)
        return outcomes


def _relax_checked(relaxer: Relaxer, structures: Sequence[Structure]) -> list[Relaxed]:
    sites = [_numbers(structure) for structure in structures]
    outcomes = relaxer.relax(structures)
    check(relaxer, sites, outcomes)
    return outcomes


def _joined(first: Relaxed, second: Relaxed) -> Relaxed:
    if second.status is Status.UNSUPPORTED and _collapsed(first.structure):
        return replace(first, status=Status.INVALID, detail=second.detail)
    return Relaxed(
        status=second.status,
        structure=second.structure,
        energy=second.energy,
        max_force=second.max_force,
        max_stress=second.max_stress,
        n_force_evals=_sum(first.n_force_evals, second.n_force_evals),
        n_tokens=_sum(first.n_tokens, second.n_tokens),
        detail=second.detail,
    )


def _collapsed(structure: Structure | None) -> bool:
    """Whether it is for what the first made of it that the second refused it."""
    assert structure is not None
    return shortest_distance(Geometry.of(structure)) < MIN_DISTANCE


def _sum(a: int | None, b: int | None) -> int | None:
    return None if a is None and b is None else (a or 0) + (b or 0)


def build(spec: ModelSpec, settings: RelaxSettings) -> Relaxer:
    """The relaxer of a spec; it gets the settings if it honours any of them."""
    if spec.parts:
        return Chain([build(part, settings) for part in spec.parts])
    cls = import_target(spec.target)
    relaxer = cls(**spec.kwargs, **({"settings": settings} if spec.honours else {}))
    if not isinstance(relaxer, Relaxer):
        raise ContractError(f"{spec.target} makes a {type(relaxer).__name__}, without relax()")
    return relaxer


def check(relaxer: Relaxer, sites: Sequence[list[int]], outcomes: Sequence[Relaxed]) -> None:
    """Hold what `relax` gave to its contract.

    Args:
        relaxer: For its name.
        sites: Atomic numbers of each input, noted before the call: a relaxer may have changed it.
        outcomes: What it returned.

    Raises:
        ContractError: Not one `Relaxed` per structure, or a status whose promise is not kept.
    """
    name = f"{type(relaxer).__name__}.relax"
    if len(outcomes) != len(sites):
        raise ContractError(f"{name} gave {len(outcomes)} outcomes for {len(sites)}")
    for numbers, outcome in zip(sites, outcomes, strict=True):
        if not isinstance(outcome, Relaxed):
            raise ContractError(f"{name} gave a {type(outcome).__name__}, not a Relaxed")
        if outcome.status in SCORED:
            _check_scored(f"{name} said {outcome.status.value}", numbers, outcome.structure)


def _check_scored(what: str, numbers: list[int], structure: Structure | None) -> None:
    if structure is None:
        raise ContractError(f"{what} without a structure")
    if _numbers(structure) != numbers:
        raise ContractError(f"{what} with other sites than it was given")
    if not (
        np.isfinite(structure.lattice.matrix).all() and np.isfinite(structure.frac_coords).all()
    ):
        raise ContractError(f"{what} with numbers that are not finite")


def _numbers(structure: Structure) -> list[int]:
    return [site.specie.Z for site in structure]


def answer(relaxer: Relaxer, batch: Sequence[Geometry]) -> BatchAnswer | Failure:
    """Relax a batch; only `relax` is timed, with the device's queue empty at both ends."""
    failure = None
    begin = time.perf_counter()
    try:
        structures = [geometry.structure() for geometry in batch]
        _synchronise()
        begin = time.perf_counter()
        outcomes = relaxer.relax(structures)
        _synchronise()
        seconds = time.perf_counter() - begin
        check(relaxer, [geometry.numbers.tolist() for geometry in batch], outcomes)
        answers = [_encode(outcome) for outcome in outcomes]
        return BatchAnswer(answers=answers, seconds=seconds, peak_memory_mb=peak_memory_mb())
    except Exception as error:  # noqa: BLE001 - the one place where any exception becomes an outcome
        traceback.print_exc()
        failure = _failure(error, time.perf_counter() - begin)
    # Only here have the frames of the traceback let go of their tensors.
    if failure.out_of_memory:
        _release_memory()
    return failure


def _encode(outcome: Relaxed) -> EncodedOutcome:
    structure = outcome.structure
    plain = replace(
        outcome,
        structure=None,
        energy=_float(outcome.energy),
        max_force=_float(outcome.max_force),
        max_stress=_float(outcome.max_stress),
    )
    return EncodedOutcome(plain, None if structure is None else Geometry.of(structure))


def _float(value: float | None) -> float | None:
    return None if value is None else float(value)


def _failure(error: Exception, seconds: float) -> Failure:
    if isinstance(error, UserError):
        return Failure(status=Status.ERROR, detail=str(error), seconds=seconds, user_error=True)
    text = f"{type(error).__name__}: {error}"
    names = {cls.__name__ for cls in type(error).__mro__}
    out_of_memory = not names.isdisjoint(OUT_OF_MEMORY) or "can't allocate memory" in text
    return Failure(
        status=Status.RESOURCE if out_of_memory else Status.ERROR,
        detail=text[:1000],
        seconds=seconds,
        out_of_memory=out_of_memory,
        lost="CUDA error" in text,
    )


def _release_memory() -> None:
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _synchronise() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def peak_memory_mb() -> float:
    """The most memory that this process has held so far [MB]: of the GPU where it uses one.

    Else its largest resident size; `ru_maxrss` would count what the driver held when it started us
    (Linux carries it over exec), so it is only the fallback.
    """
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        devices = range(torch.cuda.device_count())
        return float(max(map(torch.cuda.max_memory_allocated, devices))) / 2**20
    try:
        with open("/proc/self/status", encoding="ascii") as status:  # noqa: PTH123 - no Path needed
            return next(int(line.split()[1]) / 1024 for line in status if line[:6] == "VmHWM:")
    except (OSError, StopIteration):
        import resource

        unit = 2**20 if sys.platform == "darwin" else 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _listen(connection: Connection, inbox: SimpleQueue[Any]) -> None:
    """Read messages beside the work, so that a driver that is gone ends even a hung model."""
    while True:
        try:
            inbox.put(connection.recv())
        except (EOFError, OSError):
            os.killpg(0, signal.SIGKILL)


def _load(start: LoadRequest) -> tuple[Relaxer | None, Ready | Failure]:
    begin = time.perf_counter()
    try:
        relaxer = build(start.spec, start.settings)
    except Exception as error:  # noqa: BLE001 - told to the driver, which ends the run
        if not isinstance(error, UserError):
            traceback.print_exc()
        return None, _failure(error, time.perf_counter() - begin)
    seconds = time.perf_counter() - begin
    return relaxer, Ready(load_seconds=seconds, peak_memory_mb=peak_memory_mb())


def main(descriptor: int) -> None:
    """Build what the first message says, then answer batches until the driver ends us."""
    os.set_inheritable(descriptor, False)
    connection: Connection = Connection(descriptor)
    inbox: SimpleQueue[Any] = SimpleQueue()
    threading.Thread(target=_listen, args=(connection, inbox), daemon=True).start()
    start: LoadRequest = inbox.get()
    sys.path[:] = start.sys_path or sys.path
    relaxer, reply = _load(start)
    connection.send(reply)
    while relaxer is not None:
        connection.send(answer(relaxer, inbox.get()))


if __name__ == "__main__":
    # The module must not exist twice: messages are unpickled as classes of this module.
    importlib.import_module("benchmarks.engine.worker").main(int(sys.argv[1]))
