"""The median of a text model's answers to several writings of one crystal.

What a model reads depends on the order of the sites, the origin and the names of the axes, which
are no part of the crystal, and so does its answer; the median depends on them less.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from pymatgen.core import Structure

from benchmarks.core import Geometry, Relaxed, Status
from benchmarks.core.geometry import cell_parameters
from benchmarks.core.writings import Convention, Writing
from t2relax.lm.base import WRITINGS
from t2relax.text.codec import CodecError, Delta, apply_delta

CONVENTIONS = frozenset({Convention.SITES, Convention.ORIGIN, Convention.AXES})
"""What the writings differ in; a supercell would cost more, and may have too many sites."""


def relax_in_writings(
    relax: Callable[[Sequence[Structure]], list[Relaxed]],
    structures: Sequence[Structure],
    seed: int,
) -> list[Relaxed]:
    """Answer with the median, change by change, of the answers to `WRITINGS` writings.

    The structure as given is the first; the others depend on its number of sites and on the seed.
    Writings that end without a structure are passed over; where all do, the answer is that to the
    first.

    Args:
        relax: Answers structures.
        structures: The structures as they were given.
        seed: Goes into the drawing of the writings.
    """
    drawn = [_drawn(structure, seed) for structure in structures]
    written = [
        start
        for structure, writings in zip(structures, drawn, strict=True)
        for start in [w.apply(Geometry.of(structure)).structure() for w in writings] or [structure]
    ]
    answers = iter(relax(written))
    found = []
    for structure, writings in zip(structures, drawn, strict=True):
        mine = [next(answers) for _ in range(len(writings) or 1)]
        found.append(_median(Geometry.of(structure), writings, mine) if writings else mine[0])
    return found


def _drawn(structure: Structure, seed: int) -> list[Writing]:
    """The writings of a structure; none if it is not ordered, which `relax` then says.

    Crystals with as many sites get the same ones, so that a shift of the origin changes the origins
    of all writings, and nothing else in them.
    """
    if not structure.is_ordered:
        return []
    rng = np.random.default_rng([seed, len(structure)])
    others = [Writing.drawn(CONVENTIONS, len(structure), rng) for _ in range(WRITINGS - 1)]
    return [Writing.drawn((), len(structure), rng), *others]


def _median(initial: Geometry, writings: Sequence[Writing], answers: Sequence[Relaxed]) -> Relaxed:
    """The median of the answers, each mapped back to the structure as given."""
    tokens = [answer.n_tokens for answer in answers if answer.n_tokens is not None]
    n_tokens = sum(tokens) if tokens else None
    ends = [
        writing.restore(Geometry.of(answer.structure), initial)
        for writing, answer in zip(writings, answers, strict=True)
        if answer.status is Status.OK and answer.structure is not None
    ]
    if not ends:
        first = answers[0]
        return Relaxed(
            status=first.status, structure=first.structure, n_tokens=n_tokens, detail=first.detail
        )
    start = cell_parameters(initial.lattice)
    change = Delta(
        np.median([cell_parameters(end.lattice) for end in ends], axis=0) - start,
        np.median([end.frac_coords - initial.frac_coords for end in ends], axis=0),
    )
    try:
        structure = apply_delta(initial, change, initial.numbers).structure()
    except CodecError as error:
        return Relaxed(status=Status.INVALID, n_tokens=n_tokens, detail=str(error))
    expected = [answer.expected_error for answer in answers if answer.expected_error is not None]
    return Relaxed(
        status=Status.OK,
        structure=structure,
        n_tokens=n_tokens,
        expected_error=float(np.mean(expected)) if expected else None,
    )
