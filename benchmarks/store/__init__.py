"""The store: structures and outcomes of models, never scores.

A model's run is `OUT/<model>/shard-0000/`, …, each shard written by one process at a time. Its
`run.json` holds two blocks: `identity` must be equal to resume or to merge, and `segments` lists
the provenance of each process that wrote, recorded only. The records lie beside it in
`part-00000.parquet`, … Each file is written under a temporary name, synced and renamed, so that a
kill at any moment loses at most what was not flushed and repeats nothing. The runs of many models
on one data set can be kept as an archive of few files, see `archive.py`.
"""

from benchmarks.store.archive import read_archive, write_archive
from benchmarks.store.headers import SCHEMA_VERSION
from benchmarks.store.reading import read_outcomes, read_run, read_runs, run_folders
from benchmarks.store.records import SCHEMA, Record, Records, table_of
from benchmarks.store.stored_run import StoredRun
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
    "read_outcomes",
    "read_run",
    "read_runs",
    "run_folders",
    "table_of",
    "write_archive",
]
