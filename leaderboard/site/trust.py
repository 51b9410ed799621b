"""Why a board can be trusted, and how far: self-tests, power, leakage, machines.

The page shows it as a fold-out. Everything is computed from the scores of the samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from benchmarks.core import Status
from benchmarks.metrics import score
from leaderboard.board.comparisons import ERRORS, SAME_ERRORS, control_gap
from leaderboard.board.schema import IDENTITY, Board, Conclusion
from leaderboard.scoring import ScoredRuns

TESTED: Final = 100
"""The largest number of samples on which the self-tests are made."""


class SelfTest(NamedTuple):
    """An answer that is known beforehand, and what came out."""

    name: str
    expected: str
    found: str
    passed: bool


def self_tests(scored: ScoredRuns, ids: Sequence[str]) -> list[SelfTest]:
    """The reference as an answer, and the start as an answer; empty where no data are at hand."""
    dataset = scored.dataset
    if dataset is None or not ids:
        return []
    wanted = set(ids[:TESTED])
    pairs = [(each, *dataset.geometries(i)) for i, each in enumerate(dataset.ids) if each in wanted]
    perfect = [score(start, end, end, Status.OK) for _, start, end in pairs]
    lowest = min(each["score"] for each in perfect)
    largest = max(each[name] for each in perfect for name in ERRORS)
    tests = [
        SelfTest(
            f"Oracle: the reference itself is answered, {len(pairs)} structures",
            "every score 1, every error 0",
            f"lowest score {lowest:g}, largest error {largest:.1e}",
            lowest == 1 and largest < SAME_ERRORS,
        )
    ]
    names = {run.name: k for k, run in enumerate(scored.runs)}
    if IDENTITY in names:
        table = scored.tables[names[IDENTITY]]
        rows = table[table["repeat"] == 0].set_index("sample_id").to_dict("index")
        gaps = [
            abs(score(start, end, start, Status.OK)[name] - rows[each][name])
            for each, start, end in pairs
            for name in ERRORS
        ]
        tests.append(
            SelfTest(
                f"No change: the start itself is answered, {len(pairs)} structures",
                f"the errors of the row {IDENTITY}",
                f"largest difference {max(gaps):.1e}",
                max(gaps) < SAME_ERRORS,
            )
        )
        for run, control in scored.controls:
            gap = control_gap(control, table)
            tests.append(
                SelfTest(
                    f"{run.identity['label']}, {len(control)} relaxations",
                    f"the errors of the row {IDENTITY}",
                    f"largest difference {gap:.1e}",
                    gap < SAME_ERRORS,
                )
            )
    return tests


def of_leader(board: Board) -> tuple[str, list[tuple[str, Conclusion]]]:
    """The best model that is trained, and each other row's name with the conclusion about it."""
    leader = next((row.model for row in board.rows if row.family != "trivial"), "")
    found = []
    for each in board.conclusions:
        if leader == each.better:
            found.append((each.worse, each))
        elif leader == each.worse:
            turned = replace(each, everywhere=-each.everywhere, clean=-each.clean)
            found.append((each.better, turned))
    return leader, found
