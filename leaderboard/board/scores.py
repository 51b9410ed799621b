"""Per-sample scores of one stored run: one row per record, cached beside the parts.

`scores.parquet` holds ids and numbers and no structure, so it may be committed where the structures
may not. Slow columns (structure matching, symmetry) are taken from it when the three structures
and the versions of evaluator, pymatgen and moyopy are the same; cheap ones are computed each time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from benchmarks.core import SCORED, Geometry, Status, UserError
from benchmarks.core.geometry import reduced_composition, symmetry
from benchmarks.data import Dataset
from benchmarks.metrics import EVALUATOR, SLOW_COLUMNS, score, score_slow
from benchmarks.store import Record, StoredRun

if TYPE_CHECKING:
    import pandas as pd

FILE: Final = "scores.parquet"
KEY: Final = ["sample_id", "repeat"]
DATASET_KEYS: Final = ("dataset", "revision", "split")
COSTS: Final = ("seconds_per_structure", "latency", "n_force_evals", "n_tokens")
"""Columns beside the metrics' own: s, s (batch size 1 only), counts; no times of `unsupported`."""


def scores(run: StoredRun, dataset: Dataset | None = None, *, store: bool = True) -> pd.DataFrame:
    """Score every record of a run.

    Args:
        run: A stored run.
        dataset: What it was run on; records of samples that it does not hold (a smaller `limit`)
            are left out. None where the data are not at hand: stored scores are read.
        store: Write `scores.parquet` when the stored one is not of these records.

    Returns:
        One row per record in the order of the run: sample_id, repeat, status (`invalid` where the
        prediction fails the validity ladder), group (reduced composition),
        crystal_system (of the start), functional, source,
        `COLUMNS` and `SLOW_COLUMNS` of the metrics, `COSTS`, and the hash of the structures.

    Raises:
        UserError: Neither structures and data nor matching stored scores are at hand.
    """
    if dataset is None or not run.table.num_rows:
        return _stored_only(run)
    table = _cheap(run, dataset)
    cached = _cached(run.folder / FILE)
    table[list(SLOW_COLUMNS)] = _slow(run, dataset, table, cached)
    whole = len(table) == run.table.num_rows
    if store and whole and (cached is None or not _same_records(table, cached)):
        write(table, run, run.folder / FILE)
    return table


