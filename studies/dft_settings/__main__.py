"""Errors by DFT settings, and how far the functional moves the target.

python -m studies.dft_settings RUNS... --data SOURCE --out DIR
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.core import UserError
from leaderboard.__main__ import add_data_arguments, load_datasets
from studies.dft_settings.findings import report


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; exit status 2 after a mistake of the user's."""
    parser = argparse.ArgumentParser(prog="python -m studies.dft_settings", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="model folders, or folders of them")
    add_data_arguments(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="for the files")
    options = parser.parse_args(arguments)
    try:
        written = report(options.runs, options.out, load_datasets(options), options.data)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print("wrote " + ", ".join(map(str, written)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
