"""Measure the use of each part of the sequence reward: the same fine-tuning with and without it.

    python -m studies.ablation --data TRAIN.parquet --val VAL.parquet --out DIR

From one checkpoint four arms take the same number of steps over the same inputs: the token loss
alone, and, without it, the physical reward, the text reward and their sum. They are compared by
free, greedy decoding of validation structures. A checkpoint that was only trained to be decoded
under the grammar hardly writes species by itself: --start-steps trains it with the token loss first
(DIR/start). Without --data and --val the embedded set serves, whose validation split is tiny.

It was published that a model without ROUGE and BLEU loses atoms; DIR/ablation.md says whether it
does here. The last weights of an arm count, none are selected, so that the structures of the
comparison have decided nothing. A finished run is DIR/runs/ARM-SEED.json and is not run again.

Intervals are 95 % percentiles of a bootstrap that draws compositions with replacement (all
structures of one reduced composition go together) and, independently, seeds; the arms share the
draws, so that their differences are paired. Three seeds say little about the spread over seeds: the
interval is too narrow rather than too wide in that respect.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.core.cli import run_command, whole_number
from benchmarks.core.geometry import reduced_composition
from leaderboard.views.figures import save_figure
from studies.cached_runs import cached_run, seeds
from t2relax import train_seq
from t2relax.data.training_pairs import read_training_data
from t2relax.lm import checkpoint, t5
from t2relax.policy import Policy, PolicySettings, TokenizedPair, load_free, optimizer_of, updates
from t2relax.reward import ESTIMATORS, MEASURES, Floats, Measure, Reward

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
        """Return the (1 + replicates,) means of the finite values (n_seeds, n_structures)."""
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
        """Make the estimate from its (1 + replicates,) values, the estimate itself first."""
        finite = replicates[np.isfinite(replicates)]
        if not np.isfinite(replicates[0]):
            return cls(None, None, None)
        low, high = np.percentile(finite[1:] if len(finite) > 1 else finite, (2.5, 97.5))
        return cls(float(replicates[0]), float(low), float(high))


def replicates(
    outcomes: Sequence[AblationOutcome], groups: Sequence[str]
) -> dict[str, dict[str, Floats]]:
    """Return (1 + replicates,) values of each measure of each arm, all from the same draws."""
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
    """Write ablation.md, ablation.json and ablation.svg; return the verdict.

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
    _draw(folder / "ablation.svg", table, outcomes)
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


ARMS: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "token": {"token": 1.0, "rouge": 0.0, "bleu": 0.0, "physical": 0.0},
        "physical": {"token": 0.0, "rouge": 0.0, "bleu": 0.0, "physical": 1.0},
        "text": {"token": 0.0, "rouge": 0.5, "bleu": 0.5, "physical": 0.0},
        "weighted": {"token": 0.0, "rouge": 0.5, "bleu": 0.5, "physical": 1.0},
    }
)
"""Weights of the loss and of the parts of the reward."""
TOKEN_RATE: Final = 3e-3
"""Learning rate of the training of the start, that of `t2relax.train`."""


