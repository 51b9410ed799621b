"""The table of models: it says what builds each model and what its row tells; it imports none.

To add one, write a class with `relax` and give it an entry here. Classes are named by strings, so
that listing is instant. Published weights of known packages have their entries in
`benchmarks.core.published_weights`. `benchmarks.models.registry` finds a model by its name on the
command line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from benchmarks.core.published_weights import MIXED, PUBLISHED_WEIGHTS, published_by
from benchmarks.core.training_data import Track, track

Family = Literal["llm", "gnn", "trivial", "hybrid", "other", "control"]
"""A control has an answer that is known beforehand; it is checked, and not ranked."""

PAIRS = "substitution/train"
FRAMES = "embedded/train"
_BOTH = (PAIRS, FRAMES)
_ALL = (*_BOTH, "embedded-v2/train")
_TEACHER = PUBLISHED_WEIGHTS["nequix-oam-1"]
"""The potential whose labels the packaged `mace` learned from."""

RELAXATION = ("fmax", "max_stress", "max_steps", "keep_symmetry")
"""The settings that every relaxation with a potential obeys."""
DOWNLOADED = (*RELAXATION, "device", "offline")
"""The settings that a potential obeys whose package downloads weights."""

_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """The description of one model: how it is built, and what its row tells."""

    name: str
    """The name of its folder and row: the registry's, the user's LABEL, or `A+B`."""
    target: str
    """The class as `module:Class`; empty for a hybrid."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the constructor; `settings` is added where the model honours any."""
    honours: tuple[str, ...] = ()
    """The fields of `RelaxSettings` that the model obeys. A model that obeys none gets none."""
    family: Family
    label: str
    extra: str | None = None
    """The pip extra that brings `requires`."""
    requires: tuple[str, ...] = ()
    """Modules that must be importable."""
    weights: str | None = None
    """`module:function` that gives the path of the weights on disk. It is called with the `model`
    or `path` of `kwargs`, and with `offline` where the model honours that."""
    decoding: str | None = None
    """`module:function` that gives all that decides the answers beside the weights (vocabulary,
    decoding rule, …), for the identity of a run. It is called with `kwargs`."""
    functional: str | None = None
    """The functional of the DFT data that the model was trained on; for a fine-tuned model, of the
    last stage. None if no DFT data were used."""
    training_data: tuple[str, ...] = ()
    licence: str
    batch_size: int = 1
    batched: str | None = None
    """The class of the same model on the batched engine; it takes the same arguments."""
    engine: str | None = None
    """The engine that relaxes; None for the first of `registry.ENGINES`."""
    environment: str | None = None
    """The name of an environment of its own, which `make env-NAME` makes. It is used where this
    interpreter lacks what the model `requires`."""
    remote: str | None = None
    """The module that asks a server for the model; None for a model that runs here.

    `stays_here(**kwargs)` says whether nothing leaves this machine, `forecast(initial, repeats,
    **kwargs)` what a run would send, and `spent(**kwargs)` what it took. The relaxer takes one
    argument more, `answers`: the file beside the records in which it keeps every reply."""
    parts: tuple[ModelSpec, ...] = ()
    """The parts of a hybrid, in the order in which they run."""

    @property
    def remote_parts(self) -> tuple[ModelSpec, ...]:
        """The parts that a server runs; of a model that is no hybrid itself, or none."""
        return tuple(part for part in self.parts or (self,) if part.remote)

    @property
    def track(self) -> Track:
        """The track in which the model is compared; see `benchmarks.core.training_data`."""
        return track(self.training_data)


def _trivial(
    name: str, cls: str, label: str, *training_data: str, fitted: str | None = None
) -> ModelSpec:
    return ModelSpec(
        name=name,
        target=f"baselines.trivial:{cls}",
        kwargs={"path": str(_ROOT / "baselines" / fitted)} if fitted else {},
        family="trivial",
        label=label,
        weights="benchmarks.core.files:bundled_file" if fitted else None,
        functional=MIXED if training_data else None,
        training_data=training_data,
        licence="MIT",
        batch_size=64,
    )


def _text(
    name: str, label: str, mode: str = "constrained", folder: str = "checkpoint", **fields: Any
) -> ModelSpec:
    about: dict[str, Any] = {"functional": MIXED, "training_data": _ALL} | fields
    seeded = ("seed",) if mode in ("best8", "tta") else ()
    return ModelSpec(
        name=name,
        target="t2relax.relaxer:TextRelaxer",
        kwargs={"path": str(_ROOT / "t2relax" / folder), "mode": mode},
        honours=("device", "batch_size", *seeded),
        family="llm",
        label=label,
        extra="t5",
        requires=("torch", "transformers", "safetensors"),
        weights="t2relax.lm.checkpoint:weights",
        decoding="t2relax.lm.checkpoint:decoding_identity",
        licence="MIT",
        batch_size=32,
        **about,
    )


