"""The driver's end of a run on many machines: Dask's scheduler, its workers, and the parts.

The samples of a model are cut into parts, a shard of the run folder each; a Dask worker asks for
one after the other and writes them (`benchmarks.engine.part`). Nothing passes through the driver
but the initial structures, and counts. Whatever dies, a part is asked for again, and goes on with
what its shard holds.
"""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from benchmarks.core import WHOLE, Shard, Status, UserError
from benchmarks.core.cli import check_installed
from benchmarks.engine.execute import START_ATTEMPTS, Budget, ModelRunSummary, Task
from benchmarks.engine.part import DRIVER, Part, PartReport, relax_part
from benchmarks.engine.process import physical_cores
from benchmarks.store.locking import FolderBusyError, FolderLock, require_free

PARTS_PER_WORKER = 4
"""So many parts for each worker make the last ones end at about the same time."""
POLL_SECONDS = 0.05
"""The time between two looks at what is done."""
PATIENCE = 10.0
"""Seconds without a worker, or for the workers of an earlier command to end, until that is told."""
LAST_WORDS = 5.0
"""Seconds that workers have to store what they hold when the run ends early."""
GPU = "GPU"
"""The resource of Dask workers that a part on a GPU takes one of."""
_SETTINGS = {
    "distributed.scheduler.worker-saturation": 1.0,  # parts wait at the scheduler
    "distributed.scheduler.work-stealing": False,
    "distributed.nanny.pre-spawn-environ.DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "critical",
    "distributed.admin.large-graph-warning-threshold": "1 TB",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DaskWorkers:
    """A connection to a scheduler and its workers."""

    client: Any
    most: int | None
    """The number of parts that they may ever relax at once; None if the scheduler is not ours."""
    device: str
    log: Callable[[str], None]

    @property
    def resources(self) -> dict[str, float]:
        """What each part takes of a worker."""
        return {GPU: 1} if self.device.startswith("cuda") else {}

    def count(self) -> int:
        """Count the parts that the workers which are there can relax at once."""
        try:
            identity = self.client.sync(self.client.scheduler.identity, n_workers=-1)
        except OSError:  # the scheduler is gone
            return 0
        workers = identity["workers"].values()
        if self.resources:
            return int(sum(worker["resources"].get(GPU, 0) for worker in workers))
        return int(sum(worker["nthreads"] for worker in workers))


@contextmanager
def connected(where: str, device: str, log: Callable[[str], None]) -> Iterator[DaskWorkers]:
    """Start or find workers, and print the address of the dashboard.

    Args:
        where: `local:N`, the address of a running scheduler (`tcp://…`, `tls://…`), or a YAML file
            with the settings of a cluster of dask-jobqueue.
        device: The device of the run; on a GPU each part takes one `GPU` of a worker's resources.
        log: Called with lines for the user.

    Raises:
        UserError: It is none of these, a package is missing, or nobody answers at the address.
    """
    check_installed("--cluster", ["distributed", "dask_jobqueue"], "cluster")
    import dask
    from distributed import Client

    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with ExitStack() as stack:
        stack.enter_context(dask.config.set(_SETTINGS))
        cluster, most = _cluster(where, device)
        if not isinstance(cluster, str):
            stack.callback(cluster.close)
        try:
            client = Client(cluster, set_as_default=False, timeout=PATIENCE)
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"--cluster {where}: no scheduler answers ({error})") from error
        stack.callback(client.close)
        log(f"dashboard: {client.dashboard_link}")
        yield DaskWorkers(client=client, most=most, device=device, log=log)


def _cluster(where: str, device: str) -> tuple[Any, int | None]:
    """Give a cluster of Dask or the address of its scheduler, and the most parts at once."""
    kind, _, number = where.partition(":")
    if kind == "local" and number.isdecimal() and int(number) > 0:
        return _local_cluster(int(number), device), int(number)
    if kind in ("tcp", "tls"):
        return where, None
    path = Path(where)
    if path.suffix not in (".yaml", ".yml"):
        raise UserError(f"--cluster {where}: write local:N, tcp://HOST:PORT or a file slurm.yaml")
    return _queued_cluster(path, device)


def _local_cluster(n_workers: int, device: str) -> Any:
    """Start processes on this machine, which nobody outside it can reach."""
    from distributed import Nanny, Scheduler, SpecCluster

    n_gpus = 0
    if device.startswith("cuda"):
        import torch

        n_gpus = torch.cuda.device_count()
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, physical_cores() // n_workers))
    here = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    workers = {}
    for number in range(n_workers):
        env = {"OMP_NUM_THREADS": threads}
        if n_gpus > 1 and device == "cuda":
            env["CUDA_VISIBLE_DEVICES"] = str(number % n_gpus)
        options = here | {
            "nthreads": 1,
            "env": env,
            "memory_limit": 0,
            "silence_logs": logging.CRITICAL,
        }
        if n_gpus:
            options["resources"] = {GPU: 1}
        workers[number] = {"cls": Nanny, "options": options}
    scheduler = {"cls": Scheduler, "options": here | {"dashboard": True, "port": 0}}
    return SpecCluster(workers, scheduler, silence_logs=logging.CRITICAL)


def _queued_cluster(path: Path, device: str) -> tuple[Any, int]:
    """Start a cluster whose workers are jobs, which come and go with the work.

    The file has the layout of dask-jobqueue's own (`jobqueue: {slurm: {cores: …}}`), and beside it
    `adapt: {minimum_jobs: …, maximum_jobs: …}`.
    """
    import dask_jobqueue
    from dask_jobqueue.local import LocalCluster

    kinds = {
        name.removesuffix("Cluster").lower(): getattr(dask_jobqueue, name)
        for name in dir(dask_jobqueue)
        if name.endswith("Cluster") and name != "JobQueueCluster"
    } | {"local": LocalCluster}
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        ((kind, settings),) = config["jobqueue"].items()
        limits = {"minimum_jobs": 0, "maximum_jobs": 1} | config.get("adapt", {})
        settings = {name.replace("-", "_"): value for name, value in settings.items()}
        per_job = int(settings.get("processes" if device.startswith("cuda") else "cores") or 1)
        cluster = kinds[kind](**settings)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: is no YAML ({' '.join(str(error).split())})") from error
    except KeyError as error:
        names = ", ".join(sorted(kinds))
        raise UserError(f"{path}: {error} is not there or not known; kinds: {names}") from error
    except (TypeError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path}: is not `jobqueue: {{slurm: {{cores: …, memory: …}}}}` ({reason})"
        ) from error
    cluster.adapt(**limits)
    return cluster, int(limits["maximum_jobs"]) * per_job


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
    """Cut samples into parts by the hash of their ids, the largest part first.

    There are `PARTS_PER_WORKER` for each worker, or fewer where their batches would not be full,
    but one for each worker.
    """
    full = max(n_workers, len(todo) // batch_size)
    n_parts = max(1, min(PARTS_PER_WORKER * n_workers, full))
    parts: dict[Shard, list[Task]] = {}
    for task in todo:
        parts.setdefault(Shard.of(task.sample_id, n_parts), []).append(task)
    return sorted(parts.items(), key=lambda part: -len(part[1]))


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
        client = self.workers.client
        with suppress(Exception):  # it may be gone already
            client.retire_workers(workers=[report.worker])
        if not self.workers.count():
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
            if not self.workers.count():
                self.workers.log("waiting for workers")
                now += 60 * PATIENCE
            self.seen_workers = now

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