def write(table: pd.DataFrame, run: StoredRun, path: Path) -> None:
    """Store scores with what they belong to: data set, evaluator and library versions."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    about = {**{key: run.identity.get(key) for key in DATASET_KEYS}, **_versions()}
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    pq.write_table(arrow.replace_schema_metadata({"scores": json.dumps(about)}), temporary)
    temporary.replace(path)


def strip(run: StoredRun, table: pd.DataFrame, out: Path) -> Path:
    """Write a run without its structures: `OUT/<model>/run.json` and `scores.parquet`."""
    folder = out / run.folder.name
    write(table, run, folder / FILE)
    header = {"identity": run.identity, "provenance": run.provenance}
    (folder / "run.json").write_text(json.dumps(header, indent=2, sort_keys=True) + "\n")
    return folder


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {
        "evaluator": EVALUATOR,
        "pymatgen": version("pymatgen"),
        "moyopy": version("moyopy"),
    }


def _read(path: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        arrow = pq.read_table(path)
        about = json.loads((arrow.schema.metadata or {})[b"scores"])
    except (pa.ArrowInvalid, KeyError, ValueError) as error:
        raise UserError(
            f"{path} is damaged ({type(error).__name__}): delete it and score the run again"
        ) from error
    return arrow.to_pandas(), about


def _stored_only(run: StoredRun) -> pd.DataFrame:
    path = run.folder / FILE
    name = run.identity["dataset"]
    again = f"name the data with --data so that '{run.name}' on {name} can be scored"
    if not path.exists() and not run.table.num_rows:
        raise UserError(f"{run.folder} holds neither records nor {FILE}: run it again")
    if not path.exists():
        raise UserError(f"{path} does not exist: {again}")
    table, about = _read(path)
    wanted = {key: run.identity.get(key) for key in DATASET_KEYS} | {"evaluator": EVALUATOR}
    for key, value in wanted.items():
        if about.get(key) != value:
            raise UserError(f"{path} has {key} {about.get(key)} instead of {value}: {again}")
    if run.table.num_rows and _keys(run.table.to_pandas()) != _keys(table):
        raise UserError(f"{path} is not of the records beside it: {again}")
    return table


def _keys(table: pd.DataFrame) -> list[tuple[str, int]]:
    return sorted(table[KEY].itertuples(index=False, name=None))


def _same_records(table: pd.DataFrame, cached: pd.DataFrame) -> bool:
    keys = (*KEY, "status", "crystal_system", "structures", *COSTS)
    return set(keys) <= set(cached) and all(table[key].equals(cached[key]) for key in keys)


def _cheap(run: StoredRun, dataset: Dataset) -> pd.DataFrame:
    import pandas as pd

    index = {sample_id: i for i, sample_id in enumerate(dataset.ids)}
    samples: dict[str, dict[str, Any]] = {}
    rows = []
    for record in run.records:
        if record.sample_id not in index:
            continue
        initial, reference = dataset.geometries(index[record.sample_id])
        if record.sample_id not in samples:
            samples[record.sample_id] = _about(dataset, index[record.sample_id], initial)
        columns = score(initial, reference, record.geometry, record.status)
        demoted = record.status in SCORED and not columns["scored"]
        rows.append(
            {
                "sample_id": record.sample_id,
                "repeat": record.repeat,
                "status": str(Status.INVALID if demoted else record.status),
                **samples[record.sample_id],
                **columns,
                **_costs(record, alone=run.provenance.get("batch_size", 1) == 1),
                "structures": _hash([initial, reference, record.geometry]),
            }
        )
    if not rows:
        raise UserError(f"'{run.name}' holds no sample of {dataset.name}: wrong --data?")
    return pd.DataFrame(rows)


def _costs(record: Record, *, alone: bool) -> dict[str, float]:
    """Costs of a record; `alone`: the run was made at batch size 1, not by retries of a batch."""
    # Refusing a structure takes no time, and would make a model look fast.
    tried = record.status != Status.UNSUPPORTED
    return {
        "seconds_per_structure": record.batch_seconds / record.batch_size if tried else np.nan,
        "latency": record.batch_seconds if tried and alone else np.nan,
        "n_force_evals": _number(record.n_force_evals),
        "n_tokens": _number(record.n_tokens),
    }


def _about(dataset: Dataset, position: int, initial: Geometry) -> dict[str, Any]:
    sample = dataset[position]
    return {
        "group": reduced_composition(initial.numbers.tolist()),
        "crystal_system": crystal_system(initial),
        "functional": sample.functional,
        "source": sample.source,
    }


def crystal_system(geometry: Geometry) -> str:
    """From the space group at 0.01 Å; `unknown` where moyopy finds no consistent group."""
    number, _ = symmetry(geometry, 0.01)
    return SYSTEMS[int(np.searchsorted(LAST_GROUP, number))] if number else "unknown"


LAST_GROUP: Final = (2, 15, 74, 142, 167, 194, 230)
"""The last space group of each of `SYSTEMS`."""
SYSTEMS: Final = (
    "triclinic",
    "monoclinic",
    "orthorhombic",
    "tetragonal",
    "trigonal",
    "hexagonal",
    "cubic",
)


def _number(value: int | None) -> float:
    return np.nan if value is None else float(value)


def _hash(geometries: Iterable[Geometry | None]) -> str:
    digest = hashlib.sha256()
    for geometry in geometries:
        for array in geometry or ():
            digest.update(np.ascontiguousarray(array).tobytes() + b"|")
    return digest.hexdigest()[:32]


def _cached(path: Path) -> pd.DataFrame | None:
    """Stored scores, if the same programs computed them."""
    if not path.exists():
        return None
    table, about = _read(path)
    same = all(about.get(key) == value for key, value in _versions().items())
    return table if same else None


def _slow(
    run: StoredRun, dataset: Dataset, table: pd.DataFrame, cached: pd.DataFrame | None
) -> list[list[float]]:
    """Slow columns of every row of `table`, computed where no cached row has its structures."""
    from tqdm import tqdm

    known: dict[str, list[float]] = {}
    if cached is not None:
        done = cached[cached["scored"] == 1]
        known = dict(
            zip(done["structures"], done[list(SLOW_COLUMNS)].to_numpy().tolist(), strict=True)
        )
    index = {sample_id: i for i, sample_id in enumerate(dataset.ids)}
    records = (record for record in run.records if record.sample_id in index)
    rows = []
    label = f"matching {run.name}"
    for key, good, record in tqdm(
        zip(table["structures"], table["scored"], records, strict=True),
        label, len(table), disable=None, leave=False,
    ):  # fmt: skip
        if good and record.geometry is not None and key not in known:
            initial, reference = dataset.geometries(index[record.sample_id])
            found = score_slow(initial, reference, record.geometry)
            known[key] = [found[name] for name in SLOW_COLUMNS]
        rows.append(known[key] if good else [np.nan] * len(SLOW_COLUMNS))
    return rows
