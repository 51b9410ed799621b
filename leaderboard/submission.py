"""A submission: what somebody else's model predicted, read as data, checked, and made a run.

A submission is a folder of two files. `predictions.parquet` has one row for each sample of a split
(`PREDICTIONS`), `card.yaml` says what the model is (`CARD`). Nothing of a submission is executed,
no pickle is read, and no other file of the folder is opened.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from benchmarks.core import SCORED, Geometry, Status, UserError
from benchmarks.core.files import atomic_write, file_sha256
from benchmarks.core.parquet import refuse_bomb
from benchmarks.core.statistics import Estimate, Resampling, interval
from benchmarks.data.exposure import Seen, seen
from benchmarks.metrics import score
from benchmarks.store import Record, RunWriter, StoredRun, model_folder
from benchmarks.store.records import SCHEMA, geometry_columns

if TYPE_CHECKING:
    import pandas as pd

    from benchmarks.data import Dataset

CARD_FILE: Final = "card.yaml"
PREDICTIONS_FILE: Final = "predictions.parquet"
_ROWS: Final = pa.list_(pa.list_(pa.float64()))
PREDICTIONS: Final = pa.schema(
    [
        ("id", pa.string()),
        ("status", pa.string()),
        ("lattice", _ROWS),
        ("frac_coords", _ROWS),
        ("numbers", pa.list_(pa.int64())),
        ("seconds", pa.float64()),
    ]
)
"""The columns of `predictions.parquet`: lattice vectors as rows [Å], fractional coordinates and
atomic numbers in the order of the initial structure's sites, and the seconds that the structure
took, as declared. Where the status is not `ok` or `unconverged` there is no structure."""
LARGEST_CARD: Final = 64 * 1024
LARGEST_PREDICTIONS: Final = 2**30
"""Bytes, both of the file and of what it holds uncompressed."""
SAME: Final = 1e-6
"""Strain and largest displacement [Å] up to which a prediction is a copy of the reference."""
REPLICATES: Final = 1000
_LINE: Final = r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]*$"


def _text(longest: int, shortest: int = 0) -> dict[str, Any]:
    return {"type": "string", "minLength": shortest, "maxLength": longest, "pattern": _LINE}


_FIELDS: Final[dict[str, Any]] = {
    "model": _text(80, 1),
    "label": _text(120),
    "family": {"enum": ["llm", "gnn", "trivial", "hybrid", "other"]},
    "dataset": _text(200, 1),
    "split": {"anyOf": [_text(40), {"type": "null"}]},
    "revision": _text(100, 1),
    "weights": {
        "anyOf": [
            {"type": "null"},
            {
                "type": "object",
                "properties": {
                    "name": _text(200, 1),
                    "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
                },
                "required": ["name", "sha256"],
                "additionalProperties": False,
            },
        ]
    },
    "licence": _text(100, 1),
    "training_data": {"type": "array", "items": _text(200, 1), "maxItems": 50},
    "functional": {"anyOf": [_text(60), {"type": "null"}]},
    "hardware": _text(200),
    "batch_size": {"type": "integer", "minimum": 1},
    "authors": {"type": "array", "items": _text(200, 1), "maxItems": 200},
    "link": {"anyOf": [{"const": ""}, _text(500) | {"pattern": r"^https?://[!-~]+$"}]},
}
CARD: Final[dict[str, Any]] = {
    "type": "object",
    "properties": _FIELDS,
    "required": [name for name in _FIELDS if name != "label"],
    "additionalProperties": False,
}
"""The JSON schema of `card.yaml`."""
ABOUT: Final = {
    "model": "a short name, as the table shows it",
    "family": "llm, gnn, trivial, hybrid or other",
    "dataset": "leave as it is; it says which structures these predictions are of",
    "weights": "null, or {name: FILE, sha256: …}",
    "licence": "of the weights, or of the code where there are none",
    "training_data": "names of benchmarks/core/training_data.py, or your own words; [] if none",
    "functional": "of the training data: PBE, PBE(+U), r2SCAN, …; null if none",
    "hardware": "on which the seconds were taken",
    "batch_size": "structures per call when they were taken",
    "link": "where the model is described: https://…",
}
"""What a person has to know of a field of the card; the template says it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A submission whose form is right; whether it fits the data is not yet known."""

    folder: Path
    card: Mapping[str, Any]
    table: Any
    """The predictions as an Arrow table in `PREDICTIONS`."""

    @property
    def run(self) -> StoredRun:
        """The run that it becomes, without its records."""
        weights = self.card["weights"] or {"name": None, "sha256": None}
        identity = {
            **{name: self.card[name] for name in ("model", "family", "dataset", "revision")},
            "label": self.card.get("label") or self.card["model"],
            "split": self.card["split"],
            "weights": weights["name"],
            "weights_sha256": weights["sha256"],
            "predictions_sha256": file_sha256(self.folder / PREDICTIONS_FILE),
        }
        return StoredRun(identity["model"], (self.folder,), identity, (), SCHEMA.empty_table())


def read_submission(folder: Path) -> Submission:
    """Read the two files of a submission.

    Raises:
        UserError: A file is missing, too large, a link, or not of the form that it should have;
            every fault of the card is named.
    """
    for name, largest in ((CARD_FILE, LARGEST_CARD), (PREDICTIONS_FILE, LARGEST_PREDICTIONS)):
        path = folder / name
        if path.is_symlink() or not path.is_file():
            raise UserError(f"{path}: no such file; links are not followed")
        if path.stat().st_size > largest:
            raise UserError(f"{path}: larger than {largest:,} bytes")
    return Submission(
        folder=folder, card=_card(folder / CARD_FILE), table=_table(folder / PREDICTIONS_FILE)
    )


def _card(path: Path) -> dict[str, Any]:
    from jsonschema import Draft202012Validator

    try:
        card = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: no YAML that can be read ({reason})") from error
    faults = []
    for fault in sorted(Draft202012Validator(CARD).iter_errors(card), key=lambda e: e.json_path):
        where = ".".join(map(str, fault.absolute_path)) or "the card"
        said = " ".join(fault.message.split())
        if fault.validator in ("pattern", "anyOf"):
            said = f"{fault.instance!r} is not what may stand there"
        faults.append(f"{where}: {_plain(said)[:160]}")
    if faults:
        raise UserError(f"{path}: {'; '.join(faults[:5])}")
    return dict(card)


def _plain(text: str) -> str:
    """Text of somebody else's for a terminal: what is not ASCII, or no sign, as an escape."""
    return "".join(c if c.isascii() and c.isprintable() else ascii(c)[1:-1] for c in text)


