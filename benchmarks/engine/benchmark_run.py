"""Several models over one data set, each into its run folder; goes on with what is there."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.core import WHOLE, MissingFinalFrame, RelaxSettings, Shard, Status
from benchmarks.data import Dataset
from benchmarks.engine.cluster import DaskWorkers, connected
from benchmarks.engine.execute import Budget, ModelRunSummary, Task, run_model
from benchmarks.engine.part import Part
from benchmarks.engine.parts_run import governed, run_parts
from benchmarks.engine.process import threads
from benchmarks.models.provenance import (
    environment,
    load_average,
    now,
    training_costs,
    weights_identity,
)
from benchmarks.models.registry import (
    ModelSpec,
    decoding_identity,
    honoured_settings,
    keeping_answers,
    spent,
)
from benchmarks.store import Record, RunWriter, model_folder

LOG = "worker.log"
"""The file for what a model prints, beside its records."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkRun:
    """The data, the settings and the folder of one command, which all its models share."""

    dataset: Dataset
    settings: RelaxSettings
    repeats: int
    out: Path
    command: str
    """The command line, for the record."""
    log: Callable[[str], None]
    """Called with one line per model."""
    shard: Shard = WHOLE
    """The part of the samples that this process runs."""
    cluster: str | None = None
    """The workers that run them, as `benchmarks.engine.cluster.connected` takes them."""

    @cached_property
    def positions(self) -> Sequence[int]:
        """The positions in the data set of the samples that this process runs."""
        if self.shard == WHOLE:
            return range(len(self.dataset))
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

    def identity(self, run: BenchmarkRun) -> dict[str, Any]:
        """Give the facts that must be equal to go on with a stored run, or to merge two."""
        dataset, settings = run.dataset, run.settings
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
        # Older runs lack this field; they were made with the default.
        if dataset.missing_final_frame is not MissingFinalFrame.IF_RELAXED:
            identity["missing_final_frame"] = str(dataset.missing_final_frame)
        if decoding := decoding_identity(self.spec):
            identity["decoding"] = decoding
        parts = self.spec.parts or (self.spec,)
        calculators = [part.kwargs["calculator"] for part in parts if "calculator" in part.kwargs]
        if calculators:  # The name of the user's own code stands for weights.
            names = filter(None, (*calculators, identity["weights"]))
            identity["weights"] = " + ".join(map(str, names))
        return identity

    def provenance(self, run: BenchmarkRun) -> dict[str, Any]:
        """Give the facts about the model's run that are known before it begins."""
        return {
            **self.versions,
            "licence": self.spec.licence,
            "functional": self.spec.functional,
            "training_data": list(self.spec.training_data),
            "training_cost": [
                None if cost is None else asdict(cost)
                for cost in training_costs(self.spec, self.weights)
            ],
            "threads": threads(),
            "started": now(),
            "ended": None,
            "command": run.command,
            "quarantined": [
                {"sample_id": q.sample_id, "reason": str(q.reason), "detail": q.detail}
                for q in run.dataset.quarantined
            ],
            "n_samples": len(run.dataset),
            "limit": run.dataset.limit,
            "chosen_by": run.dataset.rule,
            "missing_final_frame": {
                "policy": str(run.dataset.missing_final_frame),
                "sample_ids": list(run.dataset.missing_final_frame_ids),
            },
            "redistributable": run.dataset.redistributable,
            "batch_size": run.settings.batch_size or self.spec.batch_size,
            "aborted": None,
        }


