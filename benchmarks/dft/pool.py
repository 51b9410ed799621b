"""Relax structures in worker processes, under the interpreter that has GPAW.

Each worker process relaxes one structure within a time limit. A structure whose record is already
in the folder is not relaxed again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from tqdm import tqdm

from benchmarks.core import WHOLE, Shard, UserError
from benchmarks.core.cli import positive, shard, whole_number
from benchmarks.dft.results import DFTResult, Folder, InitialStructure
from benchmarks.dft.settings import DFTSettings
from benchmarks.engine.process import THREAD_VARIABLES

DEFAULT: Final = "/usr/bin/python3"
"""The interpreter for which Debian's packages install GPAW."""
WORKER: Final = Path(__file__).with_name("gpaw_worker.py")
_HELP: Final = "apt install gpaw gpaw-data, or name an interpreter that has GPAW with --python"
_POLL: Final = 0.1
"""Time between two looks at the workers [s]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """The number of worker processes, their interpreter and their time limit."""

    python: str
    """The interpreter that has GPAW."""
    count: int = 1
    timeout: float = 3600.0
    """Time limit for one structure [s]."""
    shard: Shard = WHOLE
    """The part of the structures that is relaxed here; others are left to other commands."""


def add_worker_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of every command that computes; `workers_of` reads them."""
    add = parser.add_argument
    add("--workers", type=whole_number(1), default=1, metavar="N", help="processes; default: 1")
    add("--timeout", type=positive, default=3600.0, metavar="S", help="per structure; default: 1 h")
    add("--shard", type=shard, default=WHOLE, metavar="i/n", help="part i of n, beside the others")
    add("--retry", action="store_true", help="try again what failed")
    add("--python", default=DEFAULT, metavar="PATH", help=f"that has GPAW; default: {DEFAULT}")


def workers_of(args: argparse.Namespace) -> Workers:
    """The workers that `add_worker_options` asks for."""
    return Workers(python=args.python, count=args.workers, timeout=args.timeout, shard=args.shard)


def command(python: str) -> list[str]:
    """The command that starts a worker."""
    return [python, "-u", str(WORKER)]


def environment() -> dict[str, str]:
    """The environment of a worker, which uses one thread; more workers use more cores."""
    threads = dict.fromkeys(THREAD_VARIABLES, "1")
    # Its folder stays off the path: a file of ours must not be taken for one of the libraries.
    return {**os.environ, **threads, "PYTHONSAFEPATH": "1"}


