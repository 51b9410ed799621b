"""Command lines: the types of their arguments, the checks of what they need, and their ending.

A mistake of the user's is told in one line before anything runs.
"""

from __future__ import annotations

import argparse
import difflib
import errno
import importlib.util
import json
import math
import os
import re
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from benchmarks.core import GPA, Shard, UserError
from benchmarks.core.inert_text import single_line

BROKEN_PIPE = 141
"""The exit status that a shell gives to a process whose reader has left."""
_OF_THE_SYSTEM = frozenset(
    {
        errno.EACCES,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EIO,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOENT,
        errno.ENOMEM,
        errno.ENOSPC,
        errno.EPERM,
        errno.EROFS,
    }
)
"""Errors by which the system says that a disk is full or read-only, a folder gone, a limit reached:
not mistakes of ours."""
_DEAF = 2.0
"""Seconds after a signal in which others are not heard."""


def run_command(command: Callable[[], int], *, interrupted: str = "interrupted") -> int:
    """Run a command and end it as every command of this project ends.

    SIGTERM (of a scheduler, of `timeout`) and SIGHUP (of a terminal that closes) end it as Ctrl-C
    does: what was computed is written first.

    Args:
        command: Does the work and returns the exit status.
        interrupted: The line that an interrupted user is told.

    Returns:
        The status of `command`; 2 after a `UserError`, which is told in one line on stderr; 130
        after an interrupt, and 128 and its number after another signal; `BROKEN_PIPE` where the
        reader of stdout (`| head`) has left.
    """
    _open_standard_streams()
    # pymatgen warns so of helium, neon and argon, wherever it sorts elements.
    warnings.filterwarnings("ignore", message="No Pauling electronegativity")
    try:
        with _signals_interrupt():
            status = command()
            sys.stdout.flush()
    except UserError as error:
        sys.stderr.write(f"error: {single_line(str(error))}\n")
        return 2
    except MemoryError:
        sys.stderr.write("error: not enough memory: give the command more, or less to do at once\n")
        return 2
    except KeyboardInterrupt as stop:
        with suppress(OSError):  # the terminal may have closed
            sys.stderr.write(f"{interrupted}\n")
        return 128 + int(stop.args[0] if stop.args else signal.SIGINT)
    except BrokenPipeError:
        # Python flushes stdout once more when it ends, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except OSError as error:
        if error.errno not in _OF_THE_SYSTEM:
            raise
        where = single_line(f"{error.filename}: ") if error.filename else ""
        sys.stderr.write(f"error: {where}{os.strerror(error.errno)}\n")
        with suppress(OSError):
            sys.stdout.flush()
            return 2
        # What cannot be written now cannot be when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2
    return status


def _open_standard_streams() -> None:
    """Give a process that was started without stdin, stdout or stderr ones that hold nothing.

    Else the next file that is opened would take their place. Characters that the encoding of stdout
    lacks are written as their codes.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is not None:
            continue
        with suppress(OSError):
            os.fstat(number)
            continue  # a file has it already
        while (opened := os.open(os.devnull, os.O_RDWR)) < number:
            pass
        if opened > number:
            os.close(opened)
        setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115
    with suppress(AttributeError, ValueError):
        if sys.stdout.errors == "strict":
            sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Raise `KeyboardInterrupt` with the number of the signal for SIGINT, SIGTERM and SIGHUP.

    Only the first signal of `_DEAF` seconds does so, that a key held down cannot cut off the
    writing of what there is. A signal that the process was started to ignore (`nohup`) stays
    ignored. Processes that are forked from this one keep what the signals did before.
    """
    owner, heard = os.getpid(), -math.inf

    def interrupt(number: int, _: FrameType | None) -> None:
        nonlocal heard
        if os.getpid() != owner:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif time.monotonic() - heard > _DEAF:
            heard = time.monotonic()
            raise KeyboardInterrupt(number)

    usual: dict[int, Any] = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
    }
    mine = threading.current_thread() is threading.main_thread()
    taken = [number for number, old in usual.items() if mine and signal.getsignal(number) is old]
    for number in taken:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, usual[number])


def whole_number(lowest: int) -> Callable[[str], int]:
    """Make a type for argparse: whole numbers from `lowest`."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < lowest:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {lowest}")
        return int(text)

    return parse


def positive(text: str) -> float:
    """A type for argparse: finite numbers above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return value


