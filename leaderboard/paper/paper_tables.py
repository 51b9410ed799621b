"""The tables of a paper, as LaTeX and Markdown, with the references of what they show."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from benchmarks.core.files import atomic_write
from benchmarks.core.formatting import NOTHING, format_estimate, format_number
from benchmarks.core.statistics import Estimate
from benchmarks.metrics.columns import PARAMETERS
from leaderboard.board.rows import RANKED_BY
from leaderboard.board.schema import IDENTITY, Row
from leaderboard.paper.references import (
    bibliography,
    references_of_data,
    references_of_model,
)
from leaderboard.paper.selection import PaperBoard, PaperFiles, representatives
from leaderboard.paper.table_text import (
    PaperBlock,
    PaperColumn,
    PaperTable,
    escape_markdown,
    escape_tex,
)
from leaderboard.views.table_columns import scored, training

OTHER_DATA: Final = "T2, as published (other data, not comparable)"
T2_LATTICE: Final = ("0.053", "0.053", "0.074", "0.086", "0.101", "0.160")
"""The published mean errors of a T5 on LeMat-Traj: a, b, c [Å], α, β, γ [°]."""
T2_POSITIONS: Final = {"mae": "0.066", "rmse": "0.502"}
"""The published errors of the positions [Å]; how they were averaged is not said."""
MOST_RIVALS: Final = 4
"""The number of rivals that fit beside one another on a page."""
_RUNGS: Final = {
    "parsed": "Parsed",
    "site_count": "Sites",
    "composition": "Composition",
    "element_preservation": "Elements",
    "cell": "Cell",
    "validity": "Valid",
}
DOCUMENT: Final = "tables.tex"


def write_tables(paper: PaperBoard, folder: Path) -> PaperFiles:
    """Write every table as `NAME.tex` and `NAME.md`, a document with all, and the references.

    Args:
        paper: The board and the rows that are shown.
        folder: The folder of the tables.

    Returns:
        The files, and a line for each table that has no lines.
    """
    texts: dict[str, str] = {}
    left_out = []
    shown = []
    for make in TABLES:
        table = make(paper)
        if not table.lines:
            left_out.append(f"table {table.name} is left out: no row can be shown in it")
            continue
        shown.append(table)
        texts[f"{table.name}.tex"] = table.latex()
        texts[f"{table.name}.md"] = table.markdown()
    texts[DOCUMENT] = _document(shown)
    texts["references.bib"] = bibliography(paper.board, paper.rows)
    texts["references.md"] = _references_page(paper)
    for name, text in texts.items():
        with atomic_write(folder / name) as partial:
            partial.write_text(text, encoding="utf-8")
    return PaperFiles([folder / name for name in texts], left_out)


def identity_first(rows: tuple[Row, ...]) -> list[Row]:
    """The rows, best first, after the one that changes nothing."""
    return sorted(rows, key=lambda row: row.model != IDENTITY)


def ranking(paper: PaperBoard) -> PaperTable:
    """Ranks, scores and the main errors."""
    metrics = {
        "lattice_mae": ("Lattice MAE (Å)", 3),
        "volume_mape": ("Volume (%)", 2),
        "strain": ("Strain", 4),
        "position_mae": ("Position MAE (Å)", 3),
    }
    lines = []
    for row in paper.rows:
        spread = f"{row.rank_low}–{row.rank_high}" if row.rank_low != row.rank_high else ""
        numbers = [_number(row, name, digits) for name, (_, digits) in metrics.items()]
        score = format_estimate(row.metrics[RANKED_BY], 3)
        lines.append([str(row.rank), spread, row.model, row.track, score, scored(row), *numbers])
    words = ("Rank", "(95 %)", "Model", "Track", "Score", "Scored")
    return PaperTable(
        name="ranking",
        caption=f"{_title(paper)}: score with its 95 % interval (paired bootstrap over "
        "compositions), ranks that the bootstrap allows, and mean errors over the scored samples.",
        columns=[
            *(PaperColumn(word, numbers=False) for word in words),
            *(PaperColumn(header) for header, _ in metrics.values()),
        ],
        blocks=[PaperBlock(None, lines)],
    )


def lattice(paper: PaperBoard) -> PaperTable:
    """MAE, MSE and RMSE of the changes of the six parameters, a block for each model."""
    blocks = [
        PaperBlock(
            f"{row.model} ({scored(row)} scored)",
            [
                [kind.upper(), *(_number(row, f"{name}_{kind}", 3) for name in PARAMETERS)]
                for kind in ("mae", "mse", "rmse")
            ],
        )
        for row in identity_first(paper.rows)
    ]
    symbols = zip(PARAMETERS, "abcαβγ", ("Å",) * 3 + ("°",) * 3, strict=True)
    return PaperTable(
        name="lattice",
        caption=f"{_title(paper)}: errors of the changes of the lattice parameters, in the setting "
        "of the input, over the scored samples. MAE and RMSE in Å and °, MSE in Å² and (°)².",
        columns=[
            PaperColumn("", numbers=False),
            *(
                PaperColumn(
                    f"Δ{symbol} ({unit})",
                    tex=rf"$\Delta {name if len(name) == 1 else chr(92) + name}$ "
                    + (r"(\AA)" if unit == "Å" else r"(\si{\degree})"),
                )
                for name, symbol, unit in symbols
            ),
        ],
        blocks=[*blocks, PaperBlock(OTHER_DATA, [["MAE", *T2_LATTICE]])] if blocks else [],
    )


def positions(paper: PaperBoard) -> PaperTable:
    """Errors of the positions by the three conventions of papers, a block for each model."""
    conventions = {
        "mean of the structures": ("position_mae", "position_rmse"),
        "all atoms pooled": ("position_mae_pooled", "position_rmse_pooled"),
        "Cartesian components": ("position_component_mae", "position_component_rmse"),
    }
    blocks = []
    for row in identity_first(paper.rows):
        lines = []
        for convention, (mae, rmse) in conventions.items():
            root = row.metrics[rmse].point
            square = format_number(None if root is None else root**2, 4)
            lines.append([convention, _number(row, mae, 4), square, _number(row, rmse, 4)])
        blocks.append(PaperBlock(f"{row.model} ({scored(row)} scored)", lines))
    quoted = ["convention not stated", T2_POSITIONS["mae"], NOTHING, T2_POSITIONS["rmse"]]
    return PaperTable(
        name="positions",
        caption=f"{_title(paper)}: errors of the positions over the scored samples; exact minimum "
        "image, the mean displacement taken off, atoms compared by index.",
        columns=[
            PaperColumn("Average", numbers=False),
            PaperColumn("MAE (Å)"),
            PaperColumn("MSE (Å²)"),
            PaperColumn("RMSE (Å)"),
        ],
        blocks=[*blocks, PaperBlock(OTHER_DATA, [quoted])] if blocks else [],
    )


def ladder(paper: PaperBoard) -> PaperTable:
    """The validity ladder of the answers, and the outcomes that were none."""
    lines = []
    for row in paper.rows:
        rates = [_number(row, f"{rung}_rate", 3) for rung in _RUNGS]
        outcomes = row.coverage
        counts = [str(outcomes[each]) for each in ("unsupported", "resource", "error")]
        strict = _number(row, "validity_rate_strict", 3)
        lines.append([row.model, *rates, strict, *counts])
    heads = (*_RUNGS.values(), "Valid of all", "Declined", "Resource", "Error")
    return PaperTable(
        name="validity",
        caption=f"{_title(paper)}: share of the answers that reach each rung of the validity "
        "ladder (each requires those before it); valid answers as a share of all samples; number "
        "of outcomes without an answer.",
        columns=[PaperColumn("Model", numbers=False), *map(PaperColumn, heads)],
        blocks=[PaperBlock(None, lines)],
    )


def cost(paper: PaperBoard) -> PaperTable:
    """Times, force evaluations and memory, a block for each machine."""
    columns = {
        "wall_time_median": "Median time (s)",
        "wall_time_mean": "Mean time (s)",
        "latency_p95": "95th percentile at batch size 1 (s)",
        "n_force_evals": "Force evaluations",
        "n_tokens": "Tokens",
        "peak_memory": "Memory (MB)",
        "load_time": "Load (s)",
    }
    if any(row.metrics["declared_time"].point is not None for row in paper.rows):
        columns["declared_time"] = "Declared by the authors (s)"
    machines: dict[str, list[list[str]]] = {}
    for row in paper.rows:
        machine = "; ".join(
            f"{each.cpu or 'unknown'}, {each.device or 'unknown'}, {each.threads or 'unknown'} "
            f"{'thread' if each.threads == 1 else 'threads'}"
            for each in row.hardware
        )
        numbers = [_significant(row.metrics[name].point) for name in columns]
        machines.setdefault(machine, []).append([row.model, *numbers, training(row)])
    return PaperTable(
        name="cost",
        caption=f"{_title(paper)}: cost per structure, and of the training: computing time as "
        "published or measured. Only times of one machine can be compared.",
        columns=[
            PaperColumn("Model", numbers=False),
            *(PaperColumn(header, numbers=False) for header in (*columns.values(), "Training")),
        ],
        blocks=[PaperBlock(machine, lines) for machine, lines in machines.items()],
    )


def differences(paper: PaperBoard) -> PaperTable:
    """Paired differences of the score from the rivals that stand for the others."""
    found = next((t for t in paper.board.differences if t.metric == RANKED_BY), None)
    able = [row for row in paper.rows if found is not None and row.model in found.rivals]
    rivals = [row.model for row in representatives(able, MOST_RIVALS)]
    lines = []
    for row in paper.rows:
        cells = [row.model]
        for rival in rivals:
            known = found.cells.get(row.model, {}).get(rival) if found is not None else None
            cells.append(_difference(known))
        lines.append(cells)
    others = len(able) - len(rivals)
    more = f" {others} further rivals are in the data of the figure of differences." * (others > 0)
    return PaperTable(
        name="differences",
        caption=f"{_title(paper)}: mean paired difference of the score, the row minus the column, "
        f"with its 95 % interval; bold where that excludes 0.{more}",
        columns=[PaperColumn(name, numbers=False) for name in ("Model", *rivals)],
        blocks=[PaperBlock(None, lines if rivals else [])],
    )


TABLES: Final[tuple[Callable[[PaperBoard], PaperTable], ...]] = (
    ranking,
    lattice,
    positions,
    ladder,
    cost,
    differences,
)
"""Every table of a paper."""


def _title(paper: PaperBoard) -> str:
    split = f", split {paper.board.dataset.split}" if paper.board.dataset.split else ""
    return f"{paper.board.dataset.name}{split}, {paper.board.dataset.n_samples} samples"


def _number(row: Row, name: str, digits: int) -> str:
    return format_number(row.metrics[name].point, digits)


def _significant(number: float | None) -> str:
    """Two significant digits, without an exponent where that is short."""
    if number is None:
        return NOTHING
    return f"{number:.0f}" if number >= 100 else f"{number:.2g}"


def _difference(found: Estimate | None) -> str:
    if found is None:
        return NOTHING
    text = format_estimate(found, 3, signed=True)
    return f"**{text}**" if found.sign else text


def _document(tables: list[PaperTable]) -> str:
    """A document that shows every table; pdflatex compiles it in the folder of the tables."""
    body = [
        r"\documentclass[10pt]{article}",
        r"\usepackage{textcomp}",
        r"\usepackage[a4paper,landscape,margin=15mm]{geometry}",
        r"\usepackage{booktabs,longtable,siunitx}",
        r"\setlength{\parindent}{0pt}",
        r"\begin{document}",
        r"\footnotesize",
    ]
    for table in tables:
        body += [escape_tex(table.caption), "", r"\medskip", rf"\input{{{table.name}.tex}}"]
        body += ["", r"\clearpage"]
    body += [r"\nocite{*}", r"\bibliographystyle{unsrt}", r"\bibliography{references}"]
    return "\n".join([*body, r"\end{document}"]) + "\n"


def _references_page(paper: PaperBoard) -> str:
    """The keys of the entries that each row and the data need."""
    lines = ["| | BibTeX |", "| --- | --- |"]
    data = ", ".join(each.key for each in references_of_data(paper.board))
    lines.append(f"| {escape_markdown(paper.board.dataset.name)} | {data or NOTHING} |")
    for row in paper.rows:
        keys = ", ".join(each.key for each in references_of_model(row))
        lines.append(f"| {escape_markdown(row.model)} | {keys} |")
    return "\n".join(lines) + "\n"
