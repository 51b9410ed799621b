"""Train the graph network that predicts relaxations in one pass, on pairs, with Lightning.

The loss of a crystal is the Frobenius norm of the error of its logarithmic strain plus the mean
length of the error of its displacements [Å]: what the leaderboard reports, and not their squares,
so that a few large changes do not rule. Starts are moved along their way and dilated as for the T5.
The rate of learning falls to 0 over a fixed number of epochs, and the last weights are kept:
no weights are selected on the validation pairs, whose errors are written down beside.
"""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from baselines.delta.network import (
    MARGIN,
    N_ELEMENTS,
    Batch,
    CrystalGraph,
    DeltaNetwork,
    Shape,
    graph,
    joined,
    save,
)
from baselines.training.lightning_utils import lightning_session
from benchmarks.core import Geometry, UserError
from benchmarks.core.files import atomic_write
from benchmarks.core.geometry import Floats, displacements, log_strain, strained


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Chosen on substitution/val."""

    epochs: int = 24
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    warmup: float = 0.03
    """Share of the steps."""
    displacement: float = 1.0
    """Weight of the displacements' error [1/Å]."""
    along: float = 0.35
    """How often a start is moved along the way to its end."""
    dilation: float = 0.35
    """How often it is dilated, by 3 % (standard deviation)."""


class Example(NamedTuple):
    """A start and what becomes of it."""

    start: CrystalGraph
    strain: Floats
    """(3, 3) logarithmic."""
    moved: Floats
    """(n_sites, 3) fractional, 0 on average."""


def example(initial: Geometry, final: Geometry, cutoff: float) -> Example:
    """What is to be learned from a pair."""
    moved = displacements(initial, final) @ np.linalg.inv(initial.lattice)
    strain = log_strain(initial.lattice, final.lattice @ final.lattice.T)
    return Example(graph(initial, cutoff * MARGIN), strain, moved)


class Examples(Dataset[Example]):
    """Examples, changed anew in every epoch, the same way for the same seed.

    Attributes:
        epoch: To be set when one begins.
    """

    def __init__(self, examples: Sequence[Example], settings: Settings, seed: int) -> None:
        self.examples, self.settings, self.seed = examples, settings, seed
        self.epoch = 0

    @property
    def sha256(self) -> str:
        """Of what is to be learned."""
        arrays = (array for given in self.examples for array in (*given.start[:3], *given[1:]))
        return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        rng = np.random.default_rng((self.seed, self.epoch, index))
        changed = self.examples[index]
        if rng.random() < self.settings.along:
            changed = _interpolate_to_final(changed, rng.random())
        if rng.random() < self.settings.dilation:
            changed = _dilated(changed, float(np.clip(rng.normal(0, 0.03), -0.08, 0.08)))
        return changed


def _interpolate_to_final(given: Example, share: float) -> Example:
    start = given.start._replace(
        lattice=strained(given.start.lattice, share * given.strain),
        frac_coords=given.start.frac_coords + share * given.moved,
    )
    return Example(start, (1 - share) * given.strain, (1 - share) * given.moved)


def _dilated(given: Example, growth: float) -> Example:
    start = given.start._replace(lattice=given.start.lattice * np.exp(growth))
    return given._replace(start=start, strain=given.strain - growth * np.eye(3))


class Labelled(NamedTuple):
    """A batch and what it should become."""

    batch: Batch
    strain: Tensor
    """(n, 3, 3)"""
    moved: Tensor
    """(n_sites, 3) Cartesian in the start's cell [Å]."""


def collate(examples: Sequence[Example], cutoff: float) -> Labelled:
    """One batch of several examples."""
    moved = np.concatenate([given.moved @ given.start.lattice for given in examples])
    return Labelled(
        joined([given.start for given in examples], cutoff),
        torch.from_numpy(np.stack([given.strain for given in examples])).float(),
        torch.from_numpy(moved).float(),
    )


class Training(LightningModule):
    """Loss, optimiser and schedule.

    Args:
        network: What is trained.
        settings: How.
        examples: What it is trained on.
    """

    def __init__(self, network: DeltaNetwork, settings: Settings, examples: Examples) -> None:
        super().__init__()
        self.network, self.settings, self.examples = network, settings, examples
        self.steps = settings.epochs * math.ceil(len(examples) / settings.batch_size)
        about = {"data": examples.sha256, "seed": examples.seed}
        self.identity = {**asdict(network.shape), **asdict(settings), **about}
        self.curve: list[dict[str, float]] = []

    def training_step(self, labelled: Labelled) -> Tensor:
        """The loss of a batch."""
        strain, moved = errors(self.network, labelled)
        return strain.mean() + self.settings.displacement * moved.mean()

    def on_train_epoch_start(self) -> None:
        """Change the examples anew."""
        self.examples.epoch = self.current_epoch

    def validation_step(self, labelled: Labelled) -> None:
        """Errors, averaged over crystals."""
        names = ("strain", "displacement")
        for name, values in zip(names, errors(self.network, labelled), strict=True):
            self.log(name, values.mean(), batch_size=len(values), prog_bar=True)

    def on_validation_epoch_end(self) -> None:
        """Write them down."""
        if not self.trainer.sanity_checking:
            found = {name: round(float(x), 5) for name, x in self.trainer.callback_metrics.items()}
            self.curve.append({"epoch": self.current_epoch + 1, **found})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the curve, and of which training it is."""
        checkpoint |= {"curve": self.curve, "identity": self.identity}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with it.

        Raises:
            UserError: It is of another training.
        """
        found = checkpoint["identity"]
        other = [name for name, value in self.identity.items() if found.get(name) != value]
        if other:
            raise UserError(f"the unfinished training differs in {', '.join(other)}: remove it")
        self.curve = checkpoint["curve"]

    def configure_optimizers(self) -> Any:
        """AdamW; the rate rises linearly, then falls to 0 as a cosine."""
        settings = self.settings
        optimizer = torch.optim.AdamW(
            self.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
        )
        rate = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, settings.learning_rate, self.steps, pct_start=settings.warmup
        )
        return [optimizer], [{"scheduler": rate, "interval": "step"}]


