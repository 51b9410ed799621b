"""Trajectories of one split as a lazy sequence of `Sample`.

Geometries are held as flat arrays; pymatgen objects are built when a sample is asked for, so that
memory stays flat however many samples are walked through.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import overload

import numpy as np
from numpy.typing import NDArray

from benchmarks.core import Geometry, MissingFinalFrame, Sample, UserError
from benchmarks.core.parquet import give_back_memory
from benchmarks.data.frames import Frame, frames_in
from benchmarks.data.lemat.coordinates import FramePairs, read_coordinates
from benchmarks.data.lemat.ids import seeded_hash, source_of
from benchmarks.data.lemat.quarantine import Quarantined, by_reason
from benchmarks.data.lemat.reader import FrameFiles, FramePath
from benchmarks.data.lemat.trajectories import Trajectories, find_trajectories
from benchmarks.data.sources import Source, resolve_all


class Dataset(Sequence[Sample]):
    """Samples of one split, in file order, built on access.

    Attributes:
        name: `embedded-v1`, `substitution/test` for a file, the folder's name for a folder,
            `a+b` for several.
        revision: `sha256:…` of the content; of a data set of the Hub its commit.
        split: Name of the split; None where the source has none.
        ids: Sample ids in file order.
        quarantined: Trajectories that were met and could not be used, with the reason.
        redistributable: Whether its structures may be stored in a committed run.
        limit: The limit that was given to `load`.
        rule: The rule by which `limit` chose the samples; None if all were taken.
        missing_final_frame: The policy for trajectories whose last frame is missing.
    """

    def __init__(
        self,
        trajectories: Trajectories,
        pairs: FramePairs,
        rows: NDArray[np.int64],
        paths: tuple[FramePath, ...],
        *,
        name: str,
        revision: str,
        split: str | None,
        quarantined: tuple[Quarantined, ...] = (),
        redistributable: bool = False,
        limit: int | None = None,
        rule: str | None = None,
        missing_final_frame: MissingFinalFrame = MissingFinalFrame.IF_RELAXED,
    ) -> None:
        self._trajectories = trajectories
        self._pairs = pairs
        self._rows = rows
        self._paths = paths
        self.name = name
        self.revision = revision
        self.split = split
        self.quarantined = quarantined
        self.redistributable = redistributable
        self.limit = limit
        self.rule = rule
        self.missing_final_frame = missing_final_frame
        self.ids: tuple[str, ...] = tuple(trajectories.ids[i] for i in rows)

    @property
    def materials(self) -> tuple[str, ...]:
        """Material id of each sample."""
        return tuple(self._trajectories.materials[i] for i in self._rows)

    @property
    def functionals(self) -> tuple[str, ...]:
        """Functional of each sample."""
        return tuple(self._trajectories.functionals[i] for i in self._rows)

    @property
    def ids_sha256(self) -> str:
        """sha256 of the sorted ids, one a line: names the set of samples."""
        return ids_sha256(self.ids)

    @property
    def missing_final_frame_ids(self) -> tuple[str, ...]:
        """Ids of the samples whose target is the last frame left, the true one being lost."""
        missing = self._trajectories.order.missing_final_frame
        return tuple(self._trajectories.ids[i] for i in self._rows if missing[i])

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Dataset: ...
    def __getitem__(self, index: int | slice) -> Sample | Dataset:
        if isinstance(index, slice):
            return self._view(self._rows[index])
        row = int(self._rows[index])
        initial, final = self.geometries(index)
        found = self._trajectories
        return Sample(
            sample_id=found.ids[row],
            initial=initial.structure(),
            final=final.structure(),
            material_id=found.materials[row],
            functional=found.functionals[row],
            source=source_of(found.materials[row]),
            n_frames=int(found.n_frames[row]),
        )

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))

    def geometries(self, index: int) -> tuple[Geometry, Geometry]:
        """Initial and final geometry of a sample as plain arrays; much cheaper than a `Sample`."""
        row = int(self._rows[index])
        pairs = self._pairs
        sites = slice(pairs.offsets[row], pairs.offsets[row + 1])
        numbers = pairs.numbers[sites]
        return (
            Geometry(pairs.lattices[row, 0], pairs.frac_coords[0, sites], numbers),
            Geometry(pairs.lattices[row, 1], pairs.frac_coords[1, sites], numbers),
        )

    def frames(self) -> Iterator[Frame]:
        """Every frame of the files that it was read from, also of other trajectories."""
        return frames_in(self._paths)

    def get(self, sample_id: str) -> Sample:
        """The sample of that id.

        Raises:
            KeyError: There is none.
        """
        return self[self._index[sample_id]]

    def select(self, ids: Iterable[str]) -> Dataset:
        """The samples of these ids, in this data set's order.

        Raises:
            KeyError: An id is not in the data set.
        """
        chosen = sorted({self._index[sample_id] for sample_id in ids})
        return self._view(self._rows[chosen])

    @cached_property
    def _index(self) -> dict[str, int]:
        return {sample_id: i for i, sample_id in enumerate(self.ids)}

    def _view(self, rows: NDArray[np.int64]) -> Dataset:
        return Dataset(
            self._trajectories,
            self._pairs,
            rows,
            self._paths,
            name=self.name,
            revision=self.revision,
            split=self.split,
            quarantined=self.quarantined,
            redistributable=self.redistributable,
            limit=self.limit,
            rule=self.rule,
            missing_final_frame=self.missing_final_frame,
        )


def load(
    source: str | Sequence[str] = "embedded",
    *,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    offline: bool = False,
    missing_final_frame: MissingFinalFrame = MissingFinalFrame.IF_RELAXED,
) -> Dataset:
    """Read the pairs (initial frame, relaxed frame) of one split.

    Args:
        source: `embedded`, a parquet file, a folder, or `hf://OWNER/NAME[@REVISION][:CONFIG]`, in
            the column layout of LeMat-Traj, or a folder of `benchmarks.data split`; or several,
            which are read as one. A trajectory that is in two of them is quarantined.
        split: Name of a split; `test` where the source has splits and none is named.
        limit: Keep the N usable samples with the smallest sha256(seed + id), so that a smaller
            run is contained in a larger one; of a data set of the Hub the N that the rule of
            `benchmarks.data.hub.sampling` puts first, which reads few row groups. If several
            sources are named and one is of the Hub, they take turns, each in its own order.
            Samples that were not read for that reason cannot be in `quarantined`.
        seed: Goes into that hash.
        offline: Use of a remote source only what is in the cache.
        missing_final_frame: What becomes of trajectories whose last frame is missing. By default
            they are used if the last frame that is left is within the bounds of
            `benchmarks.data.lemat.missing_final_frames`.

    Returns:
        The samples, in file order, and what was quarantined.

    Raises:
        UserError: The source cannot be read or holds no usable trajectory.
    """
    if limit is not None and limit < 1:
        raise UserError(f"--limit {limit}: must be at least 1")
    sources = [source] if isinstance(source, str) else source
    wanted = limit
    while True:
        found = resolve_all(sources, split, limit=wanted, seed=seed, offline=offline)
        dataset = _read(found, limit, seed, missing_final_frame)
        if limit is None or wanted is None or found.complete or len(dataset) == limit:
            break
        # Some of what was drawn turned out unusable: as large a share of what comes, presumably.
        wanted = min(4 * wanted, wanted * limit // max(len(dataset), 1))
    if not len(dataset):
        named = ", ".join(sources)
        where = named if found.split is None else f"{named}, split {found.split}"
        why = by_reason(dataset.quarantined)
        for first in dataset.quarantined[:1]:
            why += f"; the first is {first.sample_id:.200}, {first.detail:.200}"
        raise UserError(f"{where}: no usable trajectory ({why})")
    return dataset


def _read(
    found: Source, limit: int | None, seed: int, missing_final_frame: MissingFinalFrame
) -> Dataset:
    files = FrameFiles(found.paths, found.sets)
    trajectories, quarantined = find_trajectories(files, lambda met: in_part(found, files, met))
    if found.ids is not None:  # rows of no trajectory are in no part
        quarantined = [entry for entry in quarantined if entry.sample_id in found.ids]
    give_back_memory()
    order = np.arange(len(trajectories))
    if limit is not None:
        order = selection_order(found, files, trajectories, seed)
    pairs, more = read_coordinates(files, trajectories, order, limit, missing_final_frame)
    give_back_memory()
    return Dataset(
        trajectories.take(pairs.trajectory),
        pairs,
        np.argsort(pairs.trajectory),
        found.paths,
        name=found.name,
        revision=found.revision,
        split=found.split,
        quarantined=tuple(quarantined + more),
        redistributable=found.redistributable,
        limit=limit,
        rule=None if limit is None else found.rule,
        missing_final_frame=missing_final_frame,
    )


def ids_sha256(ids: Iterable[str]) -> str:
    """sha256 of the sorted ids joined by newlines."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()


