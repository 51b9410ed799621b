"""How a model of our vocabulary decodes: under the grammar of the target, or freely.

Under the grammar a violation is impossible. Everything that the input determines is copied from its
template, and at a free position only tokens of numbers can be chosen. The leading digits are a
quantile of their distribution (the median minimises the absolute error), and the other digits are
the most likely ones. A run of given tokens costs one step of the decoder, whatever its length, and
a step computes the logits of the numbers only. `model.generate` with the same constraint gives the
same ids.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from t2relax.data.token_dataset import pad
from t2relax.text.grammar import ORDINAL, REST, Template, ordinal_values
from t2relax.text.tokens import COARSE, EOS_ID, FINE, FORCED, PAD_ID, TARGET_SIZE

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration

ENCODED_TOKENS = 1024
"""Number of tokens, padding included, that go through the encoder together on a CPU."""


class Chosen(NamedTuple):
    """The targets of one input."""

    ids: NDArray[np.int64]
    """(n_samples, length) token ids."""
    spread: NDArray[np.float32] | None = None
    """(n_samples, length) how far a number drawn from the distribution at leading digits is on
    average from the one that was chosen, in the unit of the text; 0 at other positions. None where
    tokens are no values."""


class Decoder(Protocol):
    """A model that continues n texts, a few tokens at a time."""

    def step(self, tokens: Tensor) -> Tensor:
        """Append tokens (n, k); give (n, …) what `choose` needs to follow the last one.

        Fewer rows than before are the first of them; the others have come to their end.
        """

    def choose(self, last: Tensor, kind: int, level: Tensor) -> tuple[Tensor, Tensor]:
        """Choose (n,) ids of a kind of number, and their spread; see `choose_number`."""


@torch.inference_mode()
def decode_constrained(
    model: T5ForConditionalGeneration,
    sources: Sequence[Sequence[int]],
    templates: Sequence[Template],
    quantiles: Sequence[NDArray[np.float64]] | None = None,
) -> list[Chosen]:
    """Decoding in which only the free positions of each template are chosen.

    Args:
        model: in evaluation mode.
        sources: token ids of each input, with `</s>`.
        templates: the grammar of each target.
        quantiles: see `fill_templates`.

    Returns:
        For each input the ids of its targets, and the spreads of their numbers.
    """
    encoded, attention = encode(model, sources)

    def begin(owner: NDArray[np.intp], length: int) -> Decoder:
        return StaticDecoder(model, encoded[owner], attention[owner], length)

    start = model.config.decoder_start_token_id
    return fill_templates(begin, start, templates, quantiles, model.device)


@torch.inference_mode()
def fill_templates(
    begin: Callable[[NDArray[np.intp], int], Decoder],
    start: int,
    templates: Sequence[Template],
    quantiles: Sequence[NDArray[np.float64]] | None,
    device: torch.device,
) -> list[Chosen]:
    """Choose the tokens at the free positions of each template.

    Args:
        begin: Gives the decoder of the inputs whose places (n,) are given, for targets of at most
            so many tokens, with the start token.
        start: The token in front of a target.
        templates: The grammar of the target of each input.
        quantiles: (n_samples, length) for each input: the leading digits of each position are
            this quantile of their distribution; uniform random numbers give samples of the model.
            None for one sample of medians.
        device: The device of the decoder.

    Returns:
        For each input the ids of its targets, and the spreads of their numbers.
    """
    if quantiles is None:
        quantiles = [np.full((1, len(t.ids)), 0.5) for t in templates]
    samples = len(quantiles[0])
    owner = np.repeat(np.arange(len(templates)), samples)
    longest = max(len(t.ids) for t in templates)
    levels = np.concatenate([np.pad(q, ((0, 0), (0, longest - q.shape[1]))) for q in quantiles])
    kinds = pad([t.kinds.tolist() for t in templates], FORCED)[owner]
    ids = pad([[start, *t.ids.tolist()] for t in templates], PAD_ID)[owner]
    # Those with most to say first: who is done is left out, as the end of every table.
    order = np.argsort([-int(np.flatnonzero(row != FORCED)[-1]) for row in kinds], kind="stable")
    decoder = begin(owner[order], ids.shape[1])
    targets = torch.from_numpy(ids[order]).to(device)
    rows = _fill(decoder, targets, kinds[order], torch.from_numpy(levels[order]).to(device))
    back = np.argsort(order)
    cuts = zip(*(np.split(table[back], len(templates)) for table in rows), strict=True)
    return [
        Chosen(*(table[:, : len(t.ids)] for table in cut))
        for cut, t in zip(cuts, templates, strict=True)
    ]


def _fill(
    decoder: Decoder, targets: Tensor, kinds: NDArray[np.int64], levels: Tensor
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Choose the ids at the free positions of n targets; give them and their spread.

    `targets` (n, 1 + length) holds the start token and the given ids; `levels` (n, length) holds
    the quantile to choose. Both tables that are given are (n, length).
    """
    spreads = torch.zeros(kinds.shape, device=targets.device)
    fed = 0
    for position in np.flatnonzero((kinds != FORCED).any(axis=0)).tolist():
        count = int((kinds[:, position:] != FORCED).any(axis=1).sum())
        # The token at `position` stands one further in `targets`, behind the start token.
        last = decoder.step(targets[:count, fed : position + 1])
        fed = position + 1
        for kind in (COARSE, FINE):
            chosen = np.flatnonzero(kinds[:, position] == kind)
            if len(chosen):
                rows = torch.from_numpy(chosen).to(targets.device)
                choice, spread = decoder.choose(last[rows], kind, levels[rows, position])
                targets[rows, position + 1] = choice
                spreads[rows, position] = spread
    return targets[:, 1:].cpu().numpy(), spreads.cpu().numpy()


