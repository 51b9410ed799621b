"""Calls of a relaxer in a fresh worker process: their times and the peak of the memory.

Random weights stand in for published ones that are not here: the cost of an evaluation depends on
the shape of a network and not on its weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from baselines.potentials.loading import quiet
from benchmarks.core import Geometry, Relaxed, RelaxSettings, UserError
from benchmarks.core.training_cost import TrainingCost
from benchmarks.engine.process import Worker, threads
from benchmarks.engine.worker import BatchAnswer, Failure, Ready
from benchmarks.models.environments import interpreter, locate_model
from benchmarks.models.provenance import environment, training_costs, versions, weights_identity
from benchmarks.models.registry import MODELS, on_engine, require, resolve
from benchmarks.models.specs import ModelSpec

_SMOOTH: Mapping[str, Any] = {"units": 128, "use_smooth": True, "rbf_type": "SphericalBessel"}
ARCHITECTURES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "tensornet-matpes-pbe": ("TensorNet", _SMOOTH),
    "m3gnet-matpes-pbe": ("M3GNet", _SMOOTH),
}
"""By the name of the published model: class, and how it differs from matgl's defaults. TensorNet's
card on the Hub says 128 units and 0.84 M parameters, which this has (837,378; with a third block
the 1,067,906 of the card of its larger variant). M3GNet's shape was not at hand: it is taken to be
as wide (664,221 parameters)."""


def save(model: str, folder: Path) -> Path:
    """A potential with random weights, saved as matgl saves one.

    Args:
        model: A name in `ARCHITECTURES`.
        folder: Is made.

    Returns:
        The folder.
    """
    with quiet():
        import torch
        from matgl import models
        from matgl.apps.pes import Potential

        architecture, shape = ARCHITECTURES[model]
        torch.manual_seed(0)
        network = getattr(models, architecture)(is_intensive=False, **shape)
        # small energies: forces of random weights would throw the atoms about; the atoms have
        # those of NaCl, to which every potential is held
        atoms = [-3.37] * len(network.element_types)
        Potential(network, data_std=0.01, element_refs=atoms).save(folder)
    return folder


LIMIT = 1800.0
"""For loading, and for each call [s]; only what hangs takes so long."""


class Machine(NamedTuple):
    """The device and the log of the workers."""

    device: str
    """`cpu` or `cuda`."""
    log: Path
    """File to which their output is appended."""

    def about(self) -> dict[str, Any]:
        """The columns of a row that describe the machine."""
        here = environment(self.device)
        return {"threads": threads(), "device": here["device"], "cpu": here["cpu"]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """The times and outcomes of the calls after the first."""

    seconds: tuple[float, ...]
    """Time of each call [s]."""
    outcomes: tuple[Relaxed, ...]
    """Outcomes of all calls; their structures stay in the worker."""
    loaded_mb: float
    """Peak memory before the first call [MB], see `benchmarks.engine.worker.peak_memory_mb`."""
    peak_mb: float
    """And in the end [MB]."""


def timed(
    spec: ModelSpec,
    settings: RelaxSettings,
    calls: Sequence[Sequence[Geometry]],
    machine: Machine,
) -> Timed:
    """Time the calls of `relax`; the first is a warm-up and does not count.

    Args:
        spec: The model.
        settings: What its relaxer gets; the device is that of `machine`, and it is offline.
        calls: The structures of each.
        machine: Where.

    Raises:
        UserError: The model cannot be loaded, or a call came to nothing.
    """
    settings = replace(settings, device=machine.device, offline=True)
    worker = Worker(spec, settings, machine.log)
    try:
        ready = _got(spec, worker.load(LIMIT))
        assert isinstance(ready, Ready)
        answers = [_got(spec, worker.ask(call, LIMIT)) for call in calls]
    finally:
        worker.kill()
    counted = [answer for answer in answers[1:] if isinstance(answer, BatchAnswer)]
    return Timed(
        seconds=tuple(answer.seconds for answer in counted),
        outcomes=tuple(outcome for answer in counted for outcome, _ in answer.answers),
        loaded_mb=ready.peak_memory_mb,
        peak_mb=counted[-1].peak_memory_mb,
    )


def _got(spec: ModelSpec, reply: Ready | BatchAnswer | Failure) -> Ready | BatchAnswer:
    if isinstance(reply, Failure):
        raise UserError(f"{spec.name}: {reply.detail}")
    return reply


DEFAULT = (*(name for name, spec in MODELS.items() if spec.family == "gnn"), "t5")


@dataclass(frozen=True, slots=True)
class Measured:
    """A model that can be loaded here, and what is known of it."""

    spec: ModelSpec
    weights: str
    """`its own`, or `random`."""
    weights_sha256: str | None = None
    versions: Mapping[str, Any] = field(default_factory=dict)
    """`python` and `packages` of the environment that runs it."""
    training_cost: tuple[TrainingCost | None, ...] = ()

    @property
    def is_potential(self) -> bool:
        """Whether it relaxes in steps, so that one evaluation can be asked for."""
        return "max_steps" in self.spec.honours


class Choice(NamedTuple):
    """The models to measure, and a folder for random weights."""

    names: Sequence[str] | None
    """As for `benchmarks.run`; None: those of `DEFAULT` that can be loaded here, each in the
    environment that has its packages."""
    engine: str
    folder: Path
    """Folder for the files of random weights."""


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
        located = locate_model(spec, offline=True)
    except UserError:
        if name not in ARCHITECTURES:
            raise
        random = _with_random_weights(spec, choice.folder)
        return Measured(random, "random", versions=versions())
    return Measured(
        spec,
        "its own",
        weights_identity(located.weights)["weights_sha256"],
        located.versions or versions(),
        tuple(training_costs(spec, located.weights)),
    )


def _with_random_weights(spec: ModelSpec, folder: Path) -> ModelSpec:
    require(spec)
    weights = save(spec.name, folder / spec.name)
    return replace(spec, kwargs={"model": str(weights)})
