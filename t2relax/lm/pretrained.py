"""Models that exist: the checkpoint folders of this project, and published models as starts.

    python -m t2relax.train --init google/flan-t5-base --data TRAIN.parquet --val VAL.parquet …

A published T5 gets our vocabulary in place of its own. Text never goes through SentencePiece, which
drops line ends and repeated spaces: the tokenizer only serves to find the first vectors of our
tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoTokenizer

from benchmarks.core import UserError
from benchmarks.core.files import READ_ERRORS
from t2relax.lm import checkpoint, t5
from t2relax.lm.base import LanguageModel
from t2relax.loss import T5ForRelaxation
from t2relax.text.tokens import EOS_ID, PAD_ID, Tokenizer


def load(folder: Path, device: str = "cpu") -> LanguageModel:
    """Read a checkpoint folder of this project; its configuration decides the architecture.

    Raises:
        UserError: no checkpoint there, a damaged one, or one of another codec.
    """
    checkpoint.weights(folder)
    if not checkpoint.is_encoder_decoder(folder):
        raise UserError(f"{folder} is of an architecture that this version does not know")
    return t5.load(folder, device)


def from_pretrained(name: str, tokenizer: Tokenizer) -> T5ForRelaxation:
    """The weights of a checkpoint; a token of ours starts as the mean of its pieces there.

    A token of which SentencePiece leaves nothing, or nothing known, starts as a draw from the
    distribution of the pretrained vectors. Vectors of the checkpoint's own tokens are left out.

    Args:
        name: A folder in the hub's layout, a name on the hub (`t5-small`), or a folder that
            `python -m t2relax.train` wrote, which is taken as it is.
        tokenizer: The tokenizer of the model that comes out.

    Raises:
        UserError: nothing to be found under the name, or it is damaged or brings code.
    """
    if (Path(name) / checkpoint.CODEC_FILE).is_file():
        t5.load(Path(name))  # refuses another codec
        return _read(name, local=True)
    damaged: tuple[type[Exception], ...] = (SafetensorError, *READ_ERRORS)
    local = Path(name).is_dir()  # then nothing is to be asked of the hub
    try:
        model = _read(name, local)
        pieces = AutoTokenizer.from_pretrained(
            name, local_files_only=local, trust_remote_code=False
        )
    except damaged as error:
        reason = (str(error).strip() or "it cannot be loaded.").splitlines()[0]
        if "Weights only load failed" in reason:
            reason = "it holds more than tensors, and loading that could run any code."
        raise UserError(
            f"--init {name}: {reason} Give a folder with config.json, model.safetensors and "
            "tokenizer.json, or a name on the hub"
        ) from error
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


def average(models: Sequence[T5ForRelaxation]) -> T5ForRelaxation:
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
