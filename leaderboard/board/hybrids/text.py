"""The comparisons of hybrids as JSON and Markdown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from leaderboard.board.hybrids.final_structures import MAX_DISPLACEMENT, MAX_ENERGY, MAX_STRAIN
from leaderboard.board.hybrids.savings import Cost, Estimate, Minimum, Saving

SCHEMA_VERSION: Final = 1


def to_json(rows: Sequence[Saving], heading: str) -> str:
    """All numbers, with the bounds of the same minimum."""
    content: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "board": heading,
        "same_minimum": {
            "strain_below": MAX_STRAIN,
            "mean_displacement_below_angstrom": MAX_DISPLACEMENT,
            "energy_within_ev_per_atom": MAX_ENERGY,
        },
        "rows": [asdict(row) for row in rows],
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def markdown(rows: Sequence[Saving], heading: str) -> str:
    """The same as one table."""
    lines = [f"# Hybrids: {heading}\n", _INTRODUCTION, f"| {' | '.join(_HEADER)} |"]
    lines.append(f"| --- | --- |{' ---: |' * (len(_HEADER) - 2)}")
    return "\n".join([*lines, *(f"| {' | '.join(_cells(row))} |" for row in rows)]) + "\n"


_HEADER: Final = (
    *("Hybrid", "Alone", "Finished: hybrid, alone, both (of)"),
    *("Force evaluations", "Ratio", "Saved", "Seconds", "Ratio", "Saved"),
    *("Same minimum (n)", "Else lower, level, higher"),
)
_INTRODUCTION: Final = (
    "`A+B` starts B from A's structure; B alone starts from the input. Force evaluations and "
    "seconds per structure are over the samples that both finished (`ok`): means (hybrid, alone), "
    "the ratio of the sums (below 1 the hybrid is cheaper) and the mean paired difference (alone "
    "minus hybrid), with 95 % intervals from the board's paired bootstrap over compositions. A "
    "hybrid's evaluations are those of all its parts, its seconds have A's time in them; loading "
    "the models is not in them, and where machine, threads or batch size differ there is no "
    "comparison of times (—).\n\n"
    f"Same minimum: strain between the two ends below {MAX_STRAIN:g}, mean displacement below "
    f"{MAX_DISPLACEMENT:g} Å (atoms by index), and energies within {MAX_ENERGY * 1000:g} meV/atom "
    "where B has energies; rate with Wilson's 95 % interval over the n samples that both finished. "
    "Of the others: ends of the hybrid that are lower in energy, level with the other end (within "
    "the bound: a symmetric image, or a valley so flat that the convergence limits leave the cell "
    "free), higher. — where neither structures nor their differences are stored.\n"
)


def _cells(row: Saving) -> list[str]:
    counts = f"{row.finished}, {row.alone_finished}, {row.both_finished} ({row.n_samples})"
    evals, seconds = _cost_cells(row.force_evals, 1), _cost_cells(row.seconds, 2)
    return [row.model, row.alone, counts, *evals, *seconds, *_minimum_cells(row.minimum)]


def _cost_cells(cost: Cost | None, digits: int) -> list[str]:
    if cost is None:
        return ["—"] * 3
    means = f"{cost.hybrid:.{digits}f}, {cost.alone:.{digits}f}"
    return [means, _written(cost.ratio, ".3f"), _written(cost.saved, f"+.{digits + 1}f")]


def _minimum_cells(minimum: Minimum | None) -> list[str]:
    if minimum is None:
        return ["—"] * 2
    others = f"{minimum.lower}, {minimum.level}, {minimum.higher}"
    return [f"{_written(minimum.rate, '.3f')} ({minimum.n})", others]


def _written(found: Estimate, form: str) -> str:
    if found.value is None:
        return "—"
    if found.ci_low is None or found.ci_high is None:
        return format(found.value, form)
    return f"{found.value:{form}} [{found.ci_low:{form}}, {found.ci_high:{form}}]"
