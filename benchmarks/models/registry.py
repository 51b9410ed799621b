"""Finds a model by its name on the command line, and finds what it needs, without importing it.

A model is a name of `benchmarks.models.specs` (`t5`), one that an installed package brings, a pair
`A+B` (B starts from A's structure), or the user's own (`LABEL=t5:PATH`, …; see
`benchmarks.models.user_models`).
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import importlib.util
import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from benchmarks.core import Geometry, RelaxSettings, UserError
from benchmarks.core.cli import check_installed, importable
from benchmarks.core.published_weights import name_at_hand
from benchmarks.models.specs import MODELS, ModelSpec
from benchmarks.models.user_models import check_factory, parse_user_model, plugin_models

__all__ = [
    "ENGINES",
    "MODELS",
    "ModelSpec",
    "decoding_identity",
    "find_weights",
    "forecasts",
    "honoured_settings",
    "import_target",
    "keeping_answers",
    "missing",
    "on_engine",
    "require",
    "resolve",
    "resolve_all",
    "spent",
]

log = logging.getLogger(__name__)

ENGINES = ("ase", "torchsim")
"""The engines that relax with a potential: one structure after the other, or many at a time."""
NOT_COMPARED = frozenset({"device", "batch_size", "offline", "seed"})
"""Settings that do not belong to those of an identity: the first three change no answer and are
recorded with where a run comes from, and the seed has a field of its own."""
ALWAYS_RECORDED = frozenset({"fmax", "max_steps"})
"""Settings that an identity holds also where they have their default."""
BATCH = 64
"""Structures per call of the batched engine; it decides itself how many it evaluates at once."""


def resolve(
    name: str,
    *,
    trust: bool = False,
    prompting: Mapping[str, Any] = {},
    known: Mapping[str, ModelSpec] = MODELS,
) -> ModelSpec:
    """Find the spec of a model by its name on the command line.

    Args:
        name: A name in `known` or of an installed package, `A+B` of such names, or
            `LABEL=KIND:WHERE`.
        trust: Whether the user's own weights may be loaded even if that can run any code.
        prompting: How a model of a server is asked: arguments of `t2relax.chat`'s `ChatModel`.
        known: Models that can be named; the registry, and labels given before.

    Raises:
        UserError: No such model (with the nearest name), an unusable label or path.
    """
    if "=" in name:
        return parse_user_model(name, trust=trust, prompting=prompting, known=known)
    if "+" in name:
        return _hybrid([_named(part, known) for part in name.split("+")])
    return _named(name, known)


def resolve_all(
    names: Sequence[str], *, trust: bool = False, prompting: Mapping[str, Any] = {}
) -> list[ModelSpec]:
    """Find several models, each once. A LABEL can be a part of a hybrid that comes after it."""
    known = dict(MODELS)
    specs: dict[str, ModelSpec] = {}
    for name in names:
        spec = resolve(name, trust=trust, prompting=prompting, known=known)
        specs[spec.name] = known[spec.name] = spec
    return list(specs.values())


def on_engine(spec: ModelSpec, engine: str) -> ModelSpec:
    """Put a model on another engine; a model that has only one is returned as it is.

    Args:
        spec: A model, or a hybrid, whose parts are changed.
        engine: One of `ENGINES`.
    """
    if engine == ENGINES[0]:
        return spec
    if spec.parts:
        parts = tuple(on_engine(part, engine) for part in spec.parts)
        return spec if parts == spec.parts else replace(_hybrid(parts), engine=engine)
    if spec.batched is None:
        return spec
    return replace(
        spec,
        target=spec.batched,
        engine=engine,
        extra=f"{spec.extra},torchsim",
        requires=(*spec.requires, "torch_sim"),
        batch_size=BATCH,
    )


def _named(name: str, known: Mapping[str, ModelSpec]) -> ModelSpec:
    if name in known:
        at_hand = name_at_hand(name) if known[name] is MODELS.get(name) else name
        if at_hand != name:
            log.warning("%s: its weights are not in T2_WEIGHTS, those of %s are", name, at_hand)
        return known[at_hand]
    brought = plugin_models()
    if name in brought:
        return brought[name]
    near = difflib.get_close_matches(name, [*known, *brought], n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else "see --list-models"
    raise UserError(f"unknown model {name!r}: {hint}")


def _hybrid(parts: Sequence[ModelSpec]) -> ModelSpec:
    extras = sorted({part.extra for part in parts if part.extra})
    name = "+".join(part.name for part in parts)
    environments = sorted({part.environment for part in parts if part.environment})
    honoured = {name for part in parts for name in part.honours}
    if len(environments) > 1:
        needed = " and ".join(environments)
        raise UserError(f"{name} runs in one process, and its parts need environments {needed}")
    return ModelSpec(
        name=name,
        target="",
        honours=tuple(field.name for field in fields(RelaxSettings) if field.name in honoured),
        family="hybrid",
        label=" → ".join(part.label for part in parts),
        extra=",".join(extras) or None,
        requires=tuple(dict.fromkeys(module for part in parts for module in part.requires)),
        functional=" + ".join(dict.fromkeys(p.functional for p in parts if p.functional)) or None,
        training_data=tuple(dict.fromkeys(data for part in parts for data in part.training_data)),
        licence=" + ".join(dict.fromkeys(part.licence for part in parts)),
        batch_size=min(part.batch_size for part in parts),
        environment=next(iter(environments), None),
        parts=tuple(parts),
    )


def honoured_settings(spec: ModelSpec, settings: RelaxSettings) -> dict[str, Any]:
    """Select the settings of a relaxation that belong to the identity of a run.

    They are the ones that the model honours and that change an answer. `timeout` is among them
    for every model, because the harness obeys it. An option that older runs did not record is left
    out where it has its default, so that they compare equal; so is the first engine.

    Args:
        spec: The model.
        settings: Everything that was asked for.
    """
    identity: dict[str, Any] = {"timeout": settings.timeout}
    for field in fields(RelaxSettings):
        value = getattr(settings, field.name)
        if field.name not in spec.honours or field.name in NOT_COMPARED:
            continue
        if field.name in ALWAYS_RECORDED or value != field.default:
            identity[field.name] = value
    if spec.engine:
        identity["engine"] = spec.engine
    return identity


def require(spec: ModelSpec) -> None:
    """Make sure that what the model imports is installed, without importing it.

    Raises:
        UserError: It is not, with the line that installs it; or the module of the user's own
            calculator does not define the factory.
    """
    if spec.environment is None and spec.extra is not None:
        check_installed(spec.name, spec.requires, spec.extra)
    elif lacking := missing(spec):
        need = f"{spec.name} needs {', '.join(lacking)}"
        if spec.environment is not None:
            raise UserError(f"{need}, in an environment of its own: make env-{spec.environment}")
        raise UserError(f"{need}, which cannot be found: is it installed, or is the name wrong?")
    for part in spec.parts or (spec,):
        if "calculator" in part.kwargs or part.family == "other":
            check_factory(part.kwargs.get("calculator", part.target))


def missing(spec: ModelSpec) -> list[str]:
    """List the modules that the model imports and that are not installed here."""
    return [module for module in spec.requires if not importable(module)]


def find_weights(spec: ModelSpec, *, offline: bool) -> tuple[Path, ...]:
    """Find the files of the weights, of each part of a hybrid; download them if allowed.

    Raises:
        UserError: They cannot be had, with the line that says where to get them.
    """
    if spec.parts:
        return tuple(path for part in spec.parts for path in find_weights(part, offline=offline))
    if spec.remote and offline and not import_target(f"{spec.remote}:stays_here")(**spec.kwargs):
        raise UserError(f"{spec.name} asks a server elsewhere: leave out --offline")
    if spec.weights is None:
        return ()
    # Packages greet on stdout when they are imported: noise beside the one line of an error.
    with contextlib.redirect_stdout(io.StringIO()):
        find = import_target(spec.weights)
        where = [spec.kwargs[name] for name in ("model", "path") if name in spec.kwargs]
        found = find(*where, **({"offline": offline} if "offline" in spec.honours else {}))
        return (Path(found),)


def decoding_identity(spec: ModelSpec) -> dict[str, Any]:
    """Give the facts beside the weights that decide the answers, by the name of each part."""
    parts = spec.parts or (spec,)
    return {p.name: import_target(p.decoding)(**p.kwargs) for p in parts if p.decoding}


def forecasts(spec: ModelSpec, initial: Sequence[Geometry], repeats: int) -> list[str]:
    """Say what a run would send to servers: a line for each part that one runs; nothing is sent."""
    return [
        import_target(f"{part.remote}:forecast")(initial, repeats, **part.kwargs)
        for part in spec.remote_parts
    ]


def keeping_answers(spec: ModelSpec, folder: Path) -> ModelSpec:
    """Have the parts that a server runs keep its replies in a folder; other models stay alike."""
    if spec.parts:
        return replace(spec, parts=tuple(keeping_answers(part, folder) for part in spec.parts))
    if spec.remote is None:
        return spec
    return replace(
        spec, kwargs={**spec.kwargs, "answers": str(folder / f"{spec.name}.answers.jsonl")}
    )


def spent(spec: ModelSpec) -> dict[str, Any]:
    """Tell what the replies of servers took so far, by the name of each part that one runs.

    Args:
        spec: A model that `keeping_answers` gave.
    """
    return {
        part.name: import_target(f"{part.remote}:spent")(**part.kwargs)
        for part in spec.remote_parts
    }


def import_target(target: str) -> Any:
    """Import the object that `module:name` stands for."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)
