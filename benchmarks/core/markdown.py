"""Tables of the reports on data sets."""

from __future__ import annotations

from collections.abc import Iterable


def markdown_table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A table in Markdown, without an end of line.

    Args:
        head: Headers of the columns.
        rows: Cells, which are written by `str`.
    """
    cells = [tuple(head)]
    cells += [tuple(str(cell).replace("|", "\\|") for cell in row) for row in rows]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "---|" * len(cells[0]), *lines[1:]])
