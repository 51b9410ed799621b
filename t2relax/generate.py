"""Decoding: under the grammar of the target, or free.

Under the grammar a violation is impossible: everything that the input determines is copied from
its template, and at a free position only the tokens of numbers can be chosen: of leading digits the
median, which is what an absolute error asks for, and then the most likely rest. A run of given
tokens costs one step of the decoder, whatever its length.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from t2relax.dataset import pad
from t2relax.tokens import (
    COARSE,
    FORCED,
    ORDINAL,
    PAD_ID,
    Template,
    Tokenizer,
    allowed,
)

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration


@torch.inference_mode()
def decode_constrained(
    model: T5ForConditionalGeneration,
    tokenizer: Tokenizer,
    sources: Sequence[Sequence[int]],
    templates: Sequence[Template],
) -> list[NDArray[np.int64]]:
    """Decoding in which only the free positions of each template are chosen.

    Args:
        model: in evaluation mode.
        tokenizer: of the model.
        sources: token ids of each input, with `</s>`.
        templates: the grammar of each target.

    Returns:
        For each input the ids of its target, as long as its template.
    """
    device = model.device
    inputs = torch.from_numpy(pad(sources, PAD_ID)).to(device)
    kinds_host = pad([t.kinds.tolist() for t in templates], FORCED)
    kinds = torch.from_numpy(kinds_host).to(device)
    start = model.config.decoder_start_token_id
    targets = torch.from_numpy(pad([[start, *t.ids.tolist()] for t in templates], PAD_ID)).to(
        device
    )
    choose = Choice(tokenizer, model.lm_head.out_features, device)
    attention = (inputs != PAD_ID).long()
    encoded = model.encoder(input_ids=inputs, attention_mask=attention)
    cache, fed = None, 0
    for position in np.flatnonzero((kinds_host != FORCED).any(axis=0)).tolist():
        # The token at `position` stands one further in `targets`, behind the start token.
        step = model(
            encoder_outputs=encoded,
            attention_mask=attention,
            decoder_input_ids=targets[:, fed : position + 1],
            past_key_values=cache,
            use_cache=True,
        )
        cache, fed = step.past_key_values, position + 1
        here = kinds[:, position]
        targets[:, position + 1] = torch.where(
            here == FORCED, targets[:, position + 1], choose(step.logits[:, -1].float(), here)
        )
    rows = targets[:, 1:].cpu().numpy()
    return [row[: len(t.ids)] for row, t in zip(rows, templates, strict=True)]


class Choice:
    """The token that a row of logits stands for at a position of a given kind.

    Args:
        tokenizer: tells the tokens of numbers.
        size: of the model's embedding.
        device: of the logits.
    """

    def __init__(self, tokenizer: Tokenizer, size: int, device: torch.device) -> None:
        self.mask = torch.from_numpy(allowed(tokenizer, size)).to(device)

    def __call__(self, logits: Tensor, kinds: Tensor) -> Tensor:
        """(n,) ids for logits (n, size) and kinds (n,)."""
        below = torch.softmax(logits[:, ORDINAL], dim=-1).cumsum(dim=-1)
        median = (ORDINAL.start + (below < 0.5).sum(dim=-1)).clamp(max=ORDINAL.stop - 1)
        likeliest = logits.masked_fill(~self.mask[kinds], -torch.inf).argmax(dim=-1)
        return torch.where(kinds == COARSE, median, likeliest)


@torch.inference_mode()
def decode_free(
    model: T5ForConditionalGeneration,
    sources: Sequence[Sequence[int]],
    max_new_tokens: int,
) -> list[list[int]]:
    """Plain greedy decoding; what comes out may be no structure at all."""
    inputs = torch.from_numpy(pad(sources, PAD_ID)).to(model.device)
    rows = model.generate(
        input_ids=inputs,
        attention_mask=(inputs != PAD_ID).long(),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
    )
    return [row[1:].tolist() for row in rows.cpu()]
