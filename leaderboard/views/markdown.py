"""A board as terminal table, Markdown, JSON and CSV. One board always gives the same bytes."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks.core.training_data import Track
from benchmarks.metrics import METRICS
from leaderboard.board.reference_uncertainty import reference_uncertainty
from leaderboard.board.summary import RANKED_BY, Board, Row

SCHEMA: Final = Path(__file__).with_name("schema.json")
SCHEMA_VERSION: Final = 1
NOTHING: Final = "—"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the short table; JSON and CSV hold every metric."""

    header: str
    brief: str
    """Header on a terminal."""
    cell: Callable[[Row], str]


def _number(name: str, row: Row, digits: int = 3) -> str:
    value = row.metrics[name].value
    return NOTHING if value is None else f"{value:.{digits}f}"


def _seconds(row: Row) -> str:
    value = row.metrics["wall_time_median"].value
    return NOTHING if value is None else f"{value:.2g}"


def _rank(row: Row) -> str:
    spread = f" ({row.rank_low}–{row.rank_high})" if row.rank_low < row.rank_high else ""
    return f"{row.rank}{spread}"


def _score(row: Row) -> str:
    score = row.metrics[RANKED_BY]
    if score.ci_low is None:
        return _number(RANKED_BY, row)
    return f"{_number(RANKED_BY, row)} [{score.ci_low:.3f}, {score.ci_high:.3f}]"


def _clean(row: Row) -> str:
    part = row.metrics["score_clean"]
    return f"{_number('score_clean', row)} ({part.n})" if part.n else NOTHING


def _scored(row: Row) -> str:
    return f"{row.coverage['ok'] + row.coverage['unconverged']}/{sum(row.coverage.values())}"


COLUMNS: Final = (
    Column("Rank", "Rank", _rank),
    Column("Model", "Model", lambda row: row.model),
    Column("Track", "Track", lambda row: row.track),
    Column("Score ↑", "Score ↑", _score),
    Column("Clean part ↑ (n)", "Clean ↑ (n)", _clean),
    Column("Scored", "Scored", _scored),
    Column("Lattice MAE (Å) ↓", "Latt. Å ↓", partial(_number, "lattice_mae")),
    Column("Volume MAPE (%) ↓", "Vol. % ↓", partial(_number, "volume_mape", digits=2)),
    Column("Strain ↓", "Strain ↓", partial(_number, "strain", digits=4)),
    Column("Position MAE (Å) ↓", "Pos. Å ↓", partial(_number, "position_mae")),
    Column("Skill lattice ↑", "Skill l. ↑", partial(_number, "skill_lattice", digits=2)),
    Column("Skill position ↑", "Skill p. ↑", partial(_number, "skill_position", digits=2)),
    Column("Elements kept ↑", "Elem. ↑", partial(_number, "element_preservation_rate")),
    Column("Valid ↑", "Valid ↑", partial(_number, "validity_rate")),
    Column("Match RMSD ↓", "RMSD ↓", partial(_number, "rmsd_normalized")),
    Column("Force evals", "Evals", partial(_number, "n_force_evals", digits=0)),
    Column("Time (s)", "Time s", _seconds),
)
NOTES: Final = (
    """Score: mean of two areas under curves, the share of structures whose mean displacement is
    below 0.01 to 0.50 Å and the share whose strain is below 0.001 to 0.100; a failure earns 0. In
    brackets its 95 % interval (paired bootstrap over compositions), in parentheses the ranks
    that the bootstrap allows. Time does not enter.""",
    f"""Clean part: the score over the n samples that the model cannot have seen in training, told
    by the source and the chemical system of a sample, and {NOTHING} where there are none. That the
    relaxation was not seen does not say that no compound like it was.""",
    f"""Lattice, volume, strain and position errors are over the scored samples (ok or unconverged,
    and valid), whose number stands beside them. Elements kept and Valid are rates over the samples
    that the model answered, not those that it refused or failed on. Skill is 1 - error / error of
    doing nothing (`identity`) over all samples, where a failed one counts as doing nothing;
    {NOTHING} where doing nothing is already right.""",
    """Match RMSD is pymatgen's StructureMatcher over all samples, 1 without a match or without a
    prediction. It does not see the cell (a
    crystal stretched by 19 % scores 0.000): read it beside the strain.""",
    """Force evals: evaluations of the potential per structure, the median. Time: median seconds per
    structure (batch time over batch size) on the machine that the JSON names.""",
)
DATASET_NOTES: Final[Mapping[str, str]] = {
    "substitution": """These are paired prototype substitutions, not trajectories: the start is the
    relaxed cell of a chemically similar compound, a pair exists only where the prototype survived,
    and the ends come from four databases. For a potential another nearby minimum can be a
    legitimate answer.""",
    "hydrides": "All of these expand (their first stage had a low cutoff): a biased set.",
}
"""By the first part of the data set's name: what a reader must know of it."""


