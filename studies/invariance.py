"""How far a relaxer's answer moves when the same crystal is written in another way.

    python -m studies.invariance --models t5,gbr,chgnet --data TEST.parquet --out DIR

Each structure is given as it is and in four writings, each of which changes one convention: the
order of the sites, the origin, the axes (a, b, c exchanged), the cell (doubled along one axis).
The answers are mapped back and compared with the answer to the structure as given, by the strain
between the cells and by the mean displacement of the sites; neither sees a rotation or a common
shift. A model that sees crystals gives 0, a potential to within its limits of forces and stress.

Writes DIR/invariance.csv, which a board beside it shows as a column, and DIR/invariance.md. The
answers are kept in DIR/runs, so that the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import shlex
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from benchmarks.core import SCORED, Geometry, RelaxSettings, Status, UserError
from benchmarks.core.cli import check_device, run_command, whole_number
from benchmarks.core.files import atomic_write
from benchmarks.core.formatting import NOTHING, inert, markdown_table
from benchmarks.core.geometry import displacements, reduced_composition, strain
from benchmarks.core.statistics import Estimate, Resampling
from benchmarks.core.writings import Convention, Writing
from benchmarks.data import Dataset, load
from benchmarks.engine.benchmark_run import LOG, BenchmarkRun, ModelRun
from benchmarks.engine.execute import Budget, run_model
from benchmarks.metrics.validity import LADDER, validity
from benchmarks.models.environments import interpreter, locate_model
from benchmarks.models.provenance import environment, load_average, now
from benchmarks.models.registry import ENGINES, on_engine, resolve_all
from benchmarks.store import Record, RunWriter, StoredRun, model_folder, read_run
from leaderboard.scoring import INVARIANCE, MEAN

STRUCTURES: Final = 200
REPLICATES: Final = 1000
RUNS: Final = "runs"
"""The folder of the answers, beside the tables."""
RULE: Final = "1"
"""Raised when the writings are drawn in another way: stored answers are then of other inputs."""


def name_of(sample_id: str, convention: Convention) -> str:
    """The id of a structure in a writing; as given it has its own."""
    return f"{sample_id} ({convention})"


def writing_of(sample_id: str, convention: Convention, n_sites: int) -> Writing:
    """The writing of a structure; it depends on id and convention alone."""
    digest = hashlib.sha256(name_of(sample_id, convention).encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    return Writing.drawn({convention}, n_sites, rng)


def writings(dataset: Dataset) -> Iterator[tuple[str, Geometry]]:
    """Every structure as given and in each writing, with its id."""
    for i, sample_id in enumerate(dataset.ids):
        given, _ = dataset.geometries(i)
        yield sample_id, given
        for convention in Convention:
            writing = writing_of(sample_id, convention, len(given.numbers))
            yield name_of(sample_id, convention), writing.apply(given)


def answers(plan: ModelRun, run: BenchmarkRun) -> StoredRun:
    """Relax what is not stored yet, and read all of it.

    Raises:
        UserError: The stored answers are of other settings or weights, the model cannot be loaded,
            or so many structures end in errors that it is given up.
    """
    spec = plan.spec
    identity = plan.identity(run)
    identity |= {"dataset": f"{run.dataset.name}, in several writings", "writings": RULE}
    folder = model_folder(run.out, spec.name)
    facts = environment(run.settings.device) | plan.provenance(run)
    with RunWriter.open(folder, identity, facts) as writer:
        budget = Budget()
        for status in writer.statuses.elements():
            budget.add(Status(status))
        writer.note(started=now(), load_average=load_average())
        begin, counts = time.monotonic(), Counter(writer.statuses)

        def store(records: list[Record]) -> None:
            writer.append(records)
            counts.update(str(record.status) for record in records)

        summary = run_model(
            spec,
            ((name, 0, start) for name, start in writings(run.dataset)
             if (name, 0) not in writer.done),
            settings=run.settings, on_records=store, budget=budget,
            first_batch=writer.next_batch_id, log=writer.folder / LOG,
        )  # fmt: skip
        writer.close(ended=now(), load_average_end=load_average(), **asdict(summary))
    if summary.aborted:
        raise UserError(f"{spec.name} given up: {summary.aborted} (remove {folder} to start over)")
    outcomes = ", ".join(f"{n} {status}" for status, n in counts.most_common())
    run.log(f"{spec.name}: {outcomes}, {time.monotonic() - begin:.1f} s")
    return read_run(folder)


def differences(run: StoredRun, dataset: Dataset) -> pd.DataFrame:
    """Compare the answer to each writing with the answer to the structure as given.

    Args:
        run: Records of every structure in every writing.
        dataset: The structures.

    Returns:
        For each structure and convention `sample_id`, `group` (its composition), `convention`,
        `strain`, `displacement` [Å] (both nan where one of the two answers is no valid structure)
        and `status_changed`, 0 or 1.
    """
    by_name = {record.sample_id: record for record in run.records}
    rows: list[dict[str, Any]] = []
    for i, sample_id in enumerate(dataset.ids):
        given, _ = dataset.geometries(i)
        status, answer = _outcome(by_name[sample_id], given)
        for convention in Convention:
            writing = writing_of(sample_id, convention, len(given.numbers))
            record = by_name[name_of(sample_id, convention)]
            other_status, other = _outcome(record, writing.apply(given))
            row: dict[str, Any] = {
                "sample_id": sample_id,
                "group": reduced_composition(given.numbers),
                "convention": convention,
                "strain": np.nan,
                "displacement": np.nan,
                "status_changed": float(status != other_status),
            }
            if answer is not None and other is not None:
                restored = writing.restore(other, given)
                moved = displacements(answer, restored)
                row["strain"] = strain(answer.lattice, restored.lattice)
                row["displacement"] = float(np.linalg.norm(moved, axis=1).mean())
            rows.append(row)
    return pd.DataFrame(rows)


def _outcome(record: Record, start: Geometry) -> tuple[Status, Geometry | None]:
    """The status of an answer, and its structure if it is valid, as the metrics see it."""
    if record.status not in SCORED:
        return record.status, None
    valid = validity(start, record.geometry)[LADDER[-1]]
    return (record.status, record.geometry) if valid else (Status.INVALID, None)


def summary(found: pd.DataFrame) -> pd.DataFrame:
    """The lines of one model: each convention, and `MEAN`, the mean over its writings.

    The intervals are those of the bootstrap over compositions. `n` counts the structures with two
    valid answers, for the mean those with at least one such writing, which is over those that it
    has. A structure whose status changes in several writings counts once in the mean.
    """
    reduced = {"group": "first", "strain": "mean", "displacement": "mean", "status_changed": "max"}
    parts = dict(iter(found.groupby("convention", sort=False)))
    parts[MEAN] = found.groupby("sample_id", sort=False).agg(reduced)
    lines = []
    for name, part in parts.items():
        resampling = Resampling.of(list(part["group"]), REPLICATES, np.random.default_rng(0))
        line: dict[str, Any] = {"writing": str(name), "n": int(part["strain"].notna().sum())}
        for column in ("strain", "displacement"):
            values = part[column].to_numpy(dtype=float)
            estimate = Estimate.mean(values, np.ones_like(values), resampling)
            line |= {
                column: estimate.point,
                f"{column}_low": estimate.low,
                f"{column}_high": estimate.high,
            }
        lines.append(line | {"status_changed": int(part["status_changed"].sum())})
    return pd.DataFrame(lines)


def write_tables(runs: Sequence[StoredRun], dataset: Dataset, out: Path) -> pd.DataFrame:
    """Write `invariance.csv` and `invariance.md`; return the former."""
    parts = []
    for run in runs:
        about = {
            "model": run.name,
            "weights_sha256": run.identity.get("weights_sha256"),
            "dataset": dataset.name,
            "revision": dataset.revision,
            "split": dataset.split,
            "structures": len(dataset),
        }
        lines = summary(differences(run, dataset))
        for k, (name, value) in enumerate(about.items()):
            lines.insert(k, name, value)
        parts.append(lines)
    table = pd.concat(parts, ignore_index=True)
    with atomic_write(out / INVARIANCE) as partial:
        table.assign(model=table["model"].map(inert)).to_csv(partial, index=False)
    with atomic_write(out / "invariance.md") as partial:
        partial.write_text(_page(table, dataset), encoding="utf-8")
    return table


def _page(table: pd.DataFrame, dataset: Dataset) -> str:
    """A table for each number: a line for each model, a column for each writing."""
    heads = ["Model", *map(str, Convention), MEAN]
    split = f", split {dataset.split}" if dataset.split else ""
    about = (
        "How far an answer is from the answer to the structure as given, in brackets its 95 % "
        "interval (bootstrap over compositions). Only structures with two valid answers are "
        "compared; how many these are stands last."
    )
    count = f"{len(dataset)} structures"
    texts = [f"# The same crystal in other writings: {dataset.name}{split}, {count}", about]

    def cells(write: Any) -> list[list[str]]:
        return [
            [str(model), *(write(line) for line in part.to_dict("records"))]
            for model, part in table.groupby("model", sort=False)
        ]

    for name, title in (("strain", "Strain"), ("displacement", "Mean displacement (Å)")):

        def estimated(line: Mapping[str, Any], name: str = name) -> str:
            ends = [line[f"{name}{end}"] for end in ("", "_low", "_high")]
            point, low, high = (NOTHING if pd.isna(x) else f"{x:.2g}" for x in ends)
            return point if NOTHING in (point, low, high) else f"{point} [{low}, {high}]"

        texts += [f"## {title}", markdown_table(heads, cells(estimated))]
    texts += [
        "## Structures compared, and structures whose status changed",
        markdown_table(heads, cells(lambda line: f"{line['n']}, {line['status_changed']}")),
    ]
    return "\n\n".join(texts) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command: 1 where a model was given up, the others' tables are written."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="python -m studies.invariance", description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("--models", required=True, metavar="A,B,…", help="as for benchmarks.run")
    add("--data", action="append", metavar="embedded|PATH|hf://…", help="default: embedded")
    add("--split", help="of the data; default: test, where there are splits")
    add("--n", type=whole_number(1), default=STRUCTURES, help=f"default: {STRUCTURES}")
    add("--out", type=Path, required=True, metavar="DIR")
    add("--device", default="cpu", metavar="cpu|cuda", help="default: cpu")
    add("--engine", default=ENGINES[0], choices=ENGINES, help="of potentials; default: ase")
    add("--batch-size", type=whole_number(1), metavar="N", help="default: the model's own")
    add("--offline", action="store_true", help="use nothing from the network")
    add("--trust", action="store_true", help="load also weights that could run any code")
    args = parser.parse_args(argv)
    interrupted = "interrupted; the same command goes on from here"
    command = shlex.join(["python", "-m", "studies.invariance", *argv])
    return run_command(lambda: _study(args, command), interrupted=interrupted)


def _study(args: argparse.Namespace, command: str) -> int:
    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    names = [name.strip() for name in args.models.split(",") if name.strip()]
    specs = [on_engine(spec, args.engine) for spec in resolve_all(names, trust=args.trust)]
    for spec in specs:
        interpreter(spec)
    check_device(args.device)
    found = [locate_model(spec, offline=args.offline) for spec in specs]
    run = BenchmarkRun(
        dataset=load(args.data or "embedded", split=args.split, limit=args.n, offline=args.offline),
        settings=RelaxSettings(
            device=args.device, batch_size=args.batch_size, offline=args.offline
        ),
        repeats=1,
        out=args.out / RUNS,
        command=command,
        log=say,
    )
    runs = []
    for spec, located in zip(specs, found, strict=True):
        try:
            runs.append(answers(ModelRun(spec, located.weights, located.versions), run))
        except UserError as error:
            say(f"left out: {error}")
    if not runs:
        raise UserError("no model answered")
    table = write_tables(runs, run.dataset, args.out)
    shown = ["model", "writing", "n", "strain", "displacement", "status_changed"]
    print(table[shown].to_string(index=False, float_format="%.4g"))
    return int(len(runs) < len(specs))


if __name__ == "__main__":
    sys.exit(main())
