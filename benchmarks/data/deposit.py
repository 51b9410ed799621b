"""The data sets of this project as one file for a repository that gives a DOI.

    python -m benchmarks.data deposit --out t2relax-bench-data.zip

A folder for each set has its files, manifest, card and Croissant metadata; licence, citation and a
list of all sha256 stand beside them. The same sets give the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import zipfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

import yaml

from benchmarks.core import UserError
from benchmarks.core.files import atomic_write
from benchmarks.data.croissant import (
    CREATOR,
    FILE,
    LICENCE,
    LICENCE_URL,
    metadata_text,
    own_folders,
)
from benchmarks.data.folders import EMBEDDED_SETS, read_manifest

DAY: Final = (1980, 1, 1, 0, 0, 0)
"""The time of every file, the earliest that a zip can hold."""
LICENCE_TEXT: Final = f"""The data sets in this file are licensed under the Creative Commons
Attribution 4.0 International Licence ({LICENCE}): {LICENCE_URL}legalcode

They may be shared and adapted, for any purpose, if {CREATOR} are named, a link
to the licence is given, and changes are said.
"""


def deposit_files(folders: Sequence[Path]) -> dict[str, bytes]:
    """The content of each file of the deposit by its path.

    Args:
        folders: Those of the data sets.

    Raises:
        UserError: A set is damaged, or its metadata are missing or old.
    """
    files: dict[str, bytes] = {}
    names = []
    for folder in folders:
        manifest = read_manifest(folder)
        name = f"{manifest['name']}-v{manifest['version']}"
        names.append(name)
        path = folder / FILE
        if not path.is_file() or path.read_text(encoding="utf-8") != metadata_text(folder):
            raise UserError(f"{path}: missing or old: python -m benchmarks.data metadata")
        for each in sorted(folder.iterdir()):
            if each.is_file() and not each.name.startswith("."):
                files[f"{name}/{each.name}"] = each.read_bytes()
    citation = {
        "cff-version": "1.2.0",
        "message": "If you use these data, please cite them.",
        "type": "dataset",
        "title": f"t2relax-bench: data sets {', '.join(names)}",
        "authors": [{"name": CREATOR}],
        "version": version("t2relax-bench"),
        "license": LICENCE,
    }
    files["LICENSE.txt"] = LICENCE_TEXT.encode()
    files["CITATION.cff"] = yaml.safe_dump(citation, sort_keys=False, width=1000).encode()
    sums = [f"{hashlib.sha256(files[path]).hexdigest()}  {path}\n" for path in sorted(files)]
    return files | {"SHA256SUMS": "".join(sums).encode()}


def write_deposit(folders: Sequence[Path], out: Path) -> list[str]:
    """Write the deposit as a zip.

    Args:
        folders: Those of the data sets.
        out: The zip.

    Returns:
        The paths of the files in it.

    Raises:
        UserError: As of `deposit_files`, or it cannot be written.
    """
    files = deposit_files(folders)
    with atomic_write(out) as partial, zipfile.ZipFile(partial, "w") as archive:
        for path in sorted(files):
            about = zipfile.ZipInfo(f"{out.stem}/{path}", DAY)
            about.create_system, about.external_attr = 3, 0o644 << 16  # the same on all systems
            archive.writestr(about, files[path])  # not compressed: the tables are already
    return sorted(files)


def main(argv: Sequence[str]) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.data deposit",
        description="Write the data sets of this project as one file that can get a DOI.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("sets", nargs="*", metavar="SET", help=f"default: {', '.join(EMBEDDED_SETS)}")
    add("--out", type=Path, default=Path("t2relax-bench-data.zip"), metavar="FILE.zip")
    args = parser.parse_args(argv)
    if args.out.suffix != ".zip":
        raise UserError(f"--out {args.out}: name a .zip")
    files = write_deposit(own_folders(args.sets), args.out)
    size = args.out.stat().st_size / 1e6
    digest = hashlib.sha256(args.out.read_bytes()).hexdigest()
    sys.stdout.write(f"wrote {args.out}: {len(files)} files, {size:.1f} MB, sha256 {digest}\n")
    return 0