def in_part(source: Source, files: FrameFiles, trajectories: Trajectories) -> NDArray[np.bool_]:
    """Find the trajectories that belong to the part of a held-out split; all if it is no part.

    Args:
        source: The source that `files` belong to.
        files: The files that hold the frames.
        trajectories: The trajectories that the first pass found.

    Returns:
        (n,) booleans.
    """
    if all(part.ids is None for part in source.each):
        return np.ones(len(trajectories), dtype=bool)
    parts = np.repeat(np.arange(len(source.each)), [len(part.paths) for part in source.each])
    of = parts[files.file_of(trajectories.chosen.initial_row)]
    known = [source.each[i].ids for i in range(len(source.each))]
    named = zip(trajectories.ids, of, strict=True)
    return np.array([(ids := known[i]) is None or name in ids for name, i in named], dtype=bool)


def selection_order(
    source: Source, files: FrameFiles, trajectories: Trajectories, seed: int
) -> NDArray[np.int64]:
    """Indices of trajectories, the most wanted first.

    They are sorted by hash; those of a draw are sorted row group by row group (see
    `benchmarks.data.hub.sampling`). A draw knows only its own ids. If one of several sources is a
    draw, the sources therefore take turns, each in its own order.

    Args:
        source: The source that `files` belong to.
        files: The files that hold the frames.
        trajectories: The trajectories that the first pass found.
        seed: Seed of the hash.
    """
    keys = [seeded_hash(seed, sample_id) for sample_id in trajectories.ids]
    hashed = np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)
    if not any(part.draw for part in source.each):
        return hashed
    parts = np.repeat(np.arange(len(source.each)), [len(part.paths) for part in source.each])
    file = files.file_of(trajectories.chosen.initial_row[hashed])
    by_part = np.argsort(files.sets[file], kind="stable")  # each file of a draw is a set of its own
    part = parts[file[by_part]]
    turn = np.arange(len(part)) - np.searchsorted(part, part)
    return hashed[by_part][np.lexsort((part, turn))]
