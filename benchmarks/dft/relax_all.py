"""Relax a list of structures into a folder; goes on with what is there."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from tqdm import tqdm

from benchmarks.dft.pool import Workers, relax_each
from benchmarks.dft.results import DFTResult, Folder, InitialStructure
from benchmarks.dft.settings import DFTSettings


def relax_all(
    starts: Sequence[InitialStructure],
    folder: Path,
    settings: DFTSettings,
    workers: Workers,
    versions: Mapping[str, str],
    *,
    retry: bool = False,
) -> list[DFTResult]:
    """Relax what has no record yet.

    Args:
        starts: With names that differ.
        folder: Where the records are kept, a file each.
        settings: Must be those of the records that are there.
        workers: How many processes, of which interpreter, with which time limit.
        versions: Of that interpreter, see `interpreter.versions`.
        retry: Try those again that failed.

    Returns:
        The record of each start, in order.

    Raises:
        UserError: The folder is of other settings or another GPAW, or is being written to.
    """
    with Folder.open(folder, settings, versions) as opened:
        records = {start.name: opened.read(start) for start in starts}
        todo = [
            start
            for start in starts
            if (record := records[start.name]) is None or (retry and record.reason)
        ]
        progress = tqdm(
            desc=folder.name,
            total=len(starts),
            initial=len(starts) - len(todo),
            unit="crystal",
            disable=None,
            file=sys.stderr,
        )
        with progress, closing(relax_each(todo, settings, workers)) as ended:
            for record in ended:
                opened.write(record)
                records[record.name] = record
                progress.update()
    return [record for record in records.values() if record is not None]
