"""Audit a source: the chosen frames of each trajectory, the reasons, the faults, and the sums.

    python -m benchmarks.data audit embedded
    python -m benchmarks.data audit FILE_OR_FOLDER… --out DIR    # audit.parquet and audit.md
    python -m benchmarks.data audit hf://LeMaterial/LeMat-Traj --limit 1000

The table has a row for every trajectory and every stray row; the quarantined ones have a reason.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.core import MissingFinalFrame, UserError
from benchmarks.core.files import atomic_write
from benchmarks.core.formatting import markdown_table
from benchmarks.data.dataset import in_part, selection_order
from benchmarks.data.lemat.calculation_order import BASES, ENDS
from benchmarks.data.lemat.coordinates import CHUNK, read_coordinates
from benchmarks.data.lemat.ids import source_of
from benchmarks.data.lemat.missing_final_frames import (
    MAX_FORCE,
    MAX_STRESS,
    UPHILL,
    is_relaxed,
    residual_forces,
)
from benchmarks.data.lemat.reader import FrameFiles
from benchmarks.data.lemat.trajectories import Survey, survey
from benchmarks.data.sources import Source, resolve_all

LISTED = 50
"""Number of quarantined trajectories that are named; the parquet file has all of them."""
_QUANTITIES = {
    "residual_force": "residual force of the relaxed frame (eV/Å)",
    "residual_stress": "residual stress of the relaxed frame (kB)",
    "energy_change": "energy, relaxed minus initial (eV/atom)",
    "energy_above_lowest": "energy above the lowest of its calculation (eV/atom)",
    "cell_jump": "jump of the cell between calculations (relative)",
    "missing_steps": "steps missing",
}
NOISE = 1e-4
"""eV/atom: an energy that rises by less does not count as rising."""


def report(table: pd.DataFrame, source: Source) -> str:
    """The findings of an audit.

    Args:
        table: The table that `benchmarks.data.audit.audit` returns.
        source: The source that was audited.
    """
    paired = table[table["status"] == "paired"]
    quantities = []
    for name, words in _QUANTITIES.items():
        values = paired[name].astype(float).dropna()
        marks = values.quantile([0.5, 0.9, 0.99, 1.0] if len(values) else [])
        quantities.append((words, len(values), *(f"{mark:.3g}" for mark in marks)))
    parts = [
        f"# Audit of {source.name}" + (f", split {source.split}" if source.split else ""),
        f"Revision `{source.revision}`.",
        _sums(table, paired),
        "## Order of the calculations",
        _counts(paired, ["source", "order", "basis", "end"]),
        "## Quantities of the paired",
        markdown_table(("", "n", "median", "90 %", "99 %", "largest"), quantities),
        "## Quarantined",
        _quarantined(table[table["status"] == "quarantined"]),
    ]
    return "\n\n".join(parts) + "\n"


def _sums(table: pd.DataFrame, paired: pd.DataFrame) -> str:
    missing = paired[paired["end"] == "missing"]
    energy = paired["energy_change"].dropna()
    several = paired[paired["n_calculations"] > 1]
    large = (paired["residual_force"] > MAX_FORCE) | (paired["residual_stress"] > MAX_STRESS)
    large &= paired["used"]
    rows = {
        "trajectories and stray rows": len(table),
        "paired": len(paired),
        "quarantined": len(table) - len(paired),
        f"relaxed frame within {MAX_FORCE} eV/Å and {MAX_STRESS:g} kB": int(
            paired["relaxed"].sum()
        ),
        "last frame missing": len(missing),
        "— of them relaxed enough to be used": int(missing["used"].sum()),
        "used by default": int(table["used"].sum()),
        "— of them with a larger residual force or stress": int(large.sum()),
        "with energies": len(energy),
        f"— of them with an energy that goes down, or up by less than {NOISE:g} eV/atom": int(
            (energy < NOISE).sum()
        ),
        f"ending more than {UPHILL:g} eV/atom above the lowest energy": int(
            (paired["energy_above_lowest"] > UPHILL).sum()
        ),
        "several calculations": len(several),
        "— of them ordered by evidence": int((several["basis"] == "evidence").sum()),
        "with missing steps": int((paired["missing_steps"] > 0).sum()),
        "— of them just before the initial frame": int((paired["start_missing"] == True).sum()),  # noqa: E712
        "with steps in more than one row": int((table["duplicated_steps"] > 0).sum()),
    }
    return markdown_table(("", "n"), rows.items())


def _counts(table: pd.DataFrame, columns: list[str]) -> str:
    counts = table.groupby(columns).size().reset_index(name="n")
    return (
        markdown_table((*columns, "n"), counts.itertuples(index=False)) if len(counts) else "None."
    )


def _quarantined(table: pd.DataFrame) -> str:
    if table.empty:
        return "None."
    named = table[["sample_id", "reason", "detail"]].head(LISTED)
    more = f"\n\nand {len(table) - LISTED} more" if len(table) > LISTED else ""
    listed = markdown_table(("id", "reason", "detail"), named.itertuples(index=False))
    return _counts(table, ["reason"]) + "\n\n" + listed + more


COLUMNS = {
    "sample_id": "key of the trajectory; id of the row where there is none",
    "source": "prefix of the material id",
    "functional": "",
    "status": "paired or quarantined",
    "reason": "of the quarantine",
    "detail": "of the quarantine",
    "n_frames": "",
    "n_calculations": "",
    "n_sites": "",
    "initial_id": "frame that was taken as the initial one",
    "relaxed_id": "frame that was taken as the relaxed one",
    "order": "single, forwards or backwards: relaxation_number against time",
    "basis": "what the order rests on",
    "evidence_cell": "log ratio, positive for backwards; see calculation_order in data/lemat",
    "evidence_energy": "",
    "evidence_stress": "",
    "evidence_force": "0 where it was not needed",
    "cell_jump": "between calculations, about twice the strain, summed",
    "end": "present, missing or unknown",
    "energy_change": "eV/atom, relaxed minus initial",
    "energy_above_lowest": "eV/atom, relaxed minus lowest of its calculation",
    "residual_force": "eV/Å, largest norm in the relaxed frame",
    "residual_stress": "kB, largest component in the relaxed frame",
    "relaxed": "both within the bounds",
    "used": "whether the default policy lets it into a board",
    "missing_steps": "gaps: steps that are not there",
    "start_missing": "whether the step before the initial frame is one of them",
    "duplicated_steps": "steps that stand in more than one row",
}
"""Columns of audit.parquet."""


def audit(source: Source, limit: int | None = None, seed: int = 0) -> pd.DataFrame:
    """Describe every trajectory of a source, or some of them.

    Args:
        source: The files.
        limit: Describe only the N trajectories that `--limit N` takes first, usable or not. Stray
            rows are listed in any case.
        seed: Seed of that choice.

    Returns:
        A row with `COLUMNS` for each trajectory, in file order.
    """
    files = FrameFiles(source.paths, source.sets)
    found = survey(files)
    chosen = np.arange(len(found.trajectories))
    if limit is not None:
        chosen = np.sort(selection_order(source, files, found.trajectories, seed)[:limit])
    chosen = chosen[in_part(source, files, found.trajectories)[chosen]]
    faults = dict(found.faults)
    place = {key: i for i, key in enumerate(found.trajectories.ids)}
    sound = np.setdiff1d(chosen, np.fromiter(faults, np.int64, len(faults)))
    for start in range(0, len(sound), CHUNK):
        part = sound[start : start + CHUNK]
        # Reading the coordinates finds their faults.
        _, more = read_coordinates(files, found.trajectories, part, None, MissingFinalFrame.KEEP)
        faults |= {place[fault.sample_id]: fault for fault in more}
    table = _facts(found, chosen)
    force = residual_forces(files, found.trajectories.chosen.relaxed_row[chosen])
    table["residual_force"] = force
    reasons = pd.Series({i: str(fault.reason) for i, fault in faults.items()}, dtype="str")
    details = pd.Series({i: fault.detail for i, fault in faults.items()}, dtype="str")
    table["reason"], table["detail"] = reasons.reindex(chosen).array, details.reindex(chosen).array
    table["status"] = np.where(table["reason"].isna(), "paired", "quarantined")
    table["relaxed"] = is_relaxed(force, found.trajectories.chosen.stress[chosen])
    table["used"] = (table["status"] == "paired") & (table["relaxed"] | (table["end"] != "missing"))
    rows = [
        (q.sample_id, "quarantined", str(q.reason), q.detail, False, False) for q in found.malformed
    ]
    stray = pd.DataFrame(
        rows, columns=["sample_id", "status", "reason", "detail", "relaxed", "used"]
    ).astype({"relaxed": bool, "used": bool})
    return pd.concat([table, stray], ignore_index=True)[list(COLUMNS)]


def _facts(found: Survey, chosen: NDArray[np.int64]) -> pd.DataFrame:
    """The columns that follow from the first pass."""
    t = found.trajectories.take(chosen)
    energies = t.chosen.energies / np.maximum(t.n_sites, 1)[:, None]
    order = np.where(t.order.backwards, "backwards", "forwards")
    evidence = ("evidence_cell", "evidence_energy", "evidence_stress", "evidence_force")
    return pd.DataFrame(
        {
            "sample_id": t.ids,
            "source": [source_of(material) for material in t.materials],
            "functional": t.functionals,
            "n_frames": t.n_frames,
            "n_calculations": t.n_calculations,
            "n_sites": t.n_sites,
            "initial_id": [
                f"{k}-{step}" for k, step in zip(t.ids, t.chosen.initial_step, strict=True)
            ],
            "relaxed_id": [
                f"{k}-{step}" for k, step in zip(t.ids, t.chosen.relaxed_step, strict=True)
            ],
            "order": np.where(t.n_calculations == 1, "single", order),
            "basis": np.array(BASES)[t.order.basis],
            **dict(zip(evidence, t.order.evidence.T, strict=True)),
            "cell_jump": t.order.cell_jump,
            "end": np.array(ENDS)[t.order.end],
            "energy_change": energies[:, 1] - energies[:, 0],
            "energy_above_lowest": energies[:, 1] - energies[:, 2],
            "residual_stress": t.chosen.stress,
            "missing_steps": t.missing_steps,
            "start_missing": t.start_missing,
            "duplicated_steps": t.duplicated_steps,
        }
    )


def main(argv: Sequence[str]) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.data audit", description="Audit the trajectories of a source."
    )
    add = parser.add_argument
    add("source", nargs="+", help="as --data of benchmarks.run; several are read as one set")
    add("--split", help="where the source has splits")
    add("--limit", type=int, help="only N trajectories, chosen as benchmarks.run does")
    add("--seed", type=int, default=0, help="of that choice; default: 0")
    add("--offline", action="store_true", help="of hf:// data use the cache only")
    add("--out", type=Path, help="folder for audit.parquet and audit.md")
    args = parser.parse_args(argv)
    if args.limit is not None and args.limit < 1:
        raise UserError(f"--limit {args.limit}: must be at least 1")
    source = resolve_all(
        args.source, args.split, limit=args.limit, seed=args.seed, offline=args.offline
    )
    table = audit(source, args.limit, args.seed)
    text = report(table, source)
    if args.out is None:
        sys.stdout.write(text)
        return 0
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    facts = {"name": source.name, "revision": source.revision, "split": source.split or ""}
    arrow = arrow.replace_schema_metadata({**arrow.schema.metadata, **facts})
    with (
        atomic_write(args.out / "audit.parquet") as parquet,
        atomic_write(args.out / "audit.md") as markdown,
    ):
        pq.write_table(arrow, parquet)
        markdown.write_text(text, encoding="utf-8")
    sys.stdout.write(f"wrote {args.out / 'audit.parquet'} and {args.out / 'audit.md'}\n")
    return 0
