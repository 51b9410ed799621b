"""A board as plain data: the one typed place for what `board.json` holds.

Every table, page and figure is a view of a `Board`. The JSON schema follows from the types of the
dataclasses, so that a field is written down once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from enum import StrEnum
from types import NoneType, UnionType
from typing import Any, Final, Self, get_args, get_origin, get_type_hints

from benchmarks.core import UserError
from benchmarks.core.statistics import Estimate
from benchmarks.core.training_cost import TrainingCost
from benchmarks.core.training_data import Track

SCHEMA_VERSION: Final = 2

IDENTITY: Final = "identity"
"""The model that predicts no change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardDataset:
    """The samples that a board is over."""

    name: str
    revision: str
    split: str | None
    n_samples: int
    ids_sha256: str
    quarantined: Mapping[str, int]
    """Number of trajectories that the audit left out, by reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """The machine on which the times and the memory of a row were measured."""

    cpu: str | None
    device: str | None
    """`cpu`, or `cuda` with the name of the card."""
    threads: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricInfo:
    """How a metric is to be read."""

    unit: str
    higher_is_better: bool
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The largest difference between repeats of the same sample, over all samples."""

    repeats: int
    """The most that a sample has."""
    strain: float
    """Of the errors of the cell, a strain."""
    position: float
    """Of the mean displacement of the atoms [Å]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Invariance:
    """How far answers move when the same crystals are written in other ways: means over these."""

    dataset: str
    structures: int
    strain: Estimate
    """Between the cells of the answers."""
    displacement: Estimate
    """Mean over the sites [Å]."""
    status_changed: int
    """Structures that end in another status in one of the writings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedSpread:
    """What trainings reach that differ in nothing but the seed, the one of the row among them."""

    trainings: int
    lowest: float
    """Of the scores, each of all samples of the board."""
    highest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One model."""

    model: str
    label: str
    family: str
    weights: str | None
    weights_sha256: str | None
    training_data: tuple[str, ...]
    training_cost: tuple[TrainingCost | None, ...] = ()
    """What the trainings of the model cost, of a hybrid those of its parts in order; None stands
    for a training whose cost is not known."""
    track: Track
    functional: str | None = None
    """The functional of the DFT data that the model was trained on, in its last stage; None if no
    DFT data were used, or if the run does not say."""
    hardware: tuple[Hardware, ...]
    """The machines of the run; several if its parts were computed on different ones."""
    n_samples: int
    coverage: Mapping[str, int]
    """Number of outcomes by status; each repeat of a sample counts."""
    spread: Spread | None = None
    """None if each sample was run once."""
    invariance: Invariance | None = None
    """None if nobody measured it with these weights; the JSON then leaves it out."""
    seeds: SeedSpread | None = None
    """None if nobody trained it with further seeds; the JSON then leaves it out."""
    rank: int | None
    """None for a run on other samples than the board's, which is not ranked."""
    rank_low: int | None
    rank_high: int | None
    metrics: Mapping[str, Estimate]

    @property
    def n_scored(self) -> int:
        """Number of outcomes with a relaxed structure."""
        return self.coverage["ok"] + self.coverage["unconverged"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackTable:
    """The models of one track, with the trivial ones for comparison."""

    track: Track
    training_data: tuple[str, ...]
    """The sets that all of the models were trained on, for the track of equal data."""
    models: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DifferenceTable:
    """Mean paired differences of one metric, every model minus every rival."""

    metric: str
    digits: int
    """Decimals to which the numbers are rounded."""
    rivals: tuple[str, ...]
    cells: Mapping[str, Mapping[str, Estimate]]
    """Model, then rival; a model is not compared with itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """The score of every model on the samples that share a property."""

    label: str
    n: int
    scores: Mapping[str, Estimate]


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceTable:
    """The slices by one property."""

    title: str
    digits: int
    """Decimals to which the numbers are rounded."""
    slices: tuple[Slice, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSlice:
    """The score of one model by whether its training sources contain the sample's source."""

    model: str
    contained: Estimate
    not_contained: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Force evaluations, or seconds, per structure of a hybrid and of its last part alone."""

    hybrid: float | None
    """Mean."""
    alone: float | None
    """Mean."""
    ratio: Estimate
    """The hybrid's sum over the samples divided by that of the part alone."""
    saved: Estimate
    """Mean of the paired differences, alone minus hybrid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Minimum:
    """How often two relaxations that both finished reach the same minimum."""

    rate: Estimate
    """Share of the pairs that end in the same minimum, with Wilson's interval."""
    lower: int
    """Number of the other pairs in which the hybrid's energy is lower by more than the bound."""
    level: int
    """Number of the other pairs whose energies are equal within the bound: the structures are
    images of one another by symmetry, or the energy hardly depends on the cell."""
    higher: int
    """Number of the other pairs in which the hybrid's energy is higher by more than the bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MinimumBounds:
    """Two final structures are in the same minimum if they differ by less than these bounds."""

    strain_below: float
    mean_displacement_below_angstrom: float
    energy_within_ev_per_atom: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Saving:
    """One hybrid compared with its last part alone."""

    model: str
    alone: str
    n_samples: int
    finished: int
    """Number of samples that the hybrid finished (`ok` in every repeat)."""
    alone_finished: int
    """Number of samples that the part alone finished."""
    both_finished: int
    force_evals: Cost | None
    seconds: Cost | None
    """None if machine, threads or batch size of the two runs differ."""
    minimum: Minimum | None
    """None if neither the structures nor their differences are stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IonicSteps:
    """Ionic steps of a relaxation by DFT, over the samples whose relaxations both converged.

    The calculation of the structure that it starts from is the first step.
    """

    predicted: float
    """Mean from the predictions."""
    start: float
    """Mean from the starts of the samples."""
    ratio: Estimate
    """The sum from the predictions divided by that from the starts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DFTVerdict:
    """What DFT says of the predictions of one model. Means are over samples."""

    model: str
    n_predictions: int
    """Number of predictions that were to be computed; each repeat of a sample counts."""
    n_without_structure: int
    """Number of these that have no relaxed structure."""
    n_failed: int
    """Number of these whose calculation failed."""
    energy_above_reference: Estimate
    """Mean of the energy minus that of the reference [meV/atom]."""
    median_energy_above_reference: Estimate
    """The median of the same [meV/atom]."""
    dft_max_force: Estimate
    """Mean of the largest norm of a force [eV/Å]."""
    dft_max_stress: Estimate
    """Mean of the largest component of the stress [GPa]."""
    below_start: Estimate
    """Share of the predictions whose energy is lower than that of the start; a prediction without a
    structure is not, and one whose calculation failed does not count."""
    n_steps_failed: int
    """Number of relaxations from predictions, or from their starts, that did not converge."""
    ionic_steps: IonicSteps | None
    """None if no prediction was relaxed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DFTVerdicts:
    """What DFT says of the predictions of the models."""

    method: str
    """The program and the functional."""
    rows: tuple[DFTVerdict, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """Samples with similar expected errors."""

    n: int
    expected: float
    """Mean of the expected errors [Å]."""
    error: Estimate
    """Mean of the true errors [Å]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptShare:
    """The samples with the smallest expected errors."""

    share: float
    n: int
    error: Estimate
    """Mean of their errors [Å]."""
    unchanged: Estimate
    """Mean of the errors of no change over the same samples [Å]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    """How well a model knows the errors of its answers: of the cell plus of the positions [Å]."""

    model: str
    n: int
    """Number of scored samples with an expected error."""
    rank_correlation: Estimate
    """Spearman's, of expected and true errors."""
    bins: tuple[ReliabilityBin, ...]
    """Of equal counts, by rising expected error."""
    kept: tuple[KeptShare, ...]
    """By rising share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conclusion:
    """The mean paired difference in score of two models, and what the clean part says of it."""

    better: str
    worse: str
    """In the order of the rows."""
    everywhere: Estimate
    """Over all samples, better minus worse."""
    clean: Estimate
    """Over the samples that neither model can have seen in training."""

    @property
    def verdict(self) -> str:
        """Whether the clean part alone leads to the same conclusion."""
        if not self.clean.n:
            return "cannot be tested: no such structures"
        if self.clean.low is None:
            return "cannot be tested: one composition"
        if self.everywhere.sign == self.clean.sign:
            return "stays"
        if self.everywhere.sign * self.clean.sign < 0:
            return "turns"
        return "no longer told apart" if self.everywhere.sign else "told apart there alone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """The leaderboard of one data set."""

    schema_version: int = SCHEMA_VERSION
    dataset: BoardDataset
    python: str
    """Versions of Python; several are separated by a semicolon."""
    packages: Mapping[str, str]
    """Versions of packages, likewise."""
    metrics: Mapping[str, MetricInfo]
    rows: tuple[Row, ...]
    """The ranked models, best first."""
    apart: tuple[Row, ...]
    """Runs on other samples than the board's, each over its own samples; they are not ranked."""
    ties: tuple[tuple[str, str], ...]
    """Pairs of models whose difference in score has an interval that contains 0."""
    conclusions: tuple[Conclusion, ...]
    """One for each pair of ranked models."""
    about: str | None
    """A reader must know this of the data."""
    notes: tuple[str, ...]
    """Remarks on the comparison."""
    tracks: tuple[TrackTable, ...]
    differences: tuple[DifferenceTable, ...]
    slices: tuple[SliceTable, ...]
    training_slices: tuple[TrainingSlice, ...]
    same_minimum: MinimumBounds
    hybrids: tuple[Saving, ...]
    dft_verdicts: DFTVerdicts | None = None
    """None, and not in the file, if no prediction was computed with DFT."""
    reliability: tuple[Reliability, ...] = ()
    """Of the models that tell an expected error; not in the file if there is none."""

    @property
    def name(self) -> str:
        """Data set and split: `embedded-v1/test`, `substitution/test`."""
        return self.dataset.name + (f"/{self.dataset.split}" if self.dataset.split else "")

    @property
    def hardware(self) -> tuple[Hardware, ...]:
        """All machines, in the order in which the rows name them."""
        rows = (*self.rows, *self.apart)
        return tuple(dict.fromkeys(each for row in rows for each in row.hardware))

    def to_json(self) -> str:
        """Write the board as JSON; an object or a list of plain values stands on one line.

        Raises:
            jsonschema.ValidationError: The board does not follow its schema, which is our fault.
        """
        from jsonschema import Draft202012Validator

        content = json.loads(json.dumps(asdict(self), ensure_ascii=False, allow_nan=False))
        for row in (*content["rows"], *content["apart"]):
            for name in ("invariance", "seeds"):
                if row[name] is None:
                    del row[name]
        if self.dft_verdicts is None:
            del content["dft_verdicts"]
        if not self.reliability:
            del content["reliability"]
        Draft202012Validator(json_schema(Board)).validate(content)
        return _written(content, "") + "\n"

    @classmethod
    def from_json(cls, text: str, where: str = "board.json") -> Self:
        """Read a board.

        Args:
            text: The JSON.
            where: Name of the file, for the message.

        Raises:
            UserError: The text is not a board of this version.
        """
        from jsonschema import Draft202012Validator, ValidationError

        try:
            content = json.loads(text)
            Draft202012Validator(json_schema(cls)).validate(content)
        except (ValueError, ValidationError) as error:
            reason = getattr(error, "message", str(error))[:200]
            raise UserError(f"{where} is not a board of this version: {reason}") from error
        board: Self = _built(cls, content)
        return board


def json_schema(kind: Any) -> dict[str, Any]:
    """The JSON schema of a dataclass or of the type of one of its fields."""
    arguments = get_args(kind)
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        required = [f.name for f in fields(kind) if f.default is MISSING]
        properties = {name: json_schema(hints[name]) for name in hints}
        if "schema_version" in properties:
            properties["schema_version"] = {"const": SCHEMA_VERSION}
            required.append("schema_version")
        return {
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": False,
        }
    if get_origin(kind) is UnionType:
        return {"anyOf": [json_schema(each) for each in arguments]}
    if get_origin(kind) is tuple and arguments[-1] is Ellipsis:
        return {"type": "array", "items": json_schema(arguments[0])}
    if get_origin(kind) is tuple:
        size = len(arguments)
        return {
            "type": "array",
            "prefixItems": [json_schema(each) for each in arguments],
            "minItems": size,
            "maxItems": size,
        }
    if get_origin(kind) is Mapping:
        return {"type": "object", "additionalProperties": json_schema(arguments[1])}
    if issubclass(kind, StrEnum):
        return {"enum": [str(each) for each in kind]}
    names = {str: "string", int: "integer", float: "number", bool: "boolean", NoneType: "null"}
    return {"type": names[kind]}


def _built(kind: Any, value: Any) -> Any:
    """A value of the type `kind` from JSON that follows its schema."""
    arguments = get_args(kind)
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{name: _built(hints[name], each) for name, each in value.items()})  # type: ignore[operator]
    if get_origin(kind) is UnionType:
        return None if value is None else _built(arguments[0], value)
    if get_origin(kind) is tuple:
        return tuple(_built(arguments[0], each) for each in value)
    if get_origin(kind) is Mapping:
        return {name: _built(arguments[1], each) for name, each in value.items()}
    return kind(value)


def _written(value: Any, indent: str) -> str:
    """JSON in which whatever holds only plain values stands on one line."""
    inner = indent + " "
    parts = list(value.values()) if isinstance(value, dict) else value
    if not isinstance(value, dict | list) or not any(isinstance(x, dict | list) for x in parts):
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    if isinstance(value, list):
        lines = [inner + _written(each, inner) for each in value]
        return "[\n" + ",\n".join(lines) + f"\n{indent}]"
    lines = [
        f"{inner}{json.dumps(name, ensure_ascii=False)}: {_written(each, inner)}"
        for name, each in value.items()
    ]
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
