"""The models that are measured; random weights stand in for published ones that are not here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from benchmarks.core import UserError
from benchmarks.models.environments import interpreter, locate_model
from benchmarks.models.registry import on_engine, require, resolve
from benchmarks.models.specs import ModelSpec
from studies.cost import random_weights as untrained

DEFAULT = ("chgnet", "mace", "tensornet-matpes-pbe", "m3gnet-matpes-pbe", "sevennet-0", "t5")


@dataclass(frozen=True, slots=True)
class Measured:
    """A model that can be loaded here."""

    spec: ModelSpec
    weights: str
    """`its own`, or `random`."""


class Choice(NamedTuple):
    """The models to measure, and a folder for random weights."""

    names: Sequence[str] | None
    """As for `benchmarks.run`; None: those of `DEFAULT` that can be loaded here."""
    engine: str
    folder: Path
    """For random weights."""


def chosen(choice: Choice, say: Callable[[str], None]) -> list[Measured]:
    """The models, each with its weights there.

    Args:
        choice: Which.
        say: Told of each of `DEFAULT` that cannot be loaded.

    Raises:
        UserError: One that was asked for cannot be loaded, or none can.
    """
    found = []
    for name in choice.names or DEFAULT:
        try:
            found.append(_loadable(name, choice))
        except UserError as error:
            if choice.names:
                raise
            say(f"left out: {error}")
    if not found:
        raise UserError("none of the models can be loaded here")
    return found


def _loadable(name: str, choice: Choice) -> Measured:
    spec = on_engine(resolve(name), choice.engine)
    interpreter(spec)
    try:
        locate_model(spec, offline=True)
    except UserError:
        if name not in untrained.ARCHITECTURES:
            raise
        return Measured(_with_random_weights(spec, choice.folder), "random")
    return Measured(spec, "its own")


def _with_random_weights(spec: ModelSpec, folder: Path) -> ModelSpec:
    require(spec)
    weights = untrained.save(spec.name, folder / spec.name)
    return replace(spec, kwargs={"model": str(weights)})
