"""The report of a held-out split in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import pandas as pd

from benchmarks.core.formatting import markdown_table
from benchmarks.core.published_weights import models_trained_on
from benchmarks.core.training_data import TRAINING_SETS
from benchmarks.data.exposure import Seen
from benchmarks.data.splits.assignment import SIZE_CLASSES, size_class

LISTED: Final = 10
"""Number of the largest groups that are named."""
_EDGES: Final = (1, 2, 5, 10, 30, 100, 300, 1000)
_CAVEAT: Final = (
    'Samples whose relaxation these models can have seen in training ("possibly": by source and '
    "id, see `benchmarks/data/exposure.py`). The others are of other databases; compounds like "
    "them may have been seen all the same."
)


def report(table: pd.DataFrame, manifest: Mapping[str, Any]) -> str:
    """Describe the parts, the groups, the strata and the exposure of a split.

    Args:
        table: A row for each sample, with its part in the column `split`.
        manifest: The manifest that is written beside the report.
    """
    parts = list(manifest["splits"])
    sections = [
        f"# Held-out split: {manifest['name']}",
        (
            f"{manifest['rule']} Revision of the data: `{manifest['revision']}`; "
            f"seed {manifest['seed']}; {manifest['n_quarantined']} trajectories quarantined."
        ),
        _parts(table, parts),
        "## Sizes of the groups",
        _sizes(table),
        f"## The largest of {table['group'].nunique()} groups",
        _largest(table),
        "## Near-duplicates",
        _near(table, manifest["by"]),
        "## Strata",
        _strata(table, parts),
        "## Seen in training",
        _CAVEAT,
        _seen(table, parts),
    ]
    return "\n\n".join(sections) + "\n"


def _parts(table: pd.DataFrame, parts: Sequence[str]) -> str:
    rows = []
    for name in parts:
        part = table[table["split"] == name]
        sizes = part["group"].value_counts()
        rows.append((name, len(part), len(sizes), sizes.max(), part["composition"].nunique()))
    return markdown_table(("", "samples", "groups", "largest group", "compositions"), rows)


def _sizes(table: pd.DataFrame) -> str:
    sizes = table["group"].value_counts()
    rows = []
    for low, high in zip((0, *_EDGES), (*_EDGES, len(table)), strict=True):
        inside = sizes[(sizes > low) & (sizes <= high)]
        if len(inside):
            span = f"{low + 1} to {high}" if high > low + 1 else str(high)
            rows.append((span, len(inside), inside.sum()))
    return markdown_table(("samples of a group", "groups", "samples"), rows)


def _largest(table: pd.DataFrame) -> str:
    what = [name for name in ("composition", "prototype") if name in table]
    sizes = table["group"].value_counts().reset_index().sort_values(
        ["count", "group"], ascending=[False, True]
    )  # fmt: skip
    rows = []
    for group, count in sizes.head(LISTED).itertuples(index=False):
        inside = table[table["group"] == group]
        split = ", ".join(sorted(inside["split"].unique()))
        rows.append((group, count, *(_commonest(inside[name]) for name in what), split))
    return markdown_table(("smallest id", "samples", *what, "split"), rows)


def _commonest(values: pd.Series[str]) -> str:
    counts = values.value_counts()
    if not len(counts):
        return "—"
    name = min(counts.index[counts == counts.max()])
    return f"{name} and {len(counts) - 1} more" if len(counts) > 1 else str(name)


def _near(table: pd.DataFrame, by: str) -> str:
    near = table.groupby("near")
    several = near["sample_id"].transform("size") > 1
    across = near["source"].transform("nunique") > 1
    tied = near[by].transform("nunique") > 1
    rows = (
        ("samples with a near-duplicate", several.sum()),
        ("— of another source", across.sum()),
        (f"— of another {by}, which only the fingerprint ties", tied.sum()),
    )
    return markdown_table(("", "n"), rows)


def _strata(table: pd.DataFrame, parts: Sequence[str]) -> str:
    columns = {
        "functional": table["functional"],
        "source": table["source"],
        "sites": size_class(table["n_sites"]),
    }
    rows = []
    for name, values in columns.items():
        counts = pd.crosstab(values, table["split"])
        shares = 100 * counts / counts.sum()
        by_size = {value: place for place, value in enumerate(SIZE_CLASSES)}  # else by the alphabet
        for value in sorted(counts.index, key=lambda value: (by_size.get(value, 0), value)):
            cells = (f"{counts[part][value]} ({shares[part][value]:.1f} %)" for part in parts)
            rows.append((name, value, *cells))
    return markdown_table(("", "", *parts), rows)


def _seen(table: pd.DataFrame, parts: Sequence[str]) -> str:
    rows = []
    for name in TRAINING_SETS:
        if name in table:
            possibly = table["split"][table[name] == Seen.POSSIBLY].value_counts()
            rows.append(
                (name, ", ".join(models_trained_on(name)), *(possibly.get(p, 0) for p in parts))
            )
    return markdown_table(("training set", "models", *parts), rows)
