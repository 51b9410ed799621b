"""The driver's end of a run on many machines: hands out the parts, and counts what comes of them.

The samples of a model are cut into parts, a shard of the run folder each; a Dask worker takes one
after the other and writes them (`benchmarks.engine.part`). Nothing passes through the driver but
the initial structures, and counts. Whatever dies, a part is asked for again, and goes on with what
its shard holds.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.core import WHOLE, Shard, Status, UserError
from benchmarks.engine.cluster import PATIENCE, DaskWorkers
from benchmarks.engine.execute import START_ATTEMPTS, Budget, ModelRunSummary, Task
from benchmarks.engine.part import DRIVER, Part, PartReport, relax_part
from benchmarks.store.locking import FolderBusyError, FolderLock, require_free

PARTS_PER_WORKER = 8
"""So many parts for each worker make the last ones end at about the same time."""
POLL_SECONDS = 0.05
"""The time between two looks at what is done."""
LAST_WORDS = 5.0
"""Seconds that workers have to store what they hold when the run ends early."""


@contextmanager
def governed(folder: Path, log: Callable[[str], None]) -> Iterator[str]:
    """Take over a model's folder from the workers of earlier commands; give our word for it.

    Workers of an earlier command that was killed may still write. They stop after their present
    batch, and are waited for.

    Raises:
        FolderBusyError: Another driver holds the folder.
    """
    word, path = uuid.uuid4().hex, folder / DRIVER
    lock = FolderLock(folder / WHOLE.folder)
    try:
        path.write_text(word, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        lock.close()
    try:
        begin, told = time.monotonic(), False
        for shard in sorted(folder.glob("shard-*")):
            while True:
                try:
                    require_free(shard)
                    break
                except FolderBusyError as error:
                    if not told and time.monotonic() - begin > PATIENCE:
                        log(f"waiting: {error}")
                        told = True
                    time.sleep(POLL_SECONDS)
        yield word
    finally:
        for remove in (path.unlink, (folder / WHOLE.folder).rmdir, folder.rmdir):
            with suppress(OSError):  # gone, or not empty
                remove()


def cut(todo: Sequence[Task], n_workers: int, batch_size: int) -> list[tuple[Shard, list[Task]]]:
    """Cut samples into parts by the hash of their ids, first the part that will take longest.

    There are `PARTS_PER_WORKER` for each worker, or fewer where their batches would not be full,
    but one for each worker.
    """
    full = max(n_workers, len(todo) // batch_size)
    n_parts = max(1, min(PARTS_PER_WORKER * n_workers, full))
    parts: dict[Shard, list[Task]] = {}
    for task in todo:
        parts.setdefault(Shard.of(task.sample_id, n_parts), []).append(task)

    def cost(part: tuple[Shard, list[Task]]) -> int:
        # Larger crystals take more time a step and more steps.
        return sum(len(task.geometry.numbers) ** 2 for task in part[1])

    return sorted(parts.items(), key=cost, reverse=True)


def run_parts(
    workers: DaskWorkers,
    part: Part,
    *,
    budget: Budget,
    on_statuses: Callable[[Counter[str]], None],
) -> ModelRunSummary:
    """Have the workers relax all samples of `part`, cut into parts.

    Args:
        workers: Who does it.
        part: What there is to do, as one part.
        budget: The errors and answers that the run holds already; those of this call are added.
        on_statuses: Called now and then with the outcomes that are new since the last time.

    Returns:
        The reason if the model was given up; the rest is in the segments of the parts.

    Raises:
        UserError: As `relax_part`; or the scheduler is gone, or no worker may take part.
    """
    aborted = _PartsRun(workers, part, budget, on_statuses).finish()
    return ModelRunSummary(
        load_seconds=None, warmup_seconds=None, peak_memory_mb=None, aborted=aborted
    )


class _PartsRun:
    """The parts of a model that wait, run, and are done."""

    def __init__(
        self,
        workers: DaskWorkers,
        whole: Part,
        budget: Budget,
        on_statuses: Callable[[Counter[str]], None],
    ) -> None:
        self.workers, self.whole, self.budget = workers, whole, budget
        self.on_statuses = on_statuses
        self.counted: Counter[str] = Counter()
        self.slots = workers.most or max(1, workers.count())
        size = whole.settings.batch_size or whole.spec.batch_size
        self.waiting = deque(
            (0.0, replace(whole, shard=shard, todo=todo))
            for shard, todo in cut(whole.todo, self.slots, size)
        )
        self.running: dict[Any, Part] = {}
        self.reports: dict[Shard, PartReport] = {}
        self.ended: set[Shard] = set()
        self.deaths: Counter[tuple[Shard, int]] = Counter()
        self.seen_workers = time.monotonic()

    def finish(self) -> str | None:
        """Ask for parts until none is left or the model is given up."""
        client, topic = self.workers.client, self.whole.topic
        client.subscribe_topic(topic, lambda event: self._hear(*event[1]))
        aborted = None
        try:
            while (self.waiting or self.running) and not aborted:
                self._ask()
                time.sleep(POLL_SECONDS)
                for future in [future for future in self.running if future.done()]:
                    aborted = self._receive(future, self.running.pop(future)) or aborted
                self._count()
                if self.budget.overdrawn():
                    aborted = aborted or self.budget.verdict()
                self._check_workers()
            return aborted or self.budget.verdict()
        finally:
            if self.running:
                self._stop()
                self._count()
            with suppress(Exception):  # the scheduler may be gone
                client.unsubscribe_topic(topic)

    def _hear(self, number: int, total: int, report: Mapping[str, Any]) -> None:
        shard = Shard(number, total)
        if shard not in self.ended:
            statuses = Counter(report["statuses"])
            self.reports[shard] = PartReport(statuses=statuses, last_error=report["last_error"])

    def _count(self) -> None:
        """Add to the budget, and tell the user, what the parts have told since the last time."""
        statuses: Counter[str] = Counter()
        for report in list(self.reports.values()):
            statuses += report.statuses
            self.budget.last_detail = report.last_error or self.budget.last_detail
        new = Counter(statuses)
        new.subtract(self.counted)  # less than nothing where a worker died with what it held
        self.counted = statuses
        self.budget.n_records += new.total()
        self.budget.n_errors += new[Status.ERROR.value]
        self.on_statuses(new)

    def _ask(self) -> None:
        """Hand out the parts that wait, a few more than workers can take at once."""
        now = time.monotonic()
        for _ in range(len(self.waiting)):
            if len(self.running) >= 2 * self.slots:
                return
            not_before, part = self.waiting.popleft()
            if not_before > now:
                self.waiting.append((not_before, part))
                continue
            future = self.workers.client.submit(
                relax_and_tell,
                part,
                key=f"{part.spec.name}-{part.shard.number}-{uuid.uuid4().hex}",
                resources=self.workers.resources,
                pure=False,
            )
            self.running[future] = part

    def _receive(self, future: Any, part: Part) -> str | None:
        """Take the report of a part; put it back where it is not done; say why all must end."""
        from distributed import KilledWorker

        error = None if future.cancelled() else future.exception()
        if isinstance(error, UserError):
            raise error
        if isinstance(error, KilledWorker):
            seen = self.reports.get(part.shard)
            progress = seen.statuses.total() if seen else 0
            self.deaths[part.shard, progress] += 1
            if self.deaths[part.shard, progress] >= START_ATTEMPTS:
                return f"{part.spec.name}: workers die, again and again: {error}"
        elif error is not None:
            return f"{part.spec.name} cannot be run by a worker: {type(error).__name__}: {error}"
        report: PartReport | None = None if future.cancelled() or error else future.result()
        if report is None or report.busy:
            self.waiting.append((time.monotonic() + (1.0 if report else 0.0), part))
        elif report.refused:
            self._retire(report)
            self.waiting.append((0.0, part))
        else:
            self.ended.add(part.shard)
            self.reports[part.shard] = report
            if report.aborted:
                return report.aborted
            if report.statuses.total() < len(part.todo):
                raise UserError(
                    f"{part.folder}: was changed by somebody else while the run went on; the same "
                    "command goes on from here"
                )
        return None

    def _retire(self, report: PartReport) -> None:
        """Let go of a worker that cannot take part; another one may.

        Raises:
            UserError: There is no other.
        """
        assert report.refused is not None
        n_others = 1
        with suppress(OSError):  # the scheduler may be gone, which is told elsewhere
            self.workers.client.retire_workers(workers=[report.worker])
            n_others = self.workers.count()
        if not n_others:
            raise UserError(report.refused)
        self.workers.log(report.refused)

    def _check_workers(self) -> None:
        """Tell the user where nobody works.

        Raises:
            UserError: The scheduler is gone.
        """
        client = self.workers.client
        if client.status != "running":
            raise UserError("the scheduler is gone; the same command goes on from here")
        now = time.monotonic()
        if self.running and now - self.seen_workers > PATIENCE:
            self.seen_workers = now
            with suppress(OSError):  # it does not answer now
                if not self.workers.count():
                    self.workers.log("waiting for workers")
                    self.seen_workers = now + 60 * PATIENCE

    def _stop(self) -> None:
        """Take back our word, and give the workers time to store what they hold."""
        with suppress(OSError):
            (self.whole.folder / DRIVER).unlink()
        client = self.workers.client
        with suppress(Exception):  # the scheduler may be the one that is gone
            deadline = time.monotonic() + LAST_WORDS
            while client.status == "running" and time.monotonic() < deadline:
                if all(future.done() for future in self.running):
                    break
                time.sleep(POLL_SECONDS)
            client.cancel(list(self.running))


def relax_and_tell(part: Part) -> PartReport:
    """Relax a part in a Dask worker, which tells the driver how far it is."""
    from distributed import get_worker

    worker = get_worker()

    def tell(report: PartReport) -> None:
        message = {"statuses": dict(report.statuses), "last_error": report.last_error}
        worker.log_event(part.topic, (*part.shard, message))

    return replace(relax_part(part, tell), worker=worker.address)
