"""Decoding: greedy under the grammar of the target, or free.

Under the grammar a violation is impossible: everything that the input determines is copied from
its template, and at a free position only signs or digits can be chosen. A run of given tokens
costs one step of the decoder, whatever its length.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from t2relax.dataset import pad
from t2relax.tokens import FORCED, PAD_ID, Template, Tokenizer, allowed

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration


@torch.inference_mode()
def decode_constrained(
    model: T5ForConditionalGeneration,
    tokenizer: Tokenizer,
    sources: Sequence[Sequence[int]],
    templates: Sequence[Template],
) -> list[NDArray[np.int64]]:
    """Greedy decoding in which only the free positions of each template are chosen.

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
    mask = torch.from_numpy(allowed(tokenizer, model.lm_head.out_features)).to(device)
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
        choice = step.logits[:, -1].float().masked_fill(~mask[here], -torch.inf).argmax(dim=-1)
        targets[:, position + 1] = torch.where(here == FORCED, targets[:, position + 1], choice)
    rows = targets[:, 1:].cpu().numpy()
    return [row[: len(t.ids)] for row, t in zip(rows, templates, strict=True)]


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
