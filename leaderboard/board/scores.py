"""Scores of the samples of a stored run: one row per record, cached beside the records.

`scores.parquet` holds ids and numbers and no structure; of a model's folder it is the table of the
model, of an archive the tables of all models with a column `model`. It is a cache: where the data
are at hand, the table of a run folder is taken as it is if the records, the data and the versions
of evaluator, pymatgen and moyopy are the same, and else columns of it if the three structures, the
status and these versions are; of an archive, which others may have made, only the slow ones
(structure matching, symmetry). Where the data are not at hand the stored table is all there is; a
column that it lacks makes a metric unknown.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self
from weakref import WeakKeyDictionary

import numpy as np

from benchmarks.core import SCORED, Geometry, Status, UserError
from benchmarks.core.files import atomic_write, parse_json
from benchmarks.core.geometry import reduced_composition, symmetry
from benchmarks.core.parquet import refuse_bomb
from benchmarks.core.statistics import Floats
from benchmarks.data import Dataset
from benchmarks.data.exposure import Seen, seen
from benchmarks.metrics import COLUMNS, EVALUATOR, SLOW_COLUMNS, Metric, score, score_slow
from benchmarks.store import Record, StoredRun

if TYPE_CHECKING:
    import pandas as pd

FILE: Final = "scores.parquet"
KEY: Final = ["sample_id", "repeat"]
FOLLOWS_FROM: Final = "follows_from"
"""The key of `_fingerprint` in a stored table of a run folder."""
DATASET_KEYS: Final = ("dataset", "revision", "split")
COSTS: Final = ("seconds_per_structure", "latency", "n_force_evals", "n_tokens")
"""Columns beside those of the metrics: seconds, seconds at batch size 1, and two counts; samples
that the model refused (`unsupported`) have no times."""
FACTS: Final = ("group", "crystal_system", "functional", "source")
"""Columns that are of the sample, whatever a model answers."""
_NUMBERS: Final = (*COLUMNS, *COSTS, *SLOW_COLUMNS)
_STORED: Final = (*KEY, "status", *FACTS, *COLUMNS, *COSTS, "structures", *SLOW_COLUMNS)
CRYSTAL_SYSTEMS: Final = {
    "triclinic": 2,
    "monoclinic": 15,
    "orthorhombic": 74,
    "tetragonal": 142,
    "trigonal": 167,
    "hexagonal": 194,
    "cubic": 230,
}
"""The last space group of each crystal system."""


def scores(run: StoredRun, dataset: Dataset | None = None, *, store: bool = True) -> pd.DataFrame:
    """Score every record of a run.

    Args:
        run: A stored run.
        dataset: The data that the model was run on; records of samples that it does not hold (a
            smaller `limit`) are left out. None if the data are not at hand: then the stored scores
            are read.
        store: Whether `scores.parquet` is written beside the records if the stored one is not of
            these records. The table of an archive is written by `store_archive_scores`.

    Returns:
        One row per record in the order of the run: sample_id, repeat, status (`invalid` if the
        prediction fails the validity ladder), group (reduced composition), crystal_system (of the
        initial structure), functional, source, `COLUMNS` and `SLOW_COLUMNS` of the metrics,
        `COSTS`, and the hash of the structures. A stored table may lack columns.

    Raises:
        UserError: Neither structures and data nor stored scores of these records are at hand.
    """
    if dataset is None or not run.table.num_rows:
        return _stored_only(run)
    follows_from = None if in_archive(run) else _fingerprint(run, dataset)
    cached, written_for = _cached(run)
    same = follows_from is not None and written_for == follows_from
    if cached is not None and same and {*_STORED} <= {*cached}:
        return cached
    index = {sample_id: i for i, sample_id in enumerate(dataset.ids)}
    wanted = set(run.table["sample_id"].to_pylist()) & index.keys()
    run = run.with_initial({each: dataset.geometries(index[each])[0] for each in wanted})
    table = _computed(run, dataset, index, _KnownScores.of(cached, slow_only=in_archive(run)))
    whole = len(table) == run.table.num_rows
    if store and whole and not in_archive(run):
        with suppress(UserError):  # runs on a read-only disk need no cache
            _write(table, run, run.folder / FILE, follows_from)
    return table


def _fingerprint(run: StoredRun, dataset: Dataset) -> str:
    """A hash of all that the scores of a run follow from, but for the versions of programs."""
    if dataset not in _DIGESTS:
        digest = hashlib.sha256()
        for i, sample_id in enumerate(dataset.ids):
            digest.update(sample_id.encode())
            for geometry in dataset.geometries(i):
                for array in geometry:
                    digest.update(array.tobytes())
        _DIGESTS[dataset] = digest
    digest = _DIGESTS[dataset].copy()
    digest.update(str(run.provenance.get("batch_size", 1)).encode())
    for name, column in zip(run.table.column_names, run.table.columns, strict=True):
        digest.update(name.encode())
        digest.update(column.is_null().to_numpy())
        for buffer in column.drop_null().combine_chunks().buffers():  # of nulls they may differ
            digest.update(b"|" if buffer is None else buffer)
    return str(digest.hexdigest())


_DIGESTS: WeakKeyDictionary[Dataset, Any] = WeakKeyDictionary()
"""sha256 of the ids and structures of a data set, which many models share."""


class _KnownScores:
    """Stored columns by what they follow from: the structures and the status.

    Args:
        columns: Names of the columns.
        rows: Row of each hash of structures and status.
        values: (n, columns).
    """

    def __init__(
        self, columns: Sequence[str], rows: Mapping[tuple[str, str], int], values: Floats
    ) -> None:
        self.columns, self.rows, self.values = columns, rows, values

    @classmethod
    def of(cls, cached: pd.DataFrame | None, *, slow_only: bool) -> Self:
        """Take what a stored table holds.

        Args:
            cached: The stored scores, by the versions of programs that run now.
            slow_only: Whether the cheap columns are left out, so that they are computed.
        """
        if cached is None or not {"structures", *SLOW_COLUMNS} <= {*cached}:
            return cls((), {}, np.empty((0, 0)))
        wanted = [*COLUMNS, *SLOW_COLUMNS]
        if slow_only or not {*COLUMNS} <= {*cached}:
            wanted, cached = [*SLOW_COLUMNS], cached[cached["scored"] == 1]
        keys = zip(cached["structures"], cached["status"], strict=True)
        rows = {key: row for row, key in enumerate(keys)}
        return cls(wanted, rows, cached[wanted].to_numpy(dtype=float))

    def get(self, structures: str, status: str) -> dict[str, float]:
        """Give the columns that are known; none for what is not stored."""
        row = self.rows.get((structures, status))
        return {} if row is None else dict(zip(self.columns, self.values[row], strict=True))


_FACTS: WeakKeyDictionary[Dataset, dict[str, tuple[str, ...]]] = WeakKeyDictionary()
"""What `_facts` found of the samples of a data set, which many models share."""


def _facts(dataset: Dataset, position: int) -> tuple[str, ...]:
    """The texts `FACTS` of a sample."""
    known = _FACTS.setdefault(dataset, {})
    sample_id = dataset.ids[position]
    if sample_id not in known:
        initial, _ = dataset.geometries(position)
        sample = dataset[position]
        group = reduced_composition(initial.numbers.tolist())
        known[sample_id] = (group, crystal_system(initial), sample.functional, sample.source)
    return known[sample_id]


def _computed(
    run: StoredRun, dataset: Dataset, index: Mapping[str, int], known: _KnownScores
) -> pd.DataFrame:
    """All columns; those that are known are not computed."""
    import pandas as pd
    from tqdm import tqdm

    at_batch_size_1 = run.provenance.get("batch_size", 1) == 1
    slow: dict[str, list[float]] = {}
    texts: dict[str, list[Any]] = {name: [] for name in (*KEY, "status", *FACTS, "structures")}
    numbers = np.full((run.table.num_rows, len(_NUMBERS)), np.nan)
    count = 0
    records = (record for record in run.records if record.sample_id in index)
    for record in tqdm(records, f"scoring {run.name}", disable=None, leave=False):
        position = index[record.sample_id]
        initial, reference = dataset.geometries(position)
        key = _hash([initial, reference, record.geometry])
        found = known.get(key, str(record.status))
        if not {*COLUMNS} <= found.keys():
            found |= score(initial, reference, record.geometry, record.status)
        if not {*SLOW_COLUMNS} <= found.keys():
            found |= dict.fromkeys(SLOW_COLUMNS, np.nan)
            if found["scored"] and record.geometry is not None:
                if key not in slow:
                    computed = score_slow(initial, reference, record.geometry)
                    slow[key] = [computed[name] for name in SLOW_COLUMNS]
                found |= dict(zip(SLOW_COLUMNS, slow[key], strict=True))
        found |= _costs(record, at_batch_size_1=at_batch_size_1)
        numbers[count] = [found[name] for name in _NUMBERS]
        demoted = record.status in SCORED and not found["scored"]
        status = str(Status.INVALID if demoted else record.status)
        values = (record.sample_id, record.repeat, status, *_facts(dataset, position), key)
        for column, value in zip(texts.values(), values, strict=True):
            column.append(value)
        count += 1
    if not count:
        raise UserError(f"'{run.name}' holds no sample of {dataset.name}: wrong --data?")
    table = {**texts, **dict(zip(_NUMBERS, numbers[:count].T, strict=True))}
    return pd.DataFrame({name: table[name] for name in _STORED})


def _costs(record: Record, *, at_batch_size_1: bool) -> dict[str, float]:
    """The columns `COSTS`; a latency is known if the run itself was made at batch size 1."""
    # Refusing a structure takes no time, and would make a model look fast.
    tried = record.status != Status.UNSUPPORTED
    evals, tokens = record.n_force_evals, record.n_tokens
    return {
        "seconds_per_structure": record.batch_seconds / record.batch_size if tried else np.nan,
        "latency": record.batch_seconds if tried and at_batch_size_1 else np.nan,
        "n_force_evals": np.nan if evals is None else float(evals),
        "n_tokens": np.nan if tokens is None else float(tokens),
    }


def in_archive(run: StoredRun) -> bool:
    """Whether the run shares its folder with those of other models."""
    return (run.folder / "runs.json").is_file()


def store_archive_scores(
    folder: Path, runs: Sequence[StoredRun], tables: Sequence[pd.DataFrame]
) -> bool:
    """Write the scores of all models of an archive, unless the stored ones are of these records.

    Args:
        folder: The archive.
        runs: All its runs.
        tables: `scores` of each run, with the columns that compare hybrids.

    Returns:
        Whether the file was written.
    """
    import pandas as pd

    pairs = zip(runs, tables, strict=True)
    if all(_same_records(table, _cached(run)[0]) for run, table in pairs):
        return False
    named = [
        table.assign(model=run.name)[["model", *table]]
        for run, table in zip(runs, tables, strict=True)
    ]
    with suppress(UserError):  # an archive on a read-only disk needs no cache
        _write(pd.concat(named, ignore_index=True), runs[0], folder / FILE)
        return True
    return False


def _write(
    table: pd.DataFrame, run: StoredRun, path: Path, follows_from: str | None = None
) -> None:
    """Store scores with what they belong to: data set, records, evaluator, library versions."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    about = {**{key: run.identity.get(key) for key in DATASET_KEYS}, **_versions()}
    about |= {} if follows_from is None else {FOLLOWS_FROM: follows_from}
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    arrow = arrow.replace_schema_metadata({"scores": json.dumps(about)})
    # Numbers that rarely repeat are a fifth smaller with their bytes apart.
    numbers = table.select_dtypes("float")
    apart = [name for name in numbers if 2 * numbers[name].nunique() > len(table)]
    with atomic_write(path) as partial:
        pq.write_table(
            arrow,
            partial,
            compression="zstd",
            use_dictionary=[name for name in arrow.column_names if name not in apart],
            use_byte_stream_split=apart,
            write_page_checksum=True,
        )


