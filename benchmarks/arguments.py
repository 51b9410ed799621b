"""Numbers of the command lines: what is none of the right kind is told before anything runs."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable


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
