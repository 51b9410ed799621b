"""The T5: its shape, its checkpoint folder, and all that decides its answers beside the weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from benchmarks.core import UserError
from benchmarks.core.files import READ_ERRORS, file_sha256
from t2relax.text.codec import CODEC_VERSION
from t2relax.text.tokens import EOS_ID, PAD_ID, Tokenizer

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration

    from t2relax.loss import T5ForRelaxation

CHECKPOINT = Path(__file__).parents[1] / "checkpoint"
"""The checkpoint that comes with the package; its README.md is the model card."""
WEIGHTS = "model.safetensors"
CONFIG = "config.json"
CODEC_FILE = "t2relax.json"

Mode = Literal["constrained", "free", "symmetric", "best8"]
"""A way of decoding; see `t2relax.relaxer.T5Relaxer`."""
DEADBAND_QUANTILE: Final = 0.2
"""A coordinate stays where it is if the model is less than 70 % sure of its direction.

Its change is the smallest one between the quantiles 0.5 - this and 0.5 + this. On validation the
median (0) makes positions worse than unchanged ones, and 0.1 to 0.4 are not told apart.
"""
SAMPLES: Final = 8
"""Number of texts that `best8` draws for each structure."""


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
    import torch
    from transformers import T5Config

    from t2relax.lm.embeddings import initial_vectors
    from t2relax.loss import T5ForRelaxation

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
    model.half().save_pretrained(folder)
    content = {
        "codec_version": CODEC_VERSION,
        "vocabulary_sha256": tokenizer.sha256,
        "vocabulary": tokenizer.vocabulary,
        "training": dict(card),
    }
    (folder / CODEC_FILE).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


class Loaded(NamedTuple):
    """The content of a checkpoint folder."""

    model: T5ForConditionalGeneration
    """float32, in evaluation mode."""
    tokenizer: Tokenizer
    max_sites: int
    """Largest number of sites of the structures that it was trained on."""


def load(folder: Path, device: str = "cpu") -> Loaded:
    """Read a checkpoint folder.

    Raises:
        UserError: no checkpoint there, a damaged one, or one of another codec.
    """
    from safetensors import SafetensorError
    from transformers import T5ForConditionalGeneration
    from transformers.utils import logging

    damaged: tuple[type[Exception], ...] = (SafetensorError, *READ_ERRORS)
    weights(folder)
    logging.disable_progress_bar()  # reading the weights takes no time
    content = _content(folder)
    try:
        tokenizer = Tokenizer(tuple(content["vocabulary"]))
        known = (content["codec_version"], content["vocabulary_sha256"])
        if known != (CODEC_VERSION, tokenizer.sha256):
            raise UserError(
                f"{folder} was trained with codec {content['codec_version']}, this is codec "
                f"{CODEC_VERSION}: use the release that trained it, or train again"
            )
        model = T5ForConditionalGeneration.from_pretrained(folder, local_files_only=True).float()
        return Loaded(model.to(device).eval(), tokenizer, content["training"]["max_sites"])
    except damaged as error:
        first = (str(error).strip() or "no reason given").splitlines()[0]
        raise UserError(f"{folder} cannot be loaded ({first[:300]}): is it whole?") from error


def weights(path: str | Path = CHECKPOINT) -> Path:
    """The weights file of a checkpoint folder.

    Raises:
        UserError: the folder is no checkpoint of ours.
    """
    folder = Path(path)
    for name in (WEIGHTS, CONFIG, CODEC_FILE):
        if not (folder / name).is_file():
            raise UserError(
                f"{folder} is no t2relax checkpoint ({name} is missing): give a folder that "
                "`python -m t2relax.train --out` wrote"
            )
    return folder / WEIGHTS


def decoding_identity(
    path: str | Path = CHECKPOINT, mode: Mode = "constrained", **_: object
) -> dict[str, Any]:
    """Return all that decides the answers of a checkpoint beside its weights.

    It is a part of the identity of a run: two different answers never have one identity.

    Args:
        path: The checkpoint folder.
        mode: The way of decoding.

    Returns:
        The decoding rule with its parameters, and what the folder says of vocabulary and shape.

    Raises:
        UserError: The folder is no checkpoint of ours, or a damaged one.
    """
    folder = weights(path).parent
    content = _content(folder)
    rule: dict[str, Any] = {"mode": mode}
    if mode in ("constrained", "symmetric"):
        rule["deadband_quantile"] = DEADBAND_QUANTILE
    elif mode == "best8":
        rule["samples"] = SAMPLES
    return {
        **rule,
        "codec_version": content["codec_version"],
        "vocabulary_sha256": content["vocabulary_sha256"],
        "max_sites": content["training"]["max_sites"],
        "config_sha256": file_sha256(folder / CONFIG),
    }


def _content(folder: Path) -> dict[str, Any]:
    """Read the codec, the vocabulary and the record of the training of a checkpoint folder.

    Raises:
        UserError: The file is no JSON, or an entry is missing.
    """
    path = folder / CODEC_FILE
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        lacking = {"codec_version", "vocabulary", "vocabulary_sha256", "training"} - set(content)
        lacking |= {"max_sites"} - set(content.get("training", ()))
    except READ_ERRORS as error:
        raise UserError(f"{path} is damaged: get the checkpoint again") from error
    if lacking:
        raise UserError(f"{path} lacks {', '.join(sorted(lacking))}: get the checkpoint again")
    return content


def origin(folder: Path) -> dict[str, Any]:
    """The hash of a checkpoint and its training record, for the record of what starts from it."""
    digest = file_sha256(weights(folder))  # refuses a folder that is no checkpoint
    card = _content(folder)["training"]
    return {"weights": f"sha256:{digest}", "training": card}
