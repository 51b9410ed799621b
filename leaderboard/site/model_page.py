"""The facts of one model's page, from its rows on all boards and the scores of its samples."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from markupsafe import Markup

from benchmarks.core.geometry import elements
from benchmarks.core.training_data import TRAINING_SETS
from benchmarks.metrics import METRICS
from benchmarks.metrics.validity import LADDER
from benchmarks.store import StoredRun
from leaderboard.board.schema import IDENTITY, Board, Reliability, Row, Saving
from leaderboard.scoring import ScoredRuns
from leaderboard.site.drawing import DiagramLine, diagram, element_places
from leaderboard.views.table_columns import repeated, reseeded, rewritten, training

if TYPE_CHECKING:
    import pandas as pd

REPORTED: Final = (
    "score", "lattice_mae", "volume_mape", "strain", "position_mae", "skill_lattice",
    "skill_position", "symmetry_match_rate", "validity_rate", "wall_time_median",
)  # fmt: skip
"""The metrics of the report card."""
COSTS: Final = (
    "latency_median", "latency_p95", "wall_time_mean", "wall_time_median", "throughput",
    "n_force_evals", "n_tokens", "peak_memory", "load_time",
)  # fmt: skip
_WAYS: Final = (("prompt", "in"), ("completion", "out"))
EXTREMES: Final = 5
"""The number of best, and of worst, structures that a page lists."""
_CURVES: Final = (
    ("displacement", "position_error", "mean displacement (Å)", 0.5),
    ("strain", "strain", "strain", 0.1),
)
_TEXT: Final = "the text that it wrote is no structure"
_RUNGS: Final = dict(
    zip(
        LADDER,
        ("no structure", "another number of atoms", "another composition", "another order of atoms",
         "no sound cell", "two atoms at one place"),
        strict=True,
    )
)  # fmt: skip


class Reported(NamedTuple):
    """One cell of the report card."""

    text: str
    place: int | None
    """1 for the best of the board; equals share the better place."""
    of: int
    """Number of models that have the metric."""


class FailureKind(NamedTuple):
    """Failures of one kind."""

    status: str
    reason: str
    n: int


class SampleLine(NamedTuple):
    """One structure in a list of the best or worst."""

    sample_id: str
    group: str
    sites: int
    status: str
    strain: float | None
    displacement: float | None
    score: float


class ModelOnBoard(NamedTuple):
    """What the page says of the model on one board."""

    page: Any
    row: Row
    report: dict[str, Reported]
    failures: list[FailureKind]
    curves: list[Markup]
    by_element: list[tuple[str, int, int, float, int]]
    """Symbol, row, column, mean lattice error [Å], number of structures."""
    slices: list[tuple[str, str, int, Any, Any]]
    """Property, slice, n, the model's score, that of no change."""
    hybrids: list[Saving]
    reliability: Reliability | None
    """None for a model that does not say how wrong it may be."""
    reliability_curves: list[Markup]
    best: list[SampleLine]
    worst: list[SampleLine]
    determinism: str
    settings: str


def on_board(
    page: Any, board: Board, scored: ScoredRuns, ids: Sequence[str], model: str
) -> ModelOnBoard | None:
    """What one board says of a model; None if the model is not on it."""
    row = next((each for each in (*board.rows, *board.apart) if each.model == model), None)
    if row is None:
        return None
    by_name = {run.name: k for k, run in enumerate(scored.runs)}
    run, table = scored.runs[by_name[model]], scored.tables[by_name[model]]
    if row.rank is not None:
        table = table[table["sample_id"].isin(set(ids))]
    unchanged = None
    if IDENTITY in by_name and model != IDENTITY and row.rank is not None:
        unchanged = scored.tables[by_name[IDENTITY]]
        unchanged = unchanged[unchanged["sample_id"].isin(set(ids))]
    best, worst = _extremes(table)
    known = next((each for each in board.reliability if each.model == model), None)
    return ModelOnBoard(
        page=page,
        row=row,
        report={name: _reported(board, row, name) for name in REPORTED},
        failures=_failures(run, table),
        curves=[_curve(model, table, unchanged, *which) for which in _CURVES],
        by_element=_by_element(table),
        slices=[
            (each.title, part.label, part.n, part.scores[model], part.scores.get(IDENTITY))
            for each in board.slices
            for part in each.slices
            if model in part.scores
        ],
        hybrids=[each for each in board.hybrids if model in (each.model, *each.model.split("+"))],
        reliability=known,
        reliability_curves=[] if known is None else _reliability_curves(known),
        best=best,
        worst=worst,
        determinism=repeated(row),
        settings=", ".join(
            f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in (run.identity.get("settings") or {}).items()
        ),
    )