def run_all(plans: Sequence[ModelRun], run: BenchmarkRun) -> list[str]:
    """Run each model into its folder of `run.out`.

    Returns:
        The reasons why models were given up, a line each.

    Raises:
        UserError: A stored run cannot be resumed (before any model runs), or a relaxer says while
            loading that something is missing.
    """
    with ExitStack() as stack:
        folders = [model_folder(run.out, plan.spec.name) for plan in plans]
        words = [
            stack.enter_context(governed(folder, run.log)) if run.cluster else ""
            for folder in folders
        ]
        # The driver of a cluster need not have the device that its workers have.
        common = environment("cpu" if run.cluster else run.settings.device)
        writers = [
            stack.enter_context(
                RunWriter.open(
                    folder, plan.identity(run), common | plan.provenance(run), shard=run.shard
                )
            )
            for plan, folder in zip(plans, folders, strict=True)
        ]
        workers = (
            stack.enter_context(connected(run.cluster, run.settings.device, run.log))
            if run.cluster
            else None
        )
        reasons = [
            _run_samples(plan, writer, run, workers, word)
            for plan, writer, word in zip(plans, writers, words, strict=True)
        ]
    return [reason for reason in reasons if reason]


def _run_samples(
    plan: ModelRun, writer: RunWriter, run: BenchmarkRun, workers: DaskWorkers | None, word: str
) -> str | None:
    """Run one model on the samples that are not stored yet; say why it was given up, if it was."""
    spec, dataset = keeping_answers(plan.spec, writer.folder), run.dataset
    budget = Budget()
    for status in writer.statuses.elements():
        budget.add(Status(status))
    # The writers of all models are opened at once; a run starts when it is this model's turn.
    writer.note(started=now(), load_average=load_average())
    counts: Counter[str] = Counter()
    summaries: list[ModelRunSummary] = []
    begin = time.monotonic()
    with tqdm(total=run.n_wanted, desc=spec.name, disable=None, file=sys.stderr) as bar:

        def count(statuses: Counter[str]) -> None:
            counts.update(statuses)
            bar.update(statuses.total())

        def store(records: list[Record]) -> None:
            writer.append(records)
            count(Counter(record.status.value for record in records))

        for repeat in range(run.repeats):
            todo = (
                Task(dataset.ids[i], repeat, dataset.geometries(i)[0])
                for i in run.positions
                if (dataset.ids[i], repeat) not in writer.done
            )
            # Relaxers seed their sampling from seed and structure: a repeat is another seed.
            settings = replace(run.settings, seed=run.settings.seed + repeat)
            if workers is None:
                summary = run_model(
                    spec,
                    todo,
                    settings=settings,
                    on_records=store,
                    budget=budget,
                    first_batch=writer.next_batch_id,
                    log=writer.folder / LOG,
                )
            else:
                part = Part(
                    spec=spec,
                    settings=replace(settings, batch_size=settings.batch_size or spec.batch_size),
                    folder=writer.folder.parent.absolute(),
                    shard=run.shard,
                    todo=list(todo),
                    identity=plan.identity(run),
                    provenance=plan.provenance(run),
                    word=word,
                    log=LOG,
                )
                summary = run_parts(workers, part, budget=budget, on_statuses=count)
            summaries.append(summary)
            if summary.aborted:
                break
    seconds = time.monotonic() - begin
    summary = ModelRunSummary.over_repeats(summaries)
    took = spent(spec)
    writer.note(**{"spent": took} if took else {})
    for name, sums in took.items():
        run.log(f"{name}: " + ", ".join(f"{n:.6g} {what}" for what, n in sums.items()))
    writer.close(ended=now(), load_average_end=load_average(), **asdict(summary))
    if n_new := counts.total():
        outcomes = ", ".join(f"{n} {status}" for status, n in counts.most_common())
        resumed = f" of {run.n_wanted}" if n_new < run.n_wanted else ""
        run.log(f"{spec.name}: {n_new}{resumed} structures in {seconds:.1f} s ({outcomes})")
    else:
        run.log(f"{spec.name}: all {run.n_wanted} there already")
    if summary.aborted is None:
        return None
    folder, log = writer.folder.parent, writer.folder / LOG
    return f"{spec.name} given up: {summary.aborted} (see {log}; remove {folder} to start over)"
