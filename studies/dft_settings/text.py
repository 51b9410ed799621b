"""Findings as Markdown, JSON, CSV and a figure; the same runs give the same bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from benchmarks.core.formatting import NOTHING, markdown_table
from benchmarks.core.statistics import Floats
from benchmarks.data.splits.prototypes import SYMPREC
from benchmarks.metrics import METRICS
from leaderboard.board.comparisons import COMPARED
from leaderboard.views.figures import save_figure
from studies.dft_settings.findings import Findings
from studies.dft_settings.materials import DIFFERENCES, SETTINGS, UNKNOWN
from studies.dft_settings.tables import PAIR, TARGET, SettingEstimate, two_functionals

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


CLAIM: Final = 30
"""Compositions below which a row is too few for a claim."""
_INTRODUCTION: Final = (
    "Mean error of each model with its 95 % interval, a bootstrap over compositions (none for one "
    "alone), over the n samples; in parentheses how many a model scored, where these are fewer. "
    "`identity` predicts no change."
)
_MOVES: Final = (
    "How far two relaxed structures of one material are apart, by the functions that score the "
    "models, in the setting of the larger cell, and beside it the models' mean errors on the same "
    "samples, in the setting of the input. Of a material the median over its pairs, or samples, "
    "counts once; n is the number of materials. What two relaxations with one functional are apart "
    "is not the functional's doing, but that of start, +U, cutoff, k-points and convergence: it is "
    "the scale to read the others by."
)


def markdown(found: Findings) -> str:
    """Errors by setting, then how far the target moves, with what was left out."""
    parts = [f"# DFT settings: {found.name}, {len(found.samples)} samples", _INTRODUCTION]
    for by, title in SETTINGS.items():
        mine = [each for each in found.estimates if each.by == by]
        if mine:
            parts += [f"## {title}", *_tables(mine, found.models)]
    parts += [_unknown(found), "## How far the target itself moves", _MOVES, _counted(found)]
    parts += _tables([each for each in found.estimates if each.by == PAIR], found.models)
    return "\n\n".join(parts) + "\n"


def _tables(mine: Sequence[SettingEstimate], models: Sequence[str]) -> Iterator[str]:
    """One for each metric, and a line that names the rows which are too few for a claim."""
    for metric in DIFFERENCES:
        cells = {(each.label, each.model): each for each in mine if each.metric == metric}
        if cells:
            yield _table(metric, cells, models)
    counts = {each.label: each.n_compositions for each in mine if each.metric == "volume_mape"
              and each.model == _counted_by(mine, models)}  # fmt: skip
    few = {label: count for label, count in counts.items() if count < CLAIM}
    if few:
        listed = "; ".join(f"{label}: {count}" for label, count in few.items())
        yield f"**Too few for a claim, with fewer than {CLAIM} compositions**: {listed}."


def _counted_by(mine: Sequence[SettingEstimate], models: Sequence[str]) -> str:
    """Choose the model whose n stands before the numbers of a table."""
    return TARGET if any(each.model == TARGET for each in mine) else models[0]


def _table(
    metric: str, cells: dict[tuple[str, str], SettingEstimate], models: Sequence[str]
) -> str:
    labels = list(dict.fromkeys(label for label, _ in cells))
    first = _counted_by(list(cells.values()), models)
    unit = f" ({METRICS[metric].unit})" if METRICS[metric].unit else ""
    targets = [TARGET, "target, median"] if first == TARGET else []
    head = [metric + unit, "n", "compositions", *targets, *models]
    rows = []
    for label in labels:
        base = cells[label, first]
        row = [label, base.n, base.n_compositions]
        if targets:
            row += [_cell(base, base.n), _number(base.median, metric)]
        rows.append([*row, *(_cell(cells[label, model], base.n) for model in models)])
    return markdown_table(head, rows)


def _cell(each: SettingEstimate, n: int) -> str:
    text = _number(each.mean, each.metric)
    if each.ci_low is not None:
        low, high = (_number(end, each.metric) for end in (each.ci_low, each.ci_high))
        text += f" [{low}, {high}]"
    return text if each.n == n else f"{text} ({each.n})"


def _number(number: float | None, metric: str) -> str:
    return NOTHING if number is None else f"{number:.{COMPARED[metric]}f}"


def _unknown(found: Findings) -> str:
    counts = (found.samples[list(SETTINGS)] == UNKNOWN).sum()
    listed = ", ".join(f"{SETTINGS[by]} of {counts[by]}" for by in SETTINGS)
    return f"Unknown, of {len(found.samples)} samples: {listed}."


def _counted(found: Findings) -> str:
    """The numbers of materials and pairs, and of those that were left out."""
    pairs, samples = found.pairs, found.samples
    several = pairs[
        pairs["volume_mape"].notna() & pairs["functionals"].map(two_functionals).astype(bool)
    ]
    alone = samples[~samples.index.isin([*pairs["first"], *pairs["second"]])]
    functionals = samples[samples["functional"] != UNKNOWN].groupby("composition")["functional"]
    elsewhere = (alone["composition"].map(functionals.nunique()) > 1).sum()
    known = (
        f"n = {several['material'].nunique()} materials relaxed with several functionals, "
        f"{len(several)} pairs of relaxations."
        if len(several)
        else "No material was relaxed with several functionals (n = 0): these data do not say how "
        "far the functional moves the target."
    )
    return f"""\