def card(run: StoredRun, row: Row) -> list[tuple[str, str]]:
    """The facts about the model itself, as its newest run states them."""
    provenance = run.provenance
    exposure = []
    for name in row.training_data:
        known = TRAINING_SETS.get(name)
        if known is None:
            exposure.append(f"{name}: unknown to this benchmark, so that it may hold any sample")
        elif known.lookup_table:
            exposure.append(f"{name}: a table in which values are looked up")
        else:
            sources = ", ".join(sorted(known.sources))
            kept = ", split by chemical system: no test sample" if known.split_by_our_rule else ""
            exposure.append(f"{name}: drawn from {sources}{kept}")
    facts = [
        ("Name", row.model),
        ("Description", row.label),
        ("Family", row.family),
        ("Track", str(row.track)),
        ("Weights", row.weights or "none"),
        ("sha256 of the weights", row.weights_sha256 or "none"),
        ("Licence", str(provenance.get("licence") or "not stated")),
        ("Functional of its training data", row.functional or "none"),
        ("Training data", "; ".join(exposure) or "none"),
        ("Cost of its training", training(row, whole=True)),
        ("Written otherwise, its answers move by", rewritten(row) if row.invariance else ""),
        ("Scores of trainings with other seeds", reseeded(row) if row.seeds else ""),
        ("Authors", ", ".join(map(str, provenance.get("authors") or ()))),
        ("Described at", str(provenance.get("link") or "")),
        ("Chosen by", str(provenance.get("chosen_by") or "")),
        ("Asked of a server", _asked(provenance.get("spent") or {})),
    ]
    return [(name, text) for name, text in facts if text]


def _asked(spent: Mapping[str, Mapping[str, float]]) -> str:
    """Tell what the replies of servers took, each part of a hybrid for itself."""
    parts = []
    for name, counts in spent.items():
        tokens = [f"{counts[f'{kind}_tokens']:,} tokens {way}" for kind, way in _WAYS]
        cost = [f"cost {counts['cost']:.4g}"] if "cost" in counts else []
        whose = f"{name}: " if len(spent) > 1 else ""
        parts.append(whose + ", ".join([f"{counts['replies']:,} replies", *tokens, *cost]))
    return "; ".join(parts)


def _reported(board: Board, row: Row, name: str) -> Reported:
    found = row.metrics[name].point
    if found is None:
        return Reported("—", None, 0)
    values = [each.metrics[name].point for each in board.rows]
    numbers = [value for value in values if value is not None]
    higher = METRICS[name].higher_is_better
    better = sum(value > found if higher else value < found for value in numbers)
    place = None if row.rank is None else 1 + better
    return Reported(f"{found:.3g}", place, len(numbers))


def _failures(run: StoredRun, table: pd.DataFrame) -> list[FailureKind]:
    """The samples without a usable structure, by status and by reason; numbers do not divide."""
    failed = table[table["scored"] == 0]
    wanted = set(zip(failed["sample_id"], failed["repeat"], strict=True))
    details: dict[tuple[str, int], str] = {}
    if wanted and run.table.num_rows:
        columns = (run.table[name].to_pylist() for name in ("sample_id", "repeat", "detail"))
        for sample_id, repeat, detail in zip(*columns, strict=True):
            if (sample_id, repeat) in wanted and detail:
                details[sample_id, repeat] = detail
    counts: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], str] = {}
    for entry in failed.to_dict("records"):
        reason = details.get((entry["sample_id"], entry["repeat"]), "")
        if reason.startswith("data_"):
            reason = _TEXT
        elif not reason:
            broken = [text for name, text in _RUNGS.items() if entry.get(name) == 0]
            reason = broken[0] if broken else "no reason is stored"
        reason = reason.splitlines()[0][:160]
        key = (str(entry["status"]), re.sub(r"\d+(\.\d+)?", "#", reason))
        counts[key] += 1
        examples.setdefault(key, reason)
    return [
        FailureKind(key[0], examples[key] if count == 1 or "#" not in key[1] else
                f"{key[1].replace('#', '…')} (for example: {examples[key]})", count)
        for key, count in counts.most_common()
    ]  # fmt: skip


