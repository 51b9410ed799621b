"""A table of a paper as data, and as LaTeX (booktabs, siunitx) and Markdown.

Any text may stand in a cell. In LaTeX it is escaped, so that no command of TeX is in it, and in
Markdown it is neither HTML nor markup.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.core.formatting import NOTHING

LONGEST: Final = 45
"""A table of more lines goes over several pages, as a `longtable`."""
_TEX: Final = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "{''}",
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    "`": r"\textasciigrave{}",
    "'": r"\textquotesingle{}",
    "-": "-{}",
    "Å": r"\AA{}",
    "°": r"\ensuremath{^\circ}",
    "±": r"\ensuremath{\pm}",
    "–": r"\textendash{}",
    "—": r"\textemdash{}",
    "−": r"\ensuremath{-}",
    "²": r"\ensuremath{^2}",
    "…": r"\textellipsis{}",
    "Δ": r"\ensuremath{\Delta}",
    "α": r"\ensuremath{\alpha}",
    "β": r"\ensuremath{\beta}",
    "γ": r"\ensuremath{\gamma}",
}
"""What stands for a character. Two hyphens stay two, and a bracket or a star that begins a line is
no argument of the end of the line before."""
_NUMBER: Final = re.compile(r"[-+]?\d+(\.\d+)?")
_LIKE_A_NUMBER: Final = re.compile(rf"[-+]?\d+(\.\d+)?(e[-+]\d+)?|{NOTHING}|")
_INTERVAL: Final = re.compile(r"([-+]?[\d.]+)( \[[-+]?[\d.]+, [-+]?[\d.]+\])?")


@dataclass(frozen=True, slots=True)
class PaperColumn:
    """A column of a table."""

    header: str
    numbers: bool = True
    """Whether the cells are plain numbers, which siunitx aligns at the decimal point."""
    tex: str | None = None
    """The header in LaTeX, where it is more than the text."""


@dataclass(frozen=True, slots=True)
class PaperBlock:
    """Lines of a table under one heading; without a heading they follow the lines above."""

    heading: str | None
    lines: Sequence[Sequence[str]]
    """Cells; one that begins with `**` and ends with it is bold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperTable:
    """A table of a paper."""

    name: str
    caption: str
    columns: Sequence[PaperColumn]
    blocks: Sequence[PaperBlock]

    @property
    def lines(self) -> list[Sequence[str]]:
        """The lines of all blocks."""
        return [line for block in self.blocks for line in block.lines]

    def latex(self) -> str:
        """A `tabular`, or for a long table a `longtable`; it needs booktabs and siunitx."""
        long = len(self.lines) + len(self.blocks) > LONGEST
        kinds = []
        for k, column in enumerate(self.columns):
            cells = [line[k] for line in self.lines]
            numeric = all(_LIKE_A_NUMBER.fullmatch(cell) for cell in cells)
            kinds.append(_number_column(cells) if column.numbers else "r" if numeric else "l")
        environment = "longtable" if long else "tabular"
        width = len(self.columns)
        heads = [column.tex or escape_tex(column.header) for column in self.columns]
        head = " & ".join("{" + each + "}" for each in heads) + r" \\"
        body = [rf"\begin{{{environment}}}{{{''.join(kinds)}}}", r"\toprule", head, r"\midrule"]
        body += [r"\endhead", r"\bottomrule", r"\endfoot"] if long else []
        for k, block in enumerate(self.blocks):
            body += [r"\addlinespace"] if k and block.heading else []
            if block.heading:
                heading = rf"\multicolumn{{{width}}}{{l}}{{{escape_tex(block.heading)}}} \\"
                body.append(heading + "*" * long)
            for n, line in enumerate(block.lines, 1):
                cells = [
                    tex_cell(cell, numbers=column.numbers)
                    for cell, column in zip(line, self.columns, strict=True)
                ]
                together = "*" if long and block.heading and n < len(block.lines) else ""
                body.append(" & ".join(cells) + rf" \\{together}")
        body += ([] if long else [r"\bottomrule"]) + [rf"\end{{{environment}}}"]
        return "\n".join(body) + "\n"

    def markdown(self) -> str:
        """The caption and a table of pipes; the heading of a block stands in its first line."""
        grouped = any(block.heading for block in self.blocks)
        head = ["", *(column.header for column in self.columns)] if grouped else [
            column.header for column in self.columns
        ]  # fmt: skip
        rules = ["---", *("---:" if c.numbers else "---" for c in self.columns)][not grouped :]
        lines = ["| " + " | ".join(head) + " |", "| " + " | ".join(rules) + " |"]
        for block in self.blocks:
            for k, line in enumerate(block.lines):
                first = [escape_markdown(block.heading or "") if k == 0 else ""] if grouped else []
                cells = [*first, *map(_markdown_cell, line)]
                lines.append("| " + " | ".join(cells) + " |")
        return f"{escape_markdown(self.caption)}\n\n" + "\n".join(lines) + "\n"


def _number_column(cells: Sequence[str]) -> str:
    """A column of siunitx, as wide as its numbers."""
    numbers = [found[0] for cell in cells if (found := _NUMBER.fullmatch(cell.strip("*")))]
    whole = max((len(n.lstrip("+-").split(".")[0]) for n in numbers), default=1)
    digits = max((len(n.partition(".")[2]) for n in numbers), default=0)
    sign = "-" if any(n.startswith("-") for n in numbers) else ""
    return f"S[table-format={sign}{whole}.{digits}]"


def tex_cell(text: str, *, numbers: bool) -> str:
    """One cell in LaTeX.

    Args:
        text: A number, an estimate with its interval, or any text.
        numbers: Whether the column is one of numbers, which takes text in braces only.
    """
    bold = len(text) > 4 and text.startswith("**") and text.endswith("**")
    text = text[2:-2] if bold else text
    if numbers and _NUMBER.fullmatch(text) and not bold:
        return text
    written = escape_tex(text)
    if _INTERVAL.fullmatch(text):
        written = "$" + text.replace(", ", r",\,").replace(" [", r"\ [") + "$"
    written = rf"\textbf{{\boldmath {written}}}" if bold else written
    return "{" + written + "}" if numbers else written


def escape_tex(text: str) -> str:
    """Write any text in LaTeX so that it is shown as it is and runs no command.

    Letters with accents stay. Any other character beyond ASCII is shown by its number, as pdfLaTeX
    has no sign for it; control characters become spaces.
    """
    written = []
    for character in text:
        if character in _TEX:
            written.append(_TEX[character])
        elif character.isascii():
            written.append(character if character.isprintable() else " ")
        else:
            base = unicodedata.normalize("NFD", character)
            accented = base[0].isascii() and base[0].isalpha() and "À" <= character <= "ÿ"
            written.append(character if accented else f"[U+{ord(character):04X}]")
    return "".join(written)


def escape_markdown(text: str) -> str:
    """Write any text in a cell of a Markdown table so that it is shown as it is."""
    shown = "".join(c if c.isprintable() else " " for c in text)
    return re.sub(r"([\\`*_\[\]|$~])", r"\\\1", html.escape(shown, quote=False))


def _markdown_cell(text: str) -> str:
    if _INTERVAL.fullmatch(text.strip("*")) or text in (NOTHING, ""):
        return text
    return escape_markdown(text)
