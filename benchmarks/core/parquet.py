"""Parquet and memory: files that unpack to far too much, and what reading leaves behind."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress
from typing import Any, Final

HARMLESS: Final = 2**26
"""Bytes that any file may unpack to."""
LARGEST_RATIO: Final = 1000
"""Largest ratio of unpacked to packed bytes of more than `HARMLESS`; crystals have less than 20."""


def refuse_bomb(footer: Any) -> None:
    """Compare what a file says that it unpacks to with what it holds, by row group and in all.

    Args:
        footer: The footer of the file, which pyarrow calls its metadata.

    Raises:
        ValueError: It unpacks to far more.
    """
    packed = unpacked = 0
    for number in range(footer.num_row_groups):
        group = footer.row_group(number)
        if group.total_byte_size <= HARMLESS // max(1, footer.num_row_groups):
            continue
        columns = [group.column(i) for i in range(group.num_columns)]
        for column in columns:
            _compare(column.total_compressed_size, column.total_uncompressed_size)
        packed += sum(column.total_compressed_size for column in columns)
        unpacked += group.total_byte_size
    _compare(packed, unpacked)


def _compare(packed: int, unpacked: int) -> None:
    if unpacked > HARMLESS and unpacked > LARGEST_RATIO * packed:
        raise ValueError(
            f"{packed:,} bytes that unpack to {unpacked:,}: damaged, or made to fill the memory"
        )


def give_back_memory() -> None:
    """Return memory that was freed to the system; after reading a million rows it is half of all.

    The C library and Arrow keep it otherwise. Nothing happens where the C library is not glibc.
    """
    import pyarrow as pa

    pa.default_memory_pool().release_unused()
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)