def encode(
    model: T5ForConditionalGeneration, sources: Sequence[Sequence[int]]
) -> tuple[Tensor, Tensor]:
    """Encode the inputs: (n, source, width) hidden states, and (n, source) true at input tokens.

    On a CPU few inputs go together, so that what a layer holds stays in the processor's cache
    (64 at once take twice as long); what lies behind the end of an input is 0.
    """
    longest = max(map(len, sources))
    shape = (len(sources), longest)
    encoded = torch.zeros(*shape, model.config.d_model, dtype=model.dtype, device=model.device)
    present = torch.zeros(shape, dtype=torch.bool, device=model.device)
    count = max(1, ENCODED_TOKENS // longest) if model.device.type == "cpu" else len(sources)
    for first in range(0, len(sources), count):
        ids = torch.from_numpy(pad(sources[first : first + count], PAD_ID)).to(model.device)
        rows, mask = slice(first, first + count), ids != PAD_ID
        hidden = _encoder(model.encoder, ids, mask)
        encoded[rows, : ids.shape[1]] = hidden
        present[rows, : ids.shape[1]] = mask
    return encoded, present


def _encoder(stack: Any, ids: Tensor, mask: Tensor) -> Tensor:
    """The final hidden states, as `stack` gives them, in fewer and larger operations."""
    n, length = ids.shape
    hidden = stack.embed_tokens(ids)
    bias = stack.block[0].layer[0].SelfAttention.compute_bias(length, length)
    bias = bias.masked_fill(~mask[:, None, None], -torch.inf)
    for block in stack.block:
        own, feed = block.layer
        attention = own.SelfAttention
        parts = functional.linear(
            _norm(own, hidden), _joined(attention.q, attention.k, attention.v)
        )
        query, key, value = parts.view(n, length, 3, attention.n_heads, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=bias.to(query), scale=1.0
        )
        hidden = hidden + attention.o(mixed.transpose(1, 2).flatten(start_dim=2))
        hidden = hidden + _feed(feed, hidden, _gates(feed))
    final: Tensor = stack.final_layer_norm(hidden)
    return final


def _joined(*layers: Any) -> Tensor:
    """Join the weights of linear layers into those of one layer, (sum of outputs, inputs)."""
    return torch.cat([layer.weight for layer in layers])


def _gates(feed: Any) -> Tensor | None:
    """Join the weights of gate and value of a feed-forward layer; None where it has no gate."""
    dense = feed.DenseReluDense
    return _joined(dense.wi_0, dense.wi_1) if hasattr(dense, "wi_0") else None


def _feed(feed: Any, hidden: Tensor, gates: Tensor | None) -> Tensor:
    """Apply a feed-forward layer behind its norm, with its `_gates`."""
    dense, normed = feed.DenseReluDense, _norm(feed, hidden)
    if gates is None:
        plain: Tensor = dense(normed)
        return plain
    gate, value = functional.linear(normed, gates).chunk(2, dim=-1)
    gated: Tensor = dense.wo(dense.act(gate) * value)
    return gated


class StaticDecoder:
    """The decoder of a T5 with its caches laid out once, and no more work than the next token asks.

    Args:
        model: Any T5 with gated or plain feed-forward layers.
        encoded: (n, source, width) hidden states of the encoder.
        attention: (n, source) True where there is an input.
        length: Length of the longest target, with the start token.
    """

    def __init__(
        self, model: T5ForConditionalGeneration, encoded: Tensor, attention: Tensor, length: int
    ) -> None:
        self.model, self.stack, self.length = model, model.decoder, 0
        config = model.config
        self.heads, self.width = config.num_heads, config.d_kv
        mask = torch.zeros(attention.shape, dtype=encoded.dtype, device=encoded.device)
        mask = mask.masked_fill(~attention, -torch.inf)
        self.hidden_mask = mask[:, None, None]
        self.bias = self._bias(length, encoded)
        rows = len(encoded) * self.heads
        self.cache = [
            (
                encoded.new_zeros(rows, self.width, length),
                encoded.new_zeros(rows, length, self.width),
            )
            for _ in self.stack.block
        ]  # keys, transposed, and values
        self.cross, self.joined = [], []
        for block in self.stack.block:
            own = block.layer[0].SelfAttention
            self.joined.append((_joined(own.q, own.k, own.v), _gates(block.layer[2])))
            attend = block.layer[1].EncDecAttention
            key, value = self._split(attend.k(encoded)), self._split(attend.v(encoded))
            self.cross.append((key.transpose(1, 2).contiguous(), value))
        self.scale = config.d_model**-0.5 if config.scale_decoder_outputs else 1.0

    def _bias(self, length: int, like: Tensor) -> Tensor:
        """Return the (heads, length, length) relative position bias, -inf for later positions."""
        bias = self.stack.block[0].layer[0].SelfAttention.compute_bias(length, length)
        later = torch.full((length, length), -torch.inf, device=like.device).triu(1)
        masked: Tensor = (bias[0] + later).to(like)
        return masked

    def _split(self, x: Tensor) -> Tensor:
        """Reshape (n, k, heads width) to (n heads, k, width): one product a head, no copy later."""
        parts = x.view(*x.shape[:2], self.heads, self.width).transpose(1, 2)
        return parts.reshape(-1, x.shape[1], self.width)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        """(n, k, heads width) for query, transposed key and value; `bias` is added to scores.

        `bias` becomes (n, heads, k, keys) by broadcasting, which takes half of baddbmm's time.
        """
        scores = torch.bmm(query, key)
        scores.view(-1, self.heads, *scores.shape[1:]).add_(bias)
        mixed = torch.bmm(torch.softmax(scores, dim=-1), value)
        parts = mixed.view(-1, self.heads, *mixed.shape[1:]).transpose(1, 2)
        return parts.reshape(len(parts), mixed.shape[1], -1)

    def step(self, tokens: Tensor) -> Tensor:
        """See `Decoder`; gives final hidden states (n, width), as logits need them."""
        first, last = self.length, self.length + tokens.shape[1]
        rows = slice(len(tokens) * self.heads)
        hidden = self.stack.embed_tokens(tokens)
        layers = zip(self.stack.block, self.cache, self.cross, self.joined, strict=True)
        for block, (keys, values), cross, (weights, gates) in layers:
            own, other, feed = block.layer
            parts = functional.linear(_norm(own, hidden), weights)
            parts = parts.view(*tokens.shape, 3, self.heads, self.width).permute(2, 0, 3, 1, 4)
            parts = parts.reshape(3, -1, tokens.shape[1], self.width)
            query, bias = parts[0], self.bias[:, first:last, :last]
            keys[rows, :, first:last], values[rows, first:last] = parts[1].transpose(1, 2), parts[2]
            if block is self.stack.block[-1]:  # of which only the last token is asked for
                hidden, query, bias = hidden[:, -1:], query[:, -1:], bias[:, -1:]
            mixed = self._attend(query, keys[rows, :, :last], values[rows, :last], bias)
            hidden = hidden + own.SelfAttention.o(mixed)
            attention = other.EncDecAttention
            query = self._split(attention.q(_norm(other, hidden)))
            key, value = (table[rows] for table in cross)
            mixed = self._attend(query, key, value, self.hidden_mask[: len(tokens)])
            hidden = hidden + attention.o(mixed)
            hidden = hidden + _feed(feed, hidden, gates)
        self.length = last
        final: Tensor = self.stack.final_layer_norm(hidden[:, -1]) * self.scale
        return final

    def choose(self, last: Tensor, kind: int, level: Tensor) -> tuple[Tensor, Tensor]:
        """See `Decoder`; `last` (n, width) are final hidden states."""
        weights = self.model.lm_head.weight[span_of(kind)]
        return choose_number(functional.linear(last, weights).float(), kind, level)


def span_of(kind: int) -> slice:
    """Give the ids that can stand at a free position: leading digits, or the others."""
    return ORDINAL if kind == COARSE else REST


def choose_number(logits: Tensor, kind: int, level: Tensor) -> tuple[Tensor, Tensor]:
    """Choose (n,) ids by their logits (n, `span_of`), and levels (n,) of leading digits.

    The other tensor (n,) is their spread (`Chosen`), 0 for digits that do not lead.
    """
    first = span_of(kind).start
    if kind == COARSE:
        chosen, spread = quantile(logits, level)
        return first + chosen, spread
    return first + logits.argmax(dim=-1), torch.zeros(len(logits), device=logits.device)


def _norm(layer: Any, hidden: Tensor) -> Tensor:
    """A T5 layer's norm; torch's own takes four times as long for many tokens on a CPU."""
    norm = layer.layer_norm
    square = torch.linalg.vector_norm(hidden, dim=-1, keepdim=True).square() / hidden.shape[-1]
    normed: Tensor = hidden * (square + norm.variance_epsilon).rsqrt() * norm.weight
    return normed


def quantile(logits: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
    """Choose the (n,) leading digits that are a quantile of their distribution.

    It is the first value whose cumulative probability reaches the level. The other tensor (n,) is
    the spread of what was chosen (`Chosen`).

    Args:
        logits: (n, values) of ordinal tokens.
        level: (n,) in [0, 1); 0.5 for the median.
    """
    shares = torch.softmax(logits, dim=-1)
    reached = shares.cumsum(dim=-1)
    chosen = torch.searchsorted(reached, level.to(shares)[:, None].contiguous())[:, 0]
    chosen = chosen.clamp(max=logits.shape[1] - 1)
    values = torch.from_numpy(ordinal_values()).to(shares)
    return chosen, (shares * (values - values[chosen, None]).abs()).sum(dim=-1)


@torch.inference_mode()
def decode_free(
    model: T5ForConditionalGeneration,
    sources: Sequence[Sequence[int]],
    max_new_tokens: int,
    samples: int = 1,
    generator: torch.Generator | None = None,
) -> list[list[int]]:
    """Texts without a grammar; what comes out may be no structure at all.

    Tokens that only inputs have are left out: the loss never counts them.

    Args:
        model: in evaluation mode.
        sources: token ids of each input, with `</s>`.
        max_new_tokens: a text that is longer is cut.
        samples: texts of each input, which follow each other in the answer.
        generator: on the model's device, of samples at temperature 1; greedy without one.

    Returns:
        len(sources) samples ids of texts, up to and with `</s>`.
    """
    encoded, present = encode(model, sources)
    many = (encoded.repeat_interleave(samples, 0), present.repeat_interleave(samples, 0))
    decoder = StaticDecoder(model, *many, max_new_tokens)
    start = model.config.decoder_start_token_id
    texts = torch.full((len(many[0]), 1), start, device=model.device)
    open_ = torch.ones(len(texts), dtype=torch.bool, device=model.device)
    while texts.shape[1] <= max_new_tokens and open_.any():
        logits = functional.linear(decoder.step(texts[:, -1:]), model.lm_head.weight[:TARGET_SIZE])
        if generator is None:
            drawn = logits.argmax(dim=-1, keepdim=True)
        else:
            drawn = torch.multinomial(logits.softmax(dim=-1), 1, generator=generator)
        texts = torch.cat([texts, drawn], dim=1)
        open_ &= drawn[:, 0] != EOS_ID
    rows = [row[1:] for row in texts.tolist()]
    return [row[: row.index(EOS_ID) + 1] if EOS_ID in row else row for row in rows]
