"""Several models over one data set, each into its run folder; goes on with what is there."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.core import WHOLE, MissingFinalFrame, RelaxSettings, Shard, Status
from benchmarks.data import Dataset
from benchmarks.engine.execute import Budget, ModelRunSummary, run_model
from benchmarks.engine.process import threads
from benchmarks.models.provenance import environment, load_average, now, weights_identity
from benchmarks.models.registry import ModelSpec, decoding_identity, honoured_settings
from benchmarks.store import Record, RunWriter, model_folder

LOG = "worker.log"
"""What a model printed, beside its records."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkRun:
    """What is run on what, and where it goes."""

    dataset: Dataset
    settings: RelaxSettings
    repeats: int
    out: Path
    command: str
    """The command line, for the record."""
    log: Callable[[str], None]
    """Is told one line per model."""
    shard: Shard = WHOLE
    """The part of the samples that this process runs."""

    @cached_property
    def positions(self) -> list[int]:
        """The positions in the data set of the samples that this process runs."""
        return [i for i, name in enumerate(self.dataset.ids) if self.shard.holds(name)]

    @property
    def n_wanted(self) -> int:
        """The number of records of a model that this process sees to."""
        return len(self.positions) * self.repeats


@dataclass(frozen=True, slots=True)
class ModelRun:
    """One model and its weights on disk."""

    spec: ModelSpec
    weights: tuple[Path, ...]
    versions: Mapping[str, Any] = field(default_factory=dict)
    """`python` and `packages` of the model's own environment; empty where it has none."""

    def identity(self, campaign: BenchmarkRun) -> dict[str, Any]:
        """What must be equal to go on with a stored run, or to merge two."""
        dataset, settings = campaign.dataset, campaign.settings
        identity: dict[str, Any] = {
            "dataset": dataset.name,
            "revision": dataset.revision,
            "split": dataset.split,
            "model": self.spec.name,
            "label": self.spec.label,
            "family": self.spec.family,
            **weights_identity(self.weights),
            "settings": honoured_settings(self.spec, settings),
        }
        if "seed" in self.spec.honours:
            identity["seed"] = settings.seed
        if (
            dataset.missing_final_frame is not MissingFinalFrame.IF_RELAXED
        ):  # runs without the field are of it
            identity["missing_final_frame"] = str(dataset.missing_final_frame)
        if decoding := decoding_identity(self.spec):  # runs without the field are older
            identity["decoding"] = decoding
        parts = self.spec.parts or (self.spec,)
        own = [part.kwargs["calculator"] for part in parts if "calculator" in part.kwargs]
        if own:  # the user's own code stands for weights
            identity["weights"] = " + ".join(map(str, filter(None, (*own, identity["weights"]))))
        return identity

    def provenance(self, campaign: BenchmarkRun) -> dict[str, Any]:
        """What is known of the model's run before it begins."""
        return {
            **self.versions,
            "licence": self.spec.licence,
            "functional": self.spec.functional,
            "training_data": list(self.spec.training_data),
            "threads": threads(),
            "started": now(),
            "ended": None,
            "command": campaign.command,
            "quarantined": [
                {"sample_id": q.sample_id, "reason": str(q.reason), "detail": q.detail}
                for q in campaign.dataset.quarantined
            ],
            "n_samples": len(campaign.dataset),
            "limit": campaign.dataset.limit,
            "chosen_by": campaign.dataset.rule,
            "missing_final_frame": {
                "policy": str(campaign.dataset.missing_final_frame),
                "sample_ids": list(campaign.dataset.missing_final_frame_ids),
            },
            "redistributable": campaign.dataset.redistributable,
            "batch_size": campaign.settings.batch_size or self.spec.batch_size,
            "aborted": None,
        }


