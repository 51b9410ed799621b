"""Parquet files in the column layout of LeMat-Traj, row group by row group.

Several files are read as one table whose rows are numbered consecutively. A column may stand in
the name of a folder (`functional=pbe/part-0.parquet`), as Hive and Spark write it. Every fault of a
file (missing, not parquet, damaged, a column lacking or twice) is a `UserError` of one line.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePath
from threading import Lock
from typing import Any, NamedTuple, Protocol
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.core import UserError
from benchmarks.core.parquet import refuse_bomb

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
_NULL_FOLDER = "__HIVE_DEFAULT_PARTITION__"
"""Stands in the name of a folder for null."""
_AHEAD = 4
"""Number of row groups of a remote file that are fetched while the caller works on one."""


class Remote(Protocol):
    """A remote parquet file; `str` gives its name. Threads may share it."""

    def footer(self) -> Any:
        """The footer of the file, which pyarrow calls its metadata."""

    def read(self, group: int, columns: Sequence[str], /) -> Any:
        """These columns of a row group as an Arrow table."""


FramePath = Path | Remote


class _Group(NamedTuple):
    path: FramePath
    number: int
    start: int
    """Number of its first row."""
    size: int
    lacks: frozenset[str]
    """Columns of `COLUMNS` that the file lacks; they stand in the names of its folders."""


class FrameFiles:
    """Parquet files of frames, addressed by one running row number.

    Args:
        paths: Files, in order.
        sets: For each file the number of the set that it belongs to. Trajectories of one set do
            not vote on the order of calculations in another. None if all files are one set.

    Raises:
        UserError: A file is missing, is not parquet, lacks one of `COLUMNS` or has it twice, or has
            no rows.
    """

    def __init__(self, paths: Sequence[FramePath], sets: Sequence[int] | None = None) -> None:
        self.paths = tuple(paths)
        self.sets = np.array(sets or [0] * len(self.paths), dtype=np.int64)
        self._groups: list[_Group] = []
        self._starts: list[int] = []
        self._opened: tuple[Path, Any] | None = None
        self._lock = Lock()
        self.n_rows = 0
        for path in self.paths:
            self._starts.append(self.n_rows)
            footer = _open(path).metadata if isinstance(path, Path) else path.footer()
            with reading(path):
                names = footer.schema.to_arrow_schema().names
                refuse_bomb(footer)
            lacks = frozenset(name for name in COLUMNS if name not in names)
            if missing := [name for name in COLUMNS if name in lacks - set(folder_columns(path))]:
                lacking = ", ".join(missing)
                raise UserError(f"{path}: lacks {lacking}: not in the column layout of LeMat-Traj")
            for name in COLUMNS:
                if names.count(name) > 1:
                    raise UserError(f"{path}: column {name} stands in it twice: remove one")
            for group in range(footer.num_row_groups):
                size = footer.row_group(group).num_rows
                self._groups.append(_Group(path, group, self.n_rows, size, lacks))
                self.n_rows += size
        if not self.n_rows:
            many = f"{len(self.paths)} files from {self.paths[0]}" if len(self.paths) > 1 else ""
            raise UserError(f"{many or next(iter(self.paths), 'what was drawn')}: no rows")

    def file_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Index into `paths` of the file in which each row lies."""
        return np.searchsorted(self._starts, rows, side="right") - 1

    def tables(self, columns: Sequence[str]) -> Iterator[tuple[int, Any]]:
        """Each row group as (number of its first row, Arrow table of `columns`).

        The next one is read while the caller works on this one.
        """
        for group, table in self._read_ahead(self._groups, columns):
            yield group.start, table

    def pick(
        self, rows: NDArray[np.int64], columns: Sequence[str]
    ) -> Iterator[tuple[NDArray[np.int64], Any]]:
        """The rows asked for, by row group; row groups without such rows are not read.

        Args:
            rows: (n,) row numbers.
            columns: Names from `COLUMNS`.

        Yields:
            Indices into `rows`, and an Arrow table of these rows.
        """
        order = np.argsort(rows, kind="stable")
        asked = rows[order]
        lows = np.searchsorted(asked, [group.start for group in self._groups])
        highs = np.searchsorted(asked, [group.start + group.size for group in self._groups])
        wanted = np.flatnonzero(lows < highs)
        tables = self._read_ahead([self._groups[i] for i in wanted], columns)
        for i, (group, table) in zip(wanted, tables, strict=True):
            which = slice(lows[i], highs[i])
            yield order[which], table.take(asked[which] - group.start)

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

    def _read_ahead(
        self, groups: Sequence[_Group], columns: Sequence[str]
    ) -> Iterator[tuple[_Group, Any]]:
        """Row groups with their tables; several remote ones are fetched at once."""
        remote = any(not isinstance(group.path, Path) for group in groups)
        ahead = _AHEAD if remote else 1
        coming: deque[tuple[_Group, Future[Any]]] = deque()
        off = None if remote else True  # None: where stderr is no terminal
        bar = tqdm(groups, "reading", unit="row group", leave=False, disable=off)
        reader = ThreadPoolExecutor(ahead)
        try:
            for group in bar:
                coming.append((group, reader.submit(self._read, group, columns)))
                if len(coming) > ahead:
                    yield _result(coming)
            while coming:
                yield _result(coming)
        finally:
            reader.shutdown(cancel_futures=True)

    def _read(self, group: _Group, columns: Sequence[str]) -> Any:
        path, stored = group.path, [name for name in columns if name not in group.lacks]
        if isinstance(path, Path):
            with self._lock, reading(path):  # beside files elsewhere there are several threads
                if self._opened is None or self._opened[0] != path:
                    self._opened = (path, _open(path))
                table = self._opened[1].read_row_group(group.number, columns=stored)
        else:
            table = path.read(group.number, stored)
        if table.num_rows != group.size:
            raise UserError(f"{path}: not a readable parquet file (row group {group.number})")
        return _typed(path, table, columns)


