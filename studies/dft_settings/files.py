"""Stored runs and their data to the files about settings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.core.files import atomic_write

if TYPE_CHECKING:
    from benchmarks.data import Dataset


def report(
    run_folders: Iterable[Path], out: Path, datasets: Sequence[Dataset], sources: Iterable[str]
) -> list[Path]:
    """Write `settings.md`, `.json`, `.svg`, `.png` and `settings-pairs.csv`.

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
    from studies.dft_settings.figure import differences_and_errors
    from studies.dft_settings.findings import find
    from studies.dft_settings.text import markdown, pairs_csv, to_json

    found = find(run_folders, datasets, sources)
    texts = {
        out / "settings.md": markdown(found),
        out / "settings.json": to_json(found),
        out / "settings-pairs.csv": pairs_csv(found),
    }
    for path, text in texts.items():
        with atomic_write(path) as partial:
            partial.write_text(text, encoding="utf-8")
    return [*texts, *differences_and_errors(found, out / "settings")]
