"""The models by name: what a row needs to know of each, and how to build it, without importing any.

A model is a registry name (`t5`), a pair `A+B` (B starts from A's structure), or the user's own:
`LABEL=t5:PATH`, `LABEL=mace:PATH`, `LABEL=ase:package.module:factory`. To add one, write a class
with `relax` and give it an entry in `MODELS`; classes are named by string, so listing is instant.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import importlib.util
import inspect
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from benchmarks.core import UserError

Family = Literal["llm", "gnn", "trivial", "hybrid"]
Track = Literal["trivial", "equal data", "foundation", "text"]

PAIRS = "substitution/train"
FRAMES = "embedded/train"
_BOTH = (PAIRS, FRAMES)

_ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """How to build one relaxer and what its row says about it. Plain data; it travels by pickle."""

    name: str
    """Folder and row name; the registry's, the user's LABEL, or `A+B`."""
    target: str
    """`module:Class`; empty for a hybrid."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Constructor arguments; device, seed, fmax, … are added by the executor where understood."""
    family: Family
    label: str
    track: Track
    extra: str | None = None
    """The pip extra that brings `requires`."""
    requires: tuple[str, ...] = ()
    """Top-level modules that must be importable."""
    weights: str | None = None
    """`module:function`, called with `kwargs` and `offline`: the path of the weights on disk."""
    training_data: tuple[str, ...] = ()
    licence: str
    batch_size: int = 1
    parts: tuple[ModelSpec, ...] = ()
    """A hybrid's relaxers, in the order in which they run."""


def _trivial(
    name: str, cls: str, label: str, *training_data: str, fitted: str | None = None
) -> ModelSpec:
    return ModelSpec(
        name=name,
        target=f"baselines.trivial:{cls}",
        kwargs={"path": str(_ROOT / "baselines" / fitted)} if fitted else {},
        family="trivial",
        label=label,
        track="trivial",
        weights="benchmarks.registry:packaged" if fitted else None,
        training_data=training_data,
        licence="MIT",
        batch_size=64,
    )


def _mace(name: str, label: str, **fields: Any) -> ModelSpec:
    return ModelSpec(
        name=name,
        target="baselines.mace:Mace",
        kwargs={"model": name},
        family="gnn",
        label=label,
        extra="mace",
        requires=("torch", "mace"),
        weights="baselines.mace:weights",
        **fields,
    )


def _t5(
    name: str,
    label: str,
    mode: str = "constrained",
    folder: str = "checkpoint",
    track: Track = "text",
    training_data: tuple[str, ...] = _BOTH,
) -> ModelSpec:
    return ModelSpec(
        name=name,
        target="t2relax.relaxer:T5Relaxer",
        kwargs={"path": str(_ROOT / "t2relax" / folder), "mode": mode},
        family="llm",
        label=label,
        track=track,
        extra="t5",
        requires=("torch", "transformers", "safetensors"),
        weights="t2relax.model:weights",
        training_data=training_data,
        licence="MIT",
        batch_size=32,
    )


_SPECS = (
    _trivial("identity", "Identity", "Identity (does nothing)"),
    _trivial("mean-delta", "MeanDelta", "Mean log-strain", *_BOTH, fitted="mean_delta.json"),
    _trivial(
        "volume-scaling", "VolumeScaling", "DLS volume (pymatgen)", "Materials Project bond lengths"
    ),
    _trivial("gbr", "GradientBoosting", "Gradient boosting", *_BOTH, fitted="gbr.skops"),
    _t5("t5", "T5"),
    _t5("t5-free", "T5, unconstrained", mode="free"),
    _t5("t5-sym", "T5, symmetry kept", mode="symmetric"),
    _t5("t5-best8", "T5, median of 8 samples", mode="best8"),
    _t5(
        "t5-equal",
        "T5, equal data",
        folder="equal",
        track="equal data",
        training_data=(FRAMES,),
    ),
    ModelSpec(
        name="chgnet",
        target="baselines.chgnet:CHGNet",
        family="gnn",
        label="CHGNet 0.3.0",
        track="foundation",
        extra="chgnet",
        requires=("torch", "chgnet"),
        weights="baselines.chgnet:weights",
        training_data=("MPtrj (Materials Project)",),
        licence="BSD-3-Clause (modified)",
    ),
    _mace(
        "mace",
        "MACE, equal data",
        track="equal data",
        training_data=(FRAMES,),
        licence="MIT",
    ),
    _mace(
        "mace-mp-0",
        "MACE-MP-0",
        track="foundation",
        training_data=("MPtrj (Materials Project)",),
        licence="MIT",
    ),
    _mace(
        "mace-mpa-0",
        "MACE-MPA-0",
        track="foundation",
        training_data=("MPtrj (Materials Project)", "sAlex (Alexandria)"),
        licence="MIT",
    ),
    _mace(
        "mace-omat-0",
        "MACE-OMAT-0",
        track="foundation",
        training_data=("OMat24",),
        licence="ASL (non-commercial)",
    ),
)

MODELS: Mapping[str, ModelSpec] = {spec.name: spec for spec in _SPECS}
"""Every model that has a name, in the order in which it is listed."""

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def resolve(
    name: str, *, trust: bool = False, known: Mapping[str, ModelSpec] = MODELS
) -> ModelSpec:
    """The spec of a model as the command line names it.

    Args:
        name: A name in `known`, `A+B` of such names, or `LABEL=t5:PATH`, `LABEL=mace:PATH`,
            `LABEL=ase:package.module:factory`.
        trust: Whether the user's own pickled checkpoints may be loaded.
        known: Models that can be named; the registry, and labels given before.

    Raises:
        UserError: No such model (with the nearest name), an unusable label or path.
    """
    if "=" in name:
        return _own(name, trust=trust, known=known)
    if "+" in name:
        return _hybrid([_named(part, known) for part in name.split("+")])
    return _named(name, known)


