"""The loss of the T5: a cross-entropy over tokens that knows which tokens are near numbers.

A token of leading digits is an ordinal value. So its target is smoothed over the neighbouring
values, and the expected distance from the target is added (the number token loss in its
Wasserstein-1 form: Zausinger et al., ICML 2025, arXiv:2411.02083). The cell weighs more than the
coordinates, leading digits more than the other digits, and both more than the tokens that the input
already determines.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from transformers import T5ForConditionalGeneration
from transformers.modeling_outputs import Seq2SeqLMOutput

from t2relax.data.token_dataset import IGNORE
from t2relax.text.codec import DELTA_TAGS
from t2relax.text.grammar import ORDINAL, REST, UNCHANGED, Template, ordinal_values
from t2relax.text.tokens import COARSE, FINE, FORCED, TARGET_SIZE


@dataclass(frozen=True, slots=True, kw_only=True)
class LossSettings:
    """The weight of each kind of token in the loss, and the shape of the loss of a number."""

    cell: float = 1.0
    """Weight of the leading digits of the mean length, and of a, b, c."""
    angle: float = 0.3
    """Weight of the leading digits of an angle."""
    position: float = 0.1
    """Weight of the leading digits of a coordinate."""
    rest: float = 0.03
    """Weight of the digits behind the leading ones."""
    forced: float = 0.02
    """Weight of a token that the input determines."""
    smoothing: float = 0.1
    """Width of the smoothed target as a fraction of the change (0: the exact token)."""
    distance: float = 0.3
    """Weight of the expected distance [% or °] beside the cross-entropy (0: without)."""
    number: float = 0.0
    """Weight of log(1 + p(no number) / p(likeliest number)) where a number is due. The probability
    of a number is spread over many tokens, so that greedy free decoding otherwise takes any other
    token that is a bit likely."""

    def weights(self, grammar: Template) -> NDArray[np.float32]:
        """Return the (length,) weights of the tokens of a target."""
        by_kind = {FORCED: self.forced, COARSE: self.position, FINE: self.rest}
        weights = np.array([by_kind[kind] for kind in grammar.kinds.tolist()], dtype=np.float32)
        leading = grammar.leading
        weights[leading[:4]] = self.cell
        weights[leading[4 : len(DELTA_TAGS)]] = self.angle
        return weights


class T5ForRelaxation(T5ForConditionalGeneration):
    """A T5 with the loss of this module; its parameters are those of any T5."""

    loss_settings = LossSettings()

    def set_loss(self, settings: LossSettings) -> None:
        """Prepare the loss; it is needed before the first training step."""
        self.loss_settings = settings
        self.number_loss = NumberLoss(settings)

    def forward(
        self,
        input_ids: Tensor | None = None,
        labels: Tensor | None = None,
        loss_weights: Tensor | None = None,
        **rest: object,
    ) -> Seq2SeqLMOutput:
        """Compute what the base class computes; with `loss_weights`, the loss of this module.

        Args:
            input_ids: (n, source) ids of the inputs.
            labels: (n, target) ids, `IGNORE` where there is none.
            loss_weights: (n, target) weight of each label.
            rest: Further arguments of the base class; `attention_mask` is needed for the loss.
        """
        if loss_weights is None or labels is None:
            return super().forward(input_ids=input_ids, labels=labels, **rest)
        mask = cast("Tensor", rest["attention_mask"])
        encoded = self.encoder(input_ids=input_ids, attention_mask=mask).last_hidden_state
        logits = self.target_logits(encoded, mask, labels).float()
        counted = labels != IGNORE
        return Seq2SeqLMOutput(loss=self._loss(logits, labels[counted], loss_weights[counted]))

    def target_logits(self, encoded: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
        """Compute the logits of the labels that count.

        Args:
            encoded: (n, source, width) hidden states of the encoder.
            mask: (n, source) 1 where there is an input.
            labels: (n, target) ids, `IGNORE` where there is none.

        Returns:
            (n_counted, TARGET_SIZE) logits, row by row.
        """
        hidden = self.decoder(
            input_ids=self._shift_right(labels),
            encoder_hidden_states=encoded,
            encoder_attention_mask=mask,
            use_cache=False,
        ).last_hidden_state[labels != IGNORE]
        if self.config.scale_decoder_outputs:
            hidden = hidden * self.model_dim**-0.5
        return functional.linear(hidden, self.lm_head.weight[:TARGET_SIZE])

    def _loss(self, logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        return self.number_loss(logits, labels, weights)


class NumberLoss:
    """The loss of this module, of the tokens that spell targets.

    Args:
        settings: Its shape; the weights of the tokens come with each batch.
    """

    def __init__(self, settings: LossSettings) -> None:
        self.settings = settings
        self.values = torch.from_numpy(ordinal_values()).float()
        self.soft = _smoothed_targets(self.values, settings.smoothing)

    def __call__(self, logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        """Compute the loss of (n, TARGET_SIZE) logits, (n,) labels and their weights."""
        log_p = functional.log_softmax(logits, dim=-1)
        losses = functional.nll_loss(log_p, labels, reduction="none")
        ordinal = (labels >= ORDINAL.start) & (labels < ORDINAL.stop)
        place = labels[ordinal] - ORDINAL.start
        rows = log_p[ordinal][:, ORDINAL]
        values = self.values.to(labels.device)
        off = (values[place][:, None] - values).abs_()
        soft = self.soft.to(labels.device)[place]
        number = (self.settings.distance * off * rows.exp() - soft * rows).sum(dim=-1)
        losses = losses.masked_scatter(ordinal, number)
        total = (losses * weights).sum()
        if self.settings.number:
            fine = (labels >= REST.start) & (labels < REST.stop)
            for rows, span in ((ordinal, ORDINAL), (fine, REST)):
                total = total + self.settings.number * _no_number(log_p[rows], span).sum()
        return total / weights.sum()


def _no_number(log_p: Tensor, span: slice) -> Tensor:
    """Return (n,) log(1 + p(outside of span) / p(likeliest in span)) of (n, tokens).

    The likeliest token takes no part in the gradient, so that only the former is lowered.
    """
    likeliest = log_p[:, span].detach().amax(dim=-1)
    outside = torch.cat([log_p[:, : span.start], log_p[:, span.stop :]], dim=-1)
    return functional.softplus(outside.logsumexp(dim=-1) - likeliest)


def _smoothed_targets(values: Tensor, smoothing: float) -> Tensor:
    """Return the (n, n) target distributions of n values: Gaussians that widen with the value.

    The value nearest above zero keeps its exact target: symmetry gives it, it is no estimate.
    """
    exact = torch.eye(len(values)).to(values)
    if smoothing == 0:
        return exact
    width = (smoothing * values.abs()).clamp(0.05, 0.5)[:, None]
    soft = torch.softmax(-(((values[:, None] - values) / width) ** 2) / 2, dim=-1)
    soft[UNCHANGED] = exact[UNCHANGED]
    return soft
