"""Training pairs: relaxations as arrays, augmented, written as text, tokenised, padded.

    python -m t2relax.data.pairs --data embedded --data PATH/train.parquet --out pairs.npz

The archive of pairs is what `python -m t2relax.train` reads where the tables cannot be (it holds
structures of its sources: do not publish one made from data that are not yours).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.core import Geometry, Sample, UserError
from t2relax.text.codec import CodecError, Crystal, Delta, delta_between, write_cif, write_delta
from t2relax.text.tokens import EOS_ID, PAD_ID, TARGET_SIZE, Template, Tokenizer, template

if TYPE_CHECKING:
    from benchmarks.data import Frame

LARGEST = 16
"""Sites of a supercell, at most: as many as the largest crystals of substitution/train have."""
IGNORE = -100
"""Label of padding, skipped by the loss."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One relaxation without orientation: where it starts and what changes."""

    initial: Crystal
    delta: Delta


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """How likely each change of a pair is that leaves the physics as it is.

    Sites, axes and origin are conventions; inversion and an odd permutation of the axes give the
    mirror image, which has the same energy. A start moved along the way to its own relaxed
    structure, or dilated, lies (for the sizes used here) in the basin of the same minimum.
    """

    sites: float = 0.5
    axes: float = 0.3
    origin: float = 0.3
    inversion: float = 0.5
    along: float = 0.35
    """A start between the initial (0) and the relaxed structure (1)."""
    dilation: float = 0.35
    """Uniform dilation of the start, 3 % standard deviation of the length."""
    supercell: float = 0.2
    """Repeated along one axis, to at most `LARGEST` sites: large crystals are rare in the data."""

    def __call__(self, pair: Pair, rng: np.random.Generator) -> Pair:
        """A changed copy."""
        steps = (
            (self.supercell, _repeat),
            (self.along, _interpolate_to_final),
            (self.dilation, _dilate),
            (self.inversion, _invert),
            (self.origin, _shift),
            (self.axes, _permute_axes),
            (self.sites, _permute_sites),
        )
        for probability, step in steps:
            if rng.random() < probability:
                pair = step(pair, rng)
        return pair


NO_AUGMENTATION = Augmentation(
    sites=0, axes=0, origin=0, inversion=0, along=0, dilation=0, supercell=0
)


