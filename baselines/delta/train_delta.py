"""Train the graph network that predicts relaxations in one pass, on pairs, with Lightning.

    OMP_NUM_THREADS=1 python -m baselines.train gnn-delta --data embedded --data PAIRS --val VAL

The loss of a crystal is the Frobenius norm of the error of its logarithmic strain plus the mean
length of the error of its displacements [Å]. These are the errors that the leaderboard reports, and
not their squares, so that a few large changes do not dominate. Starts are moved along their way,
dilated, strained, displaced and relaxed as for the T5. The learning rate falls to 0 over a fixed
number of epochs, and the last weights are kept: no weights are selected on the validation pairs,
whose errors are only recorded.
"""

from __future__ import annotations

import hashlib
import math
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler
from torch.utils.data import Dataset as TorchDataset
from tqdm import tqdm

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
from baselines.training.model_card import (
    described,
    training_sets,
    validation_sets,
    versions,
    write_card,
)
from baselines.training.potential_training import lightning_session
from benchmarks.core import Geometry, UserError
from benchmarks.core.cli import require_numbers
from benchmarks.core.files import atomic_write
from benchmarks.core.geometry import (
    Floats,
    displacements,
    drawn_displacements,
    log_strain,
    strained,
)
from benchmarks.core.symmetry import drawn_symmetric_displacements
from benchmarks.core.training_identity import plain, read_state, require_same_training
from benchmarks.data import Dataset

GeometryPair = tuple[Geometry, Geometry]
"""Initial and final geometry of a relaxation, sites in the same order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaTrainingConfig:
    """The configuration of a training; the defaults were chosen on substitution/val.

    Raises:
        UserError: A number makes no sense.
    """

    data: tuple[str, ...] = ()
    """Sources of the training pairs; of a source that has splits the training split is used."""
    val: tuple[str, ...] = ()
    """Sources of pairs whose errors are recorded after each epoch."""
    out: Path
    """The model; its card is beside it, and OUT.state holds what an interrupted training goes on
    from."""
    limit: int | None = None
    """Largest number of relaxations of each training source."""
    seed: int = 0
    """Seed of the first weights, the order of the pairs and their changes."""
    device: str = "cpu"
    """`cpu` or `cuda`."""
    epochs: int = 24
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    warmup: float = 0.03
    """Share of the steps over which the learning rate rises."""
    displacement: float = 1.0
    """Weight of the displacements' error in the loss [1/Å]."""
    along: float = 0.35
    """Probability that a start is moved along the way to its end."""
    dilation: float = 0.35
    """Probability that a start is dilated, by 3 % (standard deviation)."""
    relaxed: float = 0.15
    """Probability that a start becomes its end, which is then changed by what follows."""
    together: float = 0.0
    """Probability that sublattices of a start are displaced together, see
    `drawn_symmetric_displacements`."""
    strained: float = 0.3
    """Probability that a start is strained; the components of the strain are drawn with the
    standard deviation `STRAIN`."""
    displaced: float = 0.6
    """Probability that the sites of a start are displaced, see `drawn_displacements`."""
    shape: Shape = field(default_factory=Shape)
    """The shape of the network."""

    def __post_init__(self) -> None:
        positive = ("limit", "epochs", "batch_size", "learning_rate")
        require_numbers(self, positive=positive, not_negative=("seed", "weight_decay", "warmup"))

    def settings(self) -> dict[str, Any]:
        """The settings of loss, optimiser and augmentation by their names."""
        found = {name: getattr(self, name) for name in SETTINGS}
        if not self.together:  # older trainings did not record it
            del found["together"]
        return found


SETTINGS: Final = (
    *("epochs", "batch_size", "learning_rate", "weight_decay", "warmup"),
    *("displacement", "along", "dilation", "relaxed", "together", "strained", "displaced"),
)
CHANGES: Final = ("along", "dilation", "relaxed", "together", "strained", "displaced")
"""The settings that are probabilities of a change of a start."""
STRAIN: Final = 0.012
MOST: Final = 3.0
"""Draws are cut at this multiple of their standard deviation."""