def _table(path: Path) -> Any:
    try:
        file = pq.ParquetFile(path)
        refuse_bomb(file.metadata)
        groups = [file.metadata.row_group(k) for k in range(file.num_row_groups)]
        if sum(group.total_byte_size for group in groups) > LARGEST_PREDICTIONS:
            raise UserError(f"{path}: holds more than {LARGEST_PREDICTIONS:,} bytes")
        names = file.schema_arrow.names
        missing = [name for name in PREDICTIONS.names if name not in names]
        if missing or len(names) != len(PREDICTIONS):
            raise UserError(
                f"{path}: has the columns {', '.join(names)[:200]}; they must be "
                f"{', '.join(PREDICTIONS.names)}"
            )
        table = file.read(PREDICTIONS.names).cast(PREDICTIONS)
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise UserError(f"{path}: cannot be read ({first})") from error
    return table.combine_chunks()


def records_of(submission: Submission, dataset: Dataset) -> list[Record]:
    """The predictions as records, one for each sample of the data set, in its order.

    Raises:
        UserError: An id is missing, unknown or there twice, or a row is not a structure with as
            many numbers as coordinates, all of them finite; the row's id is named.
    """
    path = submission.folder / PREDICTIONS_FILE
    rows = submission.table.to_pylist()
    counts, wanted = Counter(row["id"] for row in rows), set(dataset.ids)
    for names, what in (
        (
            [each for each in counts if each not in wanted],
            f"not of {dataset.name}, split {dataset.split}",
        ),
        ([each for each, count in counts.items() if count > 1], "there more than once"),
        ([each for each in dataset.ids if each not in counts], "missing"),
    ):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            listed = ", ".join(_plain(str(each))[:60] for each in names[:3])
            raise UserError(f"{path}: {listed}{more}: {what}; every id of the split stands once")
    by_id = {row["id"]: row for row in rows}
    found: list[Record] = []
    for sample_id in dataset.ids:
        try:
            geometry, status = _answer(by_id[sample_id])
        except ValueError as error:
            raise UserError(f"{path}: {sample_id}: {error}") from None
        found.append(
            Record(
                model=submission.card["model"],
                sample_id=sample_id,
                repeat=0,
                status=status,
                geometry=geometry,
                batch_id=len(found),
                batch_size=1,
                batch_seconds=math.nan,  # no time that this machine took
            )
        )
    return found


