"""Why a board can be trusted, and how far: self-tests, power, leakage, machines.

The page shows it as a fold-out. Everything is computed from the scores of the samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.core import Status
from benchmarks.core.statistics import Estimate, Floats, Resampling
from benchmarks.metrics import METRICS, score
from leaderboard.board.schema import Board
from leaderboard.board.scores import per_sample
from leaderboard.scoring import ScoredRuns
from leaderboard.site.sample_data import unseen
from leaderboard.site.sentences import UNCHANGED

if TYPE_CHECKING:
    import pandas as pd

REPLICATES: Final = 1000
TESTED: Final = 100
"""The largest number of samples on which the self-tests are made."""
_ERRORS: Final = ("lattice_error", "volume_error", "strain", "position_error")


class SelfTest(NamedTuple):
    """An answer that is known beforehand, and what came out."""

    name: str
    expected: str
    found: str
    passed: bool


class Conclusion(NamedTuple):
    """The leader against one rival, on all samples and on those that neither can have seen."""

    rival: str
    everywhere: Estimate
    clean: Estimate
    verdict: str


class Power(NamedTuple):
    """Half widths of the intervals of the paired differences of scores, over all pairs."""

    smallest: float
    median: float
    largest: float


def self_tests(scored: ScoredRuns, ids: Sequence[str]) -> list[SelfTest]:
    """The reference as an answer, and the start as an answer; empty where no data are at hand."""
    dataset = scored.dataset
    if dataset is None or not ids:
        return []
    wanted = set(ids[:TESTED])
    pairs = [(each, *dataset.geometries(i)) for i, each in enumerate(dataset.ids) if each in wanted]
    perfect = [score(start, end, end, Status.OK) for _, start, end in pairs]
    lowest = min(each["score"] for each in perfect)
    largest = max(each[name] for each in perfect for name in _ERRORS)
    tests = [
        SelfTest(
            f"Oracle: the reference itself is answered, {len(pairs)} structures",
            "every score 1, every error 0",
            f"lowest score {lowest:g}, largest error {largest:.1e}",
            lowest == 1 and largest < 1e-6,
        )
    ]
    names = {run.name: k for k, run in enumerate(scored.runs)}
    if UNCHANGED in names:
        table = scored.tables[names[UNCHANGED]]
        rows = table[table["repeat"] == 0].set_index("sample_id").to_dict("index")
        gaps = [
            abs(score(start, end, start, Status.OK)[name] - rows[each][name])
            for each, start, end in pairs
            for name in _ERRORS
        ]
        tests.append(
            SelfTest(
                f"No change: the start itself is answered, {len(pairs)} structures",
                f"the errors of the row {UNCHANGED}",
                f"largest difference {max(gaps):.1e}",
                max(gaps) < 1e-6,
            )
        )
    return tests


def power(board: Board) -> Power | None:
    """The smallest differences of scores that the samples can show; None without a pair."""
    halves = [
        (found.high - found.low) / 2
        for table in board.differences
        if table.metric == "score"
        for cells in table.cells.values()
        for found in cells.values()
        if found.low is not None and found.high is not None and found.high > found.low
    ]
    if not halves:
        return None
    return Power(min(halves), float(np.median(halves)), max(halves))


def conclusions(board: Board, scored: ScoredRuns, ids: Sequence[str]) -> list[Conclusion]:
    """The leader of the trained models against every other row."""
    leader = next((row.model for row in board.rows if row.family != "trivial"), None)
    if leader is None:
        return []
    by_name = {
        run.name: (run, table) for run, table in zip(scored.runs, scored.tables, strict=True)
    }

    def values(model: str) -> tuple[Floats, NDArray[np.bool_]]:
        run, table = by_name[model]
        marked = table.assign(clean=unseen(run.provenance.get("training_data") or (), table))
        numbers = per_sample(marked, [METRICS["score"]], ids)[0][:, 0]
        clean = marked.drop_duplicates("sample_id").set_index("sample_id")["clean"]
        return numbers, clean.loc[list(ids)].to_numpy() == 1

    table = by_name[leader][1].drop_duplicates("sample_id").set_index("sample_id")
    groups = np.array(list(table["group"].loc[list(ids)]))
    own, own_clean = values(leader)
    found = []
    for row in board.rows:
        if row.model == leader:
            continue
        other, other_clean = values(row.model)
        both = own_clean & other_clean
        everywhere = _mean(own - other, groups)
        clean = _mean((own - other)[both], groups[both])
        found.append(Conclusion(row.model, everywhere, clean, _verdict(everywhere, clean)))
    return found


def _mean(values: Floats, groups: NDArray[np.str_]) -> Estimate:
    if not len(values):
        return Estimate.of(None, None, 0)
    resampling = Resampling.of(groups.tolist(), REPLICATES, np.random.default_rng(0))
    return Estimate.mean(values, np.ones(len(values)), resampling, 3)


def _verdict(everywhere: Estimate, clean: Estimate) -> str:
    if not clean.n:
        return "cannot be tested: no such structures"
    if clean.low is None:
        return "cannot be tested: one composition"
    if everywhere.sign == clean.sign:
        return "stays"
    return (
        "turns"
        if clean.sign * everywhere.sign < 0
        else ("no longer told apart" if everywhere.sign else "told apart there alone")
    )


def spread(table: pd.DataFrame) -> str:
    """The largest difference of a sample's errors between repeats."""
    if not (table["repeat"] > 0).any():
        return "not measured: one repeat"
    errors = table.groupby("sample_id")[["strain", "position_error"]]
    spread = errors.max() - errors.min()
    strain, moved = spread["strain"].max(), spread["position_error"].max()
    count = int(table.groupby("sample_id")["repeat"].nunique().max())
    return f"{count} repeats differ by up to {strain:.2g} in strain and {moved:.2g} Å in position"
