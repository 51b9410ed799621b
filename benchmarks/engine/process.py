"""The driver's end of a worker: starts it, asks it within a time limit, kills it with its children.

Policy (what to do about a failure) is `benchmarks.engine.execute`; here every way in which a
process can go wrong becomes a `Failure`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

from benchmarks.core import Geometry, RelaxSettings, Status
from benchmarks.engine.worker import BatchAnswer, Failure, LoadRequest, Ready
from benchmarks.models.environments import interpreter, search_path
from benchmarks.models.registry import ModelSpec

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
_POLL = 0.5
"""Seconds between two checks that a silent worker is alive; an answer is seen at once."""
_STALLED = 30
"""Seconds without a byte after which an answer that has begun is given up."""
_GRACE = 5
"""Seconds within which a worker that has closed its socket ends by itself."""
_LONGEST_LOG = 2**24
"""Bytes of output that a worker may leave; of more, the first and the last part is kept."""
_KEPT_OF_LOG = 2**20
"""Bytes of each of these two parts."""


class Worker:
    """One running `benchmarks.engine.worker`, in a session and process group of its own.

    Args:
        spec: The model that it builds; its `environment` decides which Python runs.
        settings: The settings that its relaxer gets; `offline` also closes the hub for it.
        log: The file to which its output is appended. None means our stderr. It never writes to
            our stdout.
    """

    def __init__(self, spec: ModelSpec, settings: RelaxSettings, log: Path | None) -> None:
        self.log = log
        self.connection, theirs = Pipe()
        with socket.socket(fileno=os.dup(self.connection.fileno())) as ours:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", _STALLED, 0))
        python = interpreter(spec)
        command = [python, "-u", "-m", "benchmarks.engine.worker", str(theirs.fileno())]
        with contextlib.ExitStack() as files:
            files.callback(theirs.close)
            output = 2 if log is None else files.enter_context(log.open("ab"))
            self.process = subprocess.Popen(  # noqa: S603 - our own module
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment(offline=settings.offline) | search_path(python),
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        # another environment has other packages at other places
        sys_path = tuple(sys.path) if python == sys.executable else ()
        self.start = LoadRequest(spec=spec, settings=settings, sys_path=sys_path)

    def load(self, limit: float) -> Ready | Failure:
        """Have the relaxer built within `limit` [s]; `Ready`, or a lost worker's `Failure`."""
        reply = self._exchange(self.start, limit)
        assert isinstance(reply, Ready | Failure)
        return reply

    def ask(self, batch: Sequence[Geometry], limit: float) -> BatchAnswer | Failure:
        """Relax a batch within `limit` [s]; a `Failure` with `lost` set leaves nobody to ask."""
        reply = self._exchange(list(batch), limit)
        assert isinstance(reply, BatchAnswer | Failure)
        return reply

    def kill(self) -> None:
        """End the worker and whatever it started; it owns nothing that could be lost."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.connection.close()
        self._bound_log()
        if self.log is not None:
            with contextlib.suppress(OSError):  # its folder may have been removed
                if not self.log.stat().st_size:
                    self.log.unlink()

    def _exchange(self, message: Any, limit: float) -> Any:
        begin = time.monotonic()
        try:
            self.connection.send(message)
            while (left := begin + limit - time.monotonic()) > 0:
                self._bound_log()
                if self.connection.poll(min(_POLL, left)):
                    return self._receive()
                # A child of the worker may hold the socket open after the worker has died.
                if self.process.poll() is not None and not self.connection.poll(0):
                    break
            else:
                late = _lost(Status.RESOURCE, f"no answer within {limit:g} s", limit)
                return replace(late, late=True)
        except (EOFError, OSError):
            pass  # the socket closed before a whole answer came, or the answer stalled
        return _obituary(self._exit_status(), time.monotonic() - begin)

    def _receive(self) -> Any:
        """Read the answer that has begun to come.

        Raises:
            EOFError: The socket closed before its end.
            OSError: Likewise, or it stalled.
        """
        try:
            answer = self.connection.recv()
        except (EOFError, OSError):
            raise
        except Exception as error:  # noqa: BLE001 - bytes that are no pickle raise anything
            answer = error
        if isinstance(answer, Ready | BatchAnswer | Failure):
            return answer
        detail = f"the worker's answer cannot be read ({type(answer).__name__})"
        return _lost(Status.ERROR, detail, 0.0)

    def _bound_log(self) -> None:
        """Cut the middle out of a log that has grown too long; the worker appends to what is left.

        A log that is gone, or cannot be written, costs nothing else.
        """
        if self.log is None:
            return
        with contextlib.suppress(OSError):
            size = self.log.stat().st_size
            if size <= _LONGEST_LOG:
                return
            with self.log.open("rb+") as file:
                first = file.read(_KEPT_OF_LOG)
                file.seek(size - _KEPT_OF_LOG)
                last = file.read(_KEPT_OF_LOG)
                file.seek(len(first))
                file.write(
                    f"\n… {size - len(first) - len(last)} bytes are left out here …\n".encode()
                )
                file.write(last)
                file.truncate()

    def _exit_status(self) -> int | None:
        """Wait for the exit status of a worker; None for one that lives on and must be killed."""
        try:
            return self.process.wait(timeout=_GRACE)
        except subprocess.TimeoutExpired:
            return None


def _lost(status: Status, detail: str, seconds: float) -> Failure:
    return Failure(status=status, detail=detail, seconds=seconds, lost=True)


def _obituary(exit_status: int | None, seconds: float) -> Failure:
    if exit_status is None:
        return _lost(Status.ERROR, "the worker's answer broke off", seconds)
    if exit_status == -signal.SIGKILL:
        detail = "worker killed by SIGKILL (out of memory?)"
        # What the kernel kills for its memory is tried again in halves, as where a model says so.
        return replace(_lost(Status.RESOURCE, detail, seconds), out_of_memory=True)
    if exit_status < 0:
        detail = f"worker killed by {signal.Signals(-exit_status).name}"
    else:
        detail = f"worker exited with status {exit_status}"
    return _lost(Status.ERROR, detail, seconds)


def environment(*, offline: bool) -> dict[str, str]:
    """Make the worker's environment; threads are set before Python starts."""
    env = dict(os.environ)
    for variable in THREAD_VARIABLES:
        env.setdefault(variable, str(threads()))
    # Threads that wait by spinning make a model 5 times slower as soon as one core is shared.
    env.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    env.setdefault("TOKENIZERS_PARALLELISM", "false")
    if offline:
        env |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    return env


def threads() -> int:
    """Count the threads of a worker: `OMP_NUM_THREADS`, or the physical cores that we may use."""
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    return physical_cores()


def physical_cores() -> int:
    """Count the physical cores that this process may use; hyperthreads count once."""
    try:
        allowed = os.sched_getaffinity(0)
    except AttributeError:  # not Linux
        return os.cpu_count() or 1
    topology = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    try:
        return len({Path(topology.format(cpu)).read_text() for cpu in allowed})
    except OSError:
        return len(allowed)
