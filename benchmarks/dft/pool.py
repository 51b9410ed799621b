"""Worker processes side by side, each with one structure and a time limit."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import IO, Any, Final

from benchmarks.dft.gpaw_python import command, complaint, environment
from benchmarks.dft.results import DFTResult, InitialStructure
from benchmarks.dft.settings import DFTSettings, unsupported

_POLL: Final = 0.1
"""How often the workers are looked at [s]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """How structures are worked on."""

    python: str
    """Interpreter that has GPAW."""
    count: int = 1
    timeout: float = 3600.0
    """For one structure [s]."""


def relax_each(
    starts: Iterable[InitialStructure], settings: DFTSettings, workers: Workers
) -> Generator[DFTResult]:
    """Relax structures, `workers.count` at a time.

    Yields:
        Their records, as they end. When the generator is closed, or something is raised, what is
        still running is killed.
    """
    waiting, running = deque(starts), list[_Task]()
    try:
        while waiting or running:
            while waiting and len(running) < workers.count:
                start = waiting.popleft()
                if reason := unsupported(start.symbols):
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
    """One worker process, in a session of its own."""

    def __init__(self, start: InitialStructure, settings: DFTSettings, workers: Workers) -> None:
        self.start, self.settings, self.workers = start, settings, workers
        self.begin = time.monotonic()
        # Nameless files: nothing of a structure that has not ended is left behind.
        self.answers: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - until `kill`
        self.complaints: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        with tempfile.TemporaryFile() as job:
            job.write(json.dumps(_job(start, settings)).encode())
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
    def late(self) -> bool:
        return time.monotonic() - self.begin > self.workers.timeout

    @property
    def ended(self) -> bool:
        """Whether it is over, or out of time."""
        return self.process.poll() is not None or self.late

    def record(self) -> DFTResult:
        """What became of it; ends it."""
        status = self.process.poll()
        seconds = time.monotonic() - self.begin
        self._end()
        frames, end = _split(_text(self.answers))
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
        """End it with what it started, and forget what it said."""
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
            return complaint(_text(self.complaints))
        if not end["converged"]:
            return f"unconverged after {self.settings.max_steps} steps"
        return ""


def _job(start: InitialStructure, settings: DFTSettings) -> dict[str, Any]:
    lattice, frac_coords, _ = start.geometry
    return {
        "symbols": start.symbols,
        "lattice": lattice.tolist(),
        "positions": (frac_coords @ lattice).tolist(),
        "settings": settings.job(start.symbols),
    }


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


def _split(answers: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The frames and, of a worker that came to its end, the last line; torn lines are left out."""
    lines = [json.loads(line) for line in answers.splitlines(keepends=True) if line[-1] == "\n"]
    end = lines.pop() if lines and "converged" in lines[-1] else {}
    return lines, end
