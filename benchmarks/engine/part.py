"""The worker's end of a run on many machines: relaxes one part of the samples into its own shard.

A part is asked for by a driver (`benchmarks.engine.parts_run`), may be asked for again after a
loss, and is never computed twice: its folder is locked, and what is stored there already is left
out. The driver's word stands in the file `DRIVER` of the model's folder. A worker stops before its
next batch when another word stands there, so that what an earlier command left running gives way to
the next one, on any file system that both see.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.core import RelaxSettings, Shard, Status, UnavailableError, UserError
from benchmarks.core.cli import check_device
from benchmarks.engine.execute import CannotStartError, Driver, RunLimits, Task, batches
from benchmarks.engine.process import threads
from benchmarks.models.environments import locate_model
from benchmarks.models.provenance import environment, load_average, now, weights_identity
from benchmarks.models.registry import ModelSpec, decoding_identity
from benchmarks.store import Record, RunWriter
from benchmarks.store.locking import FolderBusyError
from benchmarks.store.stored_run import require_equal

DRIVER = ".driver"
"""The file in a model's folder that holds the word of the driver whose workers may write."""
ATTEMPTS = "attempts.json"
"""The file in a shard that says which structures a worker was at when it died."""
DEATHS = 3
"""A structure at which workers died so many times, the last ones alone with it, is given up."""
IDLE_SECONDS = 30.0
"""A model that nobody asks for so long is ended."""
TELL_SECONDS = 0.5
"""The driver is told at most so often how far a part is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """All that a worker needs to relax one part of the samples of a model."""

    spec: ModelSpec
    settings: RelaxSettings
    folder: Path
    """The model's folder, as all machines see it."""
    shard: Shard
    todo: list[Task]
    identity: dict[str, Any]
    provenance: dict[str, Any]
    word: str
    """What stands in `DRIVER` as long as the driver wants the part."""
    log: str
    """The name of the file for what the model prints."""
    flush_seconds: float = 30.0

    @property
    def topic(self) -> str:
        """Under which workers tell the driver how far they are; each repeat has a seed."""
        return f"{self.word}-{self.settings.seed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PartReport:
    """What became of a part."""

    statuses: Counter[str]
    """The outcomes of its samples so far, stored by this call or an earlier one."""
    last_error: str | None = None
    busy: bool = False
    """Another worker writes to its shard; ask again later."""
    refused: str | None = None
    """The reason why this worker cannot take part; another one may."""
    aborted: str | None = None
    """The reason why the model cannot be started."""
    worker: str | None = None
    """The address of the worker."""


def relax_part(part: Part, tell: Callable[[PartReport], None] = lambda _: None) -> PartReport:
    """Relax what is left of a part into its shard.

    Args:
        part: The part.
        tell: Called now and then with the report so far.

    Raises:
        UserError: The shard cannot be written, or the relaxer says while loading that something is
            missing.
    """
    try:
        facts = _facts(part.word, part)
    except UserError as error:
        refused = f"{socket.gethostname()} cannot take part: {error}"
        return PartReport(statuses=Counter(), refused=refused)
    try:
        writer = RunWriter.open(
            part.folder,
            part.identity,
            part.provenance | facts | {"started": now(), "load_average": load_average()},
            shard=part.shard,
            driven=True,
            flush_seconds=part.flush_seconds,
        )
    except FolderBusyError:
        return PartReport(statuses=Counter(), busy=True)
    keys = [(task.sample_id, task.repeat) for task in part.todo]
    aborted = last_error = None

    def report() -> PartReport:
        statuses = Counter(writer.outcomes[key] for key in keys if key in writer.outcomes)
        return PartReport(statuses=statuses, last_error=last_error, aborted=aborted)

    with writer, _model(part) as driver:
        tell(report())
        told = time.monotonic()
        driver.batch_id = writer.next_batch_id
        try:
            for records in _records(part, writer, driver):
                writer.append(records)
                errors = [record.detail for record in records if record.status is Status.ERROR]
                last_error = errors[-1] if errors else last_error
                if time.monotonic() - told > TELL_SECONDS:
                    tell(report())
                    told = time.monotonic()
        except (CannotStartError, UnavailableError) as error:
            aborted = str(error)
        ended = {"ended": now(), "load_average_end": load_average()}
        writer.close(**ended, **asdict(driver.summary(None)))
    return report()


