"""`--data` and `--split` name a source: its files, its name and its revision.

A source is `embedded`, `embedded-v2`, `embedded-v3`, `perturbed`, a parquet file, a folder (see
`folders`), a held-out split of other sources (a folder that `benchmarks.data split` wrote), or a
data set of the Hub. With `--limit`, row groups are drawn from a data set of the Hub
(`hub.sampling`); without it, all files are read, column by column (`hub.remote`).
"""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from benchmarks.core import UserError
from benchmarks.core.files import file_sha256
from benchmarks.data.folders import (
    EMBEDDED_SETS,
    MANIFEST,
    choose_split,
    embedded_folder,
    made_of,
    read_manifest,
    split_files,
)
from benchmarks.data.hub import repository as hub
from benchmarks.data.hub.remote import everything
from benchmarks.data.hub.sampling import Draw, sample_row_groups
from benchmarks.data.lemat.reader import FramePath


@dataclass(frozen=True, slots=True)
class Source:
    """The files of one split of a data set."""

    name: str
    split: str | None
    paths: tuple[FramePath, ...]
    revision: str
    """`sha256:…` of the content; for a data set of the Hub, the commit."""
    redistributable: bool = False
    draw: Draw | None = None
    """The row groups that were drawn from a data set of the Hub; None if all of it is read."""
    parts: tuple[Source, ...] = ()
    """The sources that are read together as this one; empty if it is a single source."""
    ids: frozenset[str] | None = None
    """The samples that belong to a part of a held-out split; None if all samples of the files
    do."""

    @property
    def each(self) -> tuple[Source, ...]:
        """The parts, or this source alone; their paths in turn are its paths."""
        return self.parts or (self,)

    @property
    def sets(self) -> tuple[int, ...]:
        """A number for each path, the same for all files of one source.

        Each path of a draw has a number of its own, so that what is read in it does not depend on
        how much is drawn.
        """
        firsts = accumulate((len(part.paths) for part in self.each), initial=0)
        return tuple(
            first + (i if part.draw else 0)
            for first, part in zip(firsts, self.each, strict=False)
            for i in range(len(part.paths))
        )

    @property
    def complete(self) -> bool:
        """True if no larger limit would read more."""
        return all(
            part.ids is not None or part.draw is None or part.draw.complete for part in self.each
        )

    @property
    def rule(self) -> str:
        """The rule by which `--limit` chooses samples, in words, for the record."""
        if not any(part.draw for part in self.each):
            return "smallest hash"
        turns = "; several sources turn by turn" if self.parts else ""
        return (
            "row groups by hash, max(32, n // 32) trajectories of each by hash "
            f"(benchmarks.data.hub.sampling){turns}"
        )


def resolve(
    source: str,
    split: str | None = None,
    *,
    limit: int | None = None,
    seed: int = 0,
    offline: bool = False,
) -> Source:
    """Find the files that `source` and `split` name; fetch them where the source is remote.

    Args:
        source: `embedded`, `embedded-v2`, `embedded-v3`, `perturbed`, the path of a parquet file or
            of a folder, or `hf://OWNER/NAME[@REVISION][:CONFIG]`.
        split: Name of a split; without one `test` is taken where the folder has splits.
        limit: Number of trajectories that are wanted; no more of a remote source is read.
        seed: Seed of the draw from a remote source.
        offline: Read only the cache of a remote source.

    Raises:
        UserError: The path or the split does not exist, a file is not what the manifest says, or
            a remote source cannot be read.
    """
    if source in EMBEDDED_SETS:
        return _from_manifest(embedded_folder(source), split, offline)
    if source.startswith("hf://"):
        if split not in (None, hub.SPLIT):
            raise UserError(f"{source} has one split, {hub.SPLIT}: leave out --split {split}")
        pin = hub.resolve_revision(source, offline=offline)
        drawn = None if limit is None else sample_row_groups(pin, limit, seed)
        paths = everything(pin) if drawn is None else drawn.paths
        return Source(pin.name, hub.SPLIT, paths, pin.commit, draw=drawn)
    if "://" in source:
        raise UserError(f"{source}: only hf://, local files and folders are read")
    path = Path(source)
    try:
        is_folder, is_there = path.is_dir(), path.exists()
    except OSError as error:  # a name that is too long, no permission
        raise UserError(f"{source}: {error.strerror}") from error
    if is_folder:
        return _from_folder(path, split, offline)
    if not is_there:
        raise UserError(f"{source}: no such file or folder (or use --data embedded)")
    if split is not None:
        raise UserError(f"{source} is a single file without splits: leave out --split {split}")
    full = path.resolve()
    return Source(f"{full.parent.name}/{full.stem}", None, (path,), _revision([path]))