def _versions() -> dict[str, str]:
    return {
        "evaluator": EVALUATOR,
        "pymatgen": version("pymatgen"),
        "moyopy": version("moyopy"),
    }


def _read(run: StoredRun) -> tuple[pd.DataFrame, dict[str, Any]] | None:
    """The stored scores of a run and what they belong to; None if there are none."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    path = run.folder / FILE
    if not path.exists():
        return None
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
        refuse_bomb(file.metadata)
        arrow = file.read()
        arrow.validate(full=True)
        about = dict(parse_json((arrow.schema.metadata or {})[b"scores"].decode()))
        _check_columns(arrow)
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(
            f"{path} is damaged ({type(error).__name__}: {reason:.200}): delete it and score the "
            "run again"
        ) from error
    if "model" in arrow.column_names:
        arrow = arrow.filter(pc.equal(arrow["model"], run.name)).drop_columns("model")
        if pc.any(pc.equal(arrow["scored"], 1)).as_py():
            # a column that only other models of the archive have is missing for this one
            stored = [name for name in (*COLUMNS, *SLOW_COLUMNS) if name in arrow.column_names]
            empty = [name for name in stored if arrow[name].null_count == len(arrow)]
            arrow = arrow.drop_columns(empty)
    table = arrow.to_pandas()
    if "crystal_system" in table:
        table["crystal_system"] = table["crystal_system"].fillna("unknown")
    return table, about


def _check_columns(arrow: Any) -> None:
    """Make sure that a stored table has what every board needs, of the right types.

    Raises:
        ValueError: It has not.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    kinds = dict(zip(arrow.column_names, arrow.schema.types, strict=True))
    texts = {"sample_id", "status", "group", "functional", "source"}
    kept = {*texts, "structures", "crystal_system", "end_of"}
    numbers = {"repeat", *COLUMNS, *SLOW_COLUMNS, *COSTS} & {*kinds}
    for name in sorted(texts | {"repeat", "scored"}):
        if name not in kinds or arrow[name].null_count:
            raise ValueError(f"no whole column {name}")
    for name, kind in kinds.items():
        text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        number = pa.types.is_floating(kind) or pa.types.is_integer(kind)
        if (name in kept and not text) or (
            name in numbers and not (number or pa.types.is_null(kind))
        ):
            raise ValueError(f"column {name} is {kind}")
    known = pa.array([str(status) for status in Status], arrow.schema.field("status").type)
    if not pc.all(pc.is_in(arrow["status"], value_set=known)).as_py() and len(arrow):
        raise ValueError("unknown status")


