"""Commands on data sets.

python -m benchmarks.data convert INPUT… --out FILE.parquet
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

COMMANDS = {
    "convert": "benchmarks.data.convert:main",
}
"""Name -> `module:function` of its arguments that gives the exit status."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    name, *rest = [*(sys.argv[1:] if argv is None else argv), ""]
    if name not in COMMANDS:
        print(f"usage: python -m benchmarks.data {'|'.join(COMMANDS)} …", file=sys.stderr)
        return 2
    module, _, function = COMMANDS[name].partition(":")
    return int(getattr(import_module(module), function)(rest[:-1]))


if __name__ == "__main__":
    sys.exit(main())