def resolve_all(
    sources: Sequence[str],
    split: str | None = None,
    *,
    limit: int | None = None,
    seed: int = 0,
    offline: bool = False,
) -> Source:
    """Resolve several sources as one.

    The name is `a+b`, in the order given, and the revision that of all revisions. Where the
    sources are not of one split, each name carries its own (`a/test+b`).

    Args:
        sources: At least one of what `resolve` takes.
        split: Name of a split, which all of them must then have.
        limit: The argument of `resolve`, for each source.
        seed: The argument of `resolve`.
        offline: The argument of `resolve`.

    Raises:
        UserError: `resolve` raises it for a source, or a file is named twice.
    """
    found = [resolve(source, split, limit=limit, seed=seed, offline=offline) for source in sources]
    if len(found) == 1:
        return found[0]
    paths = tuple(path for each in found for path in each.paths)
    named = Counter(str(path.resolve() if isinstance(path, Path) else path) for path in paths)
    for place, times in named.items():
        if times > 1:
            raise UserError(f"{place}: named twice by --data")
    same = len({each.split for each in found}) == 1
    names = [each.name if same or not each.split else f"{each.name}/{each.split}" for each in found]
    return Source(
        name="+".join(names),
        split=found[0].split if same else None,
        paths=paths,
        revision=_digest(each.revision for each in found),
        redistributable=all(each.redistributable for each in found),
        parts=tuple(part for each in found for part in each.each),
    )


def _from_folder(folder: Path, split: str | None, offline: bool) -> Source:
    if (folder / MANIFEST).is_file():
        return _from_manifest(folder, split, offline)
    name = folder.resolve().name
    splits = split_files(folder)
    if splits:
        chosen = choose_split(str(folder), split, list(splits))
        return Source(name, chosen, tuple(splits[chosen]), _revision(splits[chosen]))
    if split is not None:
        raise UserError(f"{folder} has no splits: leave out --split {split}")
    paths = [
        path
        for path in sorted(folder.rglob("*.parquet"))
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    if not paths:
        raise UserError(f"{folder}: no parquet file in it")
    return Source(name, None, tuple(paths), _revision(paths))


def _from_manifest(folder: Path, split: str | None, offline: bool) -> Source:
    manifest = read_manifest(folder)
    chosen = choose_split(manifest["name"], split, list(manifest["splits"]))
    entry = manifest["splits"][chosen]
    path = folder / entry["file"]
    if not path.is_file():
        raise UserError(f"{path}: named in the manifest but missing")
    if file_sha256(path) != entry["sha256"]:
        raise UserError(f"{path}: its sha256 differs from the manifest's: restore the file")
    if "sources" in manifest:
        return _held_out_part(folder, manifest, chosen, offline=offline)
    return Source(
        name=f"{manifest['name']}-v{manifest['version']}",
        split=chosen,
        paths=(path,),
        revision=_digest(each["sha256"] for each in manifest["splits"].values()),
        redistributable=folder.resolve() in {each.resolve() for each in EMBEDDED_SETS.values()},
    )


def _held_out_part(
    folder: Path, manifest: Mapping[str, Any], split: str, *, offline: bool
) -> Source:
    """The data that a folder of `benchmarks.data split` was made of, with the ids of one part.

    Raises:
        UserError: A source cannot be read, or is not what it was when the split was made.
    """
    path = folder / MANIFEST
    try:
        sources, limit, seed = manifest["sources"], manifest["n_drawn"], manifest["seed"]
        name, revision, inner = manifest["name"], manifest["revision"], manifest["source_split"]
        file = manifest["splits"][split]["file"]
    except KeyError as error:
        raise UserError(f"{path}: not a usable manifest (KeyError: {error})") from error
    made_of(str(folder))
    whole = resolve_all(sources, inner, limit=limit, seed=seed, offline=offline)
    if whole.revision != revision:
        raise UserError(
            f"{path}: its sources ({', '.join(sources)}) are no longer at {revision}: split again"
        )
    try:
        with (folder / file).open(encoding="utf-8", newline="") as lines:
            ids = frozenset(row["sample_id"] for row in csv.DictReader(lines))
    except (KeyError, ValueError, csv.Error) as error:
        raise UserError(
            f"{folder / file}: no table with a column sample_id: split again"
        ) from error
    digest = f"sha256:{file_sha256(path)}"
    parts = tuple(replace(each, ids=ids) for each in whole.parts)
    return replace(whole, name=name, split=split, revision=digest, ids=ids, parts=parts)


def _revision(paths: list[Path]) -> str:
    hashes = [file_sha256(path) for path in paths]
    return f"sha256:{hashes[0]}" if len(hashes) == 1 else _digest(hashes)


def _digest(hashes: Iterable[str]) -> str:
    return "sha256:" + hashlib.sha256("\n".join(sorted(hashes)).encode()).hexdigest()
