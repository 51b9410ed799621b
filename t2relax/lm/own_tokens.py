"""Completions in our vocabulary, decoded by the rule of the T5."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from t2relax.data.token_dataset import PairEncoding
from t2relax.data.training_pairs import Pair
from t2relax.lm.base import Prompt, TokenRow, Written, sample_levels
from t2relax.lm.decoding import Chosen, choose_number, span_of
from t2relax.text.codec import Crystal
from t2relax.text.grammar import template
from t2relax.text.tokens import EOS_ID, Tokenizer

ROOM = 32
"""Tokens that a free text may be longer than the grammar says: room for a few sites too many."""


@dataclass(frozen=True)
class OwnTokens:
    """Our vocabulary, whose tokens of leading digits are values in order."""

    tokenizer: Tokenizer
    encode: PairEncoding
    end_id: int = EOS_ID

    def __call__(self, pair: Pair) -> TokenRow:
        """Encode a pair; see `LanguageModel.encode`."""
        return self.encode(pair)

    def prompt_ids(self, crystal: Crystal) -> list[int]:
        """The ids of a CIF; `</s>` stands between it and the target."""
        return self.tokenizer.source(crystal)

    def text(self, ids: Sequence[int]) -> str:
        """The text of ids, without the one that ends it."""
        return self.tokenizer.decode(list(ids))

    def most_tokens(self, numbers: NDArray[np.int16]) -> int:
        """Number of tokens after which a free text is cut."""
        return len(template(numbers, self.tokenizer).ids) + ROOM

    def record(self, folder: Path) -> Mapping[str, Any]:  # noqa: ARG002 (others write a file)
        """Write what a checkpoint folder needs beside the weights; return the entries on it."""
        return self.tokenizer.record()


def write_targets(
    decode: Callable[..., Sequence[Chosen]],
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    seed: int | None,
) -> list[list[Written]]:
    """Write targets under their grammar; see `LanguageModel.decode`.

    Args:
        decode: A function like `t2relax.lm.decoding.decode_constrained`, without its model.
        tokenizer: The vocabulary.
        prompts: The inputs, which are decoded together.
        seed: The seed of samples; None for one text of the medians.
    """
    templates = [template(prompt.numbers, tokenizer) for prompt in prompts]
    levels = []
    if seed is not None:
        lengths = [len(grammar.ids) for grammar in templates]
        levels = [[sample_levels(seed, p.ids, n) for p, n in zip(prompts, lengths, strict=True)]]
    answers = []
    found = decode([prompt.ids for prompt in prompts], templates, *levels)
    for grammar, chosen in zip(templates, found, strict=True):
        texts = [written(tokenizer, ids) for ids in chosen.ids.tolist()]
        if chosen.spread is not None:
            spreads = chosen.spread[:, grammar.leading[:, 0]]
            texts = [t._replace(spread=x) for t, x in zip(texts, spreads, strict=True)]
        answers.append(texts)
    return answers


def written(tokenizer: Tokenizer, ids: list[int]) -> Written:
    """Read the text of ids up to `</s>`, or of all."""
    end = ids.index(EOS_ID) + 1 if EOS_ID in ids else len(ids)
    return Written(tokenizer.decode(ids), end)


class CachedDecoder:
    """A decoder-only model of our vocabulary behind its prompts.

    Args:
        model: The model, in evaluation mode.
        ids: (n, longest) token ids of the prompts, padded in front.
        mask: (n, longest) 1 where there is a token.
    """

    def __init__(self, model: PreTrainedModel, ids: Tensor, mask: Tensor) -> None:
        self.model, self.mask = model, mask[:, :0]
        self.cache = DynamicCache(config=model.config)
        self._append(ids, mask)

    def step(self, tokens: Tensor) -> Tensor:
        """See `t2relax.lm.decoding.Decoder`; gives logits (n, vocabulary)."""
        if len(tokens) < len(self.mask):
            self.mask = self.mask[: len(tokens)]
            self.cache.batch_select_indices(torch.arange(len(tokens), device=tokens.device))
        return self._append(tokens, torch.ones_like(tokens))

    def choose(self, last: Tensor, kind: int, level: Tensor) -> tuple[Tensor, Tensor]:
        """See `t2relax.lm.decoding.Decoder`; `last` are logits (n, vocabulary)."""
        return choose_number(last[:, span_of(kind)].float(), kind, level)

    def _append(self, ids: Tensor, mask: Tensor) -> Tensor:
        self.mask = torch.cat([self.mask, mask], dim=1)
        places = (self.mask.cumsum(dim=1) - 1).clamp(min=0)
        logits: Tensor = self.model(
            input_ids=ids,
            attention_mask=self.mask,
            position_ids=places[:, -ids.shape[1] :],
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        return logits
