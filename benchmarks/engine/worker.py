"""The child process that holds one relaxer: builds it once, then answers batches and times them.

Started by `benchmarks.engine.process` as `python -m benchmarks.engine.worker FD`, by another Python
than the driver's where a model has an environment of its own (`benchmarks.models.environments`). It
speaks over a socket of its own, so whatever a model prints cannot be mistaken for an answer, and it
ends with its driver.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from operator import index
from queue import SimpleQueue
from typing import Any, NamedTuple

from benchmarks.core import (
    SCORED,
    Geometry,
    Relaxed,
    Relaxer,
    RelaxSettings,
    Status,
    UnavailableError,
    UserError,
)
from benchmarks.engine.hybrid import build, check
from benchmarks.models.specs import ModelSpec

OUT_OF_MEMORY = ("MemoryError", "OutOfMemoryError")
"""Names of exception classes, so that torch's is known without importing torch."""
LONGEST_DETAIL = 100_000
"""Characters of an outcome's `detail` that are kept."""
LONGEST_ERROR = 1000
"""Characters of an exception's text that are kept."""
MOST_SITES = 10_000
"""An `invalid` answer of more sites is kept without its structure."""

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRequest:
    """The first message: the model to build, its settings, and where modules are found."""

    spec: ModelSpec
    settings: RelaxSettings
    sys_path: tuple[str, ...]
    """The driver's `sys.path`; empty in another environment, which keeps its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The relaxer is built. Times are in s, memory in MB."""

    load_seconds: float
    peak_memory_mb: float


class EncodedOutcome(NamedTuple):
    """A `Relaxed` whose structure is sent beside it as arrays."""

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
    """The batch or the loading failed; the driver finds the structure that caused it."""

    status: Status
    detail: str
    seconds: float = 0.0
    out_of_memory: bool = False
    late: bool = False
    """No answer came within the time limit."""
    lost: bool = False
    """The worker is dead, late, or not to be trusted (a CUDA error stays for its lifetime)."""
    user_error: bool = False
    unavailable: bool = False
    """The relaxer says that it cannot go on now (`UnavailableError`)."""


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
        answers = []
        for outcome in outcomes:
            structure = outcome.structure
            if outcome.status not in SCORED and structure and len(structure) > MOST_SITES:
                structure = None
            final = None if structure is None else Geometry.of(structure)
            answers.append(EncodedOutcome(_plain(outcome), final))
        return BatchAnswer(answers=answers, seconds=seconds, peak_memory_mb=peak_memory_mb())
    except Exception as error:  # noqa: BLE001 - the one place where any exception becomes an outcome
        _print_traceback()
        failure = _failure(error, time.perf_counter() - begin)
    # Only here have the frames of the traceback let go of their tensors.
    if failure.out_of_memory:
        _release_memory()
    return failure


def _plain(outcome: Relaxed) -> Relaxed:
    """Copy an outcome that was checked, without its structure, as builtin types that can be stored.

    Another process need not know the classes of the model's own modules.
    """
    detail = outcome.detail
    return Relaxed(
        status=outcome.status,
        energy=None if outcome.energy is None else float(outcome.energy),
        max_force=None if outcome.max_force is None else float(outcome.max_force),
        max_stress=None if outcome.max_stress is None else float(outcome.max_stress),
        n_force_evals=None if outcome.n_force_evals is None else index(outcome.n_force_evals),
        n_tokens=None if outcome.n_tokens is None else index(outcome.n_tokens),
        expected_error=None if outcome.expected_error is None else float(outcome.expected_error),
        detail=None if detail is None else storable(detail, LONGEST_DETAIL),
    )


def storable(text: str, longest: int) -> str:
    """Cut a text, and replace what is no Unicode: Python's surrogates of undecodable file names."""
    return text[:longest].encode("utf-8", "replace").decode()


def _print_traceback() -> None:
    """Print the present exception into the log; a message of any length is cut."""
    text = traceback.format_exc()
    longest = 20 * LONGEST_ERROR
    half = longest // 2
    if len(text) > longest:
        text = f"{text[:half]}\n…\n{text[-half:]}"
    sys.stderr.write(storable(text, len(text)))


def _failure(error: Exception, seconds: float) -> Failure:
    if isinstance(error, UserError):
        detail = storable(str(error), LONGEST_ERROR)
        return Failure(status=Status.ERROR, detail=detail, seconds=seconds, user_error=True)
    if isinstance(error, UnavailableError):
        detail = storable(str(error), LONGEST_ERROR)
        return Failure(status=Status.ERROR, detail=detail, seconds=seconds, unavailable=True)
    text = storable(f"{type(error).__name__}: {error}", LONGEST_ERROR)
    names = {cls.__name__ for cls in type(error).__mro__}
    out_of_memory = not names.isdisjoint(OUT_OF_MEMORY) or "can't allocate memory" in text
    return Failure(
        status=Status.RESOURCE if out_of_memory else Status.ERROR,
        detail=text,
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
    """Measure the most memory that this process has held so far [MB].

    It is the memory of the GPU where the process uses one, and else its largest resident size.
    `ru_maxrss` would count what the driver held when it started us (Linux carries it over exec), so
    it is only the fallback.
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
            _print_traceback()
        return None, _failure(error, time.perf_counter() - begin)
    seconds = time.perf_counter() - begin
    return relaxer, Ready(load_seconds=seconds, peak_memory_mb=peak_memory_mb())


def main(descriptor: int) -> None:
    """Build what the first message says, then answer batches until the driver ends us."""
    os.set_inheritable(descriptor, False)
    if sys.platform == "linux":
        # The kernel ends us with our driver, also while a library holds the interpreter's lock, so
        # that the thread which listens cannot run.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
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