def _answer(row: Mapping[str, Any]) -> tuple[Geometry | None, Status]:
    """The structure and status of one row.

    Raises:
        ValueError: They are not what they should be; the text says why.
    """
    if row["status"] not in set(Status):
        raise ValueError(f"status {row['status']!r} is none of {', '.join(Status)}")
    status, seconds = Status(row["status"]), row["seconds"]
    if seconds is not None and not 0 <= seconds < math.inf:
        raise ValueError(f"seconds are {seconds}")
    given = [name for name in ("lattice", "frac_coords", "numbers") if row[name] is not None]
    if status not in SCORED:
        if given:
            raise ValueError(f"has a structure, and the status {status}")
        return None, status
    if len(given) < 3:
        raise ValueError(f"has no structure, and the status {status}")
    try:
        lattice = np.array(row["lattice"], dtype=float)
        frac_coords = np.array(row["frac_coords"], dtype=float)
        numbers = np.array(row["numbers"], dtype=int)
    except (ValueError, TypeError):
        raise ValueError("has rows of different length, or entries that are missing") from None
    if lattice.shape != (3, 3) or frac_coords.shape != (len(numbers), 3) or not len(numbers):
        raise ValueError(
            f"lattice of shape {lattice.shape}, coordinates of shape {frac_coords.shape} and "
            f"{len(numbers)} numbers: (3, 3), (n, 3) and n are needed"
        )
    if not (np.isfinite(lattice).all() and np.isfinite(frac_coords).all()):
        raise ValueError("has a number that is not finite")
    if numbers.min() < 1 or numbers.max() > 118:
        raise ValueError("has an atomic number outside 1 … 118")
    return Geometry(lattice, frac_coords, numbers), status


def write_run(submission: Submission, records: Sequence[Record], out: Path) -> Path:
    """Write the submission as the run folder of its model, under `out`; give the folder.

    Raises:
        UserError: The folder holds another run.
    """
    card = submission.card
    seconds = submission.table["seconds"].drop_null().to_numpy()
    provenance = {
        "submitted": True,
        "training_data": card["training_data"],
        "functional": card["functional"],
        "licence": card["licence"],
        "authors": card["authors"],
        "link": card["link"],
        "declared_hardware": card["hardware"],
        "declared_seconds": float(np.median(seconds)) if len(seconds) else None,
        "batch_size": card["batch_size"],
    }
    folder = model_folder(out, card["model"])
    with RunWriter.open(folder, submission.run.identity, provenance) as writer:
        if not writer.done:
            writer.append(records)
    return folder


def flags(table: pd.DataFrame, dataset: Dataset, training_data: Sequence[str]) -> list[str]:
    """Say, a line each, what makes the predictions look as if the references had been known.

    Args:
        table: The scores of the run.
        dataset: The data.
        training_data: Names of the sets that the model was trained on, as declared.
    """
    index = {sample_id: i for i, sample_id in enumerate(dataset.ids)}
    nothing = [
        score(initial, reference, initial, Status.OK)
        for initial, reference in (dataset.geometries(index[each]) for each in table["sample_id"])
    ]
    copies = [
        sample_id
        for sample_id, strain, moved, before in zip(
            table["sample_id"], table["strain"], table["position_max"], nothing, strict=True
        )
        if strain <= SAME
        and moved <= SAME
        and max(before["strain"], before["position_max"]) > 100 * SAME
    ]
    lines = []
    if copies:
        lines.append(
            f"{len(copies)} of {len(table)} predictions are the reference itself to {SAME:g} "
            f"({', '.join(copies[:3])})"
        )
    gain = table["score"].to_numpy(dtype=float) - [before["score"] for before in nothing]
    places = zip(table["source"], table["group"], strict=True)
    exposed = np.array([seen(training_data, *each) is not Seen.NO for each in places])
    if exposed.any() and not exposed.all():
        resampling = Resampling.of(table["group"].tolist(), REPLICATES, np.random.default_rng(0))
        counts = resampling.sums(np.stack([exposed, ~exposed], axis=1).astype(float))
        sums = resampling.sums(np.stack([gain * exposed, gain * ~exposed], axis=1))
        with np.errstate(invalid="ignore", divide="ignore"):
            means = sums / counts
        difference = means[:, 0] - means[:, 1]
        ends = interval(difference[1:])
        found = Estimate.of(float(difference[0]), ends, len(table), 3)
        if ends[0] > 0:
            lines.append(
                "it gains more over no change on what its training may hold than on the rest: "
                f"score {found.point:+} [{found.low:+}, {found.high:+}]"
            )
    return lines


