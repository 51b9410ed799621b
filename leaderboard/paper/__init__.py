"""What a paper takes from a board: figures with their data, tables in LaTeX, references.

`python -m leaderboard RUNS --out DIR --figures --tables` writes them to DIR/figures and DIR/tables.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from leaderboard.paper.selection import PaperBoard, PaperFiles, PaperParts, require_known_models

if TYPE_CHECKING:
    from leaderboard.board.schema import Board
    from leaderboard.scoring import ScoredRuns

__all__ = ["PAPER_FOLDERS", "PaperFiles", "PaperParts", "require_known_models", "write_paper"]

PAPER_FOLDERS: Final = ("figures", "tables")
"""The folders of a board's folder that `write_paper` writes."""


def write_paper(
    scored: ScoredRuns, board: Board, folder: Path, parts: PaperParts, *, studies: Path
) -> PaperFiles:
    """Write the figures and tables of a board into `figures` and `tables` of its folder.

    Args:
        scored: The runs that the board was made from.
        board: The board.
        folder: The folder of the board.
        parts: What is written, and which rows it shows.
        studies: The folder that may hold the numbers of the study of learning curves.

    Returns:
        The files, and a line for each part that is left out, because its data are missing or the
        board ranks no row that it shows.
    """
    from leaderboard.paper.paper_figures import write_figures
    from leaderboard.paper.paper_tables import write_tables

    paper = PaperBoard.of(scored, board, parts.models, studies)
    if not paper.rows:
        return PaperFiles([], ["figures and tables are left out: no row to show is ranked"])
    files: list[Path] = []
    left_out: list[str] = []
    for wanted, name, make in (
        (parts.figures, PAPER_FOLDERS[0], write_figures),
        (parts.tables, PAPER_FOLDERS[1], write_tables),
    ):
        if wanted:
            written = make(paper, folder / name)
            files += written.files
            left_out += written.left_out
    return PaperFiles(files, left_out)
