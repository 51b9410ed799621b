"""Builds the relaxer of a spec, chains those of a hybrid, and holds answers to the contract."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from operator import index
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.core import SCORED, Geometry, Relaxed, Relaxer, RelaxSettings, Status
from benchmarks.core.geometry import MIN_DISTANCE, shortest_distance
from benchmarks.models.registry import import_target
from benchmarks.models.specs import ModelSpec

if TYPE_CHECKING:
    from pymatgen.core import Structure


class ContractError(Exception):
    """A relaxer broke the contract of `benchmarks.core.Relaxer`."""


class Chain:
    """The relaxer of a hybrid `A+B`: each part starts from the structure of the one before.

    A failure of one part is final; the parts after it do not see the structure.
    """

    def __init__(self, parts: Sequence[Relaxer]) -> None:
        self.parts = parts

    def relax(self, structures: Sequence[Structure], /) -> list[Relaxed]:
        """Relax as `Relaxer.relax`; tokens and force evaluations add up over the parts.

        Where a part left atoms closer than `MIN_DISTANCE`, so that the next one refuses the
        structure, the outcome is `invalid`: a model must not gain by what comes after it.
        """
        outcomes = relax_checked(self.parts[0], structures)
        for part in self.parts[1:]:
            alive = [i for i, outcome in enumerate(outcomes) if outcome.status in SCORED]
            starts = [structure for i in alive if (structure := outcomes[i].structure)]
            ends = relax_checked(part, starts)
            for i, start, after in zip(alive, starts, ends, strict=True):
                before = outcomes[i]
                refused = after.status is Status.UNSUPPORTED
                if refused and shortest_distance(Geometry.of(start)) < MIN_DISTANCE:
                    outcomes[i] = replace(before, status=Status.INVALID, detail=after.detail)
                    continue
                outcomes[i] = replace(
                    after,
                    n_force_evals=_sum(before.n_force_evals, after.n_force_evals),
                    n_tokens=_sum(before.n_tokens, after.n_tokens),
                )
        return outcomes


def _sum(a: int | None, b: int | None) -> int | None:
    return None if a is None and b is None else (a or 0) + (b or 0)


def build(spec: ModelSpec, settings: RelaxSettings) -> Relaxer:
    """Build the relaxer of a spec; it gets the settings if it honours any of them.

    Raises:
        ContractError: The class that the spec names has no `relax`.
    """
    if spec.parts:
        return Chain([build(part, settings) for part in spec.parts])
    cls = import_target(spec.target)
    relaxer = cls(**spec.kwargs, **({"settings": settings} if spec.honours else {}))
    if not isinstance(relaxer, Relaxer):
        raise ContractError(f"{spec.target} makes a {type(relaxer).__name__}, without relax()")
    return relaxer


def relax_checked(relaxer: Relaxer, structures: Sequence[Structure]) -> list[Relaxed]:
    """Relax the structures and hold the answer to the contract; see `check`."""
    # They are noted before the call, because a relaxer may change its input.
    numbers = [[site.specie.Z for site in structure] for structure in structures]
    outcomes = relaxer.relax(structures)
    check(relaxer, numbers, outcomes)
    return outcomes


def check(relaxer: Relaxer, numbers: Sequence[list[int]], outcomes: Sequence[Relaxed]) -> None:
    """Check the outcomes of a relaxer against its contract.

    Args:
        relaxer: The relaxer that answered; the message has its name.
        numbers: The atomic numbers of each input, noted before the call.
        outcomes: The outcomes that it returned.

    Raises:
        ContractError: It is not one `Relaxed` for each structure, a field is of another type, or a
            structure that counts as relaxed is missing, has other sites, or holds numbers that are
            not finite.
    """
    name = f"{type(relaxer).__name__}.relax"
    if len(outcomes) != len(numbers):
        raise ContractError(f"{name} gave {len(outcomes)} outcomes for {len(numbers)}")
    for wanted, outcome in zip(numbers, outcomes, strict=True):
        if not isinstance(outcome, Relaxed):
            raise ContractError(f"{name} gave a {type(outcome).__name__}, not a Relaxed")
        _check_fields(name, outcome)
        if outcome.status not in SCORED:
            continue
        report, structure = f"{name} said {outcome.status.value}", outcome.structure
        if structure is None:
            raise ContractError(f"{report} without a structure")
        if [site.specie.Z for site in structure] != wanted:
            raise ContractError(f"{report} with other sites than it was given")
        if not (
            np.isfinite(structure.lattice.matrix).all() and np.isfinite(structure.frac_coords).all()
        ):
            raise ContractError(f"{report} with numbers that are not finite")


def _check_fields(name: str, outcome: Relaxed) -> None:
    """Hold the fields beside the structure to what the store can keep.

    Raises:
        ContractError: One is of another type, or a count is negative or over 64 bits.
    """
    if not isinstance(outcome.status, Status):
        raise ContractError(f"{name} gave the status {outcome.status!r:.100}, which is no Status")
    for field in ("energy", "max_force", "max_stress", "expected_error"):
        value = getattr(outcome, field)
        try:
            _ = None if value is None else float(value)
        except (TypeError, ValueError, OverflowError) as error:
            raise ContractError(f"{name} gave {field} {value!r:.100}, which is no float") from error
    for field in ("n_force_evals", "n_tokens"):
        value = getattr(outcome, field)
        try:
            countable = value is None or 0 <= index(value) < 2**63
        except TypeError:
            countable = False
        if not countable:
            raise ContractError(f"{name} gave {field} {value!r:.100}, which is no count")
    if not (outcome.detail is None or isinstance(outcome.detail, str)):
        kind = type(outcome.detail).__name__
        raise ContractError(f"{name} gave a detail of type {kind}, which is no text")
