"""Tables of the comparison (`python -m studies.comparison.comparison`).

Means and, over seeds, ranges; differences to the packaged recipe with 95 % intervals of the
bootstrap of `studies.ablation.ablation_report`: compositions and, independently, seeds, with the
same draws for all arms.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.core.formatting import markdown_table
from studies.ablation.ablation_report import Draws, RewardEstimate
from t2relax.reward import Floats

BASE: Final = "packaged-recipe"
NO_CHANGE: Final = "no-change"
TITLES: Final = {
    "lattice_mae": "lattice MAE (Å)",
    "volume_mape": "volume MAPE (%)",
    "strain": "strain",
    "position_mae": "displacement (Å)",
    "score": "score",
}

Records = Mapping[str, Sequence[Mapping[str, Any]]]
"""For each arm, and for each seed: `columns`, and of a training `steps`, `minutes`, ..."""


def write_report(
    folder: Path, records: Records, groups: Sequence[str], origin: Mapping[str, Any]
) -> str:
    """Write comparison.md and comparison.json; return the former.

    Args:
        folder: The folder of the files.
        records: over the same structures in the same order; `NO_CHANGE` has one, for all seeds.
        groups: the composition of each structure.
        origin: The origin of the data, for the JSON.
    """
    n_seeds = max(map(len, records.values()))
    found = {arm: [_means(run) for run in runs] for arm, runs in records.items()}
    apart = differences(records, groups)
    content = {
        **origin,
        "n_compositions": len(set(groups)),
        "n_seeds": n_seeds,
        "arms": {
            arm: {
                **{key: [run[key] for run in runs] for key in runs[0] if key in _OF_TRAINING},
                "means": found[arm],
                "difference": {k: e._asdict() for k, e in apart.get(arm, {}).items()},
            }
            for arm, runs in records.items()
        },
    }
    (folder / "comparison.json").write_text(json.dumps(content, indent=1) + "\n")
    text = _markdown(records, found, apart, content)
    (folder / "comparison.md").write_text(text)
    return text


_OF_TRAINING = ("n_parameters", "n_layer_parameters", "steps", "minutes")


def _means(run: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(np.mean(run["columns"][name])) for name in TITLES}


def differences(records: Records, groups: Sequence[str]) -> dict[str, dict[str, RewardEstimate]]:
    """The difference of each measure of each other arm to `BASE`; empty without `BASE`."""
    if BASE not in records:
        return {}
    n_seeds = len(records[BASE])
    draws = Draws.of(groups, n_seeds, np.random.default_rng(0))

    def replicates(arm: str, name: str) -> Floats:
        values = np.array([run["columns"][name] for run in records[arm]])
        return draws.mean(np.broadcast_to(values, (n_seeds, len(groups))))

    return {
        arm: {
            name: RewardEstimate.of(replicates(arm, name) - replicates(BASE, name))
            for name in TITLES
        }
        for arm in records
        if arm != BASE
    }


def _markdown(
    records: Records,
    found: Mapping[str, Sequence[Mapping[str, float]]],
    apart: Mapping[str, Mapping[str, RewardEstimate]],
    content: Mapping[str, Any],
) -> str:
    heads = ["arm", "parameters", "in layers", "steps", "minutes", *TITLES.values()]
    rows = [
        [arm, *_training(records[arm]), *(_spread([m[k] for m in means]) for k in TITLES)]
        for arm, means in found.items()
    ]
    gaps = [[arm, *(_difference(row[k]) for k in TITLES)] for arm, row in apart.items()]
    text = (
        f"{markdown_table(heads, rows)}\n\n"
        f"{content['n_structures']} validation structures ({content['n_compositions']} "
        f"compositions), {content['n_pairs']} for training, {content['n_seeds']} seeds; the last "
        "weights of each run. Means over structures and seeds; brackets: lowest and highest seed. "
        "A decode that is no cell counts as no change, with a score of 0.\n"
    )
    if gaps:
        text += (
            f"\nDifferences to {BASE}:\n\n{markdown_table(['arm', *TITLES.values()], gaps)}\n\n"
            "Brackets: 95 % intervals of a bootstrap over compositions and, independently, seeds, "
            "with the same draws for all arms.\n"
        )
    return text


def _training(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Parameters, steps and minutes; of no training dashes."""
    if "steps" not in runs[0]:
        return ["–"] * 4
    steps = "–".join(map(str, sorted({run["steps"] for run in runs})))
    minutes = np.mean([run["minutes"] for run in runs])
    sizes = (f"{runs[0][key]:,}" for key in ("n_parameters", "n_layer_parameters"))
    return [*sizes, steps, f"{minutes:.1f}"]


def _spread(values: Sequence[float]) -> str:
    mean = f"{np.mean(values):.4f}"
    return f"{mean} [{min(values):.4f}, {max(values):.4f}]" if len(values) > 1 else mean


def _difference(estimate: RewardEstimate) -> str:
    return "{:+.4f} [{:+.4f}, {:+.4f}]".format(*estimate)
