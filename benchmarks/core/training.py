"""The settings and the identity of a training: what must be equal before it goes on.

Every trainer of the project (`t2relax.train`, `t2relax.train_seq`, `baselines.train`) writes the
identity of its training beside its unfinished state and into its record: hashes of the data, the
seed, the loss, the learning rate, the shape of the model. `require_same_training` is the only
place where two identities are compared.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.core import UserError

MOST_NAMES: Final = 12
"""A message lists the fields that there are if they are not more than this."""


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


def require_numbers(
    config: object, *, positive: Sequence[str] = (), not_negative: Sequence[str] = ()
) -> None:
    """Refuse a configuration whose numbers make no sense.

    Args:
        config: The configuration; None in a field is not checked.
        positive: Names of fields that must be larger than 0.
        not_negative: Names of fields that must not be smaller than 0.

    Raises:
        UserError: A number is too small, or nan; the message names the option.
    """
    for name in (*positive, *not_negative):
        value = getattr(config, name)
        if value is None or value > 0 or (value == 0 and name in not_negative):
            continue
        wanted = "larger than 0" if name in positive else "not smaller than 0"
        raise UserError(f"--{name.replace('_', '-')} {value}: it must be {wanted}")


def parse_fields(
    assignments: Sequence[str], option: str, defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """Read `FIELD=VALUE` texts of a command line.

    Args:
        assignments: The texts.
        option: The option that they were given with, for the message.
        defaults: The fields that there are, with their default values, whose types count.

    Raises:
        UserError: A text is no assignment, there is no such field, or the value is not of its type.
    """
    fields: dict[str, Any] = {}
    for text in assignments:
        name, separator, written = text.partition("=")
        if not separator:
            raise UserError(f"{option} wants FIELD=VALUE, not {text!r}")
        if name not in defaults:
            near = difflib.get_close_matches(name, defaults, n=1)
            names = ", ".join(defaults) if len(defaults) <= MOST_NAMES else "see its documentation"
            raise UserError(
                f"{option} {text}: there is no field {name!r}; "
                + (f"did you mean {near[0]}?" if near else f"fields: {names}")
            )
        try:
            value = json.loads(written)
        except json.JSONDecodeError:
            value = written
        kind = type(defaults[name])
        if kind is float and type(value) is int:
            value = float(value)
        if defaults[name] is not None and type(value) is not kind:
            raise UserError(f"{option} {text}: {name} is of type {kind.__name__}")
        fields[name] = value
    return fields


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