def _potential(package: str, cls: str, name: str, label: str, **fields: Any) -> ModelSpec:
    """Describe a potential of `baselines.potentials.PACKAGE`, whose class takes the model's name.

    The same potential on the batched engine is in `PACKAGE_batched`; `batched=None` if there is
    none.
    """
    batched = f"baselines.potentials.{package}_batched:Batched{cls}"
    about: dict[str, Any] = {
        "kwargs": {"model": name},
        "honours": (*RELAXATION, "device"),
        "functional": MIXED,
        "batched": batched,
        "requires": ("torch", package),
    } | fields
    return ModelSpec(
        name=name,
        target=f"baselines.potentials.{package}:{cls}",
        family="gnn",
        label=label,
        extra=package,
        weights=f"baselines.potentials.{package}:weights",
        **about,
    )


def _published(package: str, cls: str, **fields: Any) -> list[ModelSpec]:
    """Describe all published weights of a package."""
    return [
        _potential(
            package,
            cls,
            entry.name,
            entry.label,
            licence=entry.licence,
            functional=entry.functional,
            training_data=entry.training_data,
            **fields,
        )
        for entry in published_by(package).values()
    ]


_SPECS = (
    _trivial("identity", "Identity", "Identity (does nothing)"),
    ModelSpec(
        name="zero-force",
        target="baselines.engines.ase_engine:AseRelaxer",
        kwargs={"calculator": "benchmarks.testing:ZeroForce"},
        honours=RELAXATION,
        family="control",
        label="A potential without forces",
        licence="MIT",
    ),
    _trivial("idealise", "Idealise", "Idealised to the space group at 0.8 Å"),
    _trivial("bond-balance", "BondBalance", "Moved to where the bonds balance"),
    _trivial("mean-delta", "MeanDelta", "Mean log-strain", *_BOTH, fitted="mean_delta.json"),
    _trivial(
        "volume-scaling", "VolumeScaling", "DLS volume (pymatgen)", "Materials Project bond lengths"
    ),
    _trivial("gbr", "GradientBoosting", "Gradient boosting", *_BOTH, fitted="gbr.skops"),
    _text("t5", "T5"),
    _text("t5-free", "T5, unconstrained", mode="free"),
    _text("t5-sym", "T5, symmetry kept", mode="symmetric"),
    _text("t5-best8", "T5, median of 8 samples", mode="best8"),
    _text("t5-tta", "T5, median over 8 writings of the crystal", mode="tta"),
    _text(
        "t5-equal",
        "T5, equal data",
        folder="equal",
        functional="PBE",
        training_data=(FRAMES,),
    ),
    _text("gpt", "Decoder-only, as large as the T5", folder="gpt"),
    ModelSpec(
        name="gnn-delta",
        target="baselines.delta.network:GraphDelta",
        kwargs={"path": str(_ROOT / "baselines" / "gnn_delta.safetensors")},
        honours=("device",),
        family="gnn",
        label="Graph network, one pass",
        extra="matgl",
        requires=("torch", "matgl", "safetensors"),
        weights="benchmarks.core.files:bundled_file",
        functional=MIXED,
        training_data=_ALL,
        licence="MIT",
        batch_size=32,
    ),
    *_published("chgnet", "CHGNet"),
    _potential(
        "mace",
        "Mace",
        "mace",
        f"MACE, distilled from {_TEACHER.label}",
        honours=DOWNLOADED,
        functional=_TEACHER.functional,
        # what its teacher saw, and the structures that the teacher labelled
        training_data=(*_TEACHER.training_data, *_ALL),
        licence="MIT",
    ),
    _potential(
        "mace",
        "Mace",
        "mace-embedded",
        "MACE, equal data",
        honours=DOWNLOADED,
        functional="PBE",
        training_data=(FRAMES,),
        licence="MIT",
    ),
    _potential(
        "matgl",
        "MatGL",
        "tensornet-embedded",
        "TensorNet, equal data",
        kwargs={"model": str(_ROOT / "baselines" / "tensornet_embedded")},
        honours=DOWNLOADED,
        functional="PBE",
        training_data=(FRAMES,),
        licence="MIT",
    ),
    *_published("mace", "Mace", honours=DOWNLOADED),
    *_published("sevenn", "SevenNet", environment="sevenn", batched=None),
    *_published("nequix", "Nequix", environment="sevenn", batched=None, honours=DOWNLOADED),
    *_published("matgl", "MatGL", honours=DOWNLOADED),
    *_published("diep", "DIEP", batched=None),
    *_published(
        "matgl2",
        "MatGL2",
        environment="matgl2",
        batched=None,
        honours=DOWNLOADED,
        requires=("torch", "dgl", "matgl"),  # dgl is in no other environment
    ),
)

MODELS: Mapping[str, ModelSpec] = {spec.name: spec for spec in _SPECS}
"""Every model that has a name, in the order in which it is listed."""
