"""What a board says, in sentences that are made from its intervals.

A sentence says "better" only where the 95 % interval of the paired difference excludes 0, and "not
told apart" where it does not.
"""

from __future__ import annotations

from typing import Final

from benchmarks.core.formatting import format_number
from benchmarks.core.statistics import Estimate
from leaderboard.board.schema import IDENTITY, Board, Row

KINDS: Final = {"llm": "text model", "gnn": "graph network or potential", "hybrid": "hybrid"}
_PARTS: Final = (("lattice_mae", "the lattice"), ("position_mae", "the positions"))


def difference(board: Board, metric: str, model: str, rival: str) -> Estimate | None:
    """The mean paired difference, model minus rival; None where the board has none."""
    for table in board.differences:
        if table.metric != metric:
            continue
        found = table.cells.get(model, {}).get(rival)
        if found is not None:
            return found
        turned = table.cells.get(rival, {}).get(model)
        if turned is not None:
            low, high = (None if x is None else -x for x in (turned.high, turned.low))
            point = None if turned.point is None else -turned.point
            return Estimate(point=point, low=low, high=high, n=turned.n)
    return None


def sentences(board: Board) -> list[str]:
    """At most three sentences: who leads, against no change, and across kinds of models."""
    trained = [row for row in board.rows if row.family != "trivial"]
    if not trained:
        return []
    first = trained[0]
    return [
        text
        for text in (_leader(board, first), _unchanged(board, first), _kinds(board, trained))
        if text
    ]


def _leader(board: Board, first: Row) -> str:
    tied = [second for one, second in board.ties if one == first.model]
    tied += [one for one, second in board.ties if second == first.model]
    order = [row.model for row in board.rows]
    tied.sort(key=order.index)
    score = first.metrics["score"]
    if score.point is None:
        return ""
    text = f"{first.model} has the highest score of all trained models, {_number(score, 3)}"
    if not tied:
        return text + "; no other model is level with it."
    shown = tied if len(tied) <= 4 else [*tied[:3], f"{len(tied) - 3} more"]
    return f"{text}, but {_joined(shown)} cannot be told apart from it."


def _unchanged(board: Board, first: Row) -> str:
    """The leader against no change, for cells and for positions."""
    if IDENTITY not in {row.model for row in board.rows} - {first.model}:
        return ""
    parts = []
    for metric, what in _PARTS:
        found = difference(board, metric, first.model, IDENTITY)
        if found is None or found.point is None or found.low is None or found.high is None:
            continue
        if found.low <= 0 <= found.high:
            parts.append(f"not told apart on {what}")
        else:
            word = "better" if found.point < 0 else "worse"
            size = Estimate(
                point=abs(found.point), n=found.n,
                low=min(abs(found.low), abs(found.high)), high=max(abs(found.low), abs(found.high)),
            )  # fmt: skip
            parts.append(f"{word} on {what} by {_number(size, 3, ' Å')}")
    if not parts:
        return ""
    return f"Against no change {first.model} is " + _joined(parts) + "."


def _kinds(board: Board, trained: list[Row]) -> str:
    """The best of each kind against one another: the first two kinds on the board."""
    best: dict[str, Row] = {}
    for row in trained:
        best.setdefault(row.family, row)
    pairs = [row for family, row in best.items() if family in KINDS]
    if len(pairs) < 2:
        return ""
    first, second = pairs[:2]
    found = difference(board, "score", first.model, second.model)
    if found is None or found.point is None or found.low is None or found.high is None:
        return ""
    names = [f"{row.model} (best {KINDS[row.family]})" for row in (first, second)]
    if {(first.model, second.model), (second.model, first.model)} & set(board.ties):
        gap = _number(found, 3, signed=True)
        return f"{names[0]} and {names[1]} cannot be told apart: their scores differ by {gap}."
    return f"{names[0]} is better than {names[1]}: by {_number(found, 3)} in score."


def _number(found: Estimate, digits: int, unit: str = "", *, signed: bool = False) -> str:
    """`0.191 Å (95 % 0.169 to 0.213)`."""
    point, low, high = (
        format_number(x, digits, signed=signed) for x in (found.point, found.low, found.high)
    )
    return f"{point}{unit}" + ("" if found.low is None else f" (95 % {low} to {high})")


def _joined(names: list[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
