"""Every number of the leaderboard, as data: how a column of the samples becomes one number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from benchmarks.core.statistics import Reduce
from benchmarks.metrics.columns import PARAMETERS, SYMPREC
from benchmarks.metrics.validity import LADDER


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One number of the leaderboard, as data.

    A sample counts where its value is not nan after `failure` is filled in.
    """

    name: str
    unit: str
    higher_is_better: bool
    column: str
    """One of `COLUMNS` or `SLOW_COLUMNS`, a cost in the record, or a key of the provenance."""
    reduce: Reduce = Reduce.MEAN
    weight: str | None = None
    """The column of the weights; None weighs every sample alike. The column `clean` is 1 where the
    model cannot have seen the sample in training, else 0."""
    failure: float | str | None = None
    """The value of a sample that was not scored: a number, or the column that holds it. None where
    the metric is over the samples that could be scored; it is shown beside the coverage."""
    description: str


def _ranking() -> Iterator[Metric]:
    for name, text in (
        ("score", "mean of adwt and strain_awt; the board is ranked by it"),
        ("adwt", "share of structures with mean displacement below t, over t = 0.01 … 0.50 Å"),
        ("strain_awt", "share of structures with strain below t, over t = 0.001 … 0.100"),
    ):
        yield Metric(
            name=name, unit="", higher_is_better=True, column=name, failure=0.0, description=text
        )
    yield Metric(
        name="score_clean", unit="", higher_is_better=True, column="score", weight="clean",
        failure=0.0, description="the score over samples that were not seen in training",
    )  # fmt: skip


def _error(
    name: str,
    unit: str,
    column: str,
    description: str,
    reduce: Reduce = Reduce.MEAN,
    weight: str | None = None,
) -> Metric:
    """Describe a metric of which less is better, over the samples that could be scored."""
    return Metric(
        name=name, unit=unit, higher_is_better=False, column=column, reduce=reduce, weight=weight,
        description=description,
    )  # fmt: skip


def _lattice() -> Iterator[Metric]:
    for name in PARAMETERS:
        unit = "Å" if len(name) == 1 else "°"
        # A length is always free: a uniform expansion breaks no symmetry.
        for suffix, weight in (("", None), ("_free", f"{name}_free"))[: 1 + (unit == "°")]:
            freedom = " where the initial cell's point group leaves it free" if suffix else ""
            text = f"of {name}, in the setting of the input{freedom}"
            error, square = f"{name}_error", f"{name}_square"
            yield _error(f"{name}_mae{suffix}", unit, error, f"mean |error| {text}", weight=weight)
            yield _error(f"{name}_mse{suffix}", f"{unit}²", square, f"mean square error {text}",
                         weight=weight)  # fmt: skip
            yield _error(f"{name}_rmse{suffix}", unit, square, f"root mean square error {text}",
                         Reduce.ROOT_MEAN, weight)  # fmt: skip
    yield _error("lattice_mae", "Å", "lattice_error", "mean |error| of a, b and c")
    yield _error("volume_mape", "%", "volume_error", "mean |error| of the volume")
    yield _error("metric_tensor_mae", "Å²", "metric_tensor_error",
                 "mean |error| of the nine entries of L Lᵀ, where the rows of L are the lattice "
                 "vectors; papers on direct relaxation report it")  # fmt: skip
    yield _error("strain", "", "strain", "Frobenius norm of the log stretch, free of rotation")


def _positions() -> Iterator[Metric]:
    root = Reduce.ROOT_MEAN
    atoms = "over all atoms of all structures, for comparison with papers"
    yield _error("position_mae", "Å", "position_error", "mean displacement, atoms by index")
    yield _error("position_mse", "Å²", "position_square", "mean square displacement")
    yield _error("position_rmse", "Å", "position_square", "root mean square displacement", root)
    yield _error("position_max", "Å", "position_max", "mean of the largest displacement")
    yield _error("position_mae_pooled", "Å", "position_error", f"mean displacement {atoms}",
                 weight="n_sites")  # fmt: skip
    yield _error("position_rmse_pooled", "Å", "position_square", f"RMS displacement {atoms}", root,
                 "n_sites")  # fmt: skip
    component = "over Cartesian components, the convention of some papers"
    yield _error("position_component_mae", "Å", "component_error", f"mean |error| {component}")
    yield _error("position_component_rmse", "Å", "component_square", f"RMS error {component}", root)
    yield _error("position_assigned_rmse", "Å", "assigned_square",
                 "RMS displacement after the best assignment within species", root)  # fmt: skip
    yield _error("swap_gap", "Å", "swap_gap", "RMSE by index minus RMSE after assignment")
    yield _error("swap_rate", "", "swapped", "share whose swap gap exceeds 0.1 Å")


