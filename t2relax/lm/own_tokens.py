"""Completions in our vocabulary, decoded by the rule of the T5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import LogitsProcessor

from t2relax.data.token_dataset import PairEncoding, pad
from t2relax.data.training_pairs import Pair
from t2relax.lm.base import TokenRow
from t2relax.lm.decoding import quantile
from t2relax.text.codec import Crystal
from t2relax.text.grammar import ORDINAL, REST, Template, template
from t2relax.text.tokens import COARSE, EOS_ID, FINE, FORCED, PAD_ID, Tokenizer

ROOM = 32
"""Tokens that a free text may be longer than the grammar says: room for a few sites too many."""


class CausalTokens(Protocol):
    """The texts of a decoder-only model as token ids, and the grammar of its completion."""

    @property
    def end_id(self) -> int:
        """The id that ends a text."""

    def __call__(self, pair: Pair) -> TokenRow:
        """Encode a pair; see `LanguageModel.encode`."""

    def prompt_ids(self, crystal: Crystal) -> list[int]:
        """The ids of a CIF; see `LanguageModel.prompt`."""

    def text(self, ids: Sequence[int]) -> str:
        """The text of ids, without the one that ends it."""

    def most_tokens(self, numbers: NDArray[np.int16]) -> int:
        """Number of tokens after which a free text is cut."""

    def record(self, folder: Path) -> Mapping[str, Any]:
        """Write what a checkpoint folder needs beside the weights; return the entries on it."""

    def grammar(
        self, numbers: Sequence[NDArray[np.int16]], levels: Sequence[NDArray[np.float64]] | None
    ) -> LogitsProcessor:
        """Make what leaves one token possible at each step, for texts that are written together.

        Args:
            numbers: For each text (n_sites,) atomic numbers.
            levels: For each text the quantile to choose at each position.
        """


@dataclass(frozen=True)
class OwnTokens:
    """Our vocabulary, whose tokens of leading digits are values in order."""

    tokenizer: Tokenizer
    encode: PairEncoding
    end_id: int = EOS_ID

    def __call__(self, pair: Pair) -> TokenRow:
        """See `CausalTokens`."""
        return self.encode(pair)

    def prompt_ids(self, crystal: Crystal) -> list[int]:
        """See `CausalTokens`; `</s>` stands between the CIF and the target."""
        return self.tokenizer.source(crystal)

    def text(self, ids: Sequence[int]) -> str:
        """See `CausalTokens`."""
        return self.tokenizer.decode(list(ids))

    def most_tokens(self, numbers: NDArray[np.int16]) -> int:
        """See `CausalTokens`."""
        return len(template(numbers, self.tokenizer).ids) + ROOM

    def record(self, folder: Path) -> Mapping[str, Any]:  # noqa: ARG002 (of the protocol)
        """See `CausalTokens`."""
        return self.tokenizer.record()

    def grammar(
        self, numbers: Sequence[NDArray[np.int16]], levels: Sequence[NDArray[np.float64]] | None
    ) -> LogitsProcessor:
        """See `CausalTokens`."""
        return TemplateGrammar([template(each, self.tokenizer) for each in numbers], levels)


class TemplateGrammar(LogitsProcessor):
    """The grammar and the rule of `t2relax.lm.decoding`, as Hugging Face's generation takes them.

    Args:
        templates: The grammar of each text of a batch.
        levels: For each text (length,) the quantile to choose; by default the median.
    """

    def __init__(
        self, templates: Sequence[Template], levels: Sequence[NDArray[np.float64]] | None
    ) -> None:
        self.ids = torch.from_numpy(pad([t.ids.tolist() for t in templates], PAD_ID))
        self.kinds = torch.from_numpy(pad([t.kinds.tolist() for t in templates], FORCED))
        self.levels = torch.full(self.ids.shape, 0.5, dtype=torch.float64)
        for row, level in enumerate(levels or ()):
            length = len(templates[row].ids)
            self.levels[row, :length] = torch.from_numpy(level[:length])
        self.step = 0
        self.spread = torch.zeros(self.ids.shape)
        """(n, length) of `t2relax.lm.decoding.Chosen`, as far as the texts are written."""

    def spreads(self) -> list[NDArray[np.float32]]:
        """Give the spread of each number of each text; see `Written`."""
        leading = [np.flatnonzero(row == COARSE) for row in self.kinds.numpy()]
        return [row[at] for row, at in zip(self.spread.numpy(), leading, strict=True)]

    def __call__(self, _: Tensor, scores: Tensor) -> Tensor:
        """Return 0 at the chosen token of each row of (n, vocabulary), and -inf elsewhere."""
        at = min(self.step, self.ids.shape[1] - 1)
        kinds = self.kinds[:, at].to(scores.device)
        chosen = self.ids[:, at].to(scores.device)
        digits, spread = quantile(scores[:, ORDINAL].float(), self.levels[:, at].to(scores.device))
        self.spread[:, at] = spread.cpu()
        rest = scores[:, REST].argmax(dim=-1)
        chosen = torch.where(kinds == COARSE, ORDINAL.start + digits, chosen)
        chosen = torch.where(kinds == FINE, REST.start + rest, chosen)
        self.step += 1
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen[:, None], 0.0)
