"""Runs one relaxer over many structures, in a worker process that may fail without ending the run.

Whatever happens to a batch is narrowed down to the structure that caused it: a batch that raises or
kills its worker is retried one structure at a time; one that takes too long or does not fit into
memory is retried in halves. A structure alone whose worker dies, or has no memory left, is tried
once more in a fresh worker: somebody else may have killed the worker, or the model may have leaked
what the structures before needed. What is left over is that structure's outcome; every other
structure keeps its answer.

Time limits: a structure alone has `timeout` seconds. A batch of n has `timeout` plus `SLACK` times
what the largest batch that was answered so far took per structure, times n, and never more than n
times `timeout`. A hang in a batch of 64 is thus found after about seven times `timeout` (the batch,
then a half of it six times), and not after 64 times. A healthy batch that takes longer than its
limit loses no answers: its halves are tried, and what they take sets the limit of the next batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from benchmarks.core import Geometry, Relaxed, RelaxSettings, Status, UnavailableError, UserError
from benchmarks.engine.process import Worker
from benchmarks.engine.worker import BatchAnswer, EncodedOutcome, Failure, Ready
from benchmarks.models.registry import ModelSpec
from benchmarks.store import Record

ERROR_FLOOR = 5
"""This number of errors never ends a run by itself; see `RunLimits.error_budget`."""
START_ATTEMPTS = 3
"""A model whose worker dies so often in a row while loading cannot be started."""
SLACK = 3.0
"""A batch may take this many times longer than expected, on top of the time limit."""
WINDOW = 8
"""Batches that are read ahead and sorted by size, so that a batch holds similar structures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLimits:
    """The limits of a run that do not belong to a relaxation."""

    load_timeout: float = 300.0
    """Time limit for building the relaxer [s]."""
    error_budget: float = 0.1
    """The run ends when more than `max(ERROR_FLOOR, error_budget * answers so far)` structures
    have ended in `error`, or when all of them have: then the model or its installation is broken,
    and its row would say nothing. Running out of time or memory is the model's own affair."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRunSummary:
    """Figures of a run as a whole, times in s, memory in MB; None where nothing was measured."""

    load_seconds: float | None
    warmup_seconds: float | None
    peak_memory_mb: float | None
    aborted: str | None

    @classmethod
    def over_repeats(cls, summaries: Sequence[ModelRunSummary]) -> ModelRunSummary:
        """Merge the repeats: the first load and warm-up, the highest memory, the last end."""
        loads = [s.load_seconds for s in summaries if s.load_seconds is not None]
        warmups = [s.warmup_seconds for s in summaries if s.warmup_seconds is not None]
        peaks = [s.peak_memory_mb for s in summaries if s.peak_memory_mb is not None]
        return cls(
            load_seconds=next(iter(loads), None),
            warmup_seconds=next(iter(warmups), None),
            peak_memory_mb=max(peaks, default=None),
            aborted=summaries[-1].aborted,
        )


class Task(NamedTuple):
    """One structure to relax, as the queue holds it."""

    sample_id: str
    repeat: int
    geometry: Geometry


class CannotStartError(Exception):
    """The relaxer could not be built, or its process dies while building it."""


def run_model(
    spec: ModelSpec,
    todo: Iterable[tuple[str, int, Geometry]],
    *,
    settings: RelaxSettings,
    limits: RunLimits = RunLimits(),
    on_records: Callable[[list[Record]], None],
    budget: Budget | None = None,
    first_batch: int = 0,
    log: Path | None = None,
) -> ModelRunSummary:
    """Relax every structure of `todo` with the model and hand over the records as they come.

    Args:
        spec: The model.
        todo: (sample id, repeat, initial geometry); read lazily, a few batches ahead.
        settings: The settings that the relaxer gets, with the time limit for one structure.
        limits: The limits of the run as a whole.
        on_records: Called after every batch, with one record per structure of it.
        budget: The errors and answers that the run holds already; None for a new run.
        first_batch: The number of the first batch; a resumed run goes on counting.
        log: The file to which the worker's output is appended; None for our stderr.

    Returns:
        Load and warm-up times, memory, and the reason if the run was ended early.

    Raises:
        UserError: The relaxer says while loading that something of the user's is missing or wrong.
    """
    batch_size = settings.batch_size or spec.batch_size
    settings = replace(settings, batch_size=batch_size)
    budget = budget or Budget(limits.error_budget)
    with Driver(spec, settings, limits, log=log, first_batch=first_batch) as driver:
        try:
            for batch in batches(todo, batch_size):
                if budget.overdrawn():
                    break
                for records in driver.solve(batch):
                    on_records(records)
                    for record in records:
                        budget.add(record.status, record.detail)
            aborted = budget.verdict()
        except (CannotStartError, UnavailableError) as error:
            aborted = str(error)
    return driver.summary(aborted)


def batches(todo: Iterable[tuple[str, int, Geometry]], size: int) -> Iterator[list[Task]]:
    """Make batches of structures of similar size, reading a few batches ahead."""
    tasks = (Task(*item) for item in todo)
    while window := list(islice(tasks, WINDOW * size)):
        window.sort(key=lambda task: len(task.geometry.numbers))
        for start in range(0, len(window), size):
            yield window[start : start + size]


class Budget:
    """Counts errors and answers; `RunLimits.error_budget` tells the rule."""

    def __init__(self, fraction: float = RunLimits().error_budget) -> None:
        self.fraction = fraction
        self.n_records = self.n_errors = 0
        self.last_detail: str | None = None

    def add(self, status: Status, detail: str | None = None) -> None:
        """Count one record."""
        self.n_records += 1
        if status == Status.ERROR:
            self.n_errors += 1
            self.last_detail = detail

    def overdrawn(self) -> bool:
        """Say that the run must end now."""
        return self.n_errors > max(ERROR_FLOOR, self.fraction * self.n_records)

    def verdict(self) -> str | None:
        """Tell why the run is given up, at its end or before; None if it is not."""
        all_failed = 0 < self.n_errors == self.n_records
        if not (all_failed or self.overdrawn()):
            return None
        last = f", the last with {self.last_detail}" if self.last_detail else ""
        return f"{self.n_errors} of {self.n_records} structures ended in error{last}"


class Driver:
    """Starts the worker, asks it, narrows failures down, and starts it again."""

    def __init__(
        self,
        spec: ModelSpec,
        settings: RelaxSettings,
        limits: RunLimits,
        *,
        log: Path | None,
        first_batch: int,
    ) -> None:
        self.spec, self.settings, self.limits, self.log = spec, settings, limits, log
        self.batch_id = first_batch
        self.worker: Worker | None = None
        self.first: Geometry | None = None
        # A call that is not recorded would be paid for where a server runs the model.
        self.warm_up = not spec.remote_parts
        self.fresh = True
        """The worker has been asked for nothing since it was loaded and warmed up."""
        self.largest_answered = 0
        self.seconds_per_structure = 0.0
        """The time per structure of the largest batch that was answered, the last of equal ones."""
        self.load_seconds: float | None = None
        self.warmup_seconds: float | None = None
        self.peak_memory_mb: float | None = None

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the worker; the next batch would start another one."""
        self._end_worker()

    def summary(self, aborted: str | None) -> ModelRunSummary:
        """Sum up the run as a whole."""
        return ModelRunSummary(
            load_seconds=self.load_seconds,
            warmup_seconds=self.warmup_seconds,
            peak_memory_mb=self.peak_memory_mb,
            aborted=aborted,
        )

    def solve(self, batch: list[Task], *, again: bool = True) -> Iterator[list[Record]]:
        """Make the records of every task of the batch, in as few calls as its failures allow.

        Args:
            batch: The tasks.
            again: A structure alone may be tried once more in a fresh worker.
        """
        reply = self._ask(batch)
        used, self.fresh = not self.fresh, False
        if isinstance(reply, BatchAnswer):
            if len(batch) >= self.largest_answered:
                self.largest_answered = len(batch)
                self.seconds_per_structure = reply.seconds / len(batch)
            yield self._records(batch, reply.answers, reply.seconds)
        elif reply.unavailable:
            raise UnavailableError(reply.detail)
        elif len(batch) == 1 and again and _may_be_another_s_fault(reply, used=used):
            self._end_worker()
            yield from self.solve(batch, again=False)
        elif len(batch) == 1:
            failed = EncodedOutcome(Relaxed(status=reply.status, detail=reply.detail))
            yield self._records(batch, [failed], reply.seconds)
        else:
            size = (len(batch) + 1) // 2 if reply.out_of_memory or reply.late else 1
            for start in range(0, len(batch), size):
                yield from self.solve(batch[start : start + size])

    def give_up(self, batch: list[Task], detail: str) -> list[Record]:
        """Make the records of structures that are not tried again: `resource`, with a reason."""
        failed = EncodedOutcome(Relaxed(status=Status.RESOURCE, detail=detail))
        return self._records(batch, [failed] * len(batch), 0.0)

    def time_limit(self, n_structures: int) -> float:
        """Compute the time that a batch has [s]; the head of this module tells the rule."""
        timeout = self.settings.timeout
        if n_structures == 1:
            return timeout
        expected = self.seconds_per_structure * n_structures
        return min(timeout * n_structures, timeout + SLACK * expected)

    def _records(
        self, batch: list[Task], answers: list[EncodedOutcome], seconds: float
    ) -> list[Record]:
        batch_id, self.batch_id = self.batch_id, self.batch_id + 1
        return [
            Record(
                model=self.spec.name,
                sample_id=task.sample_id,
                repeat=task.repeat,
                geometry=geometry,
                status=Status(outcome.status),
                energy=outcome.energy,
                max_force=outcome.max_force,
                max_stress=outcome.max_stress,
                n_force_evals=outcome.n_force_evals,
                n_tokens=outcome.n_tokens,
                expected_error=outcome.expected_error,
                batch_id=batch_id,
                batch_size=len(batch),
                batch_seconds=seconds,
                detail=outcome.detail,
            )
            for task, (outcome, geometry) in zip(batch, answers, strict=True)
        ]

    def _ask(self, batch: list[Task]) -> BatchAnswer | Failure:
        if self.worker is None:
            self.first = self.first or batch[0].geometry
            self.worker = self._warm(self._load(), self.first)
            self.fresh = True
        return self._exchange(self.worker, [task.geometry for task in batch])

    def _exchange(self, worker: Worker, batch: list[Geometry]) -> BatchAnswer | Failure:
        reply = worker.ask(batch, self.time_limit(len(batch)))
        if isinstance(reply, BatchAnswer):
            self._remember_peak(reply.peak_memory_mb)
        elif reply.lost:
            self._end_worker()
        return reply

    def _warm(self, worker: Worker, structure: Geometry) -> Worker:
        """Have the worker do its first call, which may compile or allocate, on `structure`."""
        if not self.warm_up:
            return worker
        reply = self._exchange(worker, [structure])
        if isinstance(reply, BatchAnswer):
            if self.warmup_seconds is None:
                self.warmup_seconds = reply.seconds
        elif reply.lost:  # the structure will be met again, in its batch
            self.warm_up = False
            return self._load()
        return worker

    def _load(self, attempts: int = START_ATTEMPTS) -> Worker:
        """Start a worker and have its relaxer built.

        Raises:
            UserError: As the relaxer raised it.
            CannotStartError: It raised something else, hangs, or died so many times.
        """
        self.worker = worker = Worker(self.spec, self.settings, self.log)
        reply = worker.load(self.limits.load_timeout)
        if isinstance(reply, Ready):
            self.load_seconds = self.load_seconds or reply.load_seconds
            self._remember_peak(reply.peak_memory_mb)
            return worker
        self._end_worker()
        if reply.user_error:
            raise UserError(reply.detail)
        if attempts == 1 or reply.late or not reply.lost:
            raise CannotStartError(f"{self.spec.name} cannot be loaded: {reply.detail}")
        return self._load(attempts - 1)

    def _remember_peak(self, megabytes: float) -> None:
        self.peak_memory_mb = max(megabytes, self.peak_memory_mb or 0.0)

    def _end_worker(self) -> None:
        if self.worker is not None:
            self.worker.kill()
            self.worker = None


def _may_be_another_s_fault(reply: Failure, *, used: bool) -> bool:
    """Say whether a structure alone deserves a fresh worker; `used` workers may have leaked."""
    return not reply.late and ((reply.out_of_memory and used) or reply.lost)
