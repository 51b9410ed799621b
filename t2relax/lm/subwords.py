"""Our texts in the subwords of a published tokenizer, and the grammar of the target over them.

A subword can hold the end of a keyword and the beginning of a number, so which subwords may follow
is no table: `llguidance` computes it from the pattern of the target, for any tokenizer that the
`tokenizers` library reads. Only what it allows is ever compared, so that no logit, not even one
that is no number, can break the grammar.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer as FastTokenizer
from torch import Tensor
from transformers import LogitsProcessor

from benchmarks.core import UserError
from benchmarks.core.cli import check_installed
from benchmarks.core.files import file_sha256
from t2relax.data.training_pairs import Pair
from t2relax.text.codec import Crystal, write_cif, write_delta
from t2relax.text.grammar import target_pattern, unchanged_target

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

VOCABULARY_FILE = "tokenizer.json"
END_OF_PROMPT = "\n"
"""Stands between the CIF and the target."""


@dataclass(frozen=True)
class Subwords:
    """A published tokenizer, as far as our texts need it.

    Raises:
        UserError: It does not give our texts back.
    """

    tokenizer: FastTokenizer
    end_id: int
    """The id that ends a text."""
    begin_ids: tuple[int, ...]
    """The ids that the model expects before every text; most models have none."""

    def __post_init__(self) -> None:
        every_element = unchanged_target(np.arange(1, 119, dtype=np.int16))
        if self.text(self._ids(every_element)) != every_element:
            raise UserError(
                "--init: the tokenizer of this model does not give our texts back (it drops line "
                "ends or spaces): take a model with a byte-level tokenizer"
            )

    def prompt_ids(self, crystal: Crystal) -> list[int]:
        """The ids of a CIF.

        Raises:
            CodecError: The crystal has no text.
        """
        return [*self.begin_ids, *self._ids(write_cif(crystal) + END_OF_PROMPT)]

    def __call__(self, pair: Pair) -> Mapping[str, Sequence[float]]:
        """Encode the two texts of a pair; every token of the target weighs the same.

        Raises:
            CodecError: The pair has no text.
        """
        target = [*self._ids(write_delta(pair.delta, pair.initial)), self.end_id]
        source = self.prompt_ids(pair.initial)
        return {"input_ids": source, "labels": target, "loss_weights": [1.0] * len(target)}

    def text(self, ids: Sequence[int]) -> str:
        """The text of ids, without the one that ends it."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=False)
        return text

    def most_tokens(self, numbers: NDArray[np.int16]) -> int:
        """Number of tokens after which a free text is cut: twice those of an unchanged target."""
        return 2 * len(self._ids(unchanged_target(numbers)))

    def record(self, folder: Path) -> Mapping[str, Any]:
        """Write the tokenizer into a checkpoint folder; return the entries on it."""
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer.save(str(folder / VOCABULARY_FILE))
        return {
            "vocabulary": VOCABULARY_FILE,
            "vocabulary_sha256": file_sha256(folder / VOCABULARY_FILE),
            "end_id": self.end_id,
            "begin_ids": list(self.begin_ids),
        }

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    @cached_property
    def _library_tokenizer(self) -> LLTokenizer:
        """The tokenizer as the library reads it, which takes two seconds for 150,000 subwords."""
        check_installed("A grammar over subwords", ("llguidance",), "causal")
        from llguidance import LLTokenizer

        return LLTokenizer(self.tokenizer.to_str(), eos_token=self.end_id)

    def matcher(self, numbers: NDArray[np.int16]) -> LLMatcher:
        """Make the library's state of the target of sites with these (n_sites,) atomic numbers."""
        vocabulary = self._library_tokenizer
        from llguidance import LLMatcher

        matcher = LLMatcher(vocabulary, LLMatcher.grammar_from_regex(target_pattern(numbers)))
        if matcher.is_error():
            raise RuntimeError(f"llguidance refuses the grammar: {matcher.get_error()}")
        return matcher

    def grammar(
        self, numbers: Sequence[NDArray[np.int16]], levels: Sequence[NDArray[np.float64]] | None
    ) -> SubwordGrammar:
        """Make the constraint of a batch; see `SubwordGrammar`."""
        return SubwordGrammar([self.matcher(each) for each in numbers], self.end_id, levels)


class SubwordGrammar(LogitsProcessor):
    """Chooses the next subword of each text of a batch among those that its grammar allows.

    Args:
        matchers: The state of the grammar of each text; it moves on with the text.
        end_id: The id that ends a text, and follows a text that has ended.
        levels: For each text (length,) numbers in [0, 1): the next subword is this quantile of
            their distribution, in the order of ids. Without them it is the likeliest one.
    """

    def __init__(
        self,
        matchers: Sequence[LLMatcher],
        end_id: int,
        levels: Sequence[NDArray[np.float64]] | None = None,
    ) -> None:
        self.matchers, self.end_id, self.levels, self.step = matchers, end_id, levels, 0

    def __call__(self, _: Tensor, scores: Tensor) -> Tensor:
        """Return 0 at the chosen subword of each row of (n, vocabulary), and -inf elsewhere."""
        chosen = torch.full_like(scores, -torch.inf)
        for row, matcher in enumerate(self.matchers):
            place = self.end_id if matcher.is_stopped() else self._choose(row, matcher, scores[row])
            chosen[row, place] = 0.0
        self.step += 1
        return chosen

    def _choose(self, row: int, matcher: LLMatcher, scores: Tensor) -> int:
        mask = np.frombuffer(matcher.compute_bitmask(), np.uint8)
        allowed = np.flatnonzero(np.unpackbits(mask, bitorder="little"))
        allowed = allowed[allowed < len(scores)]
        if len(allowed) == 0:
            raise RuntimeError(f"no subword can follow: {matcher.get_error()}")
        logits = scores[torch.from_numpy(allowed).to(scores.device)].double()
        if self.levels is None:
            place = int(logits.argmax())
        else:
            shares = logits.softmax(dim=-1).cumsum(dim=-1)
            level = float(self.levels[row][self.step])
            place = min(int(torch.searchsorted(shares, level)), len(allowed) - 1)
        if not matcher.consume_token(int(allowed[place])):
            raise RuntimeError(f"llguidance refuses what it allowed: {matcher.get_error()}")
        return int(allowed[place])


def published_subwords(tokenizer: Any) -> Subwords:
    """Take what our texts need from a tokenizer of the transformers library.

    Raises:
        UserError: It has no fast form, no end of a text, or does not give our texts back.
    """
    if not getattr(tokenizer, "is_fast", False) or tokenizer.eos_token_id is None:
        raise UserError(
            "--init: the tokenizer of this model has no tokenizer.json, or no token that ends a "
            "text: take another model"
        )
    begins = tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id]
    return Subwords(
        FastTokenizer.from_str(tokenizer.backend_tokenizer.to_str()),
        tokenizer.eos_token_id,
        (tokenizer.bos_token_id,) if begins else (),
    )
