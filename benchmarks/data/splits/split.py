"""Split a source so that no group of related samples is in two parts.

    python -m benchmarks.data split SOURCE… --out DIR                   # by composition
    python -m benchmarks.data split SOURCE… --out DIR --by prototype    # prototypes held out
    python -m benchmarks.data split SOURCE… --out DIR --check           # compare DIR with the data

DIR is then a data set with splits: `python -m benchmarks.run --data DIR --split test`. It contains
ids and no structures: `manifest.json` (sources, rule, sizes, sha256), `train.csv`, `val.csv` and
`test.csv` with a line for each sample, by prototype also `left_out.csv`, and `report.md`. The same
command on the same data writes the same bytes; `grouping` and `assignment` describe the rules.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import pandas as pd

from benchmarks.core import UserError
from benchmarks.core.files import atomic_write
from benchmarks.core.formatting import markdown_table
from benchmarks.core.published_weights import models_trained_on
from benchmarks.core.training_data import TRAINING_SETS
from benchmarks.data.dataset import Dataset, ids_sha256, load
from benchmarks.data.exposure import Seen, seen
from benchmarks.data.folders import MANIFEST
from benchmarks.data.hub import repository as hub
from benchmarks.data.splits.assignment import LEFT_OUT, SIZE_CLASSES, TRAIN, assign, size_class
from benchmarks.data.splits.grouping import RULES, describe

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
        _size_table(table),
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


def _size_table(table: pd.DataFrame) -> str:
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
        names = []
        for column in what:
            counts = inside[column].value_counts()
            name = min(counts.index[counts == counts.max()], default="—")
            names.append(f"{name} and {len(counts) - 1} more" if len(counts) > 1 else str(name))
        rows.append((group, count, *names, split))
    return markdown_table(("smallest id", "samples", *what, "split"), rows)


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


REPORT = "report.md"


def split(dataset: Dataset, by: str, sizes: Mapping[str, int], seed: int) -> pd.DataFrame:
    """Put every sample into a part.

    Args:
        dataset: The samples.
        by: A key of `RULES`.
        sizes: Number of samples of each part but train.
        seed: Seed of the hash; another seed gives other parts.

    Returns:
        A row for each sample, sorted by id: `describe`, the part in `split`, and for each training
        set of published models whether the sample can be in it.

    Raises:
        UserError: There are too few samples for the sizes, or too few groups that fit.
    """
    asked = sum(sizes.values())
    if len(dataset) <= asked:
        raise UserError(
            f"{dataset.name} has {len(dataset)} samples, too few for test and val of {asked}: "
            "choose a smaller --test-size"
        )
    table = describe(dataset, by)
    table["split"] = assign(table, sizes, seed)
    for name in (TRAIN, *sizes):
        if not (table["split"] == name).any():
            raise UserError(
                f"{dataset.name}: {name} would be empty, for the groups do not fit: choose another "
                "--test-size or --val-size"
            )
    pairs = list(zip(table["source"], table["composition"], strict=True))
    for name in TRAINING_SETS:
        if models_trained_on(name):
            table[name] = [str(seen([name], *pair)) for pair in pairs]
    return table


def files(table: pd.DataFrame, dataset: Dataset, args: argparse.Namespace) -> dict[str, str]:
    """Content of each file of the folder, by name, that of the manifest first."""
    named = (TRAIN, *_sizes(args), LEFT_OUT)
    parts = {name: table[table["split"] == name] for name in named}
    parts = {name: part for name, part in parts.items() if len(part)}
    left = ["split", "near"]
    texts = {f"{n}.csv": p.drop(columns=left).to_csv(index=False) for n, p in parts.items()}
    manifest = _about(dataset, args) | {
        "splits": {
            name: {
                "file": f"{name}.csv",
                "sha256": hashlib.sha256(texts[f"{name}.csv"].encode()).hexdigest(),
                "n_samples": len(part),
                "n_groups": part["group"].nunique(),
                "ids_sha256": ids_sha256(part["sample_id"]),
            }
            for name, part in parts.items()
        }
    }
    written = {MANIFEST: json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"}
    return written | texts | {REPORT: report(table, manifest)}


def _about(dataset: Dataset, args: argparse.Namespace) -> dict[str, Any]:
    """The part of the manifest that says what was split by which rule."""
    sources = []
    for source in args.source:  # the address of a source of the Hub gets its commit
        if source.startswith("hf://"):
            pin = hub.resolve_revision(source, offline=args.offline)
            sources.append(f"hf://{pin.repo}@{pin.commit}:{pin.config}")
        else:
            sources.append(source)
    return {
        "name": f"{dataset.name} by {args.by}",
        "version": 1,
        "rule": RULES[args.by],
        "by": args.by,
        "seed": args.seed,
        "sizes": _sizes(args),
        "sources": sources,
        "source_split": dataset.split,
        "limit": args.limit,
        # Drawing as many from a data set of the Hub gives these samples again.
        "n_drawn": args.limit and len(dataset) + len(dataset.quarantined),
        "revision": dataset.revision,
        "n_quarantined": len(dataset.quarantined),
        "programs": {name: version(name) for name in ("moyopy", "numpy", "pymatgen")},
    }


def _sizes(args: argparse.Namespace) -> dict[str, int]:
    """The sizes of the parts that are filled, in the order in which they are filled."""
    val = max(1, args.test_size // 2) if args.val_size is None else args.val_size
    return {"test": args.test_size, "val": val}


def main(argv: Sequence[str]) -> int:
    """The command; returns its exit status."""
    args = _parser().parse_args(argv)
    for name in ("test_size", "val_size", "limit"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} {value}: must be at least 1")
    dataset = load(
        args.source, split=args.split, limit=args.limit, seed=args.seed, offline=args.offline
    )
    texts = files(split(dataset, args.by, _sizes(args), args.seed), dataset, args)
    if args.check:
        paths = {args.out / name: text.encode() for name, text in texts.items()}
        different = [p for p, text in paths.items() if not p.is_file() or p.read_bytes() != text]
        for path in different:
            sys.stdout.write(f"{path} differs from what the data give\n")
        return 1 if different else 0
    with ExitStack() as stack:  # at its end the manifest is put in its place last
        for name, text in texts.items():
            stack.enter_context(atomic_write(args.out / name)).write_text(text, encoding="utf-8")
    parts = json.loads(texts[MANIFEST])["splits"]
    counts = ", ".join(f"{part['n_samples']} {name}" for name, part in parts.items())
    sys.stdout.write(f"{counts}; wrote {args.out / MANIFEST}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.data split",
        description="Split a source into train, val and test that share no group of samples.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("source", nargs="+", help="as --data of benchmarks.run; several are read as one set")
    add("--out", type=Path, required=True, metavar="DIR")
    add("--by", default="composition", choices=list(RULES), help="default: composition")
    add("--test-size", type=int, default=2000, metavar="N", help="samples; default: 2000")
    add("--val-size", type=int, metavar="N", help="samples; default: half of the test part")
    add("--seed", type=int, default=0, help="default: 0")
    add("--limit", type=int, metavar="N", help="of N samples, chosen as benchmarks.run does")
    add("--split", help="of a source that has splits: which to split further")
    add("--offline", action="store_true", help="of hf:// data use the cache only")
    add("--check", action="store_true", help="write nothing; exit 1 naming files that differ")
    return parser
