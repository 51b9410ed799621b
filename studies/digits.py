"""Numbers digit by digit, the usual way of language models of crystals, to compare ours with.

The same texts with a token for each sign, digit and point, the loss a plain cross-entropy, the
decoding greedy under the same grammar: all that the input determines is given, a sign is a sign and
a digit a digit. An arm of `python -m studies.comparison`; no checkpoint is made of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from transformers import T5ForConditionalGeneration

from t2relax.data.token_dataset import pad
from t2relax.lm.decoding import Chosen, StaticDecoder, encode
from t2relax.loss import T5ForRelaxation
from t2relax.text.grammar import Template
from t2relax.text.tokens import COARSE, FINE, FORCED, PAD_ID, VOCABULARY, Tokenizer

SIGNS = (" +", " -")
DIGITS = tuple("0123456789")
DIGIT_VOCABULARY = (
    *(token for token in VOCABULARY if len(token) == 1 or not set(token) <= set(" +-.0123456789")),
    *SIGNS,
)
"""The vocabulary without numbers of several characters; all of it may stand in a target."""
DIGIT_NUMBER = (
    (" +", COARSE),
    ("0", COARSE),
    ("0", COARSE),
    (".", FORCED),
    ("0", COARSE),
    ("0", FINE),
    ("0", FINE),
)


def digit_tokenizer() -> Tokenizer:
    """A number is a sign, digits and a point."""
    return Tokenizer(DIGIT_VOCABULARY, DIGIT_NUMBER)


class DigitStudent(T5ForRelaxation):
    """A T5 whose loss is a plain cross-entropy, weighted by what a token says.

    The leading digits of a number weigh as much each as their one token in `LossSettings.weights`:
    the sum of their losses is the loss of that token.
    """

    def _loss(self, logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        losses = functional.cross_entropy(logits, labels, reduction="none")
        return (losses * weights).sum() / weights.sum()


def allowed(tokenizer: Tokenizer, size: int) -> NDArray[np.bool_]:
    """Return a (size, size) mask: the tokens that may stand for each token of a template."""
    mask = np.eye(size, dtype=bool)
    for tokens in (SIGNS, DIGITS):
        ids = tokenizer.ids(*tokens)
        mask[np.ix_(ids, ids)] = True
    return mask


@torch.inference_mode()
def decode_digits(
    model: T5ForConditionalGeneration,
    sources: Sequence[Sequence[int]],
    templates: Sequence[Template],
) -> list[Chosen]:
    """Greedy decoding in which only the free positions of each template are chosen.

    Args:
        model: in evaluation mode.
        sources: token ids of each input, with `</s>`.
        templates: the grammar of each target.

    Returns:
        For each input the (1, length) ids of its target.
    """
    start, head = model.config.decoder_start_token_id, model.lm_head.weight
    targets = torch.from_numpy(pad([[start, *t.ids.tolist()] for t in templates], PAD_ID))
    targets = targets.to(model.device)
    kinds = torch.from_numpy(pad([t.kinds.tolist() for t in templates], FORCED))
    free = (kinds != FORCED).to(model.device)
    mask = torch.from_numpy(allowed(digit_tokenizer(), len(head))).to(model.device)
    decoder = StaticDecoder(model, *encode(model, sources), targets.shape[1])
    fed = 0
    for position in free.any(dim=0).nonzero()[:, 0].tolist():
        # The token at `position` stands one further in `targets`, behind the start token.
        logits = functional.linear(decoder.step(targets[:, fed : position + 1]), head)
        fed, given = position + 1, targets[:, position + 1]
        likeliest = logits.masked_fill(~mask[given], -torch.inf).argmax(dim=-1)
        targets[:, position + 1] = torch.where(free[:, position], likeliest, given)
    rows: NDArray[np.int64] = targets[:, None, 1:].cpu().numpy()
    return [Chosen(row[:, : len(t.ids)]) for row, t in zip(rows, templates, strict=True)]