def _result(coming: deque[tuple[_Group, Future[Any]]]) -> tuple[_Group, Any]:
    group, future = coming.popleft()
    return group, future.result()


@contextmanager
def reading(path: FramePath) -> Iterator[None]:
    """Turn Arrow's error about a damaged file into one line that names the file."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: not a readable parquet file ({first})") from error


def _open(path: Path) -> Any:
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    with reading(path):
        return pq.ParquetFile(path)


def folder_columns(path: FramePath) -> dict[str, str | None]:
    """The columns of `COLUMNS` that stand in the names of a file's folders, with their values."""
    found: dict[str, str | None] = {}
    full = PurePath(path.absolute() if isinstance(path, Path) else str(path))
    for folder in full.parents:
        name, equals, value = folder.name.partition("=")
        if not equals:
            break
        if name in COLUMNS and not pa.types.is_list(COLUMNS[name]):
            found.setdefault(name, None if value == _NULL_FOLDER else unquote(value))
    return found


def _typed(path: FramePath, table: Any, columns: Sequence[str]) -> Any:
    """The columns in this order and of the types of `COLUMNS`, those of the folders among them."""
    folders = folder_columns(path)
    with reading(path):
        table = table.select([name for name in columns if name in table.column_names])
        table.validate(full=True)  # a flipped bit may leave text that is not UTF-8
    typed = {name: _cast(path, name, table[name]) for name in table.column_names}
    for name in set(columns) & set(folders):
        value = _cast(path, name, pa.array([folders[name]], pa.string()))[0]
        if name not in typed:
            typed[name] = pa.repeat(value, table.num_rows)
        elif pc.any(pc.not_equal(typed[name], value)).as_py():
            raise UserError(f"{path}: column {name} is not {folders[name]} as its folder says")
    return pa.table({name: typed[name] for name in columns}).combine_chunks()


def _cast(path: FramePath, name: str, column: Any) -> Any:
    try:
        return column.cast(COLUMNS[name])
    except pa.ArrowException as error:
        what = f"column {name} is {column.type}, expected {COLUMNS[name]}"
        raise UserError(f"{path}: {what}") from error
