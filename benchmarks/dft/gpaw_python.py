"""The interpreter that has GPAW: whether it is there, and how it is started."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

from benchmarks.core import UserError
from benchmarks.engine.process import THREAD_VARIABLES

DEFAULT = "/usr/bin/python3"
"""Where Debian's packages put GPAW."""
WORKER = Path(__file__).with_name("gpaw_worker.py")
_HELP = "apt install gpaw gpaw-data, or name an interpreter that has GPAW with --python"


def command(python: str) -> list[str]:
    """How a worker is started."""
    return [python, "-u", str(WORKER)]


def environment() -> dict[str, str]:
    """Of a worker: one thread, set before Python starts; more workers use more cores."""
    threads = dict.fromkeys(THREAD_VARIABLES, "1")
    # Its folder stays off the path: a file of ours must not be taken for one of the libraries.
    return {**os.environ, **threads, "PYTHONSAFEPATH": "1"}


def versions(python: str) -> dict[str, str]:
    """Versions of GPAW and what it stands on, by name.

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
        raise UserError(f"--python {python}: {complaint(asked.stderr)}: {_HELP}")
    found: dict[str, str] = json.loads(asked.stdout)
    return found


def complaint(stderr: str) -> str:
    """The exception that a traceback ends with, without further lines of its message."""
    _, traceback, told = stderr.rpartition("Traceback (most recent call last):\n")
    lines = [line for line in told.splitlines() if line.strip() and not line[0].isspace()]
    return lines[0 if traceback else -1].strip() if lines else "ended without a word"
