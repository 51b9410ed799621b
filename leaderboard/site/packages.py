"""The packages from npm that some pages use, fetched once at exact versions.

python -m leaderboard.site.packages

It asks npm for each package, compares the archive's sha256 with the one written here, and puts the
script and its licence into the folder `vendor` beside this file, from which a site and a wheel take
them. They are code of others and not part of the repository. Without them the pages are whole but
for the 3D view, the search and the scatter, and say so.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.core import UserError
from benchmarks.core.cli import run_command
from benchmarks.core.files import atomic_write, file_sha256

VENDOR: Final = Path(__file__).with_name("vendor")
SECONDS: Final = 300
"""The longest that npm may take for one package."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NpmPackage:
    """One script that is used as it was published."""

    name: str
    version: str
    sha256: str
    """Of the archive that `npm pack` gives."""
    script: str
    """The path in the package: one classic script that defines a global name."""
    licence: str
    """The path of the licence in the package."""
    file: str
    """The name of the script in `VENDOR` and in `assets` of a site."""
    serves: str
    """What the pages lack without it."""


PACKAGES: Final = (
    NpmPackage(
        name="3dmol", version="2.5.5", script="build/3Dmol-min.js", licence="LICENSE",
        sha256="26d91c5036d4efe78fc032c22cb692fea92bbb3cb1e65d20bf3869673fb3d8f5",
        file="3dmol.js", serves="the 3D view of structures (3dmol)",
    ),
    NpmPackage(
        name="minisearch", version="7.2.0", script="dist/umd/index.js", licence="LICENSE.txt",
        sha256="cb3b8126a3ea65d6b387787294f0792b0ea4a40b70f8f37688066a5638e0218a",
        file="minisearch.js", serves="the search (minisearch)",
    ),
    NpmPackage(
        name="d3", version="7.9.0", script="dist/d3.min.js", licence="LICENSE",
        sha256="7e36605710a2ba54846797c8c6d888911341b215ae53257dc32a49a0b824355e",
        file="d3.js", serves="the scatter of two models (d3, @observablehq/plot)",
    ),
    NpmPackage(
        name="@observablehq/plot", version="0.6.17", script="dist/plot.umd.min.js",
        licence="LICENSE",
        sha256="4dcc9f7afd10caee8b2283c0075a5765610cfbbf6d7d93cdb153b3b5d3501afc",
        file="plot.js", serves="the scatter of two models (d3, @observablehq/plot)",
    ),
)  # fmt: skip
"""Observable Plot with d3 has 0.5 MB, the smallest bundle of plotly 1.2 MB."""


def vendored(folder: Path = VENDOR) -> dict[str, Path]:
    """The scripts that are there, and their licences, by their names in `assets` of a site."""
    names = [name for each in PACKAGES for name in (each.file, licence_name(each))]
    return {name: folder / name for name in names if (folder / name).is_file()}


def missing(folder: Path = VENDOR) -> list[str]:
    """What the pages of a site lack, as the packages for it are not there."""
    found = vendored(folder)
    return list(dict.fromkeys(each.serves for each in PACKAGES if each.file not in found))


def licence_name(package: NpmPackage) -> str:
    """The name of the licence beside the script."""
    return package.file.removesuffix(".js") + ".LICENSE.txt"


def fetch(folder: Path = VENDOR) -> list[Path]:
    """Fetch the packages that are not there.

    Raises:
        UserError: npm is missing or fails, or an archive is not the one that is meant.
    """
    npm = shutil.which("npm")
    written = []
    for package in PACKAGES:
        targets = (folder / package.file, folder / licence_name(package))
        if all(target.is_file() for target in targets):
            continue
        if npm is None:
            raise UserError(f"npm is not installed, so that the pages lack {package.serves}")
        with tempfile.TemporaryDirectory() as work:
            archive = _packed(npm, package, Path(work))
            for target, inside in zip(targets, (package.script, package.licence), strict=True):
                with atomic_write(target) as partial:
                    partial.write_bytes(_member(archive, f"package/{inside}"))
                written.append(target)
    return written


def _packed(npm: str, package: NpmPackage, work: Path) -> Path:
    """The archive of a package, as npm gives it, with the right sum."""
    wanted = f"{package.name}@{package.version}"
    command = [npm, "pack", "--silent", "--ignore-scripts", wanted]
    try:
        done = subprocess.run(  # noqa: S603 - npm, and the names above
            command, cwd=work, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(f"npm pack {wanted}: no answer in {SECONDS} s") from error
    archives = list(work.glob("*.tgz"))
    if done.returncode or len(archives) != 1:
        reason = (done.stderr.strip().splitlines() or ["no archive"])[0]
        raise UserError(f"npm pack {wanted} failed: {reason}")
    found = file_sha256(archives[0])
    if found != package.sha256:
        raise UserError(f"npm gave another {wanted} than is meant: its sha256 is {found}")
    return archives[0]


def _member(archive: Path, name: str) -> bytes:
    with tarfile.open(archive) as opened:
        file = opened.extractfile(name)
        assert file is not None, f"{name} is a file of an archive whose sum is right"
        return file.read()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; exit status 2: npm is missing or failed."""
    parser = argparse.ArgumentParser(
        prog="python -m leaderboard.site.packages",
        description="Fetch the packages from npm that pages of the site use.",
    )
    parser.parse_args(arguments)

    def run() -> int:
        for path in fetch():
            print(path)
        return 0

    return run_command(run)


if __name__ == "__main__":
    sys.exit(main())