def _stored_only(run: StoredRun) -> pd.DataFrame:
    path = run.folder / FILE
    name = run.identity["dataset"]
    again = f"name the data with --data so that '{run.name}' on {name} can be scored"
    found = _read(run)
    if found is None and not run.table.num_rows:
        raise UserError(f"{run.folder} holds neither records nor {FILE}: run it again")
    if found is None:
        raise UserError(f"{path} does not exist: {again}")
    table, about = found
    wanted = {key: run.identity.get(key) for key in DATASET_KEYS} | {"evaluator": EVALUATOR}
    for key, value in wanted.items():
        if about.get(key) != value:
            raise UserError(f"{path} has {key} {about.get(key)} instead of {value}: {again}")
    if run.table.num_rows and _keys(run.table.select(KEY).to_pandas()) != _keys(table):
        raise UserError(f"{path} is not of the records beside it: {again}")
    return table


def _keys(table: pd.DataFrame) -> list[tuple[str, int]]:
    return sorted(table[KEY].itertuples(index=False, name=None))


def _cached(run: StoredRun) -> tuple[pd.DataFrame | None, str | None]:
    """Stored scores, if the same programs computed them, and the `_fingerprint` that they are of.

    Damaged ones are computed again.
    """
    try:
        found = _read(run)
    except UserError:
        return None, None
    if found is None or any(found[1].get(key) != value for key, value in _versions().items()):
        return None, None
    return found[0], found[1].get(FOLLOWS_FROM)


