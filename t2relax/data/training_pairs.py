"""Training pairs: initial structures and their changes as arrays, and their augmentation.

    python -m t2relax.data.training_pairs --data embedded --data PATH/train.parquet --out pairs.npz

The command writes an archive of pairs, which `python -m t2relax.train` reads where the tables
cannot be. The archive holds structures of its sources: do not publish one that was made from data
that are not yours.

An augmentation changes a pair and leaves the physics as it is. Sites, axes and origin are
conventions. Inversion and an odd permutation of the axes give the mirror image, which has the same
energy. An initial structure that is moved along the way to its own relaxed structure (at the end
of it there is nothing left to relax), dilated, strained, or whose atoms are displaced, lies (for
the sizes used here) in the basin of the same minimum.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.core import Geometry, Sample, UserError
from benchmarks.core.cli import run_command, whole_number
from benchmarks.core.geometry import drawn_displacements
from benchmarks.core.symmetry import drawn_symmetric_displacements
from t2relax.text.codec import (
    CodecError,
    Crystal,
    Delta,
    apply_delta,
    delta_between,
    geometry_of,
    read_delta,
    standard_lattice,
    write_delta,
)
from t2relax.text.tokens import EOS_ID, TARGET_SIZE, Tokenizer

if TYPE_CHECKING:
    from benchmarks.data import Frame


@dataclass(frozen=True, slots=True)
class Pair:
    """One relaxation without orientation: where it starts and what changes."""

    initial: Crystal
    delta: Delta

    def start(self) -> Geometry:
        """The initial structure, in the standard orientation."""
        return geometry_of(self.initial)

    def reference(self) -> Geometry:
        """The relaxed structure, in the orientation of the start."""
        start = self.start()
        return apply_delta(start, self.delta, start.numbers)

    def read(self, text: str) -> Geometry | None:
        """The structure that a text says the start relaxes to, whatever its atoms.

        Returns:
            None if the text cannot be read as a structure.
        """
        try:
            return apply_delta(self.start(), *read_delta(text, self.initial))
        except CodecError:
            return None


class PairData(NamedTuple):
    """The pairs of several sources."""

    pairs: list[Pair]
    origin: dict[str, str]
    """The revision (sha256) of each data set by its name."""

    def identity(self) -> dict[str, Any]:
        """Return the sources of the pairs and a hash of the pairs themselves.

        Numbers are rounded to 1e-6 before they are hashed, so that another machine, which rounds
        differently in the last bits, finds the same hash.
        """
        digest = hashlib.sha256()
        for pair in self.pairs:
            digest.update(pair.initial.numbers.astype(np.int16).tobytes())
            initial, delta = pair.initial, pair.delta
            for array in (initial.cellpar, initial.frac_coords, delta.cellpar, delta.frac_coords):
                digest.update((np.round(array, 6) + 0.0).tobytes())
        return {"sources": self.origin, "pairs": f"sha256:{digest.hexdigest()}"}


def encode_pair(pair: Pair, tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """Token ids of source and target, each with `</s>`.

    Raises:
        CodecError: the pair cannot be written at the stated decimals.
    """
    target = tokenizer.encode(write_delta(pair.delta, pair.initial), TARGET_SIZE)
    return tokenizer.source(pair.initial), [*target, EOS_ID]


def pairs_of(samples: Iterable[Sample]) -> tuple[list[Pair], list[str]]:
    """The pairs of the samples that the codec can write, and a line for each other sample."""
    pairs, refused, tokenizer = [], [], Tokenizer()
    for sample in samples:
        initial, final = Geometry.of(sample.initial), Geometry.of(sample.final)
        try:
            pair = Pair(Crystal.of(initial), delta_between(initial, final))
            encode_pair(pair, tokenizer)
        except CodecError as error:
            refused.append(f"{sample.sample_id}: {error}")
        else:
            pairs.append(pair)
    return pairs, refused


def save_pairs(path: Path, pairs: Sequence[Pair], origin: Mapping[str, str]) -> None:
    """Write pairs as one compressed archive of plain arrays, with where they came from."""
    np.savez_compressed(
        path,
        origin=np.array(json.dumps(origin)),
        n_sites=np.array([len(p.initial.numbers) for p in pairs]),
        numbers=np.concatenate([p.initial.numbers for p in pairs]),
        cellpar=np.array([p.initial.cellpar for p in pairs]),
        frac_coords=np.concatenate([p.initial.frac_coords for p in pairs]),
        delta_cellpar=np.array([p.delta.cellpar for p in pairs]),
        delta_frac_coords=np.concatenate([p.delta.frac_coords for p in pairs]),
    )


def load_pairs(path: Path) -> tuple[list[Pair], dict[str, str]]:
    """Read what `save_pairs` wrote.

    Raises:
        UserError: no such file, or another file.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            a = {key: archive[key] for key in archive.files}
        cuts = np.cumsum(a["n_sites"])[:-1]
        rows = zip(
            a["cellpar"],
            np.split(a["frac_coords"], cuts),
            np.split(a["numbers"], cuts),
            a["delta_cellpar"],
            np.split(a["delta_frac_coords"], cuts),
            strict=True,
        )
        origin = json.loads(str(a["origin"]))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} is no archive of pairs: {error}") from error
    return [Pair(Crystal(cell, x, z), Delta(dc, dx)) for cell, x, z, dc, dx in rows], origin


