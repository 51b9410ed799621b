"""Models outside the registry: the user's own `LABEL=KIND:WHERE`, and those of other packages.

A package brings a model of its own with one entry point in its metadata, and this project need not
know of it; nothing of the package is imported to list it:

    [project.entry-points."t2relax_bench.models"]
    my-model = "my_package.module:factory"    # without arguments; returns an ASE calculator

    [project.entry-points."t2relax_bench.relaxers"]
    my-relaxer = "my_package.module:factory"  # without arguments; returns a benchmarks.core.Relaxer
"""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.core import UserError
from benchmarks.models.specs import MODELS, RELAXATION, ModelSpec

CALCULATORS = "t2relax_bench.models"
"""The group of entry points in which packages name functions that return an ASE calculator."""
RELAXERS = "t2relax_bench.relaxers"
"""The group in which they name functions that return a relaxer."""

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
NAMES_OF_FILES = frozenset(
    {"board.json", "board.md", "board.csv", "leaderboard.svg", "figures", "tables"}
)
"""What a board writes beside the models' folders: no label, whatever the capitals."""
_AT_SERVER = re.compile(r"(?P<model>[!-~]+?)(@(?P<url>https?://[!-~]*))?")
UNDECLARED: dict[str, Any] = {
    "functional": "not stated",
    "training_data": ("not stated",),
    "licence": "not stated",
}


def plugin_models() -> dict[str, ModelSpec]:
    """Find the models that installed packages bring; names of the registry stay the registry's.

    An entry point that is no label, or no `module:factory`, is passed over, so that it breaks no
    other model.
    The label has the version of the package, so that a run is not resumed with another one.
    """
    specs: dict[str, ModelSpec] = {}
    for group, describe in ((CALCULATORS, _ase), (RELAXERS, _relaxer)):
        for point in sorted(entry_points(group=group), key=lambda point: point.name):
            usable = _LABEL.fullmatch(point.name) and all(point.value.partition(":"))
            if usable and point.name not in MODELS and point.name not in specs:
                spec = describe(point.name, point.value)
                package = f" ({point.dist.name} {point.dist.version})" if point.dist else ""
                specs[point.name] = replace(spec, label=point.name + package)
    return specs


def parse_user_model(
    name: str, *, trust: bool, prompting: Mapping[str, Any] = {}, known: Mapping[str, ModelSpec]
) -> ModelSpec:
    """Read `LABEL=KIND:WHERE`.

    Args:
        name: The text of the command line.
        trust: Weights may be loaded even if that can run any code.
        prompting: How a model of a server is asked.
        known: The models whose names are taken.

    Raises:
        UserError: The label cannot be used, the kind is none, or there is nothing at WHERE.
    """
    label, _, rest = name.partition("=")
    kind, _, where = rest.partition(":")
    if not _LABEL.fullmatch(label):
        raise UserError(f"{label!r} cannot be a label: use letters, digits, '.', '_' and '-'")
    if label.lower() in NAMES_OF_FILES:
        raise UserError(f"{label!r} is the name of a file of the board: choose another label")
    if label.lower() in {name.lower() for name in known}:
        raise UserError(f"{label!r} is the name of a model already: choose another label")
    if kind not in (*_KINDS, "chat") or not where:
        raise UserError(f"{name!r}: write {FORMS}")
    if kind == "mace" and not trust:
        raise UserError(f"{where} is a pickle, which can run any code: add --trust if you trust it")
    if kind == "chat":
        return _chat(label, where, prompting)
    spec = _KINDS[kind](label, where)
    return replace(spec, kwargs={**spec.kwargs, "trust": True}) if trust and kind in _ASK else spec


def check_factory(where: str) -> None:
    """Make sure that the source of a module has the name of the factory; nothing is run.

    A module without Python source, or one whose names are not all written in it (`import *`,
    `__getattr__`), is passed over: its factory is looked for when the model is loaded.

    Args:
        where: `package.module:factory`, the module of which is installed.

    Raises:
        UserError: The name is not there.
    """
    module, _, factory = where.partition(":")
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None or not found.origin.endswith(".py"):
        return
    try:
        nodes = list(ast.walk(ast.parse(Path(found.origin).read_bytes())))
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{where!r} cannot be imported ({error})") from error
    names = {
        name
        for node in nodes
        for name in (
            getattr(node, "name", None),  # functions, classes, and what `import` names
            getattr(node, "asname", None),
            node.id if isinstance(node, ast.Name) else None,
        )
        if name
    }
    if names.isdisjoint({factory, "*", "__getattr__"}):
        raise UserError(f"{where!r}: {module} has no {factory}")