def training_identity(config: DeltaTrainingConfig, pairs: Sequence[GeometryPair]) -> dict[str, Any]:
    """Return what must be equal for a training to go on; see `require_same_training`.

    Args:
        config: The configuration.
        pairs: The pairs to train on.
    """
    digest = hashlib.sha256()
    for geometry in (geometry for pair in pairs for geometry in pair):
        digest.update(geometry.numbers.astype(np.int16).tobytes())
        for array in (geometry.lattice, geometry.frac_coords):
            digest.update((np.round(array, 6) + 0.0).tobytes())
    return {
        "data": f"sha256:{digest.hexdigest()}",
        "seed": config.seed,
        "shape": asdict(config.shape),
        **config.settings(),
    }


def read_geometries(datasets: Iterable[Dataset]) -> list[GeometryPair]:
    """The pairs of data sets; those with elements beyond plutonium are left out."""
    found = ((data, i) for data in datasets for i in range(len(data)))
    pairs = (data.geometries(i) for data, i in tqdm(found, desc="pairs", unit="pair"))
    return [pair for pair in pairs if pair[0].numbers.max() <= N_ELEMENTS]


class DeltaExample(NamedTuple):
    """The graph of a start, and the change that is to be learned."""

    start: CrystalGraph
    strain: Floats
    """(3, 3) logarithmic."""
    moved: Floats
    """(n_sites, 3) fractional, 0 on average."""


def example(initial: Geometry, final: Geometry, cutoff: float) -> DeltaExample:
    """Make the example of a pair."""
    moved = displacements(initial, final) @ np.linalg.inv(initial.lattice)
    strain = log_strain(initial.lattice, final.lattice @ final.lattice.T)
    return DeltaExample(graph(initial, cutoff * MARGIN), strain, moved)


class DeltaExamples(TorchDataset[DeltaExample]):
    """Examples that are changed anew in every epoch, in the same way for the same seed.

    Attributes:
        epoch: The number of the epoch; the trainer sets it when an epoch begins.
    """

    def __init__(self, examples: Sequence[DeltaExample], config: DeltaTrainingConfig) -> None:
        self.examples, self.config = examples, config
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> DeltaExample:
        rng = np.random.default_rng((self.config.seed, self.epoch, index))
        changed = self.examples[index]
        if rng.random() < self.config.along:
            changed = _interpolate_to_final(changed, rng.random())
        if rng.random() < self.config.relaxed:
            changed = _interpolate_to_final(changed, 1.0)
        if rng.random() < self.config.dilation:
            changed = _dilated(changed, float(np.clip(rng.normal(0, 0.03), -0.08, 0.08)))
        if self.config.together and rng.random() < self.config.together:
            begun = changed.start
            numbers = begun.numbers.astype(np.int16)
            crystal = Geometry(begun.lattice, begun.frac_coords, numbers)
            changed = _displaced(changed, drawn_symmetric_displacements(rng, crystal))
        if rng.random() < self.config.strained:
            drawn = STRAIN * np.clip(rng.normal(size=(3, 3)), -MOST, MOST)
            changed = _strained(changed, (drawn + drawn.T) / 2)
        if rng.random() < self.config.displaced:
            changed = _displaced(changed, drawn_displacements(rng, len(changed.moved)))
        return changed


def _interpolate_to_final(given: DeltaExample, share: float) -> DeltaExample:
    start = given.start._replace(
        lattice=strained(given.start.lattice, share * given.strain),
        frac_coords=given.start.frac_coords + share * given.moved,
    )
    return DeltaExample(start, (1 - share) * given.strain, (1 - share) * given.moved)


def _dilated(given: DeltaExample, growth: float) -> DeltaExample:
    start = given.start._replace(lattice=given.start.lattice * np.exp(growth))
    return given._replace(start=start, strain=given.strain - growth * np.eye(3))


