"""What command lines ask for: what is not of the right kind is told before anything runs."""

from __future__ import annotations

import argparse
import importlib.util
import math
import re
from collections.abc import Callable

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
    if importlib.util.find_spec("torch") is None:
        raise UserError("--device cuda needs torch: pip install 't2relax-bench[t5]'")
    import torch

    if not torch.cuda.is_available():
        raise UserError("--device cuda: torch finds no GPU here; leave it out to run on the CPU")
