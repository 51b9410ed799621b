"""Public files of crystals: found in a folder or fetched, checked, and read by id.

Two kinds of file are read: a list of pymatgen structures (`NAME.json.gz`, as matcalc publishes its
benchmarks), and an archive with CIFs named `…/baseline_data/DATABASE/DATABASE_ID.cif` (as
lemat-genbench has them).
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import tarfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from tqdm import tqdm

from benchmarks.core import Geometry, UserError
from benchmarks.core.download import download
from benchmarks.core.files import READ_ERRORS, file_sha256
from benchmarks.data.structures.read import crystals_of_cif

CIF_PATH: Final = re.compile(r"(?:.*/)?(baseline_data/[a-z]+/[a-z]+_([^/]+)\.cif)")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """A public file: where it is, and how it is known again."""

    name: str
    url: str
    licence: str
    sha256: str = ""
    """Of the file; empty for an archive, which a server may pack anew with other bytes."""
    cifs_sha256: str = ""
    """Of the CIFs that are used: of lines with the path and the sha256 of each, sorted."""


def obtain(
    files: Sequence[SourceFile], sources: str | None, *, offline: bool = False
) -> list[Path]:
    """Find the files, or fetch them into the cache.

    Args:
        files: The files that are wanted.
        sources: A folder that has them, or the address of one on a server (`http…`); None for the
            addresses of the files themselves.
        offline: Use a folder or the cache only.

    Raises:
        UserError: One is missing, cannot be had, or is another file.
    """
    if sources is not None and "://" not in sources:
        paths = [Path(sources) / file.name for file in files]
        for file, path in zip(files, paths, strict=True):
            if not path.is_file():
                raise UserError(f"{path}: no such file: get it from {file.url}")
            _check_sha256(file, path)
        return paths
    from huggingface_hub import cached_assets_path, constants

    folder = cached_assets_path(
        "t2relax-bench", "public-sources", assets_dir=constants.HF_ASSETS_CACHE
    )
    for file in files:
        path = folder / file.name
        if not path.is_file():
            url = file.url if sources is None else f"{sources.rstrip('/')}/{file.name}"
            reason = download(url, path, offline=offline, sha256=file.sha256)
            if reason is not None:
                raise UserError(
                    f"{file.name}: {reason}: get {url}, save it as {path}, or give --sources DIR"
                )
        _check_sha256(file, path)
    return [folder / file.name for file in files]


def _check_sha256(file: SourceFile, path: Path) -> None:
    if file.sha256 and (found := file_sha256(path)) != file.sha256:
        raise UserError(
            f"{path}: another file (sha256 {found}, not {file.sha256}): remove it and get "
            f"{file.url}"
        )


def read_crystals(file: SourceFile, path: Path, wanted: Collection[str]) -> dict[str, Geometry]:
    """Read crystals of a source file by their ids.

    Args:
        file: What the file is.
        path: Where it lies.
        wanted: The ids; all of them have to be there.

    Returns:
        The crystals as the file has them; those of a CIF as pymatgen's reader gives them: c along
        z, a in the xz plane, the sites sorted by electronegativity.

    Raises:
        UserError: The file is damaged or not the one that is meant, or a crystal is missing.
    """
    try:
        if path.name.endswith(".json.gz"):
            found = dict(_in_list(path, wanted))
        else:
            found = _in_archive(file, path, wanted)
    except READ_ERRORS as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{path}: damaged ({first}): remove it and get {file.url}") from error
    if lacking := sorted(set(wanted) - set(found)):
        raise UserError(
            f"{path}: {len(lacking)} of {len(wanted)} crystals are not in it, the first "
            f"{lacking[0]}: another version than {file.url}"
        )
    return found


def _in_list(path: Path, wanted: Collection[str]) -> Iterator[tuple[str, Geometry]]:
    from pymatgen.core import Structure

    with gzip.open(path, "rt", encoding="utf-8") as lines:
        entries: list[dict[str, Any]] = json.load(lines)
    for entry in entries:
        name = entry.get("material_id") or entry["mp_id"]
        if name in wanted:
            yield name, Geometry.of(Structure.from_dict(entry["structure"]))


def _in_archive(file: SourceFile, path: Path, wanted: Collection[str]) -> dict[str, Geometry]:
    from pymatgen.core import Element, Lattice

    found, hashes = {}, {}
    with tarfile.open(path) as archive:
        for member in tqdm(archive, desc=path.name, unit="file", disable=None):
            match = CIF_PATH.fullmatch(member.name)
            content = archive.extractfile(member) if match and match[2] in wanted else None
            if match is None or content is None:
                continue
            data = content.read()
            hashes[match[1]] = hashlib.sha256(data).hexdigest()
            (crystal,) = crystals_of_cif(data, member.name)
            if crystal.geometry is None:
                raise UserError(f"{path}: {crystal.name}: {crystal.problem}")
            lattice, fracs, numbers = crystal.geometry
            elements = [Element.from_Z(int(z)) for z in numbers]
            order = sorted(range(len(elements)), key=elements.__getitem__)
            # spglib's choice among equivalent origins depends on how the cell is turned
            turned = Lattice.from_parameters(*Lattice(lattice).parameters).matrix
            found[match[2]] = Geometry(np.array(turned), fracs[order], numbers[order])
    lines = "".join(f"{name} {sha256}\n" for name, sha256 in sorted(hashes.items()))
    digest = hashlib.sha256(lines.encode()).hexdigest()
    if file.cifs_sha256 and len(found) == len(wanted) and digest != file.cifs_sha256:
        raise UserError(
            f"{path}: its CIFs have other contents (sha256 {digest}, not {file.cifs_sha256}): "
            f"remove it and get {file.url}"
        )
    return found