def shard(text: str) -> Shard:
    """A type for argparse: part i of n, written i/n."""
    number, slash, total = text.partition("/")
    if not (slash and number.isdecimal() and total.isdecimal() and 1 <= int(number) <= int(total)):
        raise argparse.ArgumentTypeError(f"{text!r} is not i/n with i from 1 to n, as 1/4")
    return Shard(int(number), int(total))


def gigapascals(text: str) -> float:
    """A type for argparse: a positive stress, written in GPa, as eV/Å^3."""
    return positive(text) * GPA


def check_device(device: str) -> None:
    """Make sure that models can run on a device: `cpu`, `cuda` or `cuda:N`.

    Raises:
        UserError: The device is none of these, or there is no such GPU.
    """
    if device == "cpu":
        return
    if not re.fullmatch(r"cuda(:\d+)?", device):
        raise UserError(f"--device {device}: cpu or cuda")
    check_installed("--device cuda", ["torch"], "t5")
    import torch

    if not torch.cuda.is_available():
        raise UserError("--device cuda: torch finds no GPU here; leave it out to run on the CPU")
    n = torch.cuda.device_count()
    if int(device.partition(":")[2] or 0) >= n:
        raise UserError(f"--device {device}: there are {n} GPUs here, the first is cuda:0")


def check_installed(user: str, modules: Iterable[str], extra: str) -> None:
    """Make sure that the modules which a part of the program needs are installed.

    None is imported.

    Args:
        user: The model or the option that needs them, for the message.
        modules: The names of the modules.
        extra: The extra of this package that brings them.

    Raises:
        UserError: Some are missing. The message has the line that installs them.
    """
    if lacking := [module for module in modules if not importable(module)]:
        raise UserError(
            f"{user} needs {', '.join(lacking)}: pip install 't2relax-bench[{extra}]' "
            f"(in a clone: pip install -e '.[{extra}]')"
        )


def importable(module: str) -> bool:
    """Say whether a module is installed, without importing it; the packages above it are imported.

    Raises:
        UserError: A package above the module is there and cannot be imported.
    """
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError as error:
        if error.name is None or f"{module}.".startswith(f"{error.name}."):
            return False
        raise UserError(f"{module} cannot be imported ({error})") from error
    except ValueError:  # the name is empty, say
        return False
    except Exception as error:
        first = (str(error).splitlines() or [""])[0]
        message = f"{module} cannot be imported ({type(error).__name__}: {first})"
        raise UserError(message) from error


def require_numbers(
    config: object, *, positive: Sequence[str] = (), not_negative: Sequence[str] = ()
) -> None:
    """Refuse a configuration whose numbers make no sense.

    Args:
        config: The configuration; None in a field is not checked.
        positive: Names of fields that must be larger than 0.
        not_negative: Names of fields that must not be smaller than 0.

    Raises:
        UserError: A number is too small, or nan; the message names the option.
    """
    for name in (*positive, *not_negative):
        value = getattr(config, name)
        if value is None or value > 0 or (value == 0 and name in not_negative):
            continue
        wanted = "larger than 0" if name in positive else "not smaller than 0"
        raise UserError(f"--{name.replace('_', '-')} {value}: it must be {wanted}")


def parse_fields(
    assignments: Sequence[str], option: str, defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """Read `FIELD=VALUE` texts of a command line.

    Args:
        assignments: The texts.
        option: The option that they were given with, for the message.
        defaults: The fields that there are, with their default values, whose types count.

    Raises:
        UserError: A text is no assignment, there is no such field, or the value is not of its type.
    """
    fields: dict[str, Any] = {}
    for text in assignments:
        name, separator, written = text.partition("=")
        if not separator:
            raise UserError(f"{option} wants FIELD=VALUE, not {text!r}")
        if name not in defaults:
            near = difflib.get_close_matches(name, defaults, n=1)
            names = ", ".join(defaults) if len(defaults) <= 12 else "see its documentation"
            raise UserError(
                f"{option} {text}: there is no field {name!r}; "
                + (f"did you mean {near[0]}?" if near else f"fields: {names}")
            )
        try:
            value = json.loads(written)
        except json.JSONDecodeError:
            value = written
        kind = type(defaults[name])
        if kind is float and type(value) is int:
            value = float(value)
        if defaults[name] is not None and type(value) is not kind:
            raise UserError(f"{option} {text}: {name} is of type {kind.__name__}")
        fields[name] = value
    return fields
