"""The seam: what the harness asks of a language model that writes how a crystal relaxes.

`t2relax.lm.t5` and `t2relax.lm.causal` answer it; `t2relax.lm.pretrained.load` gives either. What
trains, validates, relaxes and stores sees crystals and texts, and no token of a model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from t2relax.data.training_pairs import Pair
from t2relax.text.codec import Crystal

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

Mode = Literal["constrained", "free", "symmetric", "best8", "tta"]
"""A way of decoding; see `t2relax.relaxer.TextRelaxer`."""
SAMPLES: Final = 8
"""Number of texts that `best8` draws for each structure."""
WRITINGS: Final = 8
"""Number of writings of each structure that `tta` reads."""

TokenRow = Mapping[str, Sequence[float]]
"""A pair as a model reads it: `input_ids` of the prompt, `labels` of the target, and the weight of
each label in the loss, `loss_weights`."""


class Prompt(NamedTuple):
    """A crystal as a model reads it."""

    numbers: NDArray[np.int16]
    """(n_sites,) atomic numbers, which decide the grammar of the target."""
    ids: list[int]
    """Token ids of its CIF."""


class Written(NamedTuple):
    """A text that a model wrote."""

    text: str
    n_tokens: int
    """Number of its tokens, with the one that ends it."""
    spread: NDArray[np.float32] | None = None
    """(7 + 3 n_sites,) for each number how far one drawn from the model's distribution is on
    average from the one that is written, in the unit of the text (%, °, hundredths); None where
    the model does not say it."""


class LanguageModel(ABC):
    """A model that reads the CIF of a crystal and writes what relaxation changes."""

    model: PreTrainedModel
    """The weights; what trains is `model.parameters()`."""
    max_sites: int
    """Largest number of sites of the structures that it was trained on."""
    encode: Callable[[Pair], TokenRow]
    """Gives the token ids of both texts of a pair. It holds no weights, so that the worker
    processes of a loader can have it. It raises `CodecError` for a pair without texts."""
    muon: bool = True
    """Whether Muon trains the matrices (`t2relax.muon`), or AdamW everything."""

    @abstractmethod
    def collate(self, rows: Sequence[TokenRow]) -> dict[str, Tensor]:
        """Make one batch, as `loss` takes it, of what `encode` gives."""

    @abstractmethod
    def loss(self, module: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """Compute the loss on texts.

        Args:
            module: `model`, or what wraps it for several devices.
            batch: What `collate` made, on the device of the model.
        """

    @abstractmethod
    def prompt(self, crystal: Crystal) -> Prompt:
        """Write the CIF of a crystal as token ids.

        Raises:
            CodecError: The crystal has no text.
        """

    @abstractmethod
    def decode(self, prompts: Sequence[Prompt], seed: int | None = None) -> list[list[Written]]:
        """Write targets under the grammar of `t2relax.text.grammar`, which no text can break.

        Args:
            prompts: The inputs, which are decoded together.
            seed: With a seed `SAMPLES` texts of each input are drawn, which depend on the seed and
                the input and not on the batch; without one there is one text of the likeliest
                numbers.
        """

    @abstractmethod
    def decode_free(self, prompts: Sequence[Prompt]) -> list[Written]:
        """Write the likeliest text for each input without a grammar, cut where it is too long."""

    @abstractmethod
    def save(self, folder: Path, card: Mapping[str, Any]) -> None:
        """Write the folder that `t2relax.lm.pretrained.load` reads.

        Args:
            folder: The folder; it is made if it does not exist.
            card: The record of the training, as plain JSON values.
        """


def decode_all(
    language_model: LanguageModel, pairs: Sequence[Pair], batch_size: int = 256
) -> list[Written]:
    """Write a target under the grammar for the start of each pair, like sizes together."""
    order = sorted(range(len(pairs)), key=lambda i: len(pairs[i].initial.numbers))
    found: dict[int, Written] = {}
    for first in range(0, len(order), batch_size):
        chosen = order[first : first + batch_size]
        prompts = [language_model.prompt(pairs[i].initial) for i in chosen]
        answers = language_model.decode(prompts)
        found |= {i: written for i, (written,) in zip(chosen, answers, strict=True)}
    return [found[i] for i in range(len(pairs))]


def sample_levels(seed: int, ids: Sequence[int], length: int) -> NDArray[np.float64]:
    """Return (SAMPLES, length) uniform random numbers, one in each eighth at every position."""
    rng = np.random.default_rng([seed, *ids])
    strata = rng.permuted(np.tile(np.arange(SAMPLES), (length, 1)), axis=1).T
    return (strata + rng.random((SAMPLES, length))) / SAMPLES
