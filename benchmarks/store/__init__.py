"""The run folder: structures and outcomes of one model, never scores.

`OUT/<model>/run.json` holds two blocks: `identity` must be equal to resume or to merge,
`provenance` is recorded only. The records lie beside it in `part-00000.parquet`, … Each file is
written under a temporary name, synced and renamed, so that a kill at any moment loses at most what
was not flushed and repeats nothing. There is one writer at a time.
"""

from benchmarks.store.archive import read_archive, write_archive
from benchmarks.store.reading import read_run, read_runs
from benchmarks.store.records import SCHEMA, Record, Records, table_of
from benchmarks.store.stored_run import SCHEMA_VERSION, StoredRun
from benchmarks.store.writing import RunWriter, model_folder

__all__ = [
    "SCHEMA",
    "SCHEMA_VERSION",
    "Record",
    "Records",
    "RunWriter",
    "StoredRun",
    "model_folder",
    "read_archive",
    "read_run",
    "read_runs",
    "table_of",
    "write_archive",
]
