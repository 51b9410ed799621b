"""The grammar of the target text: what the input determines, and where numbers stand.

Every number of a target has the same number of tokens. So the atomic numbers of the input decide
the length of its target, each token that is no number, and the kind of each position.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from t2relax.text.codec import CELL_TAGS, DELTA_TAGS, SITE_LOOP, site_labels
from t2relax.text.tokens import (
    COARSE,
    COARSE_TOKENS,
    EOS,
    FINE,
    FINE_TOKENS,
    FORCED,
    TARGET_SIZE,
    Tokenizer,
)

ORDINAL = slice(2, 2 + len(COARSE_TOKENS))
"""The ids of the COARSE tokens, whose values ascend."""
UNCHANGED = len(COARSE_TOKENS) // 2
"""The place of ` +00.0` among the COARSE tokens."""
REST = slice(ORDINAL.stop, ORDINAL.stop + len(FINE_TOKENS))
"""The ids of the FINE tokens."""


@lru_cache(maxsize=1)
def ordinal_values() -> NDArray[np.float64]:
    """Return the (2000,) middles of the values that share each COARSE token, ascending."""
    half = np.arange(1000) / 10 + 0.05
    return np.concatenate([-half[::-1], half])


@dataclass(frozen=True, slots=True)
class Template:
    """The target text of an input, as far as the input determines it.

    The positions of all numbers are known, and everything else (keywords, species, labels, number
    of sites, `</s>`) is given.
    """

    ids: NDArray[np.int64]
    """(length,) token id at each position; at a free position the id of the number zero."""
    kinds: NDArray[np.int8]
    """(length,) FORCED, COARSE or FINE."""

    @property
    def leading(self) -> NDArray[np.intp]:
        """The (n_numbers, n_tokens) positions of the leading digits of each number."""
        coarse = np.flatnonzero(self.kinds == COARSE)
        tokens = (coarse < np.argmax(self.kinds == FINE)).sum()
        return coarse.reshape(-1, tokens)


def unchanged_target(numbers: NDArray[np.int16]) -> str:
    """Write the target of sites with these (n_sites,) atomic numbers of which none moves."""
    return _target(numbers, " +00.000")


def target_pattern(numbers: NDArray[np.int16]) -> str:
    """Give the regular expression of all targets of these (n_sites,) atomic numbers.

    It says of characters what `template` says of tokens; what is not a number has no character
    with a meaning in a pattern.
    """
    return _target(numbers, r" [+-][0-9][0-9]\.[0-9][0-9][0-9]")


def _target(numbers: NDArray[np.int16], number: str) -> str:
    cell = "".join(f"{tag}{number}\n" for tag in DELTA_TAGS)
    sites = "".join(
        f"\n{label.rstrip('0123456789')} {label}{number * 3}" for label in site_labels(numbers)
    )
    return f"data_delta\n{cell}{SITE_LOOP}{sites}"


def template(numbers: NDArray[np.int16], tokenizer: Tokenizer) -> Template:
    """Write the template of the target for sites with these (n_sites,) atomic numbers."""
    number = tokenizer.number
    pieces: list[tuple[str, int]] = [(f"data_delta\n{DELTA_TAGS[0]}", FORCED), *number]
    for tag in CELL_TAGS:
        pieces += [(f"\n{tag}", FORCED), *number]
    pieces.append((f"\n{SITE_LOOP}", FORCED))
    for label in site_labels(numbers):
        symbol = label.rstrip("0123456789")
        index = tokenizer.encode(label[len(symbol) :], TARGET_SIZE)
        name = [f"\n{symbol} {symbol}", *(tokenizer.vocabulary[i] for i in index)]
        pieces += [*((token, FORCED) for token in name), *number * 3]
    pieces.append((EOS, FORCED))
    ids = tokenizer.ids(*(token for token, _ in pieces))
    return Template(np.array(ids), np.array([kind for _, kind in pieces], dtype=np.int8))
