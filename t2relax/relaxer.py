"""The T5 as a relaxer: `T5Relaxer().relax([structure])[0].structure`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Structure

from benchmarks.core import Geometry, Relaxed, RelaxSettings, Status
from benchmarks.core.geometry import cell_parameters, invariant
from benchmarks.core.symmetry import SpaceGroup, space_group
from t2relax.lm import t5
from t2relax.lm.decoding import decode_constrained, decode_free
from t2relax.lm.t5 import SAMPLES, Mode
from t2relax.text.codec import (
    CodecError,
    Crystal,
    Delta,
    apply_delta,
    read_delta,
    standard_lattice,
    write_cif,
)
from t2relax.text.grammar import template
from t2relax.text.tokens import EOS_ID, Tokenizer

BATCH = 64
"""Number of structures that go through the model together if the settings do not say it."""
MAX_ATTENTION = 8_000_000
"""Largest sum of the squared, padded input lengths of a batch: attention's memory grows with it.

32 structures of 16 sites stay below (7.4 million, 120 MB a layer); of larger ones fewer go
together.
"""


class T5Relaxer:
    """Relaxes with the T5, which reads a structure as a CIF and writes the changes of relaxation.

    Args:
        path: The checkpoint folder; by default the one in the package.
        mode: `constrained` copies all that the input determines (species, labels, number of sites)
            and lets the model choose signs and digits only. `free` takes the text as it comes; a
            text that does not parse is `invalid`. `symmetric` is `constrained` with the changes
            projected on the space group of the input. `best8` draws eight samples under the same
            constraint and takes the median of each change.
        symprec: The tolerance of the input's symmetry [Å].
        settings: The device, the batch size (64 where it is not given) and, for `best8`, the seed
            are used. A sample depends on the seed and on the input, not on its batch.
    """

    def __init__(
        self,
        path: str | Path = t5.CHECKPOINT,
        mode: Mode = "constrained",
        symprec: float = 0.01,
        *,
        settings: RelaxSettings = RelaxSettings(),
    ) -> None:
        self.model, self.tokenizer, self.max_sites = t5.load(Path(path), settings.device)
        self.mode = mode
        self.batch_size = settings.batch_size or BATCH
        self.symprec = symprec
        self.seed = settings.seed

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
            for (i, geometry, _), texts in zip(batch, self._decode(batch), strict=True):
                outcomes[i] = self._outcome(geometry, texts)
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

    def _decode(self, batch: Sequence[tuple[int, Geometry, list[int]]]) -> list[list[list[int]]]:
        """The ids of one text for each structure, or of several."""
        sources = [source for _, _, source in batch]
        templates = [template(geometry.numbers, self.tokenizer) for _, geometry, _ in batch]
        if self.mode == "free":
            # Room for a few sites too many, cut per structure so that the batch plays no part.
            limits = [len(t.ids) + 32 for t in templates]
            rows = decode_free(self.model, sources, max_new_tokens=max(limits))
            return [[row[:limit]] for row, limit in zip(rows, limits, strict=True)]
        levels = None
        if self.mode == "best8":
            lengths = [len(t.ids) for t in templates]
            levels = [self._levels(x, n) for x, n in zip(sources, lengths, strict=True)]
        return [ids.tolist() for ids in decode_constrained(self.model, sources, templates, levels)]

    def _levels(self, source: list[int], length: int) -> NDArray[np.float64]:
        """(8, length) uniform random numbers, one in each eighth at every position."""
        rng = np.random.default_rng([self.seed, *source])
        strata = rng.permuted(np.tile(np.arange(SAMPLES), (length, 1)), axis=1).T
        return (strata + rng.random((SAMPLES, length))) / SAMPLES

    def _outcome(self, initial: Geometry, texts: list[list[int]]) -> Relaxed:
        """The relaxed structure that generated texts stand for, or why it is `invalid`."""
        n_tokens = sum(ids.index(EOS_ID) + 1 if EOS_ID in ids else len(ids) for ids in texts)
        text = self.tokenizer.decode(texts[0])
        try:
            delta, numbers = self._change(initial, texts)
            structure = apply_delta(initial, delta, numbers).structure()
        except CodecError as error:
            return Relaxed(status=Status.INVALID, n_tokens=n_tokens, detail=f"{error}\n{text}")
        kept = np.array_equal(numbers, initial.numbers)
        return Relaxed(
            status=Status.OK if kept else Status.INVALID,
            structure=structure,
            n_tokens=n_tokens,
            detail=None if kept else text,
        )

    def _change(self, initial: Geometry, texts: list[list[int]]) -> tuple[Delta, NDArray[np.int16]]:
        crystal = Crystal.of(initial)
        read = [read_delta(self.tokenizer.decode(ids), crystal) for ids in texts]
        delta, numbers = read[0]
        if len(read) > 1:
            delta = Delta(
                np.median([change.cellpar for change, _ in read], axis=0),
                np.median([change.frac_coords for change, _ in read], axis=0),
            )
        if self.mode == "symmetric" and (group := space_group(initial, self.symprec)):
            delta = project(initial, delta, group)
        return delta, numbers


def source_ids(geometry: Geometry, tokenizer: Tokenizer) -> list[int]:
    """The token ids that the encoder reads: those of the CIF, and `</s>`."""
    return [*tokenizer.encode(write_cif(Crystal.of(geometry))), EOS_ID]


def project(initial: Geometry, delta: Delta, group: SpaceGroup) -> Delta:
    """Project a predicted change on the space group of the input.

    A DFT relaxation that keeps the symmetry can only change what the space group leaves free. The
    projection averages the change over all operations of the group: for the cell it averages the
    metric tensor, for the sites the vectors that the operations carry into each other.

    Args:
        initial: The crystal that changes.
        delta: The change.
        group: The space group of `initial`.

    Returns:
        The part of the change that the group allows.

    Raises:
        CodecError: no cell has the changed parameters.
    """
    parameters = cell_parameters(initial.lattice)
    before, after = map(standard_lattice, (parameters, parameters + delta.cellpar))
    change = after @ after.T - before @ before.T
    metric = before @ before.T + invariant(change, group.rotations)
    moved = np.einsum("gij,nj->gni", group.rotations, delta.frac_coords)
    fracs = np.zeros_like(delta.frac_coords)
    np.add.at(fracs, group.images, moved)
    projected = cell_parameters(np.asarray(np.linalg.cholesky(metric), np.float64)) - parameters
    return Delta(projected, fracs / len(group.rotations))
