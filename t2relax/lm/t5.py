"""The T5 as a language model: its shape, its checkpoint folder, and how it reads and writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import T5Config, T5ForConditionalGeneration
from transformers.utils import logging

from benchmarks.core import UserError
from benchmarks.core.files import READ_ERRORS
from t2relax.data.token_dataset import PairEncoding, collate
from t2relax.lm import checkpoint
from t2relax.lm.base import LanguageModel, Prompt, TokenRow, Written
from t2relax.lm.decoding import Chosen, decode_constrained, decode_free
from t2relax.lm.embeddings import initial_vectors
from t2relax.lm.own_tokens import ROOM, write_targets, written
from t2relax.loss import LossSettings, T5ForRelaxation
from t2relax.text.codec import Crystal
from t2relax.text.grammar import template
from t2relax.text.tokens import EOS_ID, PAD_ID, Tokenizer


class T5LanguageModel(LanguageModel):
    """A T5 with our vocabulary.

    Args:
        model: The T5; for training one with the loss of `t2relax.loss`.
        tokenizer: Its vocabulary.
        max_sites: See `LanguageModel`; a model that is to be trained has none yet.
        loss: The settings of the loss.
        decoder: A function like `decode_constrained`.
    """

    def __init__(
        self,
        model: T5ForConditionalGeneration,
        tokenizer: Tokenizer | None = None,
        max_sites: int = 0,
        loss: LossSettings | None = None,
        decoder: Callable[..., Sequence[Chosen]] = decode_constrained,
    ) -> None:
        self.model, self.tokenizer, self.max_sites = model, tokenizer or Tokenizer(), max_sites
        self.encode = PairEncoding((loss or LossSettings()).weights, self.tokenizer)
        self._decoder = decoder
        if loss is not None:
            model.set_loss(loss)

    def collate(self, rows: Sequence[TokenRow]) -> dict[str, Tensor]:
        """See `LanguageModel`."""
        return collate(rows)

    def loss(self, module: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """See `LanguageModel`; the loss is that of `t2relax.loss`."""
        loss: Tensor = module(**batch).loss
        return loss

    def prompt(self, crystal: Crystal) -> Prompt:
        """See `LanguageModel`."""
        return Prompt(crystal.numbers, self.tokenizer.source(crystal))

    def decode(self, prompts: Sequence[Prompt], seed: int | None = None) -> list[list[Written]]:
        """See `LanguageModel`; leading digits are medians."""
        return write_targets(partial(self._decoder, self.model), self.tokenizer, prompts, seed)

    def decode_free(self, prompts: Sequence[Prompt]) -> list[Written]:
        """See `LanguageModel`."""
        # Texts are cut per structure, so that the batch plays no part.
        limits = [len(template(p.numbers, self.tokenizer).ids) + ROOM for p in prompts]
        rows = decode_free(self.model, [p.ids for p in prompts], max_new_tokens=max(limits))
        return [
            written(self.tokenizer, row[:limit]) for row, limit in zip(rows, limits, strict=True)
        ]

    def save(self, folder: Path, card: Mapping[str, Any]) -> None:
        """See `LanguageModel`."""
        save(self.model, self.tokenizer, folder, card)


def new_model(
    tokenizer: Tokenizer, seed: int = 0, kind: type[T5ForRelaxation] | None = None, **changes: Any
) -> T5ForRelaxation:
    """Make a small T5 1.1 from scratch; tokens of similar meaning get similar vectors.

    Args:
        tokenizer: It gives the vocabulary.
        seed: Seed of the tokens' initial vectors; the other weights follow torch's generator.
        kind: A subclass with another loss.
        changes: Fields of `T5Config` that differ from those below, e.g. `num_layers=4`.
    """
    settings: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "d_model": 128,
        "d_kv": 32,
        "num_heads": 4,
        "d_ff": 384,
        "num_layers": 2,
        "num_decoder_layers": 3,
        "dropout_rate": 0.0,
        "feed_forward_proj": "gated-silu",
        "tie_word_embeddings": True,
        "pad_token_id": PAD_ID,
        "eos_token_id": EOS_ID,
        "decoder_start_token_id": PAD_ID,
    }
    model = (kind or T5ForRelaxation)(T5Config(**(settings | changes)))
    vectors = initial_vectors(tokenizer, model.config.d_model, seed)
    with torch.no_grad():
        model.shared.weight.copy_(torch.from_numpy(vectors))
    return model


def save(
    model: T5ForConditionalGeneration, tokenizer: Tokenizer, folder: Path, card: Mapping[str, Any]
) -> None:
    """Write weights (float16), configuration, codec, vocabulary, and the record of the training.

    Args:
        model: The trained model; it is converted to half precision in place.
        tokenizer: Its vocabulary goes into the folder with its hash.
        folder: The folder; it is made if it does not exist.
        card: The record of the training, as plain JSON values.
    """
    checkpoint.save(model.half(), folder, tokenizer.record(), card)


def load(folder: Path, device: str = "cpu") -> T5LanguageModel:
    """Read a checkpoint folder; the model is in float32 and in evaluation mode.

    Raises:
        UserError: no checkpoint of a T5 there, a damaged one, or one of another codec.
    """
    damaged: tuple[type[Exception], ...] = (SafetensorError, *READ_ERRORS)
    checkpoint.weights(folder)
    logging.disable_progress_bar()  # reading the weights takes no time
    content = checkpoint.read_record(folder)
    try:
        tokenizer = Tokenizer(tuple(content["vocabulary"]))
        checkpoint.require_codec(folder, content, tokenizer.sha256)
        model = T5ForConditionalGeneration.from_pretrained(folder, local_files_only=True).float()
        return T5LanguageModel(model.to(device).eval(), tokenizer, content["training"]["max_sites"])
    except damaged as error:
        first = (str(error).strip() or "no reason given").splitlines()[0]
        raise UserError(f"{folder} cannot be loaded ({first[:300]}): is it whole?") from error