- {known}
- All pairs by what the two share: {_listed(pairs["shared"])} (prototype: composition, space group \
at {SYMPREC} Å and Wyckoff letters).
- Without a comparison of cells and positions: {_listed(pairs["left_out"])}. Of pairs that share \
the material id the volumes are compared nevertheless.
- Samples that are in no pair: {len(alone)} of {len(samples)}, {elsewhere} of them of a \
composition that was relaxed with several functionals."""


def _listed(words: pd.Series) -> str:
    counts = words[words != ""].value_counts().sort_index()
    return ", ".join(f"{word} {count}" for word, count in counts.items()) or "none"


def to_json(found: Findings) -> str:
    """Every number of the tables, with median, interval and n."""
    content = {
        "dataset": found.name,
        "n_samples": len(found.samples),
        "units": {name: METRICS[name].unit for name in DIFFERENCES},
        "estimates": [asdict(each) for each in found.estimates],
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def pairs_csv(found: Findings) -> str:
    """A line for each pair of relaxations of one material: ids and differences."""
    rounded = found.pairs.drop(columns="material").round(9)
    return str(rounded.to_csv(index=False, lineterminator="\n", float_format="%.6g"))


SPREAD: Final = 0.6
"""Height that the points of one pair of functionals take up, of 1."""


def differences_and_errors(found: Findings, path: Path) -> list[Path]:
    """Draw a panel for each metric: means with their intervals, by pair of functionals.

    Args:
        found: Data sets without any pair are not drawn.
        path: The SVG; the same findings give the same bytes.

    Returns:
        The file, or none if there is nothing to draw.
    """
    moved = [each for each in found.estimates if each.by == PAIR]
    if not moved:
        return []
    labels = list(dict.fromkeys(each.label for each in moved))
    with save_figure(path, (10, 2.4 + 0.9 * len(labels)), found.name) as figure:
        panels = figure.subplots(2, 2, sharey=True)
        for axes, metric in zip(panels.flat, DIFFERENCES, strict=True):
            _draw(axes, [each for each in moved if each.metric == metric], labels, found.models)
        panels[0, 0].set_yticks(range(len(labels)), [_with_n(label, moved) for label in labels])
        title = "how far the target moves, and the errors of what each model scored"
        figure.suptitle(f"{found.name}: {title}", size=11)
        handles, names = panels.flat[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=5, frameon=False)
    return [path]


def _draw(
    axes: Axes, moved: list[SettingEstimate], labels: list[str], models: tuple[str, ...]
) -> None:
    import seaborn as sns

    names = (TARGET, *models)
    colours = ["black", *sns.color_palette("colorblind", len(models))]
    for k, (name, colour) in enumerate(zip(names, colours, strict=True)):
        mine = [each for each in moved if each.model == name and each.mean is not None]
        heights = [labels.index(each.label) + SPREAD * (k / len(models) - 0.5) for each in mine]
        axes.errorbar(
            [each.mean or 0.0 for each in mine], heights, xerr=_bars(mine), color=colour,
            fmt="D" if name == TARGET else "o", ms=5, elinewidth=1, label=name,
        )  # fmt: skip
    axes.set_ylim(len(labels) - 0.5, -0.5)
    unit = METRICS[moved[0].metric].unit if moved else ""
    axes.set_xlabel(f"{moved[0].metric} ({unit})" if unit else moved[0].metric)


def _with_n(label: str, moved: list[SettingEstimate]) -> str:
    """A volume can be compared where cells cannot: n need not be the same in all panels."""
    counts = {each.n for each in moved if each.label == label and each.model == TARGET}
    few, many = min(counts), max(counts)
    return f"{label} (n = {many if few == many else f'{few}–{many}'})"


def _bars(mine: list[SettingEstimate]) -> Floats:
    """Return the (2, n) lengths below and above each mean; 0 where there is no interval."""
    ends = [
        (each.mean - each.ci_low, each.ci_high - each.mean)
        if each.ci_low is not None and each.ci_high is not None and each.mean is not None
        else (0.0, 0.0)
        for each in mine
    ]
    bars: Floats = np.maximum(np.array(ends).reshape(-1, 2).T, 0.0)
    return bars
