"""The split rule and the manifest that fixes a folder's splits.

    python -m benchmarks.data manifest FOLDER            # write FOLDER/manifest.json
    python -m benchmarks.data manifest FOLDER --check    # compare it with the files

A chemical system is wholly in one split: the same rule holds for every data set of the project,
so that no test system is in any training set.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.core import UserError
from benchmarks.core.files import atomic_write, file_sha256
from benchmarks.data.dataset import ids_sha256, load
from benchmarks.data.folders import MANIFEST, read_manifest, split_files

RULE = (
    "By chemical system (element symbols in alphabetical order joined by '-'): "
    "h = int(sha256('t2:' + system).hexdigest(), 16) % 100; h < 70 train, < 78 val, < 88 test, "
    "88 and above reserved."
)


def split_of(symbols: Iterable[str]) -> str:
    """The split of a chemical system: `train`, `val`, `test` or `reserved`.

    Args:
        symbols: Element symbols of its sites, in any order, repeated or not.
    """
    system = "-".join(sorted(set(symbols)))
    h = int(hashlib.sha256(f"t2:{system}".encode()).hexdigest(), 16) % 100
    return "train" if h < 70 else "val" if h < 78 else "test" if h < 88 else "reserved"


def make_manifest(folder: Path, *, name: str | None = None, version: int = 1) -> dict[str, Any]:
    """Build the manifest of a folder with one parquet file per split.

    Args:
        folder: Its files are named by split.
        name: Name of the data set. If it is None, name and version are those of a manifest that is
            there already, or else the folder's name and 1.
        version: Version of the data set.

    Raises:
        UserError: There are no such files, or a sample is in a split where the rule does not
            put it.
    """
    files = split_files(folder)
    if not files:
        raise UserError(f"{folder}: no train.parquet, val.parquet or test.parquet in it")
    if name is None:
        name = folder.resolve().name
        if (folder / MANIFEST).is_file():
            old = read_manifest(folder)
            name, version = old["name"], old["version"]
    splits = {}
    for split, (path, *others) in sorted(files.items()):
        if others:
            raise UserError(f"{folder}: {1 + len(others)} files of split {split}; join them first")
        dataset = load(str(path))
        for sample in dataset:
            where = split_of(element.symbol for element in sample.initial.elements)
            if where != split:
                raise UserError(f"{path}: {sample.sample_id} belongs into {where}, not {split}")
        splits[split] = {
            "file": path.name,
            "sha256": file_sha256(path),
            "n_samples": len(dataset),
            "ids_sha256": ids_sha256(dataset.ids),
            "ids": sorted(dataset.ids),
        }
    return {"name": name, "version": version, "rule": RULE, "splits": splits}


def manifest_text(folder: Path, *, name: str | None = None, version: int = 1) -> str:
    """The text of `manifest.json`; arguments and errors are those of `make_manifest`."""
    manifest = make_manifest(folder, name=name, version=version)
    return json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"


def main(argv: Sequence[str]) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.data manifest",
        description="Write FOLDER/manifest.json from the files of FOLDER, one for each split.",
        allow_abbrev=False,
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--check", action="store_true", help="compare only; 1 if they differ")
    args = parser.parse_args(argv)
    path = args.folder / MANIFEST
    text = manifest_text(args.folder)
    if args.check:
        same = path.is_file() and path.read_text(encoding="utf-8") == text
        sys.stdout.write(f"{path}: {'agrees' if same else 'differs'}\n")
        return 0 if same else 1
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8")
    sys.stdout.write(f"wrote {path}\n")
    return 0