def _curve(
    model: str, table: pd.DataFrame, unchanged: pd.DataFrame | None,
    name: str, column: str, label: str, end: float,
) -> Markup:  # fmt: skip
    """The share of all samples whose error is below a threshold; a failure never is."""
    thresholds = np.linspace(0, end, 51)

    def points(of: pd.DataFrame) -> list[tuple[float, float]]:
        values = np.where(of["scored"] == 1, of[column].to_numpy(dtype=float), np.inf)
        values = np.sort(np.nan_to_num(values, nan=np.inf))
        shares = np.searchsorted(values, thresholds, side="right") / max(len(values), 1)
        return list(zip(thresholds.tolist(), shares.tolist(), strict=True))

    curves = [] if unchanged is None else [DiagramLine(IDENTITY, "other", points(unchanged))]
    curves.append(DiagramLine(model, "own", points(table)))
    return diagram(f"Share of structures by {name}", label, curves, end)


def _reliability_curves(found: Reliability) -> list[Markup]:
    """True against expected errors, and the errors of those that the model trusts most."""
    told = [(each.expected, each.error.point or 0.0) for each in found.bins]
    end = max(max(pair) for pair in told)
    own, other = (
        [(each.share, getattr(each, name).point or 0.0) for each in found.kept]
        for name in ("error", "unchanged")
    )
    highest = max(y for _, y in (*own, *other))
    return [
        diagram(
            "True by expected error",
            "expected error (Å); upwards: true error (Å)",
            [DiagramLine("equal", "other", [(0, 0), (end, end)]), DiagramLine("own", "own", told)],
            end,
            end,
        ),
        diagram(
            "Error by share kept",
            "share kept, smallest expected errors first; upwards: error (Å)",
            [DiagramLine(IDENTITY, "other", other), DiagramLine("own", "own", own)],
            1.0,
            highest,
        ),
    ]


def _by_element(table: pd.DataFrame) -> list[tuple[str, int, int, float, int]]:
    """The mean lattice error over the scored structures that contain an element."""
    found: dict[str, list[float]] = {}
    for group, error in zip(table["group"], table["lattice_error"], strict=True):
        if np.isfinite(error):
            for symbol in set(elements(group)):
                found.setdefault(symbol, []).append(error)
    return [
        (symbol, row, column, float(np.mean(found[symbol])), len(found[symbol]))
        for symbol, row, column in element_places()
        if symbol in found
    ]


def _extremes(table: pd.DataFrame) -> tuple[list[SampleLine], list[SampleLine]]:
    """The structures with the best and with the worst scores; equal ones by their strain."""
    first = table.drop_duplicates("sample_id")
    first = first.assign(score=first["score"].fillna(0.0))
    ordered = first.sort_values(["score", "strain", "sample_id"], ascending=[False, True, True])
    last = ordered.iloc[EXTREMES:].iloc[::-1].head(EXTREMES)
    best, worst = (
        [_sample_line(entry) for entry in part.to_dict("records")]
        for part in (ordered.head(EXTREMES), last)
    )
    return best, worst


def _sample_line(entry: Mapping[Any, Any]) -> SampleLine:
    def number(name: str) -> float | None:
        value = float(entry[name])
        return value if np.isfinite(value) else None

    return SampleLine(
        sample_id=str(entry["sample_id"]),
        group=str(entry["group"]),
        sites=int(entry["n_sites"]),
        status=str(entry["status"]),
        strain=number("strain"),
        displacement=number("position_error"),
        score=number("score") or 0.0,
    )
