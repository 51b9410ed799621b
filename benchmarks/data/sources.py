"""What `--data` and `--split` name: which files, under which name, at which revision.

A source is `embedded`, `embedded-v2`, a parquet file, a folder: with a `manifest.json` (files
verified), with files named by split (`train-00000.parquet`, the convention of the Hub), or any
folder of parquet; a held-out split of other sources (`heldout`); or a data set of the Hub, of which
a `--limit` draws row groups (`draw.py`) and which without one is read by columns (`remote.py`).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.core import UserError

if TYPE_CHECKING:
    from benchmarks.data.hub.draw import Draw
    from benchmarks.data.lemat.reader import FramePath

EMBEDDED = Path(__file__).parent / "embedded"
"""The embedded set: parquet files, manifest and data card."""
EMBEDDED_SETS = {"embedded": EMBEDDED, "embedded-v2": EMBEDDED.with_name("embedded_v2")}
"""Sets of this project by the name that `--data` takes; `embedded` is version 1 and stays it."""
MANIFEST = "manifest.json"
DEFAULT_SPLIT = "test"
_SPLIT_NAME = re.compile(r"(train|val|validation|test)(?![a-z]).*\.parquet", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Source:
    """The files of one split of a data set."""

    name: str
    split: str | None
    paths: tuple[FramePath, ...]
    revision: str
    """`sha256:…` of the content; of a data set of the Hub its commit."""
    redistributable: bool = False
    draw: Draw | None = None
    """Of a part of a data set of the Hub: which part."""
    parts: tuple[Source, ...] = ()
    """The sources that are read as this one; none where it is one."""
    ids: frozenset[str] | None = None
    """Of a held-out split the samples of its part; None for all that the files hold."""

    @property
    def each(self) -> tuple[Source, ...]:
        """The parts, or itself alone; their paths in turn are its paths."""
        return self.parts or (self,)

    @property
    def sets(self) -> tuple[int, ...]:
        """For each path a number, the same for the files of one source.

        Of a draw each path has its own, so that what is read in it does not depend on how much is
        drawn.
        """
        firsts = accumulate((len(part.paths) for part in self.each), initial=0)
        return tuple(
            first + (i if part.draw else 0)
            for first, part in zip(firsts, self.each, strict=False)
            for i in range(len(part.paths))
        )

    @property
    def complete(self) -> bool:
        """Whether no larger limit would read more."""
        return all(
            part.ids is not None or part.draw is None or part.draw.complete for part in self.each
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
        source: `embedded`, `embedded-v2`, the path of a parquet file or of a folder, or
            `hf://OWNER/NAME[@REVISION][:CONFIG]`.
        split: Name of a split; without one `test` is taken where the folder has splits.
        limit: How many trajectories are wanted: a remote source is read no further than that.
        seed: Of the draw from a remote source.
        offline: Use of a remote source only what is in the cache.

    Raises:
        UserError: The path or the split does not exist, a file is not what the manifest says, or
            a remote source cannot be read.
    """
    if source in EMBEDDED_SETS:
        return _from_manifest(_embedded(source), split, offline)
    if source.startswith("hf://"):
        return _from_hub(source, split, limit, seed, offline)
    if "://" in source:
        raise UserError(f"{source}: only hf://, local files and folders are read")
    path = Path(source)
    if path.is_dir():
        return _from_folder(path, split, offline)
    if not path.exists():
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
    """Several sources as one; one as it is.

    The name is `a+b`, in the order given, and the revision that of all revisions. Where the
    sources are not of one split, each name carries its own (`a/test+b`).

    Args:
        sources: At least one of what `resolve` takes.
        split: Name of a split, which all of them must then have.
        limit: As for `resolve`, of each of them; likewise `seed` and `offline`.
        seed: See there.
        offline: See there.

    Raises:
        UserError: As for `resolve`, or a file is named twice.
    """
    found = [resolve(source, split, limit=limit, seed=seed, offline=offline) for source in sources]
    if len(found) == 1:
        return found[0]
    for path, times in Counter(_place(path) for each in found for path in each.paths).items():
        if times > 1:
            raise UserError(f"{path}: named twice by --data")
    same = len({each.split for each in found}) == 1
    names = [each.name if same or not each.split else f"{each.name}/{each.split}" for each in found]
    return Source(
        name="+".join(names),
        split=found[0].split if same else None,
        paths=tuple(path for each in found for path in each.paths),
        revision=_digest(each.revision for each in found),
        redistributable=all(each.redistributable for each in found),
        parts=tuple(part for each in found for part in each.each),
    )


