"""The vocabulary and the tokenizer.

Elements and CIF keywords are single tokens, and so are the parts of a text that never vary. A
number is one ordinal token for its leading digits and one for the rest: `+01.9|24`. Text that the
vocabulary cannot spell raises: there is no `<unk>`.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Any

from ase.data import chemical_symbols

from t2relax.text.codec import (
    BALANCE_COLUMNS,
    CELL_TAGS,
    CONTACT_LOOP,
    DELTA_TAGS,
    SITE_LOOP,
    SITE_VOLUME_TAG,
    SYMMETRY,
    CodecError,
    Crystal,
    write_cif,
)

PAD, EOS = "<pad>", "</s>"
COARSE_TOKENS = (
    *(f" -{k // 10:02d}.{k % 10}" for k in reversed(range(1000))),
    *(f" +{k // 10:02d}.{k % 10}" for k in range(1000)),
)
"""` +01.9`: sign and leading digits of a change, in the order of their values."""
FINE_TOKENS = tuple(f"{k:02d}" for k in range(100))
"""`24`: the other two digits of a change."""
LENGTH_TOKENS = tuple(f" {k / 10:.1f}" for k in range(1800))
"""` 5.4`: leading digits of a length, a distance, an angle or a volume."""
FRACTION_TOKENS = tuple(f" 0.{k:02d}" for k in range(100))
"""` 0.25`: leading digits of a fractional coordinate."""
REST_TOKENS = tuple(f"{k:03d}" for k in range(1000))
"""`431`: the other digits of a length or a fractional coordinate."""
COUNT_TOKENS = tuple(f" {k}" for k in range(100))
_SIXTHS = ("00000", "50000", "25000", "75000", "33333", "66667", "16667", "83333")
FREQUENT_FRACTIONS = tuple(f" 0.{x}" for x in (*_SIXTHS, "12500", "37500", "62500", "87500"))
FREQUENT_ANGLES = tuple(f" {x}.000" for x in (60, 90, 120))
_SYMBOLS = tuple(chemical_symbols[1:])
SITE_TOKENS = tuple(f"\n{x} {x}" for x in _SYMBOLS)
"""The start of the line of a site; the number of its label follows."""
_TARGET: tuple[str, ...] = (
    PAD,
    EOS,
    *COARSE_TOKENS,
    *FINE_TOKENS,
    *"0123456789",
    f"data_delta\n{DELTA_TAGS[0]}",
    *(f"\n{tag}" for tag in CELL_TAGS),
    f"\n{SITE_LOOP}",
    *SITE_TOKENS,
)
TARGET_SIZE = len(_TARGET)
"""Number of tokens, from the first, that spell every target."""
_BALANCE = f"\n{BALANCE_COLUMNS}"
PLAIN_VOCABULARY: tuple[str, ...] = (
    *_TARGET,
    *'. \n"',
    'data_image0\n_chemical_formula_sum "',
    f'"\n{SITE_VOLUME_TAG}',
    f"\n{SYMMETRY}{CONTACT_LOOP}",
    *LENGTH_TOKENS,
    *FRACTION_TOKENS,
    *REST_TOKENS,
    *COUNT_TOKENS,
    *FREQUENT_FRACTIONS,
    *FREQUENT_ANGLES,
    *(form for x in _SYMBOLS for form in (x, f" {x}", f"\n{x}")),
)
"""The vocabulary of a text without the columns that balance the bonds."""
VOCABULARY = (*PLAIN_VOCABULARY, _BALANCE)
"""Token strings by id. Append only: an id, once in a checkpoint, keeps its meaning."""

PAD_ID, EOS_ID = 0, 1
FORCED, COARSE, FINE = 0, 1, 2
"""The kinds of positions in a target: given by the input, leading digits, the other digits."""
NUMBER = ((" +00.0", COARSE), ("00", FINE))
"""The tokens of an unchanged number in a target, with their kinds."""


class Tokenizer:
    """Exact, greedy (longest match) tokenizer.

    Args:
        vocabulary: The token strings by id, `<pad>` and `</s>` first.
        number: The tokens of an unchanged number in a target, with their kinds.
    """

    def __init__(
        self,
        vocabulary: tuple[str, ...] = VOCABULARY,
        number: tuple[tuple[str, int], ...] = NUMBER,
    ) -> None:
        self.vocabulary, self.number = vocabulary, number
        self._ids = {token: i for i, token in enumerate(vocabulary)}
        lengths: dict[str, set[int]] = {}
        for token in vocabulary[2:]:
            lengths.setdefault(token[0], set()).add(len(token))
        self._lengths = {first: sorted(found)[::-1] for first, found in lengths.items()}

    def __len__(self) -> int:
        return len(self.vocabulary)

    def source(self, crystal: Crystal) -> list[int]:
        """Return the token ids of the text that the model reads, with `</s>`.

        The sites have the columns that balance the bonds if the vocabulary can spell them.

        Raises:
            CodecError: The crystal has no text.
        """
        return [*self.encode(write_cif(crystal, _BALANCE in self._ids)), EOS_ID]

    @cached_property
    def sha256(self) -> str:
        """Hash of the vocabulary, stored with a checkpoint and compared when it is loaded."""
        return hashlib.sha256("\0".join(self.vocabulary).encode()).hexdigest()

    def record(self) -> dict[str, Any]:
        """The vocabulary and its hash, as a checkpoint folder holds them."""
        return {"vocabulary_sha256": self.sha256, "vocabulary": self.vocabulary}

    def encode(self, text: str, size: int | None = None) -> list[int]:
        """Return the token ids of a text, without `</s>`.

        A symbol ends where no small letter follows: `N Ne` is not nitrogen twice and an `e`.

        Args:
            text: The text.
            size: Only the first `size` tokens of the vocabulary are used; by default all.

        Raises:
            CodecError: A piece of the text is not in the vocabulary.
        """
        ids, at, size = [], 0, size or len(self)
        while at < len(text):
            for length in self._lengths.get(text[at], ()):
                token = self._ids.get(text[at : at + length])
                behind = text[at + length : at + length + 1]
                cut = behind.islower() and text[at + length - 1].isalpha()
                if token is not None and token < size and not cut:
                    ids.append(token)
                    at += length
                    break
            else:
                raise CodecError(f"not in the vocabulary: {text[at : at + 20]!r}")
        return ids

    def decode(self, ids: list[int]) -> str:
        """Return the text up to `</s>`; padding and ids beyond the vocabulary are dropped."""
        stop = ids.index(EOS_ID) if EOS_ID in ids else len(ids)
        return "".join(self.vocabulary[i] for i in ids[:stop] if PAD_ID < i < len(self))

    def ids(self, *tokens: str) -> list[int]:
        """Return the ids of given tokens."""
        return [self._ids[token] for token in tokens]
