"""One writer at a time for a folder, also where the file system has no locks."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from contextlib import suppress
from pathlib import Path

from benchmarks.core import UserError


class FolderBusyError(UserError):
    """Another process writes to the folder."""


class FolderLock:
    """Creates a folder and locks it until `close`.

    The system lets go of the lock when the process dies. Some file systems of clusters cannot
    lock; there the file `.lock` in the folder, which names the process, stands for the lock. It
    stays behind when the process is killed; on the same machine the next process removes it.

    Raises:
        FolderBusyError: Another process writes to the folder.
        UserError: The folder cannot be written, or a lock file stays behind in it.
    """

    def __init__(self, folder: Path) -> None:
        self._handle: int | None = None
        self._file: Path | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(folder, os.O_RDONLY)
        except OSError as error:
            raise UserError(f"{folder}: cannot be written ({error.strerror})") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN):
                raise _busy(folder) from error
            self._file = _lock_file(folder, error)
        else:
            self._handle = handle

    def close(self) -> None:
        """Let go of the folder."""
        if self._handle is not None:
            os.close(self._handle)
        if self._file is not None:
            self._file.unlink(missing_ok=True)
        self._handle = self._file = None


def require_free(folder: Path) -> None:
    """Make sure that no process holds the lock of a folder; several may ask at the same time.

    Raises:
        FolderBusyError: A process does.
    """
    try:
        handle = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN) or (folder / ".lock").exists():
            raise _busy(folder) from error
    finally:
        os.close(handle)


def _busy(folder: Path) -> FolderBusyError:
    return FolderBusyError(f"{folder}: another process is writing to it")


def _lock_file(folder: Path, reason: OSError) -> Path:
    """Make the lock file of this process; `reason` says why the file system cannot lock."""
    path = folder / ".lock"
    host = socket.gethostname()
    with suppress(OSError, ValueError):
        pid, other_host = path.read_text(encoding="utf-8").split()
        if other_host == host and not Path(f"/proc/{int(pid)}").exists():
            path.unlink()  # its process was killed
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    except FileExistsError as error:
        raise UserError(
            f"{folder}: this file system cannot lock ({reason.strerror}), and {path} says that "
            "another process is writing: remove that file if the process has ended, or give each "
            "process a part of its own with --shard i/n"
        ) from error
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror})") from error
    with os.fdopen(handle, "w") as file:
        file.write(f"{os.getpid()} {host}\n")
    return path