def _strained(given: DeltaExample, strain: Floats) -> DeltaExample:
    """The start in a strained cell; the strain that is left is that of its cell towards the end."""
    end = strained(given.start.lattice, given.strain)
    start = given.start._replace(lattice=strained(given.start.lattice, strain))
    return given._replace(start=start, strain=log_strain(start.lattice, end @ end.T))


def _displaced(given: DeltaExample, moves: Floats) -> DeltaExample:
    """The start with its sites moved by (n_sites, 3) [Å]."""
    fractional = moves @ np.linalg.inv(given.start.lattice)
    start = given.start._replace(frac_coords=given.start.frac_coords + fractional)
    return given._replace(start=start, moved=given.moved - fractional)


class LabelledBatch(NamedTuple):
    """A batch of starts with the changes that are to be learned."""

    batch: Batch
    strain: Tensor
    """(n, 3, 3)"""
    moved: Tensor
    """(n_sites, 3) Cartesian in the start's cell [Å]."""


def collate(examples: Sequence[DeltaExample], cutoff: float) -> LabelledBatch:
    """One batch of several examples."""
    moved = np.concatenate([given.moved @ given.start.lattice for given in examples])
    return LabelledBatch(
        joined([given.start for given in examples], cutoff),
        torch.from_numpy(np.stack([given.strain for given in examples])).float(),
        torch.from_numpy(moved).float(),
    )


class DeltaTraining(LightningModule):
    """Loss, optimiser and learning rate for Lightning's trainer.

    Args:
        network: The network that is trained.
        config: The configuration.
        examples: The examples that it is trained on.
        identity: The identity of the training, see `training_identity`.
    """

    def __init__(
        self,
        network: DeltaNetwork,
        config: DeltaTrainingConfig,
        examples: DeltaExamples,
        identity: dict[str, Any],
    ) -> None:
        super().__init__()
        self.network, self.config, self.examples = network, config, examples
        self.steps = config.epochs * math.ceil(len(examples) / config.batch_size)
        self.identity = identity
        self.curve: list[dict[str, float]] = []

    def training_step(self, labelled: LabelledBatch) -> Tensor:
        """Return the loss of a batch."""
        strain, moved = errors(self.network, labelled)
        return strain.mean() + self.config.displacement * moved.mean()

    def on_train_epoch_start(self) -> None:
        """Tell the examples which epoch it is, so that they change anew."""
        self.examples.epoch = self.current_epoch

    def validation_step(self, labelled: LabelledBatch) -> None:
        """Log the errors, averaged over crystals."""
        names = ("strain", "displacement")
        for name, values in zip(names, errors(self.network, labelled), strict=True):
            self.log(name, values.mean(), batch_size=len(values), prog_bar=True)

    def on_validation_epoch_end(self) -> None:
        """Record the errors of the epoch."""
        if not self.trainer.sanity_checking:
            found = {name: round(float(x), 5) for name, x in self.trainer.callback_metrics.items()}
            self.curve.append({"epoch": self.current_epoch + 1, **found})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the curve, and the identity of the training."""
        checkpoint |= {"curve": self.curve, "identity": self.identity}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the curve.

        Raises:
            UserError: The state is of another training.
        """
        state = self.config.out.with_suffix(".state")
        require_same_training(state, checkpoint.get("identity"), self.identity)
        self.curve = checkpoint["curve"]

    def configure_optimizers(self) -> Any:
        """AdamW; the rate rises linearly, then falls to 0 as a cosine."""
        config = self.config
        optimizer = torch.optim.AdamW(
            self.parameters(), config.learning_rate, weight_decay=config.weight_decay
        )
        rate = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, config.learning_rate, self.steps, pct_start=config.warmup
        )
        return [optimizer], [{"scheduler": rate, "interval": "step"}]