def read_pairs(
    sources: Sequence[str], split: str, every_frame: bool = False, limit: int | None = None
) -> PairData:
    """Read the pairs of several sources.

    Args:
        sources: Archives `*.npz`, or anything that `benchmarks.data.load` reads.
        split: The split that is read of a source that has splits; another source is read whole.
        every_frame: Whether each frame on the way is a start as well, not only the first.
        limit: Largest number of relaxations of each source that is not an archive; of a data set
            of the Hub no more is read.

    Raises:
        UserError: A source cannot be read.
    """
    from benchmarks.data import load
    from benchmarks.data.folders import split_names

    found = PairData([], {})
    for source in sources:
        if source.endswith(".npz"):
            pairs, origin = load_pairs(Path(source))
        else:
            data = load(source, split=split if split_names(source) else None, limit=limit)
            samples = list(data)
            if every_frame:
                samples += _on_the_way(data.frames(), {s.sample_id: s for s in samples})
            pairs, refused = pairs_of(tqdm(samples, desc=f"pairs of {data.name}"))
            for line in refused:
                tqdm.write(f"left out {line}", file=sys.stderr)
            name = f"{data.name}/{data.split}" if data.split else data.name
            origin = {name: data.revision}
        found.pairs.extend(pairs)
        found.origin.update(origin)
    return found


def read_training_data(
    data: Sequence[str], val: Sequence[str], every_frame: bool = False, limit: int | None = None
) -> tuple[PairData, PairData]:
    """Read what a training needs: the pairs to train on, and those to validate on.

    Args:
        data: Sources of the training pairs, see `read_pairs`.
        val: Sources of the validation pairs, which are read whole.
        every_frame: See `read_pairs`; it holds for the training pairs.
        limit: See `read_pairs`; it holds for the training pairs.

    Raises:
        UserError: A source cannot be read, or one of the two has no pair.
    """
    found = read_pairs(data, "train", every_frame, limit), read_pairs(val, "val")
    if not all(each.pairs for each in found):
        raise UserError("there are no pairs to train on, or none to validate on")
    return found


def _on_the_way(frames: Iterable[Frame], samples: Mapping[str, Sample]) -> Iterator[Sample]:
    """Each relaxation once more from every frame between its first and its last."""
    for frame in frames:
        sample = samples.get(frame.sample_id)
        if sample is not None:
            here = frame.geometry.structure()
            if here not in (sample.initial, sample.final):
                yield replace(sample, initial=here)


def main(argv: Sequence[str] | None = None) -> int:
    """Write an archive of pairs; 0, or 2 for a mistake of the user's."""
    parser = argparse.ArgumentParser(
        prog="python -m t2relax.data.training_pairs", description=__doc__
    )
    parser.add_argument("--data", action="append", required=True)
    parser.add_argument("--split", default="train", help="of sources that have splits")
    parser.add_argument("--every-frame", action="store_true", help="start from each frame")
    parser.add_argument("--limit", type=whole_number(1), help="relaxations of each source, at most")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)

    def command() -> int:
        pairs, origin = read_pairs(args.data, args.split, args.every_frame, args.limit)
        save_pairs(args.out, pairs, origin)
        print(f"{len(pairs)} pairs in {args.out}", file=sys.stderr)
        return 0

    return run_command(command)


