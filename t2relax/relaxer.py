"""The T5 behind the relaxer interface: `T5Relaxer().relax([structure])[0].structure`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pymatgen.core import Structure

from benchmarks.core import Geometry, Relaxed, Status
from t2relax import model as t5
from t2relax.codec import CodecError, Crystal, apply_delta, read_delta, write_cif
from t2relax.generate import decode_constrained, decode_free
from t2relax.tokens import EOS_ID, Tokenizer, template

Mode = Literal["constrained", "free"]
MAX_ATTENTION = 8_000_000
"""Largest sum of the squared, padded input lengths of a batch: attention's memory grows with it.

32 structures of 16 sites stay below (7.4 million, 120 MB a layer); of larger ones fewer go
together.
"""


class T5Relaxer:
    """Reads a structure as a CIF, writes what relaxation changes, applies it.

    Args:
        path: checkpoint folder; the one in the package by default.
        mode: `constrained` copies from the input what the input determines (species, labels,
            number of sites) and lets the model choose signs and digits only; `free` takes its text
            as it comes, and what does not parse is `invalid`.
        device: `cpu` or `cuda`.
        batch_size: structures that go through the model together.
    """

    def __init__(
        self,
        path: str | Path = t5.CHECKPOINT,
        mode: Mode = "constrained",
        device: str = "cpu",
        batch_size: int = 32,
    ) -> None:
        self.model, self.tokenizer, self.max_sites = t5.load(Path(path), device)
        self.mode = mode
        self.batch_size = batch_size

    def relax(self, structures: Sequence[Structure], /) -> list[Relaxed]:
        """See `benchmarks.core.Relaxer`; `n_tokens` counts the target's tokens."""
        outcomes: dict[int, Relaxed] = {}
        todo: list[tuple[int, Geometry, list[int]]] = []
        for i, structure in enumerate(structures):
            try:
                geometry = self._read(structure)
                todo.append((i, geometry, source_ids(geometry, self.tokenizer)))
            except CodecError as error:
                outcomes[i] = Relaxed(status=Status.UNSUPPORTED, detail=str(error))
        todo.sort(key=lambda item: len(item[2]))
        for batch in self._batches(todo):
            for (i, geometry, _), ids in zip(batch, self._decode(batch), strict=True):
                outcomes[i] = outcome(geometry, ids, self.tokenizer)
        return [outcomes[i] for i in range(len(structures))]

    def _read(self, structure: Structure) -> Geometry:
        if not structure.is_ordered:
            raise CodecError("a site is shared by several species: order the structure first")
        if len(structure) > self.max_sites:
            raise CodecError(f"{len(structure)} sites: trained on at most {self.max_sites}")
        return Geometry.of(structure)

    def _batches(
        self, todo: Sequence[tuple[int, Geometry, list[int]]]
    ) -> Iterator[Sequence[tuple[int, Geometry, list[int]]]]:
        """Cut the inputs, sorted by length, where a batch is full or the next would not fit."""
        first = 0
        for end in range(1, len(todo) + 1):
            full = end == len(todo) or end - first == self.batch_size
            if full or (end + 1 - first) * len(todo[end][2]) ** 2 > MAX_ATTENTION:
                yield todo[first:end]
                first = end

    def _decode(self, batch: Sequence[tuple[int, Geometry, list[int]]]) -> list[list[int]]:
        sources = [source for _, _, source in batch]
        templates = [template(geometry.numbers, self.tokenizer) for _, geometry, _ in batch]
        if self.mode == "free":
            # Room for a few sites too many, cut per structure so that the batch plays no part.
            limits = [len(t.ids) + 32 for t in templates]
            rows = decode_free(self.model, sources, max_new_tokens=max(limits))
            return [row[:limit] for row, limit in zip(rows, limits, strict=True)]
        forced = decode_constrained(self.model, self.tokenizer, sources, templates)
        return [row.tolist() for row in forced]


def source_ids(geometry: Geometry, tokenizer: Tokenizer) -> list[int]:
    """What the encoder reads: the CIF's tokens and `</s>`."""
    return [*tokenizer.encode(write_cif(Crystal.of(geometry))), EOS_ID]


def outcome(initial: Geometry, ids: list[int], tokenizer: Tokenizer) -> Relaxed:
    """The relaxed structure that a generated target stands for, or why it is `invalid`."""
    n_tokens = ids.index(EOS_ID) + 1 if EOS_ID in ids else len(ids)
    text = tokenizer.decode(ids)
    try:
        delta, numbers = read_delta(text, Crystal.of(initial))
        relaxed = apply_delta(initial, delta, numbers)
        structure = relaxed.structure()
    except CodecError as error:
        return Relaxed(status=Status.INVALID, n_tokens=n_tokens, detail=f"{error}\n{text}")
    if not np.array_equal(numbers, initial.numbers):
        return Relaxed(status=Status.INVALID, structure=structure, n_tokens=n_tokens, detail=text)
    return Relaxed(status=Status.OK, structure=structure, n_tokens=n_tokens)