def _trained(like: str, **fields: Any) -> Callable[[str, str], ModelSpec]:
    """Make a function that describes weights trained by us as those of the model `like`."""

    def spec(label: str, where: str) -> ModelSpec:
        kwargs = {"path": _existing(where)}
        return replace(MODELS[like], name=label, label=label, kwargs=kwargs, **UNDECLARED | fields)

    return spec


def _potential(like: str) -> Callable[[str, str], ModelSpec]:
    """Make a function that describes a file or folder of weights, loaded as the model `like` is."""

    def spec(label: str, where: str) -> ModelSpec:
        kwargs = {"model": _existing(where)}
        about = UNDECLARED | {"name": label, "label": label}
        return replace(MODELS[like], kwargs=kwargs, **about)

    return spec


def _module_of(where: str, what: str) -> str:
    """Give the module of `package.module:factory`, which names `what`."""
    module, _, factory = where.partition(":")
    if not (module and factory):
        raise UserError(f"{where!r}: {what} is given as package.module:factory")
    return module


def _ase(label: str, where: str) -> ModelSpec:
    return ModelSpec(
        name=label,
        target="baselines.engines.ase_engine:AseRelaxer",
        kwargs={"calculator": where},
        honours=RELAXATION,
        family="gnn",
        label=label,
        requires=(_module_of(where, "an ASE calculator"),),
        **UNDECLARED,
    )


def _relaxer(label: str, where: str) -> ModelSpec:
    return ModelSpec(
        name=label,
        target=where,
        family="other",
        label=label,
        requires=(_module_of(where, "a relaxer"),),
        **UNDECLARED,
    )


def _chat(label: str, where: str, prompting: Mapping[str, Any]) -> ModelSpec:
    """Describe a model that a server runs; before a URL its name may have a `@` of its own."""
    found = _AT_SERVER.fullmatch(where)
    if found is None or (found["url"] is None and "@" in where):
        raise UserError(f"{where!r}: write MODEL or MODEL@URL, the URL from http:// on")
    kwargs = {"model": found["model"], **prompting}
    if found["url"]:
        kwargs["url"] = found["url"].rstrip("/")
        try:
            parts = urlsplit(found["url"])
            usable = bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise UserError(f"{label}: its URL names no server")
        if parts.username or parts.password or parts.query or parts.fragment:
            hint = "put a key into the environment, as CHAT_API_KEY"
            raise UserError(f"{label}: its URL is stored with the run; {hint}")
    shots = prompting.get("shots", 0)
    examples = f"{shots} example{'s' if shots > 1 else ''}" if shots else "no examples"
    sampled = prompting.get("temperature", 0.0) != 0.0
    return ModelSpec(
        name=label,
        target="t2relax.chat.chat_relaxer:ChatRelaxer",
        kwargs=kwargs,
        honours=("offline", "seed") if sampled else ("offline",),
        family="llm",
        label=f"{found['model']}, prompted, {examples}",
        extra="chat",
        requires=("openai",),
        decoding="t2relax.chat.chat_relaxer:identity",
        remote="t2relax.chat.chat_relaxer",
        batch_size=prompting.get("requests", 8),
        **UNDECLARED,
    )


_KINDS: Mapping[str, Callable[[str, str], ModelSpec]] = {
    "t5": _trained("t5"),
    "causal": _trained("t5", extra="causal"),
    "gnn-delta": _trained("gnn-delta"),
    "gbr": _trained("gbr"),
    "chgnet": _potential("chgnet"),
    "mace": _potential("mace"),
    "matgl": _potential("tensornet-matpes-pbe"),
    "matgl2": _potential("m3gnet-mp-2021"),
    "diep": _potential("diep-matpes-r2scan"),
    "nequix": _potential("nequix-oam-1"),
    "ase": _ase,
    "relaxer": _relaxer,
}
_ASK = ("chgnet", "diep", "matgl", "matgl2")
"""The kinds whose files may hold code; the relaxer finds out when it loads them, and refuses."""
FORMS = (
    "LABEL=t5:PATH, LABEL=causal:PATH, LABEL=gnn-delta:PATH, LABEL=gbr:PATH, LABEL=chgnet:PATH, "
    "LABEL=mace:PATH, LABEL=matgl:PATH, LABEL=matgl2:PATH, LABEL=diep:PATH, LABEL=nequix:PATH, "
    "LABEL=ase:package.module:factory, LABEL=relaxer:package.module:factory or "
    "LABEL=chat:MODEL[@URL]"
)
"""The forms in which the user writes models of their own."""


def _existing(where: str) -> str:
    path = Path(where).expanduser()
    if not path.exists():
        raise UserError(f"{where}: no such file or folder")
    # a file called `mace` is not the model `mace`
    return str(path.absolute() if str(path) in MODELS else path)
