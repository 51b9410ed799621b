"""Training pairs as token ids: a dataset that augments them, and batches padded to one length."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from t2relax.data.training_pairs import Augmentation, Pair, encode_pair
from t2relax.text.codec import CodecError
from t2relax.text.grammar import Template, template
from t2relax.text.tokens import PAD_ID, Tokenizer

IGNORE: Final = -100
"""Label of padding, which the loss skips."""


def pad(rows: Sequence[Sequence[int]], value: int, multiple: int = 1) -> NDArray[np.int64]:
    """Return (n, longest) ids; short rows end with `value`, and the length is a multiple."""
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
        pairs: The relaxations.
        augmentation: The changes of a pair; `NO_AUGMENTATION` for validation.
        weights: Returns the weight of each token of a target in the loss.
        seed: The seed of the augmentation; every worker process of a loader draws its own stream.
        tokenizer: The tokenizer of both texts; by default that of the checkpoints.
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
    """Make padded tensors `input_ids`, `attention_mask`, `labels`, `loss_weights`."""
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
