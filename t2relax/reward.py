"""The reward of a freely written text, its weight in training, and measures of decodes.

The text part of the reward is ROUGE-L (Lin, 2004) and sentence BLEU (Papineni et al., 2002) between
the tokens written and those of the target. The physical part is minus the error of the structure
that the text describes, with the functions of `benchmarks.core.geometry`. `python -m
t2relax.train_seq` trains on this reward.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rouge_score.rouge_scorer import RougeScorer  # type: ignore[import-untyped]
from sacrebleu.metrics.bleu import BLEU

from benchmarks.core import Status
from benchmarks.core.geometry import cell_parameters, displacements
from benchmarks.metrics import score
from t2relax.data.training_pairs import Pair
from t2relax.text.tokens import EOS_ID, PAD_ID, Tokenizer

Floats = NDArray[np.float64]

FAILURE: Final = -1.0
"""Physical reward [-Å] of a text that does not parse or lists other atoms than the input. No text
gets less, so that a failure never pays."""
SHARPNESS: Final = 0.005
"""Exponent of the probabilities in the minimum risk (alpha of Shen et al., ACL 2016)."""


class Parts(NamedTuple):
    """The rewards of one text."""

    rouge: float
    """F-measure of ROUGE-L, 0 to 1."""
    bleu: float
    """Sentence BLEU, 0 to 1."""
    physical: float
    """-(RMSE of a, b, c + RMSE of the positions) [Å], at least the price of a failure."""


class _Words:
    """Token ids as words (`t123`), so that blanks and line breaks within a token do not cut it."""

    @staticmethod
    def tokenize(text: str) -> list[str]:
        return text.split()

    @staticmethod
    def text(ids: Sequence[int]) -> str:
        return " ".join(f"t{i}" for i in ids)


class Reward:
    """Scores texts, given as token ids, against the relaxation that they should describe.

    Args:
        failure: physical reward of a text that is not a structure of the input's atoms.
        tokenizer: The tokenizer of the model that writes the texts; by default that of a new one.
    """

    def __init__(self, failure: float = FAILURE, tokenizer: Tokenizer | None = None) -> None:
        self.failure = failure
        self.tokenizer = tokenizer or Tokenizer()
        self._rouge = RougeScorer(["rougeL"], tokenizer=_Words())
        # As `sacrebleu.sentence_bleu(…, tokenize="none")`, which builds this anew for each text.
        self._bleu = BLEU(tokenize="none", effective_order=True)

    def __call__(
        self, texts: Sequence[Sequence[int]], target: Sequence[int], pair: Pair
    ) -> list[Parts]:
        """Compute the rewards of texts for one input; equal texts are scored once.

        Args:
            texts: generated token ids of each; what follows `</s>` does not count.
            target: token ids of the right answer.
            pair: the input and its relaxation.
        """
        reference = _Words.text(strip_special_tokens(target))
        known: dict[tuple[int, ...], Parts] = {}
        for ids in map(strip_special_tokens, texts):
            if ids not in known:
                known[ids] = Parts(*self._text(ids, reference), self._physical(ids, pair))
        return [known[strip_special_tokens(ids)] for ids in texts]

    def _text(self, ids: Sequence[int], reference: str) -> tuple[float, float]:
        text = _Words.text(ids)
        rouge = self._rouge.score(reference, text)["rougeL"].fmeasure
        return float(rouge), self._bleu.sentence_score(text, [reference]).score / 100

    def _physical(self, ids: Sequence[int], pair: Pair) -> float:
        prediction = pair.read(self.tokenizer.decode(list(ids)))
        if prediction is None or not np.array_equal(prediction.numbers, pair.initial.numbers):
            return self.failure
        reference = pair.reference()
        off = cell_parameters(prediction.lattice) - cell_parameters(reference.lattice)
        moved = (displacements(reference, prediction) ** 2).sum(axis=1)
        return max(self.failure, -float(np.sqrt((off[:3] ** 2).mean()) + np.sqrt(moved.mean())))


def strip_special_tokens(ids: Sequence[int]) -> tuple[int, ...]:
    """Return the tokens before `</s>`, without padding."""
    row = list(ids)
    stop = row.index(EOS_ID) if EOS_ID in row else len(row)
    return tuple(i for i in row[:stop] if i != PAD_ID)


class Measure(NamedTuple):
    """The rule by which a column of `score_decode` becomes one number over structures."""

    title: str
    column: str
    root: bool = False
    """The root of the mean, otherwise the mean; either over the structures that have a value."""


MEASURES: Final[Mapping[str, Measure]] = {
    "element_preservation": Measure("element preservation", "valid_species_order"),
    "validity": Measure("validity", "valid_distance"),
    "lattice_rmse": Measure("lattice RMSE (Å)", "lattice_square", root=True),
    "position_rmse": Measure("position RMSE (Å)", "position_square", root=True),
    "lattice_mae": Measure("lattice MAE (Å)", "lattice_error"),
    "rouge": Measure("ROUGE-L", "rouge"),
    "bleu": Measure("BLEU", "bleu"),
    "physical": Measure("physical reward (Å)", "physical"),
}
"""The errors are means over the valid structures, all other measures over all structures."""


def score_decode(
    ids: Sequence[int], target: Sequence[int], pair: Pair, reward: Reward
) -> dict[str, float]:
    """Compute the columns of one decode: those of `benchmarks.metrics.score`, and the rewards.

    `lattice_square` is the mean squared error of a, b, c [Å^2]; errors are nan where the decode
    fails the validity ladder.
    """
    prediction = pair.read(reward.tokenizer.decode(list(ids)))
    row = score(pair.start(), pair.reference(), prediction, Status.OK)
    row["lattice_square"] = float(np.mean([row[f"{x}_square"] for x in "abc"]))
    (parts,) = reward([ids], target, pair)
    return row | parts._asdict()


def means(rows: Mapping[str, Floats]) -> dict[str, float | None]:
    """Compute `MEASURES` from columns over structures; None where no structure has a value."""
    found: dict[str, float | None] = {}
    for name, measure in MEASURES.items():
        values = rows[measure.column][np.isfinite(rows[measure.column])]
        mean = float(values.mean()) if len(values) else None
        found[name] = mean**0.5 if measure.root and mean is not None else mean
    return found


def group_advantage(rewards: Floats, _: Floats, __: Floats) -> Floats:
    """Return the reward minus its group's mean, over the deviation within all groups.

    The deviation of each group alone (GRPO, arXiv:2402.03300) would enlarge small differences.
    """
    apart: Floats = rewards - rewards.mean(axis=1, keepdims=True)
    scale = float(np.sqrt((apart**2).mean()))
    return apart / scale if scale > 0 else apart


def self_critical(rewards: Floats, greedy: Floats, _: Floats) -> Floats:
    """Return the reward minus that of the greedy decode (Rennie et al., CVPR 2017)."""
    return rewards - greedy[:, None]


def minimum_risk(rewards: Floats, _: Floats, log_probs: Floats) -> Floats:
    """Return the negative gradient of the expected risk over the group (Shen et al., ACL 2016).

    With q the probabilities to the power `SHARPNESS`, normalised over the group, it is
    q (r - sum q r), up to a constant (so that it is of the size of the others).
    """
    power = np.exp(SHARPNESS * (log_probs - log_probs.max(axis=1, keepdims=True)))
    q = power / power.sum(axis=1, keepdims=True)
    apart = rewards - (q * rewards).sum(axis=1, keepdims=True)
    weights: Floats = rewards.shape[1] * q * apart
    return weights


ESTIMATORS: Final[Mapping[str, Callable[[Floats, Floats, Floats], Floats]]] = {
    "group": group_advantage,
    "self-critical": self_critical,
    "minimum-risk": minimum_risk,
}
"""(n, group) rewards, (n,) rewards of greedy decodes (only computed for `self-critical`) and
(n, group) log-probabilities of the texts -> (n, group) weights of their log-likelihoods."""
