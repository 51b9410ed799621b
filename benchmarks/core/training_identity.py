"""The identity of a training: what must be equal before an interrupted training goes on.

Every trainer of the project (`t2relax.train`, `t2relax.train_seq`, `baselines.train`) writes the
identity of its training beside its unfinished state and into its record: hashes of the data, the
seed, the loss, the learning rate, the shape of the model. `require_same_training` is the only
place where two identities are compared. `read_state` reads the state, and runs no code from it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from benchmarks.core import UserError
from benchmarks.core.files import READ_ERRORS


def read_state(path: Path, device: Any = "cpu") -> dict[str, Any]:
    """Read the state of an interrupted training, which is tensors and plain data and no code.

    Args:
        path: A file of `torch.save`.
        device: The device of the tensors, as torch takes it.

    Raises:
        UserError: The file is damaged, or holds more than that.
    """
    import torch

    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except READ_ERRORS as error:
        raise unreadable_state(path) from error
    return state


def unreadable_state(path: Path) -> UserError:
    """Make the error of a state that is damaged or holds more than tensors and plain data."""
    return UserError(
        f"{path} is no state of a training: it is damaged, or holds more than tensors and plain "
        "data, which can run any code and is not read (there is no --trust for it): remove it, or "
        "give another --out"
    )


def require_same_training(
    where: Path, stored: Mapping[str, Any] | None, asked: Mapping[str, Any]
) -> None:
    """Refuse to go on with a stored training that is another one than the one that is asked for.

    Args:
        where: The file or folder that holds the stored training.
        stored: Its identity; None or empty if it has none, as those of older versions.
        asked: The identity of the training that is asked for.

    Raises:
        UserError: The stored training has no identity, or a field differs; the message names the
            field and both values.
    """
    if not stored:
        raise UserError(
            f"{where} does not say from which data and settings it was trained (an older version "
            "wrote it), so that it cannot go on: remove it, or give another --out"
        )
    there, here = _flat(plain(stored)), _flat(plain(asked))
    for name in [*here, *(name for name in there if name not in here)]:
        if there.get(name) != here.get(name):
            raise UserError(
                f"{where} is of another training: {name} is {_shown(there.get(name))} there and "
                f"{_shown(here.get(name))} here: remove it, or give another --out"
            )


def plain(value: Any) -> Any:
    """Give a value as JSON keeps it: dataclasses as dicts, tuples as lists, paths as text.

    An infinite number, which JSON does not have, becomes None.
    """
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, Path):
        return str(value)
    return None if value == float("inf") else value


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Name the leaves of nested dicts by dotted names; a list is a leaf, and so is `{}`."""
    if not isinstance(value, Mapping) or not value:
        return {name: value}
    leaves: dict[str, Any] = {}
    for key, each in value.items():
        leaves |= _flat(each, f"{name}.{key}" if name else key)
    return leaves


def _shown(value: Any) -> str:
    return "not stated" if value is None else json.dumps(value, ensure_ascii=False)