def title(board: Board) -> str:
    """Names the data set, the split and n."""
    split = f", split {board.dataset['split']}" if board.dataset["split"] else ""
    count = board.dataset["n_samples"]
    return f"{board.dataset['name']}{split}, {count} {'sample' if count == 1 else 'samples'}"


def notes(board: Board) -> list[str]:
    """What stands under the table: the data, the comparison, the columns, the training data."""
    name = str(board.dataset["name"])
    about = DATASET_NOTES.get(name.split("/")[0]) or reference_uncertainty(name)
    quarantined = board.dataset["quarantined"]
    left_out = ", ".join(f"{count} {reason}" for reason, count in quarantined.items())
    models = "; ".join(f"{row.model} ({row.label}): {_trained_on(row)}" for row in board.rows)
    listed = [
        *([about] if about else []),
        *([f"Samples left out by the audit: {left_out}."] if left_out else []),
        *board.notes,
        *_ties(board),
        *NOTES,
        f"Trained on: {models}.",
        *_weights(board),
    ]
    return [" ".join(note.split()) for note in listed]


def _trained_on(row: Row) -> str:
    data = ", ".join(row.training_data) or "nothing"
    return f"{data} [{row.functional}]" if row.functional else data


def _weights(board: Board) -> list[str]:
    known = [
        f"{row.model} {row.weights} ({row.weights_sha256[:12]})"
        for row in board.rows
        if row.weights and row.weights_sha256
    ]
    return [f"Weights (sha256): {', '.join(known)}."] if known else []


def _ties(board: Board) -> list[str]:
    if not board.ties:
        return []
    pairs = ", ".join(f"{first} and {second}" for first, second in board.ties)
    return [f"Not told apart at 95 % (the interval of the difference contains 0): {pairs}."]


def table(board: Board) -> str:
    """The short table and its notes on the comparison, for a terminal."""
    cells = [[column.brief for column in COLUMNS], *_cells(board.rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True))
             for line in cells]  # fmt: skip
    lines.insert(1, "  ".join("-" * width for width in widths))
    heading = f"Leaderboard: {title(board)}"
    under = [*board.notes, *_ties(board)]
    return "\n".join([heading, "", *(line.rstrip() for line in lines), "", *under]).rstrip() + "\n"


def _cells(rows: Sequence[Row]) -> list[list[str]]:
    return [[column.cell(row) for column in COLUMNS] for row in rows]


def markdown(board: Board, heading: str = "# Leaderboard: ", *, noted: bool = True) -> str:
    """Title, table and notes.

    Args:
        board: What to show.
        heading: Stands before the title.
        noted: With the notes.
    """
    listed = ["", *(f"- {note}" for note in notes(board))] if noted else []
    return "\n".join([heading + title(board), "", *_rows(board.rows), *listed]) + "\n"