def gpaw_versions(python: str) -> dict[str, str]:
    """The versions of GPAW and of the libraries that it uses, by name.

    Raises:
        UserError: There is no such interpreter, or it has no GPAW.
    """
    if shutil.which(python) is None:
        raise UserError(f"--python {python}: no such interpreter: {_HELP}")
    asked = subprocess.run(  # noqa: S603 - our own script
        [*command(python), "--versions"],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    if asked.returncode:
        raise UserError(f"--python {python}: {_last_exception(asked.stderr)}: {_HELP}")
    found: dict[str, str] = json.loads(asked.stdout)
    return found


def relax_all(
    starts: Sequence[InitialStructure],
    folder: Path,
    settings: DFTSettings,
    workers: Workers,
    versions: Mapping[str, str],
    *,
    retry: bool = False,
) -> list[DFTResult]:
    """Relax the structures that have no record in a folder yet.

    Args:
        starts: The structures; their names differ.
        folder: The folder that keeps the records, one file each.
        settings: They must equal those of the records that are there.
        workers: The worker processes.
        versions: Those of the interpreter of the workers, as `gpaw_versions` gives them.
        retry: Relax again the structures whose relaxation failed.

    Returns:
        The record of each structure, in order; not of those of other parts that have none yet.

    Raises:
        UserError: The folder has other settings or another GPAW, or another process writes to it.
    """
    with Folder.open(folder, settings, versions, workers.shard) as opened:
        own = [start for start in starts if workers.shard.holds(start.name)]
        records = {start.name: opened.read(start) for start in starts}
        todo = [
            start
            for start in own
            if (record := records[start.name]) is None or (retry and record.reason)
        ]
        progress = tqdm(
            desc=folder.name,
            total=len(own),
            initial=len(own) - len(todo),
            unit="crystal",
            disable=None,
            file=sys.stderr,
        )
        with progress, contextlib.closing(relax_each(todo, settings, workers)) as ended:
            for record in ended:
                opened.write(record)
                records[record.name] = record
                progress.update()
        # what other parts have written meanwhile
        found = [records[start.name] or opened.read(start) for start in starts]
    return [record for record in found if record is not None]


def relax_each(
    starts: Iterable[InitialStructure], settings: DFTSettings, workers: Workers
) -> Generator[DFTResult]:
    """Relax structures, `workers.count` at a time.

    Yields:
        The record of each structure when its relaxation ends. When the generator is closed or an
        exception is raised, the workers that still run are killed.
    """
    waiting, running = deque(starts), list[_Task]()
    try:
        while waiting or running:
            while waiting and len(running) < workers.count:
                start = waiting.popleft()
                if reason := settings.unsupported(start.symbols):
                    yield _record(start, settings, reason=reason)
                else:
                    running.append(_Task(start, settings, workers))
            ended = [task for task in running if task.ended]
            for task in ended:
                record = task.record()
                running.remove(task)
                yield record
            if not ended:
                time.sleep(_POLL)
    finally:
        for task in running:
            task.kill()


class _Task:
    """One worker process, which has a session of its own."""

    def __init__(self, start: InitialStructure, settings: DFTSettings, workers: Workers) -> None:
        self.start, self.settings, self.workers = start, settings, workers
        self.begin = time.monotonic()
        # These files have no name, so that an unfinished structure leaves nothing behind.
        self.answers: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - until `kill`
        self.complaints: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        with tempfile.TemporaryFile() as job:
            lattice, frac_coords, _ = start.geometry
            task = {
                "symbols": start.symbols,
                "lattice": lattice.tolist(),
                "positions": (frac_coords @ lattice).tolist(),
                "settings": settings.job(start.symbols) | {"kpt_grid": start.kpt_grid},
            }
            job.write(json.dumps(task).encode())
            job.seek(0)
            self.process = subprocess.Popen(  # noqa: S603 - our own script
                command(workers.python),
                stdin=job,
                stdout=self.answers,
                stderr=self.complaints,
                env=environment(),
                start_new_session=True,
            )

    @property
    def ended(self) -> bool:
        """True if the process has ended or has reached the time limit."""
        late = time.monotonic() - self.begin > self.workers.timeout
        return self.process.poll() is not None or late

    def record(self) -> DFTResult:
        """End the process and return the record of its structure."""
        status = self.process.poll()
        seconds = time.monotonic() - self.begin
        self._end()
        answers = _text(self.answers).splitlines(keepends=True)
        frames = [json.loads(line) for line in answers if line[-1] == "\n"]  # one may be torn
        end = frames.pop() if frames and "converged" in frames[-1] else {}
        reason = self._reason(status, end)
        self.kill()
        return _record(
            self.start,
            self.settings,
            reason=reason,
            seconds=round(seconds, 2),
            setups=end.get("setups", {}),
            frames=frames,
        )

    def kill(self) -> None:
        """End the process with those that it started, and drop its output."""
        self._end()
        self.answers.close()
        self.complaints.close()

    def _end(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _reason(self, status: int | None, end: dict[str, Any]) -> str:
        if status is None:
            return f"time: no end within {self.workers.timeout:g} s"
        if status < 0:
            name = signal.Signals(-status).name
            return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
        if status or not end:
            return _last_exception(_text(self.complaints))
        if not end["converged"]:
            return f"unconverged after {self.settings.max_steps} steps"
        return ""


def _record(start: InitialStructure, settings: DFTSettings, **found: Any) -> DFTResult:
    return DFTResult(
        name=start.name,
        start=start.sha256,
        symbols=start.symbols,
        cutoff=settings.cutoff(start.symbols),
        **found,
    )


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def _last_exception(stderr: str) -> str:
    """The exception that a traceback ends with, without the further lines of its message."""
    _, traceback, told = stderr.rpartition("Traceback (most recent call last):\n")
    lines = [line for line in told.splitlines() if line.strip() and not line[0].isspace()]
    return lines[0 if traceback else -1].strip() if lines else "ended without a word"