def _repeat(pair: Pair, rng: np.random.Generator) -> Pair:
    """A supercell relaxes as its cell does: lengths and their change grow, fractions shrink."""
    n_sites = len(pair.initial.numbers)
    if 2 * n_sites > LARGEST:
        return pair
    axis, times = rng.integers(3), int(rng.integers(2, LARGEST // n_sites + 1))
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
    way = rng.uniform(0.0, 1.0)
    moved = pair.initial.frac_coords + way * pair.delta.frac_coords
    cell = pair.initial.cellpar + way * pair.delta.cellpar
    left = Delta((1 - way) * pair.delta.cellpar, (1 - way) * pair.delta.frac_coords)
    return Pair(replace(pair.initial, cellpar=cell, frac_coords=moved), left)


def _dilate(pair: Pair, rng: np.random.Generator) -> Pair:
    factor = np.ones(6)
    factor[:3] = np.exp(np.clip(rng.normal(0.0, 0.03), -0.08, 0.08))
    cell = pair.initial.cellpar * factor
    change = pair.delta.cellpar + pair.initial.cellpar - cell
    return Pair(replace(pair.initial, cellpar=cell), replace(pair.delta, cellpar=change))


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


def encode_pair(pair: Pair, tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """Token ids of source and target, each with `</s>`.

    Raises:
        CodecError: the pair cannot be written at the stated decimals.
    """
    source = tokenizer.encode(write_cif(pair.initial))
    target = tokenizer.encode(write_delta(pair.delta, pair.initial), TARGET_SIZE)
    return [*source, EOS_ID], [*target, EOS_ID]


def pad(rows: Sequence[Sequence[int]], value: int, multiple: int = 1) -> NDArray[np.int64]:
    """(n, longest) ids, short rows filled with `value` at the end, to a multiple in length."""
    return _pad(rows, value, multiple).astype(np.int64)


def _pad(rows: Sequence[Sequence[float]], value: float, multiple: int) -> NDArray[np.float64]:
    longest = -(-max(map(len, rows)) // multiple) * multiple
    out = np.full((len(rows), longest), float(value))
    for row, ids in zip(out, rows, strict=True):
        row[: len(ids)] = ids
    return out


class PairDataset:
    """Pairs as a map-style dataset of token ids, augmented anew each time one is read.

    Args:
        pairs: the relaxations.
        augmentation: how to change them; `NO_AUGMENTATION` for validation.
        weights: of each token of a target in the loss.
        seed: of the augmentation; every worker process of a loader draws its own stream.
        tokenizer: of both texts; by default that of the checkpoints.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        augmentation: Augmentation,
        weights: Callable[[Template], NDArray[np.float32]],
        seed: int = 0,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        self.pairs = pairs
        self.augmentation = augmentation
        self.weights = weights
        self.tokenizer = tokenizer or Tokenizer()
        self.seed = seed
        self._rng: np.random.Generator | None = None

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, Sequence[float]]:
        pair = self.augmentation(self.pairs[index], self._generator())
        try:
            source, target = encode_pair(pair, self.tokenizer)
        except CodecError:  # the augmented start has no text; the pair itself has
            pair = self.pairs[index]
            source, target = encode_pair(pair, self.tokenizer)
        weights = self.weights(template(pair.initial.numbers, self.tokenizer))
        return {"input_ids": source, "labels": target, "loss_weights": weights.tolist()}

    def _generator(self) -> np.random.Generator:
        if self._rng is None:
            from torch.utils.data import get_worker_info

            worker = get_worker_info()
            stream = (self.seed, worker.seed) if worker else (self.seed,)
            self._rng = np.random.default_rng(stream)
        return self._rng


def collate(rows: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, Any]:
    """Padded tensors `input_ids`, `attention_mask`, `labels`, `loss_weights`."""
    import torch

    # A GPU gets few distinct shapes, so that its memory is used again; a CPU no padding to compute.
    multiple = 32 if torch.cuda.is_available() else 1
    fill = {"input_ids": PAD_ID, "labels": IGNORE, "loss_weights": 0.0}
    batch = {
        name: torch.from_numpy(_pad([row[name] for row in rows], value, multiple))
        for name, value in fill.items()
    }
    ids = batch["input_ids"].long()
    return {
        "input_ids": ids,
        "attention_mask": (ids != PAD_ID).long(),
        "labels": batch["labels"].long(),
        "loss_weights": batch["loss_weights"].float(),
    }


def pairs_of(samples: Iterable[Sample]) -> tuple[list[Pair], list[str]]:
    """Pairs of the samples that the codec can write, and what became of the others."""
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
) -> tuple[list[Pair], dict[str, str]]:
    """Pairs of several sources, and the revision (sha256) of each data set by its name.

    Args:
        sources: archives `*.npz`, or anything that `benchmarks.data.load` reads.
        split: taken from a source that has splits; a single file has none.
        every_frame: start from each frame on the way as well as from the first.
        limit: at most so many relaxations of each source that is not an archive; of a data set of
            the Hub no more is read.
    """
    pairs: list[Pair] = []
    origin: dict[str, str] = {}
    for source in sources:
        if source.endswith(".npz"):
            found, names = load_pairs(Path(source))
            origin |= names
        else:
            found, name, revision = _read_table(source, split, every_frame, limit)
            origin[name] = revision
        pairs += found
    return pairs, origin


def _read_table(
    source: str, split: str, every_frame: bool, limit: int | None
) -> tuple[list[Pair], str, str]:
    from benchmarks.data import load

    part = None if source.endswith(".parquet") else split
    data = load(source, split=part, limit=limit)
    samples = list(data)
    if every_frame:
        samples += _on_the_way(data.frames(), {s.sample_id: s for s in samples})
    pairs, refused = pairs_of(tqdm(samples, desc=f"pairs of {data.name}"))
    for line in refused:
        tqdm.write(f"left out {line}", file=sys.stderr)
    name = f"{data.name}/{data.split}" if data.split else data.name
    return pairs, name, data.revision


def _on_the_way(frames: Iterable[Frame], samples: Mapping[str, Sample]) -> Iterator[Sample]:
    """Each relaxation once more from every frame between its first and its last."""
    for frame in frames:
        sample = samples.get(frame.sample_id)
        if sample is not None:
            here = frame.geometry.structure()
            if here not in (sample.initial, sample.final):
                yield replace(sample, initial=here)


def main(argv: Sequence[str] | None = None) -> int:
    """Write an archive of pairs."""
    parser = argparse.ArgumentParser(prog="python -m t2relax.data.pairs", description=__doc__)
    parser.add_argument("--data", action="append", required=True)
    parser.add_argument("--split", default="train")
    parser.add_argument("--every-frame", action="store_true", help="start from each frame")
    parser.add_argument("--limit", type=int, help="relaxations of each source, at most")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    try:
        pairs, origin = read_pairs(args.data, args.split, args.every_frame, args.limit)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    save_pairs(args.out, pairs, origin)
    print(f"{len(pairs)} pairs in {args.out}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