def tracks(board: Board) -> str:
    """The rows of models trained on the same data apart, and those trained on more by others.

    Ranks are those of the whole board.
    """
    groups: dict[str, list[Row]] = {}
    for track in (Track.EQUAL_DATA, Track.FOUNDATION, Track.UNKNOWN):
        for row in board.rows:
            if row.track == track:
                data = (
                    f": {', '.join(sorted(row.training_data))}" if track == Track.EQUAL_DATA else ""
                )
                groups.setdefault(f"{track}{data}".capitalize(), []).append(row)
    trivial = [row for row in board.rows if row.track == Track.TRIVIAL]
    about = """Models of *equal data* were trained on nothing but the sets that the heading names;
        what they learn from a relaxation can differ, and a potential learns from the energies,
        forces and stresses of all its frames. Those of *foundation* were trained on more, by
        others. The trivial rows stand under each."""
    lines = [f"# Tracks: {title(board)}", "", " ".join(about.split())]
    for name, rows in groups.items():
        lines += ["", f"## {name}", "", *_rows([*rows, *trivial])]
    return "\n".join(lines) + "\n"


def _rows(rows: Sequence[Row]) -> list[str]:
    """A Markdown table."""
    lines = [[column.header for column in COLUMNS], *_cells(rows)]
    header, *listed = (f"| {' | '.join(_escaped(line))} |" for line in lines)
    rule = "|" + "|".join([" ---: ", " --- ", " --- "] + [" ---: "] * (len(COLUMNS) - 3)) + "|"
    return [header, rule, *listed]


def _escaped(cells: Sequence[str]) -> list[str]:
    return [cell.replace("|", "\\|") for cell in cells]


def to_json(board: Board) -> str:
    """`leaderboard.json`, checked against `schema.json`.

    Raises:
        jsonschema.ValidationError: The board does not follow the schema, which is our fault.
    """
    from jsonschema import Draft202012Validator

    content = {
        "schema_version": SCHEMA_VERSION,
        "dataset": dict(board.dataset),
        "environment": dict(board.environment),
        "rows": [_row(row) for row in board.rows],
        "ties": [list(pair) for pair in board.ties],
        "notes": notes(board),
    }
    Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8"))).validate(content)
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _row(row: Row) -> dict[str, Any]:
    return {
        "model": row.model,
        "label": row.label,
        "family": row.family,
        "weights": row.weights,
        "weights_sha256": row.weights_sha256,
        "training_data": list(row.training_data),
        "track": row.track,
        **({"functional": row.functional} if row.functional else {}),
        "n_samples": row.n_samples,
        "coverage": dict(row.coverage),
        "score": row.metrics[RANKED_BY].value,
        "rank": row.rank,
        "rank_low": row.rank_low,
        "rank_high": row.rank_high,
        "metrics": {
            name: {
                "value": value.value,
                "ci_low": value.ci_low,
                "ci_high": value.ci_high,
                "unit": METRICS[name].unit,
                "n": value.n,
                "higher_is_better": METRICS[name].higher_is_better,
            }
            for name, value in row.metrics.items()
        },
    }


def to_csv(board: Board) -> str:
    """One line per model with every metric, its interval and its n."""
    parts = ("", "_ci_low", "_ci_high", "_n")
    header = ["dataset", "model", "label", "family", "rank", "rank_low", "rank_high", "n_samples"]
    statuses = list(board.rows[0].coverage) if board.rows else []
    names = [name + part for name in METRICS for part in parts]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*header, *statuses, *names])
    for row in board.rows:
        about: list[str | int] = [board.name, row.model, row.label, row.family]
        about += [row.rank, row.rank_low, row.rank_high, row.n_samples]
        numbers = [
            part
            for value in row.metrics.values()
            for part in (value.value, value.ci_low, value.ci_high, value.n)
        ]
        writer.writerow([*about, *row.coverage.values(), *numbers])
    return stream.getvalue()