def resolve_all(names: Sequence[str], *, trust: bool = False) -> list[ModelSpec]:
    """Specs of several models, each once; a LABEL can be a part of a hybrid that comes after it."""
    known = dict(MODELS)
    specs: dict[str, ModelSpec] = {}
    for name in names:
        spec = resolve(name, trust=trust, known=known)
        specs[spec.name] = known[spec.name] = spec
    return list(specs.values())


def _named(name: str, known: Mapping[str, ModelSpec]) -> ModelSpec:
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else "see --list-models"
    raise UserError(f"unknown model {name!r}: {hint}")


def _hybrid(parts: Sequence[ModelSpec]) -> ModelSpec:
    extras = sorted({part.extra for part in parts if part.extra})
    return ModelSpec(
        name="+".join(part.name for part in parts),
        target="",
        family="hybrid",
        label=" → ".join(part.label for part in parts),
        track=parts[-1].track,
        extra=",".join(extras) or None,
        requires=tuple(dict.fromkeys(module for part in parts for module in part.requires)),
        training_data=tuple(dict.fromkeys(data for part in parts for data in part.training_data)),
        licence=" + ".join(dict.fromkeys(part.licence for part in parts)),
        batch_size=min(part.batch_size for part in parts),
        parts=tuple(parts),
    )


def _own(name: str, *, trust: bool, known: Mapping[str, ModelSpec]) -> ModelSpec:
    label, _, rest = name.partition("=")
    kind, _, where = rest.partition(":")
    if not _LABEL.fullmatch(label):
        raise UserError(f"{label!r} cannot be a label: use letters, digits, '.', '_' and '-'")
    if label in known:
        raise UserError(f"{label!r} is the name of a model already: choose another label")
    if kind not in _OWN or not where:
        raise UserError(
            f"{name!r}: write LABEL=t5:PATH, LABEL=mace:PATH or LABEL=ase:package.module:factory"
        )
    if kind == "mace" and not trust:
        raise UserError(f"{where} is a pickle, which can run any code: add --trust if you trust it")
    return _OWN[kind](label, where)


def _own_t5(label: str, where: str) -> ModelSpec:
    kwargs = {"path": _existing(where)}
    return replace(MODELS["t5"], name=label, label=label, kwargs=kwargs, **_UNKNOWN)


def _own_mace(label: str, where: str) -> ModelSpec:
    kwargs = {"model": _existing(where)}
    return replace(
        MODELS["mace"], name=label, label=label, track="foundation", kwargs=kwargs, **_UNKNOWN
    )


def _own_ase(label: str, where: str) -> ModelSpec:
    module, _, factory = where.partition(":")
    if not (module and factory):
        raise UserError(f"{where!r}: an ASE calculator is given as package.module:factory")
    return ModelSpec(
        name=label,
        target="baselines.ase_relaxer:AseRelaxer",
        kwargs={"calculator": where},
        family="gnn",
        label=label,
        track="foundation",
        requires=(module,),
        **_UNKNOWN,
    )


_OWN: Mapping[str, Callable[[str, str], ModelSpec]] = {
    "t5": _own_t5,
    "mace": _own_mace,
    "ase": _own_ase,
}
_UNKNOWN: Mapping[str, Any] = {"training_data": ("not stated",), "licence": "not stated"}


def _existing(where: str) -> str:
    path = Path(where).expanduser()
    if not path.exists():
        raise UserError(f"{where}: no such file or folder")
    return str(path)


def require(spec: ModelSpec) -> None:
    """Make sure that what the model imports is installed, without importing it.

    Raises:
        UserError: It is not, with the line that installs it.
    """
    missing = [module for module in spec.requires if not _importable(module)]
    if not missing:
        return
    what = f"{spec.name} needs {', '.join(missing)}"
    if spec.extra is None:
        raise UserError(f"{what}, which cannot be found: is it installed, or is the name wrong?")
    raise UserError(
        f"{what}: pip install 't2relax-bench[{spec.extra}]' "
        f"(in a clone: pip install -e '.[{spec.extra}]')"
    )


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # a parent package is missing
        return False


def find_weights(spec: ModelSpec, *, offline: bool) -> tuple[Path, ...]:
    """The weights' files, of each part of a hybrid; downloaded if need be and allowed.

    Raises:
        UserError: They cannot be had, with the line that says where to get them.
    """
    if spec.parts:
        return tuple(path for part in spec.parts for path in find_weights(part, offline=offline))
    if spec.weights is None:
        return ()
    # Packages greet on stdout when they are imported: noise beside the one line of an error.
    with contextlib.redirect_stdout(io.StringIO()):
        find = import_target(spec.weights)
        return (Path(find(**understood(find, {**spec.kwargs, "offline": offline}))),)


def packaged(path: str) -> Path:
    """The file with a fitted model's parameters.

    Raises:
        UserError: It did not come with the package.
    """
    if not Path(path).is_file():
        raise UserError(f"{path} is missing: install the package again, or fit the model")
    return Path(path)


def import_target(target: str) -> Any:
    """The object that `module:name` stands for."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def understood(function: Callable[..., Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `arguments` that the function, or the constructor, names."""
    names = inspect.signature(function).parameters
    return {name: value for name, value in arguments.items() if name in names}
