"""What a prompted model is asked: an instruction, solved examples, and the CIF of a crystal."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray
from pymatgen.core import Element

from benchmarks.core import Geometry, UserError
from benchmarks.core.geometry import cell_parameters
from benchmarks.data import load
from benchmarks.data.folders import split_names
from t2relax.text.codec import site_labels

INSTRUCTION: Final = (
    "You relax crystal structures. You are given a crystal as a CIF in P 1 that lists all its "
    "sites. Answer with the CIF of the same crystal after relaxation by density-functional theory "
    "(PBE): the nearby cell and positions at which all forces and the stress vanish. Keep the "
    "format, and the elements, labels, number and order of the sites. Change only the numbers of "
    "the cell (in Å and degrees) and the fractional coordinates, where they change. Write the CIF "
    "and nothing else."
)
LARGEST_EXAMPLE: Final = 32
"""Sites of the largest crystal that is shown as an example, so that questions stay short."""
CHOICES: Final = ("nearest", "fixed")
Choice = Literal["nearest", "fixed"]
_PIECE: Final = re.compile(r"[A-Za-z]{1,4}|[^\sA-Za-z]|\n| (?=[\d.+-])")
_CHAT_TOKENS: Final = 8
"""Tokens that a chat template puts around a message, at most."""


class Message(NamedTuple):
    """One turn of a chat."""

    role: Literal["user", "assistant"]
    content: str


class Example(NamedTuple):
    """A relaxation of the training part: both of its CIFs."""

    initial: str
    final: str


def cif_of(geometry: Geometry) -> str:
    """Write a crystal as the CIF of the questions: P 1, each site with element, label and place."""
    lengths_and_angles = cell_parameters(geometry.lattice)
    names = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
    cell = [f"_cell_{name} {x:.4f}" for name, x in zip(names, lengths_and_angles, strict=True)]
    columns = ("type_symbol", "label", "fract_x", "fract_y", "fract_z")
    places = np.mod(np.round(np.mod(geometry.frac_coords, 1.0), 5), 1.0)
    rows = zip(geometry.numbers, site_labels(geometry.numbers), places, strict=True)
    sites = [
        " ".join([chemical_symbols[number], label, *(f"{x:.5f}" for x in place)])
        for number, label, place in rows
    ]
    lines = ["data_crystal", "_space_group_name_H-M_alt 'P 1'", *cell, "loop_"]
    return "\n".join([*lines, *(f"_atom_site_{column}" for column in columns), *sites])


def token_bound(text: str) -> int:
    """Count the tokens of a text at most: each digit and sign, and four letters, for themselves.

    Of questions with two examples, tokenizers that take each digit for itself (Qwen's) need three
    quarters of it, those that take up to three together (OpenAI's) three fifths.
    """
    return len(_PIECE.findall(text))


@dataclass(frozen=True, slots=True)
class ExamplePool:
    """The relaxations that examples are chosen from."""

    source: str
    revision: str
    examples: tuple[Example, ...]
    compositions: tuple[str, ...]
    """The reduced composition of each."""
    profiles: NDArray[np.float64]
    """(n, 104) cumulated shares of the elements in the order of their Mendeleev numbers."""
    order: NDArray[np.int64]
    """(n,) the examples by the hash of their ids, in which fixed ones and ties are taken."""

    @classmethod
    def of(cls, source: str) -> ExamplePool:
        """Read the training part of a source; a source without parts is read whole.

        Args:
            source: A source as `--data` takes it, which is not fetched from a network.

        Raises:
            UserError: It cannot be read, or none of its crystals is small enough.
        """
        split = "train" if "train" in split_names(source) else None
        dataset = load(source, split=split, offline=True)
        pairs = [dataset.geometries(i) for i in range(len(dataset))]
        small = [i for i, pair in enumerate(pairs) if len(pair[0].numbers) <= LARGEST_EXAMPLE]
        if not small:
            raise UserError(f"--shots-from {source}: no crystal of {LARGEST_EXAMPLE} sites or less")
        hashes = [hashlib.sha256(dataset.ids[i].encode()).hexdigest() for i in small]
        return cls(
            dataset.name,
            dataset.revision,
            tuple(Example(*map(cif_of, pairs[i])) for i in small),
            tuple(_composition(pairs[i][0]) for i in small),
            np.array([_profile(pairs[i][0]) for i in small]),
            np.array(sorted(range(len(small)), key=hashes.__getitem__)),
        )

    def choose(self, initial: Geometry, n: int, by: Choice) -> list[Example]:
        """Choose the examples for a question; none has its composition, which could give it away.

        Args:
            initial: The crystal that is asked about.
            n: The number of examples.
            by: `fixed` takes the same for all questions. `nearest` takes those whose composition
                is nearest by the element mover's distance: shares of elements are moved along the
                Mendeleev numbers, in which neighbours behave alike. The nearest comes last.
        """
        order = self.order
        if by == "nearest":
            distances = np.abs(self.profiles - _profile(initial)).sum(axis=1)
            order = order[np.argsort(distances[order].round(9), kind="stable")]
        own = _composition(initial)
        chosen = [i for i in order if self.compositions[i] != own][:n]
        return [self.examples[i] for i in reversed(chosen)]


def messages(initial: Geometry, examples: Sequence[Example]) -> list[Message]:
    """Write the chat: the instruction (some models know no other role), examples, the question."""
    turns = []
    for example in examples:
        turns += [Message("user", example.initial), Message("assistant", example.final)]
    turns.append(Message("user", cif_of(initial)))
    return [Message("user", f"{INSTRUCTION}\n\n{turns[0].content}"), *turns[1:]]


def prompt_bound(turns: Sequence[Message]) -> int:
    """Count the tokens of a chat at most."""
    return sum(token_bound(turn.content) + _CHAT_TOKENS for turn in turns)


def _composition(geometry: Geometry) -> str:
    counts = np.bincount(geometry.numbers)
    present = np.flatnonzero(counts)
    divisor = np.gcd.reduce(counts[present])
    return " ".join(f"{chemical_symbols[z]}{counts[z] // divisor}" for z in present)


def _profile(geometry: Geometry) -> NDArray[np.float64]:
    places = [int(Element.from_Z(int(z)).mendeleev_no) for z in geometry.numbers]
    shares: NDArray[np.float64] = np.bincount(places, minlength=104) / len(places)
    return np.cumsum(shares)
