"""Table, figure and verdict of the ablation (`python -m studies.ablation.ablation`).

Intervals are 95 % percentiles of a bootstrap that draws compositions with replacement (all
structures of one reduced composition go together) and, independently, seeds; the arms share the
draws, so that their differences are paired. Three seeds say little about the spread over seeds: the
interval is too narrow rather than too wide in that respect.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from benchmarks.core.plotting import save_figure
from t2relax.reward import MEASURES, Floats, Measure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

START: Final = "start"
REPLICATES: Final = 2000
SHOWN: Final = ("element_preservation", "validity", "lattice_rmse", "position_rmse")
"""The measures of the figure."""
CLAIM: Final = "element_preservation"


class AblationOutcome(NamedTuple):
    """One run, decoded."""

    arm: str
    seed: int
    steps: int
    columns: Mapping[str, Floats]
    """(n_structures,) of each column of `score_decode`; nan where there is no value."""


class Draws(NamedTuple):
    """Bootstrap weights; the first row of each is all ones: the estimate itself."""

    structures: Floats
    """(1 + replicates, n_structures)."""
    seeds: Floats
    """(1 + replicates, n_seeds)."""

    @classmethod
    def of(cls, groups: Sequence[str], n_seeds: int, rng: np.random.Generator) -> Draws:
        """Draw compositions and seeds."""
        names, membership = np.unique(np.array(groups, dtype=str), return_inverse=True)
        weights = [
            np.concatenate([np.ones((1, n)), rng.multinomial(n, np.full(n, 1 / n), REPLICATES)])
            for n in (len(names), n_seeds)
        ]
        return cls(weights[0][:, membership], weights[1])

    def mean(self, values: Floats) -> Floats:
        """(1 + replicates,) mean of the finite values (n_seeds, n_structures); nan without any."""
        known = np.isfinite(values)
        top, bottom = (
            ((self.structures @ x.T) * self.seeds).sum(axis=1)
            for x in (np.where(known, values, 0.0), known.astype(np.float64))
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            found: Floats = top / bottom
        return found


class RewardEstimate(NamedTuple):
    """A number with its 95 % interval; None where there is nothing to average."""

    value: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, replicates: Floats) -> RewardEstimate:
        """From (1 + replicates,), the estimate first."""
        finite = replicates[np.isfinite(replicates)]
        if not np.isfinite(replicates[0]):
            return cls(None, None, None)
        low, high = np.percentile(finite[1:] if len(finite) > 1 else finite, (2.5, 97.5))
        return cls(float(replicates[0]), float(low), float(high))


def replicates(
    outcomes: Sequence[AblationOutcome], groups: Sequence[str]
) -> dict[str, dict[str, Floats]]:
    """(1 + replicates,) of each measure of each arm, all from the same draws."""
    arms = list(dict.fromkeys(outcome.arm for outcome in outcomes))
    runs = {arm: [o.columns for o in outcomes if o.arm == arm] for arm in arms}
    n_seeds = max(map(len, runs.values()))
    draws = Draws.of(groups, n_seeds, np.random.default_rng(0))
    return {
        arm: {name: _measure(measure, found, n_seeds, draws) for name, measure in MEASURES.items()}
        for arm, found in runs.items()
    }


def _measure(
    measure: Measure, runs: Sequence[Mapping[str, Floats]], n_seeds: int, draws: Draws
) -> Floats:
    """The start has one run, which stands for each seed."""
    values = np.stack([run[measure.column] for run in runs])
    mean = draws.mean(np.broadcast_to(values, (n_seeds, values.shape[1])))
    return np.sqrt(mean) if measure.root else mean


def verdict(found: Mapping[str, Mapping[str, Floats]]) -> str:
    """Say in two sentences if atoms are lost without the text reward."""
    kept = {arm: measures[CLAIM] for arm, measures in found.items()}
    apart = {
        arm: RewardEstimate.of(kept["physical"] - kept[arm]) for arm in ("weighted", "text", START)
    }
    lost = {arm: each.high is not None and each.high < 0 for arm, each in apart.items()}
    if lost["weighted"] and lost[START]:
        answer = "holds here"
    elif lost["weighted"]:
        answer = "holds here only in part: fewer are kept than with them, not fewer than before"
    elif lost[START]:
        answer = "does not hold here: as many are lost with them"
    elif (apart[START].low or 0.0) > 0:
        answer = "does not hold here: without them more are kept than before"
    else:
        answer = "is not borne out here: no loss can be told from chance"
    rates = ", ".join(f"{arm} {100 * values[0]:.1f} %" for arm, values in kept.items())
    gaps = ", ".join(f"{_points(each)} against {arm}" for arm, each in apart.items())
    return (
        f"The claim that atoms are lost without ROUGE and BLEU {answer}. Elements are preserved in "
        f"{rates}; the physical reward alone is {gaps} (points, 95 % intervals)."
    )


def _points(estimate: RewardEstimate) -> str:
    value, low, high = (100 * (x or 0.0) for x in estimate)
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"


def write_report(
    folder: Path, outcomes: Sequence[AblationOutcome], groups: Sequence[str], failure: float
) -> str:
    """Write ablation.md, ablation.json, ablation.svg and ablation.png; return the verdict.

    Args:
        folder: The folder of the files.
        outcomes: Those of the start and of the runs, over the same structures in the same order.
        groups: the composition of each structure.
        failure: physical reward of a text that is no structure of the input's atoms [-Å].
    """
    found = replicates(outcomes, groups)
    table = {
        arm: {name: RewardEstimate.of(values) for name, values in measures.items()}
        for arm, measures in found.items()
    }
    sentence = verdict(found)
    steps = {arm: [o.steps for o in outcomes if o.arm == arm] for arm in table}
    content = {
        "verdict": sentence,
        "n_structures": len(groups),
        "n_compositions": len(set(groups)),
        "steps": steps,
        "arms": {a: {n: e._asdict() for n, e in row.items()} for a, row in table.items()},
    }
    (folder / "ablation.json").write_text(json.dumps(content, indent=1) + "\n")
    (folder / "ablation.md").write_text(_markdown(content, table, steps, failure))
    _draw(folder / "ablation", table, outcomes)
    return sentence


def _markdown(
    content: Mapping[str, Any],
    table: Mapping[str, Mapping[str, RewardEstimate]],
    steps: Mapping[str, Sequence[int]],
    failure: float,
) -> str:
    heads = ["arm", "steps", *(measure.title for measure in MEASURES.values())]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for arm, row in table.items():
        counts = "–".join(map(str, sorted({min(steps[arm]), max(steps[arm])})))
        lines.append("| " + " | ".join([arm, counts, *map(_cell, row.values())]) + " |")
    seeds = max(map(len, steps.values()))
    return (
        f"{content['verdict']}\n\n" + "\n".join(lines) + "\n\n"
        f"Free, greedy decoding of {content['n_structures']} validation structures "
        f"({content['n_compositions']} compositions), {seeds} seeds; the last weights of each run. "
        "Errors are over the valid decodes only, whose share is the validity; rates, ROUGE, BLEU "
        "and the physical reward are over all structures, where a text that is no structure of the "
        f"input's atoms takes a physical reward of {failure:g} Å. Brackets: 95 % intervals of a "
        "bootstrap over compositions and, independently, seeds, with the same draws for all arms.\n"
    )


def _cell(estimate: RewardEstimate) -> str:
    if estimate.value is None:
        return "–"
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def _draw(
    path: Path,
    table: Mapping[str, Mapping[str, RewardEstimate]],
    outcomes: Sequence[AblationOutcome],
) -> None:
    """A panel for each measure: arms with intervals, and a small point for each seed."""
    with save_figure(path, (10, 2.8), "ablation") as figure:
        panels = figure.subplots(1, len(SHOWN), sharey=True)
        for axes, name in zip(panels, SHOWN, strict=True):
            _panel(axes, name, table, outcomes)
        figure.suptitle(
            "Free decoding after each reward, 95 % intervals; small: seeds", fontsize=10
        )


def _panel(
    axes: Axes,
    name: str,
    table: Mapping[str, Mapping[str, RewardEstimate]],
    outcomes: Sequence[AblationOutcome],
) -> None:
    import seaborn as sns

    from t2relax.reward import means

    arms = list(table)
    palette = dict(zip(arms, sns.color_palette("colorblind"), strict=False))
    single = [(o.arm, value) for o in outcomes if (value := means(o.columns)[name]) is not None]
    if single:
        names, values = zip(*single, strict=True)
        sns.stripplot(
            x=values, y=names, hue=names, order=arms, hue_order=arms, palette=palette, size=4,
            edgecolor="white", linewidth=0.6, jitter=False, legend=False, ax=axes, zorder=4,
        )  # fmt: skip
    for place, arm in enumerate(arms):
        estimate = table[arm][name]
        if estimate.value is not None:
            # A point estimate may lie outside of its percentile interval; a bar is never negative.
            bar = [
                [max(0.0, estimate.value - (estimate.low or 0.0))],
                [max(0.0, (estimate.high or 0.0) - estimate.value)],
            ]
            axes.errorbar(estimate.value, place, xerr=bar, fmt="o", color=palette[arm], capsize=3)
    axes.set(xlabel=MEASURES[name].title, ylabel="", yticks=range(len(arms)), yticklabels=arms)