def _records(part: Part, writer: RunWriter, driver: Driver) -> Iterator[list[Record]]:
    """Make the records that the shard lacks; structures at which a worker died come last, alone."""
    attempts = _Attempts(writer.folder / ATTEMPTS)
    left = [task for task in part.todo if (task.sample_id, task.repeat) not in writer.done]
    suspects = [[task] for task in left if attempts.deaths[task.sample_id, task.repeat]]
    others = [task for task in left if not attempts.deaths[task.sample_id, task.repeat]]
    size = part.settings.batch_size or part.spec.batch_size
    try:
        for batch in (*batches(others, size), *suspects):
            if not has_word(part.folder, part.word):
                break
            deaths = attempts.deaths[batch[0].sample_id, batch[0].repeat]
            if deaths:
                writer.flush()
            if deaths >= DEATHS:
                yield driver.give_up(batch, f"{deaths} workers died at it, the last alone with it")
            else:
                attempts.begin(batch)
                yield from driver.solve(batch)
            attempts.survived(batch)
    finally:
        attempts.close()


class _Attempts:
    """The deaths of workers by structure, in a file that is right if the worker dies now.

    Attributes:
        deaths: How many workers died at a structure, by (sample_id, repeat).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.deaths: Counter[tuple[str, int]] = Counter()
        with suppress(OSError, ValueError, TypeError):  # a file cut off by the death says nothing
            for sample_id, repeat, deaths in json.loads(path.read_text(encoding="utf-8")):
                self.deaths[str(sample_id), int(repeat)] = int(deaths)

    def begin(self, batch: list[Task]) -> None:
        """Write that a death from now on is at this batch."""
        self._write(self.deaths + Counter((task.sample_id, task.repeat) for task in batch))

    def survived(self, batch: list[Task]) -> None:
        """Clear the structures of a batch."""
        for task in batch:
            self.deaths.pop((task.sample_id, task.repeat), None)

    def close(self) -> None:
        """Write what is left; no file stays where that is nothing."""
        if +self.deaths:
            self._write(self.deaths)
        else:
            self.path.unlink(missing_ok=True)

    def _write(self, deaths: Counter[tuple[str, int]]) -> None:
        text = json.dumps([[*key, n] for key, n in deaths.items() if n])
        try:
            # Not synced: it need not survive the machine, and a batch may take a millisecond.
            self.path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written ({error.strerror})") from error


def has_word(folder: Path, word: str) -> bool:
    """Say whether the driver's word stands in a model's folder."""
    try:
        return (folder / DRIVER).read_text(encoding="utf-8") == word
    except OSError:
        return False


@cache
def _machine(device: str) -> dict[str, Any]:
    return environment(device)


_facts_of: dict[str, dict[str, Any]] = {}


def _facts(word: str, part: Part) -> dict[str, Any]:
    """Describe this worker for the record, once for each word; make sure that it may take part.

    Raises:
        UserError: It lacks the device, a package or the weights, or has others than the driver.
    """
    if word not in _facts_of:
        check_device(part.settings.device)
        found = locate_model(part.spec, offline=part.settings.offline)
        here = dict(part.identity)
        here["weights_sha256"] = weights_identity(found.weights)["weights_sha256"]
        if decoding := decoding_identity(part.spec):
            here["decoding"] = decoding
        require_equal(part.identity, here, "of the driver and of this worker", resumed=False)
        _facts_of.clear()
        facts = {**_machine(part.settings.device), **found.versions}
        _facts_of[word] = facts | {"threads": threads()}
    return _facts_of[word]


class _IdleModel(NamedTuple):
    key: str
    driver: Driver
    timer: threading.Timer


_idle: list[_IdleModel] = []
_idle_lock = threading.Lock()


@contextmanager
def _model(part: Part) -> Iterator[Driver]:
    """Lend the model of a part: one that an earlier part has loaded here, or a new one.

    For a new one, a loaded model of another run makes room; each does so after `IDLE_SECONDS`.
    """
    key = f"{part.spec!r} {part.settings!r}"
    with _idle_lock:
        # Equal ones first.
        _idle.sort(key=lambda idle: idle.key != key)
        idle = _idle.pop(0) if _idle else None
    if idle:
        idle.timer.cancel()
    if idle and idle.key == key:
        driver = idle.driver
    else:
        if idle:
            idle.driver.close()
        log = part.folder / part.shard.folder / part.log
        driver = Driver(part.spec, part.settings, RunLimits(), log=log, first_batch=0)
    try:
        yield driver
    except BaseException:
        driver.close()
        raise
    timer = threading.Timer(IDLE_SECONDS, _end_idle, (driver,))
    timer.daemon = True
    with _idle_lock:
        _idle.append(_IdleModel(key, driver, timer))
    timer.start()


def _end_idle(driver: Driver) -> None:
    with _idle_lock:
        ended = [idle for idle in _idle if idle.driver is driver]
        _idle[:] = [idle for idle in _idle if idle.driver is not driver]
    if ended:
        driver.close()