LENGTH_STRAIN: Final = 0.015
"""Standard deviation of the logarithm of each length under `Augmentation.strain`."""
SHEAR: Final = 0.8
"""Standard deviation [°] of the change of each angle under `Augmentation.strain`."""
LARGEST: Final = 16
"""Largest number of sites of a supercell among the augmentations: as many as the largest crystals
of substitution/train."""
LARGEST_SUPERCELL: Final = 64
"""Largest number of sites of `supercells`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """The probability of each change; the changes are made in the order of `__call__`."""

    sites: float = 0.5
    axes: float = 0.3
    origin: float = 0.3
    inversion: float = 0.5
    along: float = 0.35
    """The start becomes a structure between the initial (0) and the relaxed one (1)."""
    relaxed: float = 0.0
    """The start becomes the relaxed structure, which stays as it is unless it is changed below."""
    dilation: float = 0.35
    """The start is dilated uniformly; the standard deviation of its lengths is 3 %."""
    strain: float = 0.0
    """Each length of the start's cell changes by `LENGTH_STRAIN`, each angle by `SHEAR`."""
    together: float = 0.0
    """Sublattices of the start are displaced, see `drawn_symmetric_displacements`."""
    displacement: float = 0.0
    """The atoms of the start are displaced, see `drawn_displacements`."""
    supercell: float = 0.2
    """The cell is repeated along one axis, to at most `LARGEST` sites: large crystals are rare."""

    def __call__(self, pair: Pair, rng: np.random.Generator) -> Pair:
        """Return a changed copy of the pair."""
        together = (self.together, _displace_together)
        steps = (
            (self.supercell, _repeat),
            (self.along, _interpolate_to_final),
            (self.relaxed, _relax),
            (self.dilation, _dilate),
            *((together,) if self.together else ()),  # older trainings drew no number for it
            (self.strain, _strain),
            (self.displacement, _displace),
            (self.inversion, _invert),
            (self.origin, _shift),
            (self.axes, _permute_axes),
            (self.sites, _permute_sites),
        )
        for probability, step in steps:
            if rng.random() < probability:
                pair = step(pair, rng)
        return pair


NO_AUGMENTATION = Augmentation(**{field.name: 0.0 for field in fields(Augmentation)})