def _place(path: FramePath) -> str:
    return str(path.resolve() if isinstance(path, Path) else path)


def split_names(source: str) -> tuple[str, ...]:
    """The splits that a local source has; none of a single file or of the Hub.

    Raises:
        UserError: Its manifest is not usable.
    """
    folder = _embedded(source) if source in EMBEDDED_SETS else Path(source)
    if (folder / MANIFEST).is_file():
        return tuple(read_manifest(folder)["splits"])
    return tuple(split_files(folder))


def made_of(source: str) -> tuple[str, ...]:
    """What a held-out split was made of, through and through; any other source alone.

    Raises:
        UserError: Its manifest is not usable.
    """
    folder = Path(source)
    if source in EMBEDDED_SETS or not (folder / MANIFEST).is_file():
        return (source,)
    sources = read_manifest(folder).get("sources", ())
    return tuple(inner for each in sources for inner in made_of(each)) or (source,)


def split_files(folder: Path) -> dict[str, list[Path]]:
    """Parquet files of `folder` by the split that their name begins with; others are left out."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*.parquet")):
        match = _SPLIT_NAME.fullmatch(path.name)
        if match:
            name = match[1].lower()
            found.setdefault("val" if name == "validation" else name, []).append(path)
    return found


def file_sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of `folder`, checked for the keys that are needed.

    Raises:
        UserError: It is not JSON or lacks a key.
    """
    path = folder / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for entry in manifest["splits"].values():
            _ = (entry["file"], entry["sha256"])
        _ = (manifest["name"], manifest["version"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: not a usable manifest ({type(error).__name__}: {error})"
        ) from error
    return manifest


def _embedded(name: str) -> Path:
    folder = EMBEDDED_SETS[name]
    if not (folder / MANIFEST).is_file():
        raise UserError(
            f"--data {name}: not there: compute it (python -m benchmarks.dft --list {name} "
            f"--out DIR), then move DIR/{folder.name} to {folder}"
        )
    return folder


def _from_folder(folder: Path, split: str | None, offline: bool) -> Source:
    if (folder / MANIFEST).is_file():
        return _from_manifest(folder, split, offline)
    name = folder.resolve().name
    splits = split_files(folder)
    if splits:
        chosen = _choose(str(folder), split, list(splits))
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
    chosen = _choose(manifest["name"], split, list(manifest["splits"]))
    entry = manifest["splits"][chosen]
    path = folder / entry["file"]
    if not path.is_file():
        raise UserError(f"{path}: named in the manifest but missing")
    if file_sha256(path) != entry["sha256"]:
        raise UserError(f"{path}: its sha256 differs from the manifest's: restore the file")
    if "sources" in manifest:
        from benchmarks.data.splits.part import part

        return part(folder, manifest, chosen, offline=offline)
    return Source(
        name=f"{manifest['name']}-v{manifest['version']}",
        split=chosen,
        paths=(path,),
        revision=_digest(each["sha256"] for each in manifest["splits"].values()),
        redistributable=folder.resolve() in {each.resolve() for each in EMBEDDED_SETS.values()},
    )


def _from_hub(
    source: str, split: str | None, limit: int | None, seed: int, offline: bool
) -> Source:
    from benchmarks.data.hub import repository as hub
    from benchmarks.data.hub.draw import sample_row_groups
    from benchmarks.data.hub.remote import everything

    if split not in (None, hub.SPLIT):
        raise UserError(f"{source} has one split, {hub.SPLIT}: leave out --split {split}")
    pin = hub.resolve_revision(source, offline=offline)
    drawn = None if limit is None else sample_row_groups(pin, limit, seed)
    paths = everything(pin) if drawn is None else drawn.paths
    return Source(pin.name, hub.SPLIT, paths, pin.commit, draw=drawn)


def _choose(name: str, split: str | None, splits: list[str]) -> str:
    chosen = DEFAULT_SPLIT if split is None else split
    if chosen in splits:
        return chosen
    known = ", ".join(sorted(splits))
    if split is None:
        raise UserError(f"{name} has no split '{DEFAULT_SPLIT}': choose with --split: {known}")
    raise UserError(f"{name} has no split '{split}': it has {known}")


def _revision(paths: list[Path]) -> str:
    hashes = [file_sha256(path) for path in paths]
    return f"sha256:{hashes[0]}" if len(hashes) == 1 else _digest(hashes)


def _digest(hashes: Any) -> str:
    return "sha256:" + hashlib.sha256("\n".join(sorted(hashes)).encode()).hexdigest()
