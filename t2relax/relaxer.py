"""A language model as a relaxer: `TextRelaxer().relax([structure])[0].structure`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Structure

from benchmarks.core import Geometry, Relaxed, RelaxSettings, Status
from benchmarks.core.geometry import cell_parameters, invariant
from benchmarks.core.symmetry import SpaceGroup, space_group
from t2relax.confidence import read_confidence, size_of
from t2relax.lm.base import Mode, Prompt, Written
from t2relax.lm.checkpoint import CHECKPOINT
from t2relax.lm.pretrained import load
from t2relax.several_writings import relax_in_writings
from t2relax.text.codec import (
    CodecError,
    Crystal,
    Delta,
    apply_delta,
    read_delta,
    standard_lattice,
)

BATCH = 64
"""Number of structures that go through the model together if the settings do not say it."""
MAX_ATTENTION = 8_000_000
"""Largest sum of the squared, padded input lengths of a batch: attention's memory grows with it.

32 structures of 16 sites stay below (7.4 million, 120 MB a layer); of larger ones fewer go
together.
"""


class TextRelaxer:
    """Relaxes with a model that reads a structure as a CIF and writes the changes of relaxation.

    Args:
        path: The checkpoint folder of a T5 or of a decoder-only model; by default the T5 in the
            package.
        mode: `constrained` copies all that the input determines (species, labels, number of sites)
            and lets the model choose signs and digits only. `free` takes the text as it comes; a
            text that does not parse is `invalid`. `symmetric` is `constrained` with the changes
            projected on the space group of the input. `best8` draws eight samples under the same
            constraint and takes the median of each change. `tta` takes the median of the
            `constrained` answers to eight writings of the input: sites in other orders, other
            origins, exchanged axes.
        symprec: The tolerance of the input's symmetry [Å].
        settings: The device, the batch size (64 where it is not given) and, for `best8` and `tta`,
            the seed are used. What is drawn depends on the seed and on the input, not on its batch.

    With a checkpoint whose record holds a `t2relax.confidence.Confidence`, the answers from one
    text have an expected error, and those that it doubts are no change.
    """

    def __init__(
        self,
        path: str | Path = CHECKPOINT,
        mode: Mode = "constrained",
        symprec: float = 0.01,
        *,
        settings: RelaxSettings = RelaxSettings(),
    ) -> None:
        self.language_model = load(Path(path), settings.device)
        self.confidence = read_confidence(Path(path))
        self.max_sites = self.language_model.max_sites
        self.mode = mode
        self.batch_size = settings.batch_size or BATCH
        self.symprec = symprec
        self.seed = settings.seed

    def relax(self, structures: Sequence[Structure], /) -> list[Relaxed]:
        """See `benchmarks.core.Relaxer`; `n_tokens` counts the target's tokens."""
        if self.mode == "tta":
            return relax_in_writings(self._relax, structures, self.seed)
        return self._relax(structures)

    def _relax(self, structures: Sequence[Structure]) -> list[Relaxed]:
        """The answers to the structures as they are written."""
        outcomes: dict[int, Relaxed] = {}
        todo: list[tuple[int, Geometry, Prompt]] = []
        for i, structure in enumerate(structures):
            try:
                geometry = self._read(structure)
                prompt = self.language_model.prompt(Crystal.of(geometry))
                todo.append((i, geometry, prompt))
            except CodecError as error:
                outcomes[i] = Relaxed(status=Status.UNSUPPORTED, detail=str(error))
        todo.sort(key=lambda item: len(item[2].ids))
        for batch in self._batches(todo):
            texts = self._decode([prompt for _, _, prompt in batch])
            for (i, geometry, _), written in zip(batch, texts, strict=True):
                outcomes[i] = self._outcome(geometry, written)
        return [outcomes[i] for i in range(len(structures))]

    def _read(self, structure: Structure) -> Geometry:
        if not structure.is_ordered:
            raise CodecError("a site is shared by several species: order the structure first")
        if len(structure) > self.max_sites:
            raise CodecError(f"{len(structure)} sites: trained on at most {self.max_sites}")
        return Geometry.of(structure)

    def _batches(
        self, todo: Sequence[tuple[int, Geometry, Prompt]]
    ) -> Iterator[Sequence[tuple[int, Geometry, Prompt]]]:
        """Cut the inputs, sorted by length, where a batch is full or the next would not fit."""
        first = 0
        for end in range(1, len(todo) + 1):
            full = end == len(todo) or end - first == self.batch_size
            if full or (end + 1 - first) * len(todo[end][2].ids) ** 2 > MAX_ATTENTION:
                yield todo[first:end]
                first = end

    def _decode(self, prompts: Sequence[Prompt]) -> list[list[Written]]:
        """One text for each structure, or several."""
        if self.mode == "free":
            return [[written] for written in self.language_model.decode_free(prompts)]
        seed = self.seed if self.mode == "best8" else None
        return self.language_model.decode(prompts, seed)

    def _outcome(self, initial: Geometry, texts: Sequence[Written]) -> Relaxed:
        """The relaxed structure that generated texts stand for, or why it is `invalid`."""
        n_tokens, text = sum(written.n_tokens for written in texts), texts[0].text
        try:
            delta, numbers = self._change(initial, texts)
            structure = apply_delta(initial, delta, numbers).structure()
        except CodecError as error:
            return Relaxed(status=Status.INVALID, n_tokens=n_tokens, detail=f"{error}\n{text}")
        kept = np.array_equal(numbers, initial.numbers)
        expected = None
        if self.confidence is not None and len(texts) == 1 and texts[0].spread is not None:
            expected = self.confidence.expected_error(texts[0].spread, Crystal.of(initial))
            if self.confidence.doubts(expected, size_of(delta, initial.lattice)):
                structure = initial.structure()
        return Relaxed(
            status=Status.OK if kept else Status.INVALID,
            structure=structure,
            n_tokens=n_tokens,
            expected_error=expected,
            detail=None if kept else text,
        )

    def _change(
        self, initial: Geometry, texts: Sequence[Written]
    ) -> tuple[Delta, NDArray[np.int16]]:
        crystal = Crystal.of(initial)
        read = [read_delta(written.text, crystal) for written in texts]
        delta, numbers = read[0]
        if len(read) > 1:
            delta = Delta(
                np.median([change.cellpar for change, _ in read], axis=0),
                np.median([change.frac_coords for change, _ in read], axis=0),
            )
        if self.mode == "symmetric" and (group := space_group(initial, self.symprec)):
            delta = project(initial, delta, group)
        return delta, numbers


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
