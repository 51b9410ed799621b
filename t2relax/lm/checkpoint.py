"""The folder of a trained language model: weights, configuration, and the record of the training.

It has the hub's layout (config.json, model.safetensors) with one file of ours, t2relax.json, which
names the codec, the vocabulary and the training. `t2relax.lm.pretrained.load` reads a folder of any
architecture.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.core import UserError
from benchmarks.core.files import READ_ERRORS, file_sha256
from t2relax.lm.base import SAMPLES, WRITINGS, Mode
from t2relax.text.codec import CODEC_VERSION

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CHECKPOINT = Path(__file__).parents[1] / "checkpoint"
"""The T5 that comes with the package; its README.md is the model card."""
WEIGHTS = "model.safetensors"
CONFIG = "config.json"
CODEC_FILE = "t2relax.json"


def is_encoder_decoder(folder: Path) -> bool:
    """Return whether the configuration in a folder is that of an encoder with a decoder.

    Raises:
        UserError: The file is damaged.
    """
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        return bool(config.get("is_encoder_decoder") or config.get("model_type") == "t5")
    except READ_ERRORS as error:
        raise UserError(f"{folder / CONFIG} is damaged: get the checkpoint again") from error


def save(
    model: PreTrainedModel,
    folder: Path,
    vocabulary: Mapping[str, Any],
    card: Mapping[str, Any],
) -> None:
    """Write weights and configuration, and what t2relax.json holds.

    Args:
        model: The trained model, in the precision that is stored.
        folder: The folder; it is made if it does not exist.
        vocabulary: `vocabulary`, our tokens by id or the name of the file in the folder that holds
            others, `vocabulary_sha256`, its hash, and what else is to be known of it.
        card: The record of the training, as plain JSON values.
    """
    model.save_pretrained(folder)
    content = {
        "codec_version": CODEC_VERSION,
        **vocabulary,
        "training": dict(card),
    }
    (folder / CODEC_FILE).write_text(record_text(content), encoding="utf-8")


def record_text(content: Mapping[str, Any]) -> str:
    """Write what `read_record` reads."""
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


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
    content = read_record(folder)
    rule: dict[str, Any] = {"mode": mode}
    own = not isinstance(content["vocabulary"], str)
    if mode in ("constrained", "symmetric", "tta") and own:
        confidence = content["training"].get("confidence") or {}
        if (threshold := confidence.get("no_change_above")) is not None:
            rule["no_change_above"] = threshold
    if mode == "best8":
        rule["samples"] = SAMPLES
    elif mode == "tta":
        rule["writings"] = WRITINGS
    return {
        **rule,
        "codec_version": content["codec_version"],
        "vocabulary_sha256": content["vocabulary_sha256"],
        "max_sites": content["training"]["max_sites"],
        "config_sha256": file_sha256(folder / CONFIG),
    }


def read_record(folder: Path) -> dict[str, Any]:
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


def require_codec(folder: Path, content: Mapping[str, Any], vocabulary_sha256: str) -> None:
    """Refuse a checkpoint of another codec.

    Args:
        folder: The checkpoint folder.
        content: What `read_record` gives.
        vocabulary_sha256: The hash of the vocabulary that lies in the folder.

    Raises:
        UserError: The codec or the vocabulary is another one than the checkpoint says.
    """
    known = (content["codec_version"], content["vocabulary_sha256"])
    if known != (CODEC_VERSION, vocabulary_sha256):
        raise UserError(
            f"{folder} was trained with codec {content['codec_version']}, this is codec "
            f"{CODEC_VERSION}: use the release that trained it, or train again"
        )


def origin(folder: Path) -> dict[str, Any]:
    """The hash of a checkpoint and its training record, for the record of what starts from it."""
    digest = file_sha256(weights(folder))  # refuses a folder that is no checkpoint
    card = read_record(folder)["training"]
    return {"weights": f"sha256:{digest}", "training": card}
