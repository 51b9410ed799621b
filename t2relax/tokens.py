"""The vocabulary, the tokenizer, and the grammar of the target text.

Elements, digits, signs and CIF keywords are single tokens; a line of a CIF that never varies is
one token with its line end. Text that the vocabulary cannot spell raises: there is no `<unk>`.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from t2relax.codec import (
    ANGLE_DECIMALS,
    CELL_TAGS,
    DELTA_HEADER,
    DELTA_LOOP,
    FRAC_DECIMALS,
    LENGTH_DECIMALS,
    CodecError,
    site_labels,
)

PAD, EOS = "<pad>", "</s>"
_DIGITS = tuple("0123456789")
_SIGNS = (" +", " -", " +0.", " -0.")
_FIXED_LINES = (
    "data_image0\n",
    DELTA_HEADER,
    '_space_group_name_H-M_alt "P 1"\n',
    "_space_group_IT_number 1\n",
    "_space_group_symop_operation_xyz\n",
    "'x, y, z'\n",
    "_atom_site_symmetry_multiplicity\n",
    "_atom_site_occupancy\n",
    *DELTA_LOOP.splitlines(keepends=True),
)
_WORDS = ("_chemical_formula_structural", "_chemical_formula_sum", *CELL_TAGS)
_PUNCTUATION = ("\n", " ", '"', ".", " 0.", " 1.0", " 1.0000\n")
VOCABULARY: tuple[str, ...] = (
    PAD,
    EOS,
    *_DIGITS,
    *_SIGNS,
    *_PUNCTUATION,
    *_FIXED_LINES,
    *_WORDS,
    *chemical_symbols[1:],
)
"""Token strings by id. Append only: an id, once in a checkpoint, keeps its meaning."""

PAD_ID, EOS_ID = 0, 1
FORCED, DIGIT, SIGN, SIGN_ZERO = 0, 1, 2, 3
"""Kinds of positions in a target: given by the input, any digit, ` +`/` -`, ` +0.`/` -0.`."""


class Tokenizer:
    """Exact, greedy (longest match) tokenizer over `VOCABULARY`."""

    def __init__(self, vocabulary: tuple[str, ...] = VOCABULARY) -> None:
        self.vocabulary = vocabulary
        self._ids = {token: i for i, token in enumerate(vocabulary)}
        longest_first = sorted(vocabulary[2:], key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)))

    def __len__(self) -> int:
        return len(self.vocabulary)

    @cached_property
    def sha256(self) -> str:
        """Hash of the vocabulary, stored with a checkpoint and compared when it is loaded."""
        return hashlib.sha256("\0".join(self.vocabulary).encode()).hexdigest()

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without `</s>`.

        Raises:
            CodecError: a piece of the text is not in the vocabulary.
        """
        ids, end = [], 0
        for match in self._pattern.finditer(text):
            if match.start() != end:
                break
            ids.append(self._ids[match[0]])
            end = match.end()
        if end != len(text):
            raise CodecError(f"not in the vocabulary: {text[end : end + 20]!r}")
        return ids

    def decode(self, ids: list[int]) -> str:
        """The text up to `</s>`; padding and ids outside the vocabulary's size are dropped."""
        stop = ids.index(EOS_ID) if EOS_ID in ids else len(ids)
        return "".join(self.vocabulary[i] for i in ids[:stop] if PAD_ID < i < len(self))

    def ids(self, *tokens: str) -> list[int]:
        """The ids of given tokens."""
        return [self._ids[token] for token in tokens]


@dataclass(frozen=True, slots=True)
class Template:
    """The target text of an input, as far as the input determines it.

    Every number has a fixed width, so the positions of all signs and digits are known beforehand,
    and everything else (keywords, species, labels, number of sites, `</s>`) is given.
    """

    ids: NDArray[np.int64]
    """(length,) the token at each position; at a free one, that of `+0`."""
    kinds: NDArray[np.int8]
    """(length,) FORCED, DIGIT, SIGN or SIGN_ZERO."""


def template(numbers: NDArray[np.int16], tokenizer: Tokenizer) -> Template:
    """The grammar of the target for sites of these atomic numbers, in order."""
    pieces: list[tuple[str, int]] = [(DELTA_HEADER, FORCED)]
    for tag in CELL_TAGS:
        decimals = LENGTH_DECIMALS if "length" in tag else ANGLE_DECIMALS
        number = [(" +", SIGN), ("0", DIGIT), ("0", DIGIT), (".", FORCED)]
        pieces += [(tag, FORCED), *number, *[("0", DIGIT)] * decimals, ("\n", FORCED)]
    pieces += [(line, FORCED) for line in DELTA_LOOP.splitlines(keepends=True)]
    coordinate = [(" +0.", SIGN_ZERO), *[("0", DIGIT)] * FRAC_DECIMALS]
    for label in site_labels(numbers):
        symbol = label.rstrip("0123456789")
        name = [symbol, " ", symbol, *label[len(symbol) :]]
        pieces += [*((token, FORCED) for token in name), *coordinate * 3, ("\n", FORCED)]
    pieces.append((EOS, FORCED))
    ids = tokenizer.ids(*(token for token, _ in pieces))
    return Template(np.array(ids), np.array([kind for _, kind in pieces], dtype=np.int8))


def allowed(tokenizer: Tokenizer, size: int) -> NDArray[np.bool_]:
    """(4, size) which token may stand at a free position of each kind.

    `size` is that of the model's embedding, which may be larger than the vocabulary; the row of
    FORCED is empty.
    """
    mask = np.zeros((4, size), dtype=bool)
    mask[DIGIT, tokenizer.ids(*_DIGITS)] = True
    mask[SIGN, tokenizer.ids(" +", " -")] = True
    mask[SIGN_ZERO, tokenizer.ids(" +0.", " -0.")] = True
    return mask