def errors(network: DeltaNetwork, labelled: Labelled) -> tuple[Tensor, Tensor]:
    """Of each crystal: norm of the strain's error, mean length of the displacements' [Å]."""
    strain, moved = network(labelled.batch)
    lengths = (moved - labelled.moved).square().sum(1).add(1e-12).sqrt()
    of_crystal = lengths.new_zeros(len(strain)).index_add(0, labelled.batch.crystal, lengths)
    sizes = torch.bincount(labelled.batch.crystal, minlength=len(strain))
    return torch.linalg.matrix_norm(strain - labelled.strain), of_crystal / sizes


def train(
    pairs: Iterable[tuple[Geometry, Geometry]],
    held_out: Iterable[tuple[Geometry, Geometry]],
    out: Path,
    *,
    settings: Settings = Settings(),
    shape: Shape | None = None,
    seed: int = 0,
    device: str = "cpu",
) -> dict[str, Any]:
    """Train, and write the model; the state beside it is removed once it is there.

    Args:
        pairs: Initial and final geometries, sites in the same order; those with elements beyond
            plutonium are left out.
        held_out: Others, whose errors are written down after each epoch.
        out: Where the model goes; `OUT.state` holds what an interrupted training goes on from.
        settings: How.
        shape: Of the network; None for the default.
        seed: Of the first weights, the order and the changes.
        device: `cpu` or `cuda`.

    Returns:
        What its card should say beside the data and the seed.

    Raises:
        UserError: There is nothing to train on.
    """
    shape = shape or Shape()
    pairs = [pair for pair in pairs if pair[0].numbers.max() <= N_ELEMENTS]
    examples = [example(*pair, shape.cutoff) for pair in pairs]
    if not examples:
        raise UserError("no pairs to train on")
    seed_everything(seed, verbose=False)
    changing = Examples(examples, settings, seed)
    plain = Settings(along=0, dilation=0, batch_size=settings.batch_size)
    others = [example(*pair, shape.cutoff) for pair in held_out]
    network = DeltaNetwork(shape)
    training = Training(network, settings, changing)
    trainer = _fit(
        training,
        _loader(changing, settings, shape, seed),
        _loader(Examples(others, plain, seed), plain, shape) if others else None,
        out.with_suffix(".state"),
        device,
    )
    elements = {int(z) for given in examples for z in given.start.numbers}
    with atomic_write(out) as partial:
        save(network.cpu(), elements, partial)
    shutil.rmtree(out.with_suffix(".state"))
    return {
        "n": len(examples),
        "n_parameters": network.n_parameters,
        "shape": asdict(shape),
        "settings": asdict(settings),
        "steps": trainer.global_step,
        "validation": training.curve,
    }


def _fit(
    training: Training,
    loader: DataLoader[Example],
    held_out: DataLoader[Example] | None,
    state: Path,
    device: str,
) -> Trainer:
    """Train to the end, from where `state` stands."""
    last = state / "last.ckpt"
    with lightning_session():
        trainer = _trainer(training.settings, state, device)
        trainer.fit(
            training,
            loader,
            held_out,
            ckpt_path=last if last.is_file() else None,
            weights_only=False,  # ours
        )
    return trainer


def _loader(
    examples: Examples, settings: Settings, shape: Shape, seed: int | None = None
) -> DataLoader[Example]:
    """Batches in an order that depends on seed and epoch; without a seed, in the given order."""
    sampler: DistributedSampler[Example] | None = None
    if seed is not None:
        sampler = DistributedSampler(examples, num_replicas=1, rank=0, seed=seed)
    return DataLoader(
        examples,
        settings.batch_size,
        sampler=sampler,
        collate_fn=lambda given: collate(given, shape.cutoff),
    )


def _trainer(settings: Settings, state: Path, device: str) -> Trainer:
    return Trainer(
        max_epochs=settings.epochs,
        accelerator=device,
        devices=1,
        gradient_clip_val=1.0,
        logger=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[
            ModelCheckpoint(state, filename="last", enable_version_counter=False),
            TQDMProgressBar(refresh_rate=20),
        ],
    )
