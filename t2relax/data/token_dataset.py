"""Training pairs as token ids: a dataset that augments them, and batches padded to one length."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class PairEncoding:
    """Encodes the two texts of a pair with our vocabulary."""

    weights: Callable[[Template], NDArray[np.float32]]
    """Returns the weight of each token of a target in the loss."""
    tokenizer: Tokenizer

    def __call__(self, pair: Pair) -> dict[str, Sequence[float]]:
        """Return `input_ids`, `labels` and `loss_weights` of a pair.

        Raises:
            CodecError: The pair has no text.
        """
        source, target = encode_pair(pair, self.tokenizer)
        weights = self.weights(template(pair.initial.numbers, self.tokenizer))
        return {"input_ids": source, "labels": target, "loss_weights": weights.tolist()}


class PairDataset:
    """Pairs as a map-style dataset of token ids, augmented anew each time one is read.

    Args:
        pairs: The relaxations.
        augmentation: The changes of a pair; `NO_AUGMENTATION` for validation.
        encode: Returns the token ids of a pair, as `PairEncoding` does.
        seed: The seed of the augmentation; every worker process of a loader draws its own stream.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        augmentation: Augmentation,
        encode: Callable[[Pair], Mapping[str, Sequence[float]]],
        seed: int = 0,
    ) -> None:
        self.pairs = pairs
        self.augmentation = augmentation
        self.encode = encode
        self.seed = seed
        self._rng: np.random.Generator | None = None

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Mapping[str, Sequence[float]]:
        pair = self.augmentation(self.pairs[index], self._generator())
        try:
            return self.encode(pair)
        except CodecError:  # the augmented start has no text; the pair itself has
            return self.encode(self.pairs[index])

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