def write_template(folder: Path, dataset: Dataset) -> None:
    """Write an empty submission for a data set: every id, status `unsupported`, and a card to fill.

    Raises:
        UserError: The folder is there and not empty.
    """
    card = {
        "model": "my-model",
        "label": "My model",
        "family": "other",
        **_about(dataset.name, dataset.split, dataset.revision),
        "weights": None,
        "licence": "MIT",
        "training_data": [],
        "functional": None,
        "hardware": "",
        "batch_size": 1,
        "authors": [],
        "link": "",
    }
    count = len(dataset.ids)
    empty = {"id": list(dataset.ids), "status": [str(Status.UNSUPPORTED)] * count}
    columns = [empty.get(field.name, [None] * count) for field in PREDICTIONS]
    _write(folder, card, pa.table(columns, schema=PREDICTIONS))


def write_from_run(run: StoredRun, folder: Path, authors: Sequence[str], link: str) -> None:
    """Write a submission from a stored run, its first repeat.

    Raises:
        UserError: The folder is there and not empty, or the run kept no structures.
    """
    records = [record for record in run.records if record.repeat == 0]
    if not records:
        raise UserError(f"{run.folder}: kept no structures: run it again")
    machine, identity = run.computing_segments[0], run.identity
    name, sha256 = identity.get("weights"), identity.get("weights_sha256")
    card = {
        "model": run.name,
        "label": str(identity.get("label", run.name)),
        "family": identity["family"],
        **_about(identity["dataset"], identity.get("split"), identity["revision"]),
        "weights": {"name": name, "sha256": sha256} if name and len(sha256 or "") == 64 else None,
        "licence": str(run.provenance.get("licence") or "not stated"),
        "training_data": list(run.provenance.get("training_data") or []),
        "functional": run.provenance.get("functional"),
        "hardware": f"{machine.get('cpu')}, {machine.get('device')}, threads: "
        f"{machine.get('threads')}",
        "batch_size": run.provenance.get("batch_size", 1),
        "authors": list(authors),
        "link": link,
    }
    kept = [record.geometry if record.status in SCORED else None for record in records]
    refused = [record.status is Status.UNSUPPORTED for record in records]
    columns: dict[str, Any] = {
        "id": [record.sample_id for record in records],
        "status": [str(record.status) for record in records],
        "seconds": [
            None if none else record.batch_seconds / record.batch_size
            for record, none in zip(records, refused, strict=True)
        ],
        **geometry_columns(kept),
    }
    arrays = [pa.array(columns[f.name]) if isinstance(columns[f.name], list) else columns[f.name]
              for f in PREDICTIONS]  # fmt: skip
    table = pa.table(arrays, names=PREDICTIONS.names).cast(PREDICTIONS)
    _write(folder, card, table)


def _about(dataset: str, split: str | None, revision: str) -> dict[str, Any]:
    return {"dataset": dataset, "split": split, "revision": revision}


def _write(folder: Path, card: Mapping[str, Any], table: Any) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: is there and not empty: name another folder")
    lines = []
    for name, value in card.items():
        about = f"  # {ABOUT[name]}" if name in ABOUT else ""
        lines.append(f"{name}: {json.dumps(value, ensure_ascii=False)}{about}")
    with atomic_write(folder / PREDICTIONS_FILE) as partial:
        pq.write_table(table, partial, compression="zstd")
    with atomic_write(folder / CARD_FILE) as partial:
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