def _rates() -> Iterator[Metric]:
    names = (
        ("parsed_rate", "a structure could be read"),
        ("site_count_rate", "and has as many atoms as the input"),
        ("composition_rate", "and the same composition"),
        ("element_preservation_rate", "and the same species in the same order"),
        ("cell_rate", "and a finite cell of the same handedness, 0.25 < V/V_initial < 4"),
        ("validity_rate", "and no two atoms within 0.5 Å"),
    )
    for (name, text), column in zip(names, LADDER, strict=True):
        for suffix, failure, over in (
            ("", None, "samples that the model answered"),
            ("_strict", 0.0, "all samples"),
        ):
            yield Metric(
                name=name + suffix, unit="", higher_is_better=True, column=column, failure=failure,
                reduce=Reduce.PROPORTION, description=f"{text}; share of {over}",
            )  # fmt: skip


def _symmetry_and_chemistry() -> Iterator[Metric]:
    for suffix, symprec in SYMPREC.items():
        for kind, better, text in (
            ("match", True, "has the reference's space group"),
            ("lost", False, "has fewer symmetry operations than the reference"),
            ("gained", False, "has more symmetry operations than the reference"),
        ):
            yield Metric(
                name=f"symmetry_{kind}_rate{suffix}", unit="", higher_is_better=better,
                column=f"symmetry_{kind}{suffix}", description=f"{text}, at symprec {symprec:g} Å",
            )  # fmt: skip
    yield _error("bond_length_mae", "Å", "bond_error", "mean |error| of the reference's bonds")
    yield Metric(
        name="match_rate", unit="", higher_is_better=True, column="matched", failure=0.0,
        description="pymatgen's StructureMatcher(stol=1, scale=False) finds a match",
    )  # fmt: skip
    yield Metric(
        name="rmsd_normalized", unit="", higher_is_better=False, column="rmsd", failure=1.0,
        description="StructureMatcher's RMSD / (V/n)^(1/3), unmatched 1.0; blind to the cell",
    )  # fmt: skip


def _comparison_with_identity() -> Iterator[Metric]:
    for part in ("lattice", "position", "volume"):
        identity = f"identity_{part}_error"
        yield Metric(
            name=f"skill_{part}", unit="", higher_is_better=True, column=f"{part}_error",
            reduce=Reduce.SKILL, weight=identity, failure=identity,
            description="1 - mean error / identity's, over all samples; a failure takes identity's",
        )  # fmt: skip
    for part in ("lattice", "position"):
        yield Metric(
            name=f"{part}_improved_rate", unit="", higher_is_better=True, failure=0.0,
            column=f"{part}_improved", weight=f"{part}_improvable",
            description="share improved by more than 0.001 Å, where identity is off by so much",
        )  # fmt: skip
        yield _error(f"{part}_harmed_rate", "", f"{part}_harmed",
                     "share farther off than identity by more than 0.001 Å")  # fmt: skip


def _costs() -> Iterator[Metric]:
    seconds = "seconds_per_structure"
    for name, unit, column, reduce, text in (
        ("latency_median", "s", "latency", Reduce.MEDIAN, "per structure at batch size 1"),
        ("latency_p95", "s", "latency", Reduce.P95, "per structure at batch size 1"),
        ("wall_time_mean", "s", seconds, Reduce.MEAN, "time of relax, where it was tried"),
        ("wall_time_median", "s", seconds, Reduce.MEDIAN, "batch time over batch size, median"),
        ("n_force_evals", "", "n_force_evals", Reduce.MEDIAN, "median force evaluations"),
        ("n_tokens", "", "n_tokens", Reduce.MEDIAN, "median tokens written"),
        ("peak_memory", "MB", "peak_memory_mb", Reduce.PER_RUN, "of the process, or of its GPU"),
        ("load_time", "s", "load_seconds", Reduce.PER_RUN, "loading the model, warm-up apart"),
        ("declared_time", "s", "declared_seconds", Reduce.PER_RUN, "median, as authors declare it"),
    ):
        yield _error(name, unit, column, text, reduce)
    yield Metric(
        name="throughput", unit="1/s", higher_is_better=True, column=seconds,
        reduce=Reduce.INVERSE_MEAN, description="structures per second at the run's batch size",
    )  # fmt: skip


METRICS: Final[Mapping[str, Metric]] = MappingProxyType(
    {
        metric.name: metric
        for group in (
            _ranking,
            _lattice,
            _positions,
            _rates,
            _symmetry_and_chemistry,
            _comparison_with_identity,
            _costs,
        )
        for metric in group()
    }
)
"""Every number of the leaderboard, by name."""
