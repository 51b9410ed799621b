"""Part of a stored run, as a data set of its own: one functional, or what a training never saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from benchmarks.core import UserError
from benchmarks.core.geometry import reduced_composition
from benchmarks.data import Dataset
from benchmarks.store import StoredRun

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, kw_only=True)
class Subset:
    """Which samples of a run are kept."""

    functional: str | None = None
    """None keeps all."""
    unseen_in: Sequence[Dataset] = ()
    """Data of a training: samples whose reduced composition occurs there are left out."""

    def of(self, run: StoredRun, table: pd.DataFrame) -> tuple[StoredRun, pd.DataFrame]:
        """The run under a name that says what was kept, and its scores.

        Raises:
            UserError: Nothing is left.
        """
        kept, words = table, []
        if self.functional is not None:
            kept = kept[kept["functional"] == self.functional]
            words.append(self.functional)
        for data in self.unseen_in:
            kept = kept[~kept["group"].isin(compositions(data))]
        if self.unseen_in:
            names = (
                data.name + (f"/{data.split}" if data.split else "") for data in self.unseen_in
            )
            words.append(f"no composition of {' or '.join(names)}")
        if not words:
            return run, table
        name = f"{run.identity['dataset']} ({', '.join(words)})"
        if not len(kept):
            raise UserError(f"'{run.name}' holds no sample of {name}")
        return replace(run, identity=run.identity | {"dataset": name}), kept


def compositions(data: Dataset) -> set[str]:
    """Reduced compositions, written as in the column `group` of scores."""
    return {reduced_composition(data.geometries(i)[0].numbers.tolist()) for i in range(len(data))}