def _repeat(pair: Pair, rng: np.random.Generator) -> Pair:
    """A supercell relaxes as its cell does: lengths and their change grow, fractions shrink."""
    n_sites = len(pair.initial.numbers)
    if 2 * n_sites > LARGEST:
        return pair
    return _repeat_along(pair, int(rng.integers(3)), int(rng.integers(2, LARGEST // n_sites + 1)))


def supercells(pairs: Sequence[Pair], n_pairs: int, seed: int) -> list[Pair]:
    """Draw pairs and repeat their cells to between `LARGEST` and `LARGEST_SUPERCELL` sites.

    They are pairs of their own, not an augmentation, because batches are made of pairs of similar
    size: one large cell in a batch of small ones would make the whole batch as long.

    Args:
        pairs: The pairs to draw from, with replacement.
        n_pairs: The number of draws; a pair whose cell is still small after the last repetition
            that fits is drawn in vain.
        seed: Seed of the draws.
    """
    rng = np.random.default_rng(seed)
    found = []
    for i in rng.integers(len(pairs), size=n_pairs):
        pair, most = pairs[i], int(rng.integers(LARGEST + 1, LARGEST_SUPERCELL + 1))
        while 2 * len(pair.initial.numbers) <= most:
            times = int(rng.integers(2, min(3, most // len(pair.initial.numbers)) + 1))
            pair = _repeat_along(pair, int(pair.initial.cellpar[:3].argmin()), times)
        if len(pair.initial.numbers) > LARGEST:
            found.append(pair)
    return found


def _repeat_along(pair: Pair, axis: int, times: int) -> Pair:
    factor, share = np.ones(6), np.ones(3)
    factor[axis], share[axis] = times, 1 / times
    cells = np.zeros((times, 1, 3))
    cells[:, 0, axis] = np.arange(times)
    frac_coords = ((pair.initial.frac_coords + cells) * share).reshape(-1, 3)
    moved = np.tile(pair.delta.frac_coords * share, (times, 1))
    numbers = np.tile(pair.initial.numbers, times)
    initial = Crystal(pair.initial.cellpar * factor, frac_coords, numbers)
    return Pair(initial, Delta(pair.delta.cellpar * factor, moved))


def _interpolate_to_final(pair: Pair, rng: np.random.Generator) -> Pair:
    return _on_the_line(pair, rng.uniform(0.0, 1.0))


def _relax(pair: Pair, _: np.random.Generator) -> Pair:
    return _on_the_line(pair, 1.0)


def _on_the_line(pair: Pair, way: float) -> Pair:
    moved = pair.initial.frac_coords + way * pair.delta.frac_coords
    cell = pair.initial.cellpar + way * pair.delta.cellpar
    left = Delta((1 - way) * pair.delta.cellpar, (1 - way) * pair.delta.frac_coords)
    return Pair(replace(pair.initial, cellpar=cell, frac_coords=moved), left)


def _dilate(pair: Pair, rng: np.random.Generator) -> Pair:
    factor = np.ones(6)
    factor[:3] = np.exp(np.clip(rng.normal(0.0, 0.03), -0.08, 0.08))
    return _from_cell(pair, pair.initial.cellpar * factor)


def _strain(pair: Pair, rng: np.random.Generator) -> Pair:
    lengths = np.exp(np.clip(rng.normal(0.0, LENGTH_STRAIN, 3), -0.05, 0.05))
    angles = np.clip(rng.normal(0.0, SHEAR, 3), -3.0, 3.0)
    cell = pair.initial.cellpar
    return _from_cell(pair, np.concatenate([cell[:3] * lengths, cell[3:] + angles]))


def _from_cell(pair: Pair, cell: NDArray[np.float64]) -> Pair:
    """The pair with the start in another cell (6,), its fractional coordinates as they were."""
    change = pair.delta.cellpar + pair.initial.cellpar - cell
    return Pair(replace(pair.initial, cellpar=cell), replace(pair.delta, cellpar=change))


def _displace(pair: Pair, rng: np.random.Generator) -> Pair:
    moves = drawn_displacements(rng, len(pair.initial.frac_coords))
    try:
        lattice = standard_lattice(pair.initial.cellpar)
    except CodecError:  # the strained start is no cell, and the pair is taken without changes
        return pair
    return _moved(pair, moves @ np.linalg.inv(lattice))


def _displace_together(pair: Pair, rng: np.random.Generator) -> Pair:
    crystal = pair.initial
    lattice = standard_lattice(crystal.cellpar)
    start = Geometry(lattice, crystal.frac_coords, crystal.numbers)
    return _moved(pair, drawn_symmetric_displacements(rng, start) @ np.linalg.inv(lattice))


def _moved(pair: Pair, moves: NDArray[np.float64]) -> Pair:
    """The pair with the sites of its start moved (n_sites, 3), in fractional coordinates."""
    return Pair(
        replace(pair.initial, frac_coords=pair.initial.frac_coords + moves),
        replace(pair.delta, frac_coords=pair.delta.frac_coords - moves),
    )


def _invert(pair: Pair, _: np.random.Generator) -> Pair:
    return _on_fracs(pair, lambda x: -x)


def _shift(pair: Pair, rng: np.random.Generator) -> Pair:
    moved = pair.initial.frac_coords + rng.random(3)
    return Pair(replace(pair.initial, frac_coords=moved), pair.delta)


def _permute_axes(pair: Pair, rng: np.random.Generator) -> Pair:
    order = rng.permutation(3)
    six = np.concatenate([order, order + 3])
    pair = _on_fracs(pair, lambda x: x[:, order])
    return Pair(
        replace(pair.initial, cellpar=pair.initial.cellpar[six]),
        replace(pair.delta, cellpar=pair.delta.cellpar[six]),
    )


def _permute_sites(pair: Pair, rng: np.random.Generator) -> Pair:
    order = rng.permutation(len(pair.initial.numbers))
    pair = _on_fracs(pair, lambda x: x[order])
    return replace(pair, initial=replace(pair.initial, numbers=pair.initial.numbers[order]))


def _on_fracs(pair: Pair, change: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> Pair:
    return Pair(
        replace(pair.initial, frac_coords=change(pair.initial.frac_coords)),
        replace(pair.delta, frac_coords=change(pair.delta.frac_coords)),
    )


if __name__ == "__main__":
    sys.exit(main())
