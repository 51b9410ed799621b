"""What command lines ask for: what is not of the right kind is told before anything runs."""

from __future__ import annotations

import argparse
import importlib.util
import math
import re
from collections.abc import Callable, Iterable

from benchmarks.core import UserError


def whole_number(lowest: int) -> Callable[[str], int]:
    """A type for argparse: whole numbers from `lowest`."""

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


def check_device(device: str) -> None:
    """Whether models can run there: `cpu`, `cuda` or `cuda:N`.

    Raises:
        UserError: It is none of these, or there is no such GPU.
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


def check_installed(what: str, modules: Iterable[str], extra: str) -> None:
    """Whether the modules that something needs are there; none is imported.

    Args:
        what: Needs them.
        modules: By name.
        extra: Of this package, which brings them.

    Raises:
        UserError: They are not, with the line that installs them.
    """
    if lacking := [module for module in modules if not importable(module)]:
        raise UserError(
            f"{what} needs {', '.join(lacking)}: pip install 't2relax-bench[{extra}]' "
            f"(in a clone: pip install -e '.[{extra}]')"
        )


def importable(module: str) -> bool:
    """Whether there is such a module, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # a parent package is missing
        return False
