"""Parquet files in the column layout of LeMat-Traj, row group by row group.

Several files are read as one table whose rows are numbered through. Everything that can be wrong
with a file (missing, not parquet, damaged, lacking columns) is a `UserError` of one line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.core import UserError

_VECTORS = pa.list_(pa.list_(pa.float64()))
COLUMNS: dict[str, Any] = {
    "id": pa.string(),
    "immutable_id": pa.string(),
    "functional": pa.string(),
    "relaxation_step": pa.int64(),
    "relaxation_number": pa.int64(),
    "nsites": pa.int64(),
    "nperiodic_dimensions": pa.int64(),
    "dimension_types": pa.list_(pa.int64()),
    "species": pa.string(),
    "species_at_sites": pa.list_(pa.string()),
    "lattice_vectors": _VECTORS,
    "cartesian_site_positions": _VECTORS,
    "energy": pa.float64(),
    "forces": _VECTORS,
    "stress_tensor": _VECTORS,
}
"""The columns of LeMat-Traj that are read, with the types that they are brought to."""


class FrameFiles:
    """Parquet files of frames, addressed by one running row number.

    Args:
        paths: Files, in order.
        sets: For each file a number of the set that it is part of: what most trajectories of one
            set show is not said of another. Without it all are of one.

    Raises:
        UserError: A file is missing, is not parquet, lacks one of `COLUMNS`, or has no rows.
    """

    def __init__(self, paths: Sequence[Path], sets: Sequence[int] | None = None) -> None:
        self.paths = tuple(paths)
        self.sets = np.array(sets or [0] * len(self.paths), dtype=np.int64)
        self._groups: list[tuple[Path, int, int, int]] = []
        self._starts: list[int] = []
        self._opened: tuple[Path, Any] | None = None
        self.n_rows = 0
        for path in self.paths:
            self._starts.append(self.n_rows)
            for group, size in enumerate(_group_sizes(path)):
                self._groups.append((path, group, self.n_rows, size))
                self.n_rows += size
        if not self.n_rows:
            raise UserError(f"{_listed(self.paths)}: no rows")

    def file_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Index into `paths` of the file in which each row lies."""
        return np.searchsorted(self._starts, rows, side="right") - 1

    def tables(self, columns: Sequence[str]) -> Iterator[tuple[int, Any]]:
        """Each row group as (number of its first row, Arrow table of `columns`).

        The next one is read while the caller works on this one.
        """
        with ThreadPoolExecutor(1) as reader:
            coming = None
            for path, group, start, _ in self._groups:
                ready, coming = coming, (start, reader.submit(self._read, path, group, columns))
                if ready is not None:
                    yield ready[0], ready[1].result()
            if coming is not None:
                yield coming[0], coming[1].result()

    def pick(
        self, rows: NDArray[np.int64], columns: Sequence[str]
    ) -> Iterator[tuple[NDArray[np.int64], Any]]:
        """The asked rows of each row group that has some; no other row group is read.

        Args:
            rows: (n,) row numbers.
            columns: Names from `COLUMNS`.

        Yields:
            Which of `rows` these are, as indices into it, and an Arrow table of them.
        """
        order = np.argsort(rows, kind="stable")
        asked = rows[order]
        for path, group, start, size in self._groups:
            low, high = np.searchsorted(asked, (start, start + size))
            if low < high:
                table = self._read(path, group, columns)
                yield order[low:high], table.take(asked[low:high] - start)

    def take(self, rows: NDArray[np.int64], columns: Sequence[str]) -> Any:
        """An Arrow table of `rows`, in the order asked for; untouched row groups are not read.

        Args:
            rows: (n,) row numbers, at least one.
            columns: Names from `COLUMNS`.
        """
        places, pieces = zip(*self.pick(rows, columns), strict=True)
        inverse = np.empty_like(rows)
        inverse[np.concatenate(places)] = np.arange(len(rows))
        return pa.concat_tables(pieces).take(inverse)

    def _read(self, path: Path, group: int, columns: Sequence[str]) -> Any:
        if self._opened is None or self._opened[0] != path:
            self._opened = (path, _open(path))
        return _read_group(path, self._opened[1], group, columns)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what Arrow says of a damaged file into one line that names the file."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: not a readable parquet file ({first})") from error


def _open(path: Path) -> Any:
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    with reading(path):
        return pq.ParquetFile(path)


def _group_sizes(path: Path) -> list[int]:
    file = _open(path)
    missing = [name for name in COLUMNS if name not in file.schema_arrow.names]
    if missing:
        raise UserError(
            f"{path}: lacks {', '.join(missing)}: not in the column layout of LeMat-Traj"
        )
    meta = file.metadata
    return [meta.row_group(i).num_rows for i in range(meta.num_row_groups)]


def _read_group(path: Path, file: Any, group: int, columns: Sequence[str]) -> Any:
    with reading(path):
        table = file.read_row_group(group, columns=list(columns)).select(list(columns))
        table.validate(full=True)  # a flipped bit may leave text that is not UTF-8
    for i, name in enumerate(columns):
        try:
            table = table.set_column(i, name, table[name].cast(COLUMNS[name]))
        except pa.ArrowException as error:
            raise UserError(
                f"{path}: column {name} is {table[name].type}, expected {COLUMNS[name]}"
            ) from error
    return table.combine_chunks()


def _listed(paths: Sequence[Path]) -> str:
    if len(paths) < 2:
        return str(paths[0]) if paths else "what was drawn"
    return f"{len(paths)} files from {paths[0]}"


def lengths(lists: Any) -> NDArray[np.int64]:
    """Number of entries of each list of an Arrow list column; a null has none."""
    return numpy(pc.fill_null(pc.list_value_length(lists), 0)).astype(np.int64)


def numpy(column: Any) -> NDArray[Any]:
    """An Arrow array of numbers or booleans as numpy; nulls become NaN."""
    return np.asarray(column.to_numpy(zero_copy_only=False))


def array(column: Any) -> Any:
    """One Arrow array from a column that may be chunked."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def row_sums(values: NDArray[Any], counts: NDArray[np.int64]) -> NDArray[Any]:
    """Sums over consecutive runs of `values`: (sum(counts),) -> (len(counts),).

    Unsigned integers wrap around, which the hashes want.
    """
    total = np.concatenate([np.zeros(1, values.dtype), np.cumsum(values, dtype=values.dtype)])
    ends = np.cumsum(counts)
    return np.asarray(total[ends] - total[ends - counts])


def vectors(lists: Any, counts: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Flatten a column of lists of 3-vectors.

    Args:
        lists: Arrow column, list<list<double>>, one list of vectors per row.
        counts: (n_rows,) how many vectors each row should have.

    Returns:
        (sum(counts), 3) vectors, NaN where a row is null or of another shape or has nulls
        inside; (n_rows,) which rows have the right shape.
    """
    lists = array(lists)
    shaped = (lengths(lists) == counts) & numpy(lists.is_valid()).astype(bool)
    inner = lengths(pc.list_flatten(lists))
    shaped &= row_sums((inner != 3).astype(np.int64), lengths(lists)) == 0
    result = np.full((int(counts.sum()), 3), np.nan)
    flat = pc.list_flatten(pc.list_flatten(lists.filter(pa.array(shaped))))
    result[np.repeat(shaped, counts)] = numpy(flat).reshape(-1, 3)
    return result, shaped
