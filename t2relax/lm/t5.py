"""The T5: its configuration, and weights + codec version + vocabulary hash as one folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.core import UserError
from benchmarks.core.files import file_sha256
from t2relax.text.codec import CODEC_VERSION
from t2relax.text.tokens import EOS_ID, PAD_ID, Tokenizer

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration

    from t2relax.objective import T5ForRelaxation

CHECKPOINT = Path(__file__).parents[1] / "checkpoint"
"""The checkpoint that comes with the package; its README.md is the model card."""
WEIGHTS = "model.safetensors"
CODEC_FILE = "t2relax.json"


def new_model(
    tokenizer: Tokenizer, seed: int = 0, kind: type[T5ForRelaxation] | None = None, **changes: Any
) -> T5ForRelaxation:
    """A small T5 1.1 from scratch, with tokens as alike as what they mean.

    Args:
        tokenizer: gives the vocabulary.
        seed: of the tokens' initial vectors; the other weights follow torch's generator.
        kind: a subclass with another loss.
        changes: fields of `T5Config` that differ, e.g. `num_layers=4`.
    """
    import torch
    from transformers import T5Config

    from t2relax.lm.embeddings import initial_vectors
    from t2relax.objective import T5ForRelaxation

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
    """Write weights (float16), configuration, codec and vocabulary, and how it was trained.

    Args:
        model: the trained model; converted to half precision on the way, in place.
        tokenizer: its vocabulary goes into the folder with its hash.
        folder: made if it is not there.
        card: what the model was trained on and how, as plain JSON values.
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
    """What a checkpoint folder holds."""

    model: T5ForConditionalGeneration
    """float32, in evaluation mode."""
    tokenizer: Tokenizer
    max_sites: int
    """The most sites of a structure that it was trained on."""


def load(folder: Path, device: str = "cpu") -> Loaded:
    """Read a checkpoint folder.

    Raises:
        UserError: no checkpoint there, or one of another codec.
    """
    from transformers import T5ForConditionalGeneration
    from transformers.utils import logging

    weights(folder)
    logging.disable_progress_bar()  # of reading the weights, which takes no time
    content = json.loads((folder / CODEC_FILE).read_text())
    tokenizer = Tokenizer(tuple(content["vocabulary"]))
    known = (content["codec_version"], content["vocabulary_sha256"])
    if known != (CODEC_VERSION, tokenizer.sha256):
        raise UserError(
            f"{folder} was trained with codec {content['codec_version']}, this is codec "
            f"{CODEC_VERSION}: use the release that trained it, or train again"
        )
    model = T5ForConditionalGeneration.from_pretrained(folder, local_files_only=True).float()
    return Loaded(model.to(device).eval(), tokenizer, content["training"]["max_sites"])


def weights(path: str | Path = CHECKPOINT) -> Path:
    """The weights file of a checkpoint folder.

    Raises:
        UserError: the folder is no checkpoint of ours.
    """
    folder = Path(path)
    for name in (WEIGHTS, "config.json", CODEC_FILE):
        if not (folder / name).is_file():
            raise UserError(
                f"{folder} is no t2relax checkpoint ({name} is missing): give a folder that "
                "`python -m t2relax.train --out` wrote"
            )
    return folder / WEIGHTS


def origin(folder: Path) -> dict[str, Any]:
    """What a checkpoint is, for the record of what is made from it: hash and training record."""
    digest = file_sha256(weights(folder))  # refuses a folder that is no checkpoint
    card = json.loads((folder / CODEC_FILE).read_text())["training"]
    return {"weights": f"sha256:{digest}", "training": card}