def stale_scores(run: StoredRun, table: pd.DataFrame) -> Iterator[str]:
    """Say, a line each, which stored scores of a run are not those that its records give.

    Args:
        run: A stored run.
        table: `scores` of it, or some rows of them.
    """
    cached, _ = _cached(run)
    if cached is None or not len(table):
        return
    both = table.merge(cached, on=KEY, suffixes=("", " stored"))
    for name in COLUMNS:
        if f"{name} stored" not in both:
            continue
        for row in np.flatnonzero(_different(both[name], both[f"{name} stored"])):
            sample, old, new = (both[key][row] for key in ("sample_id", f"{name} stored", name))
            where = f"{run.folder / FILE}: {run.name}, {sample}: {name}"
            yield f"{where}: {old:.6g} in the file, the records give {new:.6g}"


def _different(ours: pd.Series, stored: pd.Series) -> Any:
    """Where numbers differ by more than another machine's rounding."""
    a, b = ours.to_numpy(dtype=float), stored.to_numpy(dtype=float)
    return np.logical_not(np.isclose(a, b, rtol=1e-6, atol=1e-9, equal_nan=True))


def _same_records(table: pd.DataFrame, cached: pd.DataFrame | None) -> bool:
    """Whether the stored scores are of the same records, have every column, and are right."""
    keys = (*KEY, "status", "crystal_system", "structures", *COSTS)
    return (
        cached is not None
        and {*table} <= {*cached}
        and all(table[key].equals(cached[key].reset_index(drop=True)) for key in keys)
        and not any(_different(table[name], cached[name]).any() for name in COLUMNS)
    )


