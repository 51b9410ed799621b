"""The report of an audit in Markdown: counts, order of calculations, quantities, quarantine."""

from __future__ import annotations

import pandas as pd

from benchmarks.core.formatting import markdown_table
from benchmarks.data.lemat.final_frames import MAX_FORCE, MAX_STRESS
from benchmarks.data.sources import Source

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
    parts = [
        f"# Audit of {source.name}" + (f", split {source.split}" if source.split else ""),
        f"Revision `{source.revision}`.",
        _sums(table, paired),
        "## Order of the calculations",
        _counts(paired, ["source", "order", "basis", "end"]),
        "## Quantities of the paired",
        _quantities(paired),
        "## Quarantined",
        _quarantined(table[table["status"] == "quarantined"]),
    ]
    return "\n\n".join(parts) + "\n"


def _sums(table: pd.DataFrame, paired: pd.DataFrame) -> str:
    missing = paired[paired["end"] == "missing"]
    energy = paired["energy_change"].dropna()
    several = paired[paired["n_calculations"] > 1]
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
        "with energies": len(energy),
        f"— of them with an energy that goes down, or up by less than {NOISE:g} eV/atom": int(
            (energy < NOISE).sum()
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


def _quantities(paired: pd.DataFrame) -> str:
    rows = []
    for name, words in _QUANTITIES.items():
        values = paired[name].astype(float).dropna()
        marks = values.quantile([0.5, 0.9, 0.99, 1.0] if len(values) else [])
        rows.append((words, len(values), *(f"{mark:.3g}" for mark in marks)))
    return markdown_table(("", "n", "median", "90 %", "99 %", "largest"), rows)


def _quarantined(table: pd.DataFrame) -> str:
    if table.empty:
        return "None."
    named = table[["sample_id", "reason", "detail"]].head(LISTED)
    more = f"\n\nand {len(table) - LISTED} more" if len(table) > LISTED else ""
    listed = markdown_table(("id", "reason", "detail"), named.itertuples(index=False))
    return _counts(table, ["reason"]) + "\n\n" + listed + more
