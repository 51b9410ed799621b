"""Models that exist: the checkpoint folders of this project, and published models as starts.

    python -m t2relax.train --init google/flan-t5-base --data TRAIN.parquet --val VAL.parquet …
    python -m t2relax.train --init Qwen/Qwen3-0.6B --lora r=16 --learning-rate 2e-4 …

The configuration of a model says whether it is a T5 or decoder-only. The latter keeps its
tokenizer. A published T5 gets our vocabulary in place of its own. Its text never goes through
SentencePiece, which drops line ends and repeated spaces: the tokenizer only serves to find the
first vectors of our tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from benchmarks.core import UserError
from benchmarks.core.cli import check_installed, require_numbers
from benchmarks.core.files import READ_ERRORS
from t2relax.lm import causal, checkpoint, t5
from t2relax.lm.base import LanguageModel
from t2relax.lm.embeddings import initial_vectors
from t2relax.lm.own_tokens import OwnTokens
from t2relax.lm.subwords import published_subwords
from t2relax.loss import LossSettings, T5ForRelaxation
from t2relax.text.tokens import EOS_ID, PAD_ID, Tokenizer


def load(folder: Path, device: str = "cpu") -> LanguageModel:
    """Read a checkpoint folder of this project; its configuration decides the architecture.

    Raises:
        UserError: no checkpoint there, a damaged one, or one of another codec.
    """
    checkpoint.weights(folder)
    if checkpoint.is_encoder_decoder(folder):
        return t5.load(folder, device)
    return causal.load(folder, device)


def from_pretrained(name: str, tokenizer: Tokenizer) -> T5ForRelaxation:
    """The weights of a checkpoint; a token of ours starts as the mean of its pieces there.

    A token of which SentencePiece leaves nothing, or nothing known, starts as a draw from the
    distribution of the pretrained vectors. Vectors of the checkpoint's own tokens are left out.

    Args:
        name: A folder in the hub's layout, a name on the hub (`t5-small`), or a folder that
            `python -m t2relax.train` wrote, which keeps its vectors.
        tokenizer: The tokenizer of the model that comes out.

    Raises:
        UserError: nothing to be found under the name, or it is damaged or brings code.
    """
    if (Path(name) / checkpoint.CODEC_FILE).is_file():
        own = t5.load(Path(name)).tokenizer.vocabulary  # refuses another codec
        if own != tokenizer.vocabulary[: len(own)]:
            raise UserError(f"--init {name}: its text has columns that --plain-text leaves out")
        return _grown(_read(name, local=True), tokenizer)
    with _one_line(name):
        local = Path(name).is_dir()  # then nothing is to be asked of the hub
        model = _read(name, local)
        pieces = AutoTokenizer.from_pretrained(
            name, local_files_only=local, trust_remote_code=False
        )
    ids = [pieces(token, add_special_tokens=False)["input_ids"] for token in tokenizer.vocabulary]
    known = [[i for i in row if i != pieces.unk_token_id] for row in ids]
    vectors = _means(model.shared.weight.detach(), known)
    output = _means(model.lm_head.weight.detach(), known)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        model.lm_head.weight.copy_(output)
        model.shared.weight.copy_(vectors)  # last, because both may be one matrix
    model.config.pad_token_id = model.config.decoder_start_token_id = PAD_ID
    model.config.eos_token_id = EOS_ID
    return model


def _grown(model: T5ForRelaxation, tokenizer: Tokenizer) -> T5ForRelaxation:
    """Give the tokens behind those of the model the vectors of a new model."""
    known, size = model.shared.weight.shape[0], len(tokenizer)
    if known < size:
        vectors = torch.from_numpy(initial_vectors(tokenizer, model.config.d_model, seed=0))
        model.resize_token_embeddings(size, mean_resizing=False)
        with torch.no_grad():
            model.shared.weight[known:] = vectors[known:]
    return model


@contextmanager
def _one_line(name: str) -> Iterator[None]:
    """Turn what libraries raise about a start into one line for the user."""
    damaged: tuple[type[Exception], ...] = (SafetensorError, *READ_ERRORS)
    try:
        yield
    except UserError:
        raise
    except damaged as error:
        reason = (str(error).strip() or "it cannot be loaded.").splitlines()[0]
        if "Weights only load failed" in reason:
            reason = "it holds more than tensors, and loading that could run any code."
        raise UserError(
            f"--init {name}: {reason} Give a folder with config.json, model.safetensors and "
            "tokenizer.json, or a name on the hub"
        ) from error


def is_causal(name: str) -> bool:
    """Return whether the configuration of a start is that of a decoder-only model.

    Raises:
        UserError: nothing to be found under the name, or it is neither that nor a T5.
    """
    with _one_line(name):
        config = AutoConfig.from_pretrained(
            name, local_files_only=Path(name).is_dir(), trust_remote_code=False
        )
    if config.model_type == "t5":
        return False
    if config.is_encoder_decoder or config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise UserError(
            f"--init {name} is a {config.model_type}: give a T5 or a decoder-only model"
        )
    return True


def causal_start(names: Sequence[str], loss: LossSettings) -> causal.CausalLanguageModel:
    """Read a decoder-only model as the start of a training.

    Args:
        names: Folders in the hub's layout, names on the hub, or folders that
            `python -m t2relax.train` wrote; of several the mean of the weights is taken.
        loss: The settings of the loss of a model with our vocabulary.

    Raises:
        UserError: nothing to be found under a name, it is damaged or brings code, or its tokenizer
            does not give our texts back.
    """
    first, *others = [_read_causal(name, loss) for name in names]
    average([first.model, *(other.model for other in others)])
    return first


def _read_causal(name: str, loss: LossSettings) -> causal.CausalLanguageModel:
    local = Path(name).is_dir()
    if (Path(name) / checkpoint.CODEC_FILE).is_file():
        found = causal.load(Path(name))
        if isinstance(found.tokens, OwnTokens):
            return causal.own_model(found.model, found.tokens.tokenizer, loss=loss)
        return found
    with _one_line(name):
        tokens = published_subwords(
            AutoTokenizer.from_pretrained(name, local_files_only=local, trust_remote_code=False)
        )
        model, stored = causal.read(name, local), causal.stored_precision(name, local)
    return causal.CausalLanguageModel(model, tokens, stored=stored)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraSettings:
    """Low-rank changes of all linear layers (Hu et al., ICLR 2022), which alone are trained.

    Raises:
        UserError: A number makes no sense.
    """

    r: int = 16
    """The rank."""
    alpha: float = 32.0
    """The change is scaled by alpha / r."""
    dropout: float = 0.0

    def __post_init__(self) -> None:
        require_numbers(self, positive=("r", "alpha"), not_negative=("dropout",))


def add_lora(
    language_model: causal.CausalLanguageModel, settings: LoraSettings
) -> causal.CausalLanguageModel:
    """Freeze the weights and add low-rank changes, which `save` adds to the weights.

    Raises:
        UserError: The package peft is not installed.
    """
    check_installed("--lora", ("peft",), "causal")
    from peft import LoraConfig, get_peft_model

    language_model.model = get_peft_model(
        language_model.model,
        LoraConfig(
            r=settings.r,
            lora_alpha=settings.alpha,
            lora_dropout=settings.dropout,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        ),
    )
    language_model.muon = False
    return language_model


def average(models: Sequence[Any]) -> Any:
    """The first model with the mean of all their weights (model soup: Wortsman et al., ICML 2022).

    Raises:
        UserError: they are not of one shape.
    """
    first, *others = models
    states = [model.state_dict() for model in models]
    shapes = [{name: w.shape for name, w in state.items()} for state in states]
    if any(shape != shapes[0] for shape in shapes):
        raise UserError("--init: the weights of models of different shapes have no mean")
    if others:
        first.load_state_dict({k: sum(s[k] for s in states) / len(states) for k in states[0]})
    return first


def _read(name: str, local: bool) -> T5ForRelaxation:
    found = T5ForRelaxation.from_pretrained(name, dtype=torch.float32, local_files_only=local)
    return cast("T5ForRelaxation", found)


def _means(table: Tensor, ids: Sequence[Sequence[int]]) -> Tensor:
    """Return (len(ids), width) means of the named rows; without any, a draw like the rows."""
    noise = torch.randn(len(ids), table.shape[1], dtype=table.dtype)
    drawn = table.mean(dim=0) + table.std(dim=0) * noise
    for row, pieces in zip(drawn, ids, strict=True):
        if pieces:
            row.copy_(table[list(pieces)].mean(dim=0))
    return drawn
