"""Records as parquet in the layout of LeMat-Traj, with their data card."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.core.files import atomic_write
from benchmarks.data.convert.conventions import ASE_STRESS
from benchmarks.data.convert.evidence import check
from benchmarks.data.convert.layout import TableWriter, table
from benchmarks.data.convert.relaxation import ConversionError, Relaxation, Step, numbers
from benchmarks.data.folders import MANIFEST
from benchmarks.data.splits.manifest import manifest_text, split_of
from benchmarks.dft.data_card import Card
from benchmarks.dft.results import DFTResult

FUNCTIONAL = "pbe"
_BY_THE_RELAXATION = ("joined", "uphill", "unrelaxed")
"""What the relaxation itself has judged when it ended, with its own criterion."""


def mark_unusable(records: Sequence[DFTResult]) -> list[DFTResult]:
    """Give a reason to the records that cannot be a trajectory of a table (a single frame)."""
    checked = []
    for record in records:
        reason = record.reason
        if not reason:
            try:
                check(relaxation(record), keep=_BY_THE_RELAXATION)
            except ConversionError as error:
                reason = f"not a relaxation: {error}"
        checked.append(replace(record, reason=reason))
    return checked


def write_table(records: Sequence[DFTResult], path: Path, card: Card) -> None:
    """Relaxed structures as one parquet file, and a card `README.md` beside it.

    Raises:
        UserError: There is no room, or no permission.
    """
    with atomic_write(path) as partial:
        _write(records, partial)
    with atomic_write(path.with_name("README.md")) as partial:
        partial.write_text(card.text({path.stem: records}), encoding="utf-8")


def write_set(
    records: Sequence[DFTResult], folder: Path, card: Card, name: str, version: int
) -> None:
    """A data set with a file for each split and a manifest; it replaces `folder` when complete.

    Raises:
        UserError: There is no room, or no permission.
    """
    splits: dict[str, list[DFTResult]] = {}
    for record in records:
        splits.setdefault(split_of(record.symbols), []).append(record)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
        new = Path(scratch) / folder.name
        new.mkdir()
        for split, members in splits.items():
            _write(members, new / f"{split}.parquet")
        manifest = manifest_text(new, name=name, version=version)
        (new / MANIFEST).write_text(manifest, encoding="utf-8")
        (new / "README.md").write_text(card.text(splits), encoding="utf-8")
        if folder.exists():
            shutil.move(folder, Path(scratch) / "old")
        new.rename(folder)


def relaxation(record: DFTResult) -> Relaxation:
    """The frames of a record in the units of LeMat-Traj."""
    steps = []
    for frame in record.frames:
        energy = numbers(frame["energy"], ())
        step = Step(
            symbols=tuple(record.symbols),
            lattice=np.array(frame["lattice"], dtype=np.float64),
            positions=np.array(frame["positions"], dtype=np.float64),
            energy=None if energy is None else float(energy),
            forces=numbers(frame["forces"], (len(record.symbols), 3)),
            stress=numbers(frame["stress"], (3, 3), ASE_STRESS),
        )
        steps.append(step)
    return Relaxation(
        steps=steps,
        functional=FUNCTIONAL,
        material=f"gpaw-{record.name}",
        cutoff=record.cutoff,
    )


def _write(records: Sequence[DFTResult], path: Path) -> None:
    with TableWriter(path) as writer:
        for record in records:
            found = relaxation(record)
            material = str(found.material)
            writer.add(table(found, material, FUNCTIONAL, f"{material}-0-{FUNCTIONAL}"))
