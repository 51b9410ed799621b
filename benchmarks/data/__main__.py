"""Commands on data sets.

    python -m benchmarks.data audit SOURCE
    python -m benchmarks.data convert INPUT… --out FILE.parquet
    python -m benchmarks.data convert pairs INPUT… --functional NAME --out FILE.parquet
    python -m benchmarks.data split SOURCE… --out DIR
    python -m benchmarks.data manifest FOLDER [--check]
    python -m benchmarks.data perturb SOURCE… --out DIR
    python -m benchmarks.data metadata [--check]
    python -m benchmarks.data deposit --out FILE.zip
    python -m benchmarks.data build substitution --out DIR [--sources DIR]

Each command is a function of its arguments that returns the exit status. A mistake of the user's
ends with one line on stderr and status 2.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from benchmarks.core.cli import run_command

COMMANDS = {
    "audit": "benchmarks.data.audit:main",
    "convert": "benchmarks.data.convert.convert:main",
    "convert pairs": "benchmarks.data.convert.pairs:main",
    "split": "benchmarks.data.splits.split:main",
    "manifest": "benchmarks.data.splits.manifest:main",
    "perturb": "benchmarks.data.perturb:main",
    "metadata": "benchmarks.data.croissant:main",
    "deposit": "benchmarks.data.deposit:main",
    "build substitution": "benchmarks.data.build.substitution:main",
}
"""Name of each command -> "module:function"; the module is imported when the command is used."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    name, *rest = (sys.argv[1:] if argv is None else argv) or [""]
    if name in ("-h", "--help"):
        print(f"usage: python -m benchmarks.data {{{','.join(COMMANDS)}}} …")
        return 0
    if rest and f"{name} {rest[0]}" in COMMANDS:
        name, rest = f"{name} {rest[0]}", rest[1:]
    if name not in COMMANDS:
        sys.stderr.write(f"error: no command {name!r}: use one of {', '.join(COMMANDS)}\n")
        return 2
    module, function = COMMANDS[name].split(":")
    command: Callable[[Sequence[str]], int] = getattr(import_module(module), function)
    return run_command(lambda: command(rest))


if __name__ == "__main__":
    sys.exit(main())