def make_start(args: argparse.Namespace) -> Path:
    """Return the checkpoint that all arms start from: `--init` after its training, if any.

    A training that was interrupted goes on, and one that is finished is not run again.
    """
    if not args.start_steps:
        return Path(args.init)
    config = train_seq.SequenceTrainingConfig(
        data=tuple(args.data),
        val=tuple(args.val),
        out=args.out / "start",
        init=(args.init,),
        # Validation is also where an interrupted training goes on.
        eval_steps=max(1, args.start_steps // 5),
        policy=PolicySettings(
            **ARMS["token"], steps=args.start_steps, batch_size=32, learning_rate=TOKEN_RATE
        ),
    )
    train_seq.train(config)
    return config.out


class Ablation:
    """The runs of one command, and the folder that keeps them.

    Args:
        args: The command line.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.start = make_start(args)
        data, val = read_training_data(args.data, args.val)
        self.pairs = data.pairs
        tokenizer = t5.load(self.start).tokenizer
        self.examples: list[TokenizedPair] = train_seq.subset(val.pairs, args.eval_size, tokenizer)
        self.identity = {
            "start": checkpoint.origin(self.start)["weights"],
            "data": data.identity(),
            "validation_data": val.identity(),
            "n_examples": len(self.examples),
        }
        self.folder: Path = args.out / "runs"
        self.folder.mkdir(parents=True, exist_ok=True)

    def outcomes(self) -> list[AblationOutcome]:
        """The outcomes of the start and of all arms, seed by seed; missing ones are run."""
        runs = [(START, 0, PolicySettings(steps=0, failure=self.args.failure))]
        for seed in self.args.seeds:
            runs += [(arm, seed, self._settings(arm, seed)) for arm in ARMS]
        return [self._outcome(*run) for run in runs]

    def _settings(self, arm: str, seed: int) -> PolicySettings:
        names = ("steps", "estimator", "group", "batch_size", "learning_rate", "failure")
        common = {name: getattr(self.args, name) for name in names}
        return PolicySettings(**common, **ARMS[arm], seed=seed)

    def _outcome(self, arm: str, seed: int, settings: PolicySettings) -> AblationOutcome:
        path = self.folder / f"{arm}-{seed}.json"
        identity = {"settings": asdict(settings), **self.identity}
        record = cached_run(path, identity, lambda: self._run(f"{arm}, seed {seed}", settings))
        columns = {k: np.array(v, dtype=np.float64) for k, v in record["columns"].items()}
        return AblationOutcome(arm, seed, record["steps"], columns)

    def _run(self, name: str, settings: PolicySettings) -> dict[str, Any]:
        """Train and decode; None in a column means that there is no value."""
        start = load_free(self.start, "cuda" if torch.cuda.is_available() else "cpu")
        policy = Policy(start.model, settings, Reward(settings.failure, start.tokenizer))
        began, steps = time.monotonic(), 0
        if settings.steps:
            logs = updates(policy, optimizer_of(policy), self.pairs)
            for log in (bar := tqdm(logs, desc=name, total=settings.steps, unit="step")):
                bar.set_postfix(log)
                steps += 1
                if time.monotonic() - began > 60 * self.args.minutes:
                    break
        minutes = (time.monotonic() - began) / 60
        columns = train_seq.validate(start.model, self.examples, policy.reward)
        plain = {k: [x if np.isfinite(x) else None for x in v.tolist()] for k, v in columns.items()}
        return {"steps": steps, "minutes": round(minutes, 2), "columns": plain}

    def groups(self) -> list[str]:
        """The reduced composition of each example."""
        return [reduced_composition(example.pair.initial.numbers) for example in self.examples]


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m studies.ablation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, default = parser.add_argument, PolicySettings()
    add("--data", action="append", help="training data; may be repeated (default: embedded)")
    add("--val", action="append", help="validation data; may be repeated (default: embedded)")
    add("--out", type=Path, default=Path("runs/ablation"))
    add("--init", type=Path, default=checkpoint.CHECKPOINT, help="checkpoint")
    add("--start-steps", type=whole_number(0), default=0, help="of token loss before the arms")
    add("--seeds", type=seeds, default=(0, 1, 2), help="of the runs of each arm, as 0,1,2")
    add("--steps", type=whole_number(1), default=default.steps, help="of each run")
    add("--minutes", type=float, default=20.0, help="most time for the training of a run")
    add("--eval-size", type=whole_number(1), default=256, help="validation pairs that are decoded")
    add("--estimator", choices=sorted(ESTIMATORS), default=default.estimator)
    add("--group", type=whole_number(1), default=default.group, help="texts sampled for an input")
    add("--batch-size", type=whole_number(1), default=default.batch_size, help="inputs in a step")
    add("--learning-rate", type=float, default=default.learning_rate)
    add("--failure", type=float, default=default.failure, help="physical reward of no structure")
    args = parser.parse_args(argv)
    args.data, args.val = args.data or ["embedded"], args.val or ["embedded"]
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """The command: 0 when the report was written, 2 for a user's mistake, 130 interrupted."""
    args = parse(argv)

    def study() -> int:
        run = Ablation(args)
        sys.stdout.write(write_report(args.out, run.outcomes(), run.groups(), args.failure) + "\n")
        return 0

    goes_on = "interrupted: the same command goes on with the unfinished run"
    return run_command(study, interrupted=goes_on)


if __name__ == "__main__":
    sys.exit(main())