def errors(network: DeltaNetwork, labelled: LabelledBatch) -> tuple[Tensor, Tensor]:
    """(n,) norm of the strain's error and mean length of the displacements' error [Å]."""
    strain, moved = network(labelled.batch)
    lengths = (moved - labelled.moved).square().sum(1).add(1e-12).sqrt()
    of_crystal = lengths.new_zeros(len(strain)).index_add(0, labelled.batch.crystal, lengths)
    sizes = torch.bincount(labelled.batch.crystal, minlength=len(strain))
    return torch.linalg.matrix_norm(strain - labelled.strain), of_crystal / sizes


def fit(
    pairs: Sequence[GeometryPair], held_out: Sequence[GeometryPair], config: DeltaTrainingConfig
) -> dict[str, Any]:
    """Train on given pairs and write the model; the state beside it is removed at the end.

    Args:
        pairs: The pairs to train on, see `read_geometries`.
        held_out: Other pairs, whose errors are recorded after each epoch.
        config: The configuration; its sources play no part here.

    Returns:
        The entries of the card that the training decides.

    Raises:
        UserError: There is nothing to train on, or OUT.state is of another training.
    """
    if not pairs:
        raise UserError("no pairs to train on")
    shape, state = config.shape, config.out.with_suffix(".state")
    seed_everything(config.seed, verbose=False)
    examples = DeltaExamples([example(*pair, shape.cutoff) for pair in pairs], config)
    never: Any = dict.fromkeys(CHANGES, 0.0)
    unchanged = replace(config, **never)
    others = DeltaExamples([example(*pair, shape.cutoff) for pair in held_out], unchanged)
    network = DeltaNetwork(shape)
    identity = training_identity(config, pairs)
    training = DeltaTraining(network, config, examples, identity)
    last = state / "last.ckpt"
    if last.is_file():
        read_state(last)
    with lightning_session():
        trainer = Trainer(
            max_epochs=config.epochs,
            accelerator=config.device,
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
        trainer.fit(
            training,
            _loader(examples, config.seed),
            _loader(others) if held_out else None,
            ckpt_path=last if last.is_file() else None,
            weights_only=True,  # a folder from elsewhere must not run code
        )
    elements = {int(z) for initial, _ in pairs for z in initial.numbers}
    with atomic_write(config.out) as partial:
        save(network.cpu(), elements, partial)
    shutil.rmtree(state)
    return {
        "n": len(pairs),
        "n_parameters": network.n_parameters,
        "shape": asdict(shape),
        "settings": config.settings(),
        "identity": identity,
        "steps": trainer.global_step,
        "validation": training.curve,
    }


def train(config: DeltaTrainingConfig, command: str | None = None) -> dict[str, Any]:
    """Read the data, train, and write the model with its card.

    Args:
        config: The configuration.
        command: The command line, for the card; None if there is none.

    Returns:
        The card.

    Raises:
        UserError: A source cannot be read, there is nothing to train on, or OUT.state is of
            another training.
    """
    started = time.perf_counter()
    datasets, held_out = training_sets(config.data, config.limit), validation_sets(config.val)
    results = fit(read_geometries(datasets), read_geometries(held_out), config)
    card = {
        "model": "gnn-delta",
        "trained": "from scratch",
        "command": command,
        "config": plain(config),
        "training_data": described(datasets),
        "validation_data": described(held_out),
        "seed": config.seed,
        "device": config.device,
        "seconds": round(time.perf_counter() - started),
        **results,
        "packages": versions("matgl", "torch", "lightning"),
    }
    write_card(config.out.with_suffix(".json"), **card)
    return card


def _loader(examples: DeltaExamples, seed: int | None = None) -> DataLoader[DeltaExample]:
    """Batches in an order that depends on seed and epoch; without a seed, in the given order."""
    sampler: DistributedSampler[DeltaExample] | None = None
    if seed is not None:
        sampler = DistributedSampler(examples, num_replicas=1, rank=0, seed=seed)
    cutoff = examples.config.shape.cutoff
    return DataLoader(
        examples,
        examples.config.batch_size,
        sampler=sampler,
        collate_fn=lambda given: collate(given, cutoff),
    )