def run_all(plans: Sequence[ModelRun], campaign: BenchmarkRun) -> list[str]:
    """Run each model into its folder of `campaign.out`.

    Returns:
        Why models were given up, a line each.

    Raises:
        UserError: A stored run cannot be resumed (before any model runs), or a relaxer says while
            loading that something is missing.
    """
    common = environment(campaign.settings.device)
    with ExitStack() as stack:
        writers = [
            stack.enter_context(
                RunWriter.open(
                    model_folder(campaign.out, plan.spec.name),
                    plan.identity(campaign),
                    common | plan.provenance(campaign),
                    shard=campaign.shard,
                )
            )
            for plan in plans
        ]
        pairs = zip(plans, writers, strict=True)
        reasons = [_run_one(plan.spec, writer, campaign) for plan, writer in pairs]
    return [reason for reason in reasons if reason]


def _run_one(spec: ModelSpec, writer: RunWriter, campaign: BenchmarkRun) -> str | None:
    """Run what is not stored yet, with a bar on a terminal and a line at the end."""
    budget = Budget()
    for status in writer.statuses.elements():
        budget.add(Status(status))
    # A queue of models is opened at once; a run starts when it is this model's turn.
    writer.note(started=now(), load_average=load_average())
    counts: Counter[str] = Counter()
    begin = time.monotonic()
    with tqdm(total=campaign.n_wanted, desc=spec.name, disable=None, file=sys.stderr) as bar:

        def store(records: list[Record]) -> None:
            writer.append(records)
            counts.update(record.status.value for record in records)
            bar.update(len(records))

        outcome = _merged(list(_repeats(spec, writer, campaign, budget, store)))
    seconds = time.monotonic() - begin
    writer.close(ended=now(), load_average_end=load_average(), **asdict(outcome))
    campaign.log(_summary(spec.name, counts, campaign.n_wanted, seconds))
    if outcome.aborted is None:
        return None
    folder, log = writer.folder.parent, writer.folder / LOG
    return f"{spec.name} given up: {outcome.aborted} (see {log}; remove {folder} to start over)"


def _repeats(
    spec: ModelSpec,
    writer: RunWriter,
    campaign: BenchmarkRun,
    budget: Budget,
    store: Callable[[list[Record]], None],
) -> Iterator[ModelRunSummary]:
    dataset, settings = campaign.dataset, campaign.settings
    for repeat in range(campaign.repeats):
        todo = [i for i in campaign.positions if (dataset.ids[i], repeat) not in writer.done]
        outcome = run_model(
            spec,
            ((dataset.ids[i], repeat, dataset.geometries(i)[0]) for i in todo),
            # Relaxers seed their sampling from seed and structure: a repeat is another seed.
            settings=replace(settings, seed=settings.seed + repeat),
            on_records=store,
            budget=budget,
            first_batch=writer.next_batch_id,
            log=writer.folder / LOG,
        )
        yield outcome
        if outcome.aborted:
            return


def _merged(outcomes: Sequence[ModelRunSummary]) -> ModelRunSummary:
    """One outcome of all repeats: the first load and warm-up, the highest memory, the end."""
    loads = [o.load_seconds for o in outcomes if o.load_seconds is not None]
    warmups = [o.warmup_seconds for o in outcomes if o.warmup_seconds is not None]
    peaks = [o.peak_memory_mb for o in outcomes if o.peak_memory_mb is not None]
    return ModelRunSummary(
        load_seconds=next(iter(loads), None),
        warmup_seconds=next(iter(warmups), None),
        peak_memory_mb=max(peaks, default=None),
        aborted=outcomes[-1].aborted,
    )


def _summary(name: str, counts: Counter[str], n_wanted: int, seconds: float) -> str:
    n_new = counts.total()
    if not n_new:
        return f"{name}: all {n_wanted} there already"
    what = ", ".join(f"{n} {status}" for status, n in counts.most_common())
    resumed = f" of {n_wanted}" if n_new < n_wanted else ""
    return f"{name}: {n_new}{resumed} structures in {seconds:.1f} s ({what})"
