"""Decoder-only models: the texts of the T5 as prompt and completion.

    python -m t2relax.train --architecture causal …
    python -m t2relax.train --init Qwen/Qwen3-0.6B --lora r=16 --learning-rate 2e-4 …

From scratch a model has our vocabulary, the loss and the decoding rule of the T5, so that nothing
but the architecture differs. A published one keeps its tokenizer (`t2relax.lm.subwords`) and learns
by the cross-entropy of the completion. The prompt never counts in the loss.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from tokenizers import Tokenizer as FastTokenizer
from torch import Tensor
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    GraniteConfig,
    GraniteForCausalLM,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
)
from transformers.utils import logging

from benchmarks.core import UserError
from benchmarks.core.cli import check_installed
from benchmarks.core.files import READ_ERRORS, file_sha256
from t2relax.data.token_dataset import IGNORE, PairEncoding, pad
from t2relax.lm import checkpoint
from t2relax.lm.base import SAMPLES, LanguageModel, Prompt, TokenRow, Written, sample_levels
from t2relax.lm.decoding import Chosen, fill_templates
from t2relax.lm.embeddings import initial_vectors
from t2relax.lm.own_tokens import CachedDecoder, OwnTokens, write_targets
from t2relax.lm.subwords import VOCABULARY_FILE, Subwords
from t2relax.loss import LossSettings, NumberLoss
from t2relax.text.codec import CodecError, Crystal
from t2relax.text.grammar import Template, unchanged_target
from t2relax.text.tokens import EOS_ID, PAD_ID, TARGET_SIZE, Tokenizer


class CausalLanguageModel(LanguageModel):
    """A decoder-only model.

    Args:
        model: Its weights.
        tokens: Its vocabulary.
        max_sites: See `LanguageModel`; a model that is to be trained has none yet.
        loss: The settings of the loss of a model with our vocabulary.
        stored: The precision in which the weights are stored.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokens: OwnTokens | Subwords,
        max_sites: int = 0,
        loss: LossSettings | None = None,
        stored: torch.dtype = torch.float16,
    ) -> None:
        self.model, self.max_sites, self.stored = model, max_sites, stored
        self.tokens = self.encode = tokens
        self.muon = isinstance(tokens, OwnTokens)
        self._number_loss = NumberLoss(loss or LossSettings()) if self.muon else None
        model.generation_config = GenerationConfig(  # a published one may change the logits
            eos_token_id=tokens.end_id, pad_token_id=tokens.end_id
        )

    def collate(self, rows: Sequence[TokenRow]) -> dict[str, Tensor]:
        """See `LanguageModel`; prompts end together, and completions begin together."""
        ids, mask = self._aligned([[int(i) for i in row["input_ids"]] for row in rows])
        labels = pad([[int(i) for i in row["labels"]] for row in rows], IGNORE)
        weights = np.zeros(labels.shape, dtype=np.float32)
        weights[labels != IGNORE] = np.concatenate([row["loss_weights"] for row in rows])
        return {
            "input_ids": ids,
            "attention_mask": mask,
            "labels": torch.from_numpy(labels),
            "loss_weights": torch.from_numpy(weights),
        }

    def loss(self, module: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """See `LanguageModel`; only the completion counts."""
        labels = batch["labels"]
        counted = labels != IGNORE
        ids = torch.cat([batch["input_ids"], labels.masked_fill(~counted, self.tokens.end_id)], 1)
        mask = torch.cat([batch["attention_mask"], counted.long()], dim=1)
        given = {
            "position_ids": (mask.cumsum(dim=1) - 1).clamp(min=0),
            "logits_to_keep": labels.shape[1] + 1,  # the logits of 150,000 subwords take memory
        }
        takes = inspect.signature(_base(self.model).forward).parameters
        given = {name: value for name, value in given.items() if name in takes}
        logits = module(input_ids=ids, attention_mask=mask, use_cache=False, **given).logits
        logits = logits[:, -labels.shape[1] - 1 : -1][counted].float()
        labels, weights = labels[counted], batch["loss_weights"][counted]
        if self._number_loss is not None:
            return self._number_loss(logits[:, :TARGET_SIZE], labels, weights)
        losses = functional.cross_entropy(logits, labels, reduction="none")
        return (losses * weights).sum() / weights.sum()

    def prompt(self, crystal: Crystal) -> Prompt:
        """See `LanguageModel`; a text that is longer than the model can read is refused."""
        ids = self.tokens.prompt_ids(crystal)
        needed = len(ids) + self.tokens.most_tokens(crystal.numbers)
        most = getattr(self.model.config, "max_position_embeddings", None) or needed
        if needed > most:
            raise CodecError(f"{needed} tokens: the model reads and writes at most {most}")
        return Prompt(crystal.numbers, ids)

    def decode(self, prompts: Sequence[Prompt], seed: int | None = None) -> list[list[Written]]:
        """See `LanguageModel`."""
        if isinstance(self.tokens, OwnTokens):
            return write_targets(self._decode_own, self.tokens.tokenizer, prompts, seed)
        samples = 1 if seed is None else SAMPLES
        # No text has more tokens than characters, and one that ends it.
        lengths = [len(unchanged_target(prompt.numbers)) + 1 for prompt in prompts]
        levels = None
        if seed is not None:
            levels = [
                level
                for prompt, length in zip(prompts, lengths, strict=True)
                for level in sample_levels(seed, prompt.ids, length)
            ]
        many = [prompt for prompt in prompts for _ in range(samples)]
        grammar = self.tokens.grammar([prompt.numbers for prompt in many], levels)
        rows = self._generate(many, max(lengths), grammar)
        return [rows[first : first + samples] for first in range(0, len(rows), samples)]

    def _decode_own(
        self,
        sources: Sequence[Sequence[int]],
        templates: Sequence[Template],
        quantiles: Sequence[NDArray[np.float64]] | None = None,
    ) -> list[Chosen]:
        """`t2relax.lm.decoding.decode_constrained` of a model with our vocabulary."""
        ids, mask = self._aligned([ids[:-1] for ids in sources])  # what ends them starts targets
        device = self.model.device

        def begin(owner: NDArray[np.intp], _: int) -> CachedDecoder:
            return CachedDecoder(self.model, ids[owner].to(device), mask[owner].to(device))

        return fill_templates(begin, self.tokens.end_id, templates, quantiles, device)

    def decode_free(self, prompts: Sequence[Prompt]) -> list[Written]:
        """See `LanguageModel`."""
        # Texts are cut per structure, so that the batch plays no part.
        limits = [self.tokens.most_tokens(prompt.numbers) for prompt in prompts]
        return self._generate(prompts, max(limits), None, limits)

    @torch.inference_mode()
    def _generate(
        self,
        prompts: Sequence[Prompt],
        longest: int,
        grammar: LogitsProcessor | None,
        limits: Sequence[int] | None = None,
    ) -> list[Written]:
        ids, mask = self._aligned([prompt.ids for prompt in prompts])
        device = self.model.device
        found = self.model.generate(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            max_new_tokens=longest,
            do_sample=False,
            use_cache=True,
            logits_processor=LogitsProcessorList([grammar] if grammar else []),
        )
        texts = []
        for row, limit in zip(
            found[:, ids.shape[1] :].tolist(), limits or [longest] * len(prompts), strict=True
        ):
            kept, end = row[:limit], self.tokens.end_id
            n_tokens = kept.index(end) + 1 if end in kept else len(kept)
            body = kept[: n_tokens - 1] if end in kept else kept
            texts.append(Written(self.tokens.text(body), n_tokens))
        return texts

    def _aligned(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Pad (n, longest) ids in front, and mark what is no padding by 1."""
        turned = pad([row[::-1] for row in rows], self.tokens.end_id)
        mask = pad([[1] * len(row) for row in rows], 0)
        ids, present = (torch.from_numpy(table[:, ::-1].copy()) for table in (turned, mask))
        return ids, present

    def save(self, folder: Path, card: Mapping[str, Any]) -> None:
        """See `LanguageModel`; low-rank changes are added to the weights first."""
        if hasattr(self.model, "merge_and_unload"):
            self.model = self.model.merge_and_unload()
        checkpoint.save(self.model.to(self.stored), folder, self.tokens.record(folder), card)


def _base(model: Any) -> Any:
    """The model inside of low-rank changes, or the model."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def new_model(tokenizer: Tokenizer, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """Make a small decoder-only model from scratch, with as many parameters as the T5 of ours.

    It is a Granite: a Llama whose logits can be divided by a number. So the tokens' vectors, which
    are input and output, have the variance 1 of the T5's, and those of similar meaning are similar.

    Args:
        tokenizer: It gives the vocabulary.
        seed: Seed of the tokens' initial vectors; the other weights follow torch's generator.
        changes: Fields of `GraniteConfig` that differ from those below.
    """
    settings: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "max_position_embeddings": 16_384,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "pad_token_id": PAD_ID,
        "eos_token_id": EOS_ID,
    } | changes
    width = settings["hidden_size"]
    settings = {
        "logits_scaling": width**0.5,
        "attention_multiplier": (width // settings["num_attention_heads"]) ** -0.5,
        "initializer_range": width**-0.5,
    } | settings
    model = GraniteForCausalLM(GraniteConfig(**settings))
    with torch.no_grad():
        vectors = initial_vectors(tokenizer, width, seed)
        model.get_input_embeddings().weight.copy_(torch.from_numpy(vectors))
    return model


def own_model(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    max_sites: int = 0,
    loss: LossSettings | None = None,
) -> CausalLanguageModel:
    """Give a decoder-only model our vocabulary; the arguments are those of the class."""
    encode = PairEncoding((loss or LossSettings()).weights, tokenizer)
    return CausalLanguageModel(model, OwnTokens(tokenizer, encode), max_sites, loss)


def read(name: str | Path, local: bool) -> PreTrainedModel:
    """Read the weights of a decoder-only model: safetensors only, and no code of its own.

    Args:
        name: A folder in the hub's layout, or a name on the hub.
        local: Whether nothing is asked of the hub.

    Raises:
        UserError: The folder holds low-rank changes to the weights of another one.
    """
    if (Path(name) / "adapter_config.json").is_file():
        raise UserError(f"{name} holds an adapter: merge it into its model first")
    found: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        name,
        dtype=torch.float32,
        local_files_only=local,
        trust_remote_code=False,
        use_safetensors=True,
    )
    return found


def stored_precision(name: str | Path, local: bool) -> torch.dtype:
    """Give the precision in which the weights of a model are stored: bfloat16 if they are already.

    Larger numbers than float16 has are found in models that were trained in bfloat16.
    """
    config = AutoConfig.from_pretrained(name, local_files_only=local, trust_remote_code=False)
    return torch.bfloat16 if config.dtype == torch.bfloat16 else torch.float16


def load(folder: Path, device: str = "cpu") -> CausalLanguageModel:
    """Read a checkpoint folder; the model is in float32 and in evaluation mode.

    Raises:
        UserError: no checkpoint there, a damaged one, or one of another codec.
    """
    damaged: tuple[type[Exception], ...] = (SafetensorError, *READ_ERRORS)
    checkpoint.weights(folder)
    logging.disable_progress_bar()  # reading the weights takes no time
    content = checkpoint.read_record(folder)
    max_sites = content["training"]["max_sites"]
    try:
        if content["vocabulary"] != VOCABULARY_FILE:
            tokenizer = Tokenizer(tuple(content["vocabulary"]))
            checkpoint.require_codec(folder, content, tokenizer.sha256)
            return own_model(read(folder, local=True).to(device).eval(), tokenizer, max_sites)
        file = folder / VOCABULARY_FILE
        checkpoint.require_codec(folder, content, file_sha256(file))
        model = read(folder, local=True).to(device).eval()
        check_installed(str(folder), ("llguidance",), "causal")
        tokens = Subwords(
            FastTokenizer.from_file(str(file)),
            content["end_id"],
            tuple(content["begin_ids"]),
        )
        stored = stored_precision(folder, local=True)
        return CausalLanguageModel(model, tokens, max_sites, stored=stored)
    except damaged as error:
        first = (str(error).strip() or "no reason given").splitlines()[0]
        raise UserError(f"{folder} cannot be loaded ({first[:300]}): is it whole?") from error