def crystal_system(geometry: Geometry) -> str:
    """From the space group at 0.01 Å; `unknown` if moyopy finds no consistent group."""
    number, _ = symmetry(geometry, 0.01)
    if not number:
        return "unknown"
    return next(name for name, last in CRYSTAL_SYSTEMS.items() if number <= last)


def _hash(geometries: Iterable[Geometry | None]) -> str:
    """A hash of structures to 1e-9, so that it does not depend on the machine that rounds."""
    digest = hashlib.sha256()
    for geometry in geometries:
        for array in geometry or ():
            digest.update(np.ascontiguousarray(np.round(array, 9) + 0).tobytes() + b"|")
    return digest.hexdigest()[:32]


def per_sample(
    table: pd.DataFrame, metrics: Sequence[Metric], ids: Sequence[str]
) -> tuple[Floats, Floats]:
    """Values and weights of each sample: failures filled in, repeats averaged.

    Args:
        table: `scores` of one run.
        metrics: The metrics; none of `Reduce.PER_RUN`. One whose columns the table lacks has nan.
        ids: Samples, all of them in the table.

    Returns:
        Two arrays (n_samples, n_metrics) in the order of `ids`.
    """
    import pandas as pd

    failed = table["scored"].to_numpy() == 0
    values = np.full((len(table), len(metrics)), np.nan)
    weights = np.ones((len(table), len(metrics)))
    for k, metric in enumerate(metrics):
        if missing_columns(table, metric):
            continue
        column = table[metric.column].to_numpy(dtype=float)
        if isinstance(metric.failure, str):
            column = np.where(failed, table[metric.failure].to_numpy(dtype=float), column)
        elif metric.failure is not None:
            # a rung of the ladder has a value for an invalid answer, which stays
            column = np.where(failed & np.isnan(column), metric.failure, column)
        values[:, k] = column
        if metric.weight is not None:
            weights[:, k] = table[metric.weight].to_numpy(dtype=float)
    samples = table["sample_id"].to_numpy()
    means = (pd.DataFrame(each).groupby(samples).mean() for each in (values, weights))
    found, weighed = (mean.loc[list(ids)].to_numpy(dtype=float) for mean in means)
    return found, weighed


def unseen(run: StoredRun, table: pd.DataFrame) -> Floats:
    """1 for each row of a sample that the model cannot have seen in training, else 0."""
    training_data = tuple(run.provenance.get("training_data") or ())
    pairs = list(zip(table["source"], table["group"], strict=True))
    answers = {pair: float(seen(training_data, *pair) is Seen.NO) for pair in set(pairs)}
    return np.array([answers[pair] for pair in pairs], dtype=float)


def missing_columns(table: pd.DataFrame, metric: Metric) -> list[str]:
    """The columns of a metric that a stored table of scores lacks."""
    names = (metric.column, metric.weight, metric.failure)
    return [name for name in names if isinstance(name, str) and name not in table]
