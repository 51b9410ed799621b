"""Errors by DFT settings, and how far the functional moves the target.

python -m studies.dft_settings RUNS... --data SOURCE --out DIR
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.core.cli import run_command
from benchmarks.core.files import atomic_write
from benchmarks.data import Dataset
from leaderboard.__main__ import add_data_arguments, load_datasets
from studies.dft_settings.findings import find


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m studies.dft_settings", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="model folders, or folders of them")
    add_data_arguments(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="for the files")
    options = parser.parse_args(arguments)

    def study() -> int:
        written = report(options.runs, options.out, load_datasets(options), options.data)
        print("wrote " + ", ".join(map(str, written)))
        return 0

    return run_command(study)


def report(
    run_folders: Iterable[Path], out: Path, datasets: Sequence[Dataset], sources: Iterable[str]
) -> list[Path]:
    """Write `settings.md`, `settings.json`, `settings.svg` and `settings-pairs.csv`.

    Args:
        run_folders: Model folders of one data set, or folders of them; scores are enough.
        out: Folder of the files.
        datasets: Data that the runs may be of; the embedded set is found without.
        sources: What these were loaded from; settings are looked for there.

    Returns:
        What was written; no figure where no material was relaxed twice.

    Raises:
        UserError: The runs are not all of one data set that is at hand, or a file is damaged.
    """
    from studies.dft_settings.text import differences_and_errors, markdown, pairs_csv, to_json

    found = find(run_folders, datasets, sources)
    texts = {
        out / "settings.md": markdown(found),
        out / "settings.json": to_json(found),
        out / "settings-pairs.csv": pairs_csv(found),
    }
    for path, text in texts.items():
        with atomic_write(path) as partial:
            partial.write_text(text, encoding="utf-8")
    return [*texts, *differences_and_errors(found, out / "settings.svg")]


if __name__ == "__main__":
    sys.exit(main())
