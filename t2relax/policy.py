"""A T5 as a policy: it writes texts freely, and learns from the reward of each text.

`python -m t2relax.train_seq` and `python -m studies.ablation` run this loop.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.core import UserError
from benchmarks.core.cli import require_numbers
from t2relax.data.token_dataset import IGNORE, PairEncoding, collate, pad
from t2relax.data.training_pairs import Augmentation, Pair, encode_pair
from t2relax.lm import t5
from t2relax.lm.decoding import decode_free
from t2relax.loss import LossSettings, T5ForRelaxation
from t2relax.muon import MuonAdamW
from t2relax.reward import ESTIMATORS, FAILURE, Floats, Parts, Reward
from t2relax.text.codec import CodecError
from t2relax.text.tokens import PAD_ID, TARGET_SIZE, Tokenizer

FREE_TEXT_LOSS: Final = LossSettings(forced=1.0, number=1.0)
"""The token loss of free texts: what a grammar would give, the model has to write itself."""
EXTRA_TOKENS: Final = 8
"""Tokens that a sample may be longer than the longest target of its batch."""
BUCKET_BATCHES: Final = 32
"""Batches of similar length are cut from this many batches drawn at random."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySettings:
    """The settings of a sequence-level fine-tuning, apart from its data.

    Raises:
        UserError: A number makes no sense, or an estimator that compares texts has one text only.
    """

    rouge: float = 0.5
    bleu: float = 0.5
    physical: float = 1.0
    """Weights of the parts of the reward; if all three are 0, nothing is sampled."""
    token: float = 0.1
    """Weight of the token loss, `FREE_TEXT_LOSS`."""
    failure: float = FAILURE
    """Physical reward of a text that is not a structure of the input's atoms [-Å]."""
    estimator: str = "group"
    """Name of the estimator in `t2relax.reward.ESTIMATORS`. The mean validation reward after 70
    steps at a learning rate of 3e-4 was -0.11 with self-critical, and -0.08 with minimum-risk and
    with group (start: -0.31)."""
    group: int = 4
    """Number of texts that are sampled for each input, at temperature 1."""
    batch_size: int = 16
    """Number of inputs in a step."""
    steps: int = 120
    learning_rate: float = 1e-3
    """Learning rate of the first step; it falls to zero linearly. The mean validation reward was
    +0.02 with this rate and -0.17 with 1e-4."""
    seed: int = 0

    def __post_init__(self) -> None:
        positive = ("group", "batch_size", "learning_rate")
        parts = ("rouge", "bleu", "physical", "token")
        require_numbers(self, positive=positive, not_negative=(*parts, "steps", "seed"))
        if self.samples and self.group < 2 and self.estimator != "self-critical":
            raise UserError(f"--estimator {self.estimator} compares texts: --group 2 or more")

    @property
    def samples(self) -> bool:
        """True if any part of the reward counts."""
        return any((self.rouge, self.bleu, self.physical))

    def value(self, parts: Parts) -> float:
        """The weighted sum of the parts, which is the reward of a text."""
        return self.rouge * parts.rouge + self.bleu * parts.bleu + self.physical * parts.physical


class TokenizedPair(NamedTuple):
    """A pair with its texts as token ids, as the model reads and writes them."""

    pair: Pair
    source: list[int]
    target: list[int]


def tokenize_pair(
    pair: Pair, tokenizer: Tokenizer, rng: np.random.Generator | None = None
) -> TokenizedPair:
    """Tokenize a pair; with a generator it is augmented first, if the result has a text."""
    if rng is not None:
        changed = Augmentation()(pair, rng)
        try:
            return TokenizedPair(changed, *encode_pair(changed, tokenizer))
        except CodecError:  # the augmented start has no text; the pair itself has
            pass
    return TokenizedPair(pair, *encode_pair(pair, tokenizer))


def batches(pairs: Sequence[Pair], size: int, seed: int) -> Iterator[list[Pair]]:
    """Endless batches of similar length, the same for the same seed."""
    rng = np.random.default_rng(seed)
    lengths = np.array([len(pair.initial.numbers) for pair in pairs])
    while True:
        order = rng.permutation(len(pairs))
        for start in range(0, len(order), BUCKET_BATCHES * size):
            pool = order[start : start + BUCKET_BATCHES * size]
            pool = pool[np.argsort(lengths[pool], kind="stable")]
            for first in rng.permutation(range(0, len(pool), size)):
                yield [pairs[i] for i in pool[first : first + size]]


@dataclass(frozen=True, slots=True)
class Policy:
    """A model that writes texts, with the reward that it gets for them."""

    model: T5ForRelaxation
    """The model in evaluation mode: the sampled text is the rewarded one, without dropout."""
    settings: PolicySettings
    reward: Reward

    def loss(
        self, batch: Sequence[TokenizedPair], generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """Compute the loss of one step, and the mean rewards of the samples.

        The policy gradient is that of the sum of -weight * log p(text) over the texts, divided by
        the number of their tokens: no text is divided by its own length.

        Args:
            batch: inputs and their targets.
            generator: on the model's device, of the samples.
        """
        loss, log = torch.zeros((), device=self.model.device), {}
        if self.settings.token:
            cost = self._token_loss(batch)
            loss, log["token_loss"] = loss + self.settings.token * cost, cost.item()
        if self.settings.samples:
            groups = self._sample(batch, generator)
            texts = [text for group in groups for text in group]
            costs = self._costs([e.source for e in batch], texts)
            weights, earned = self._weigh(batch, groups, costs.detach())
            loss, log = loss + (weights * costs).sum() / sum(map(len, texts)), log | earned
        return loss, log

    def _token_loss(self, batch: Sequence[TokenizedPair]) -> Tensor:
        encode = PairEncoding(self.model.loss_settings.weights, self.reward.tokenizer)
        rows = [encode(e.pair) for e in batch]
        moved = {name: x.to(self.model.device) for name, x in collate(rows).items()}
        loss: Tensor = self.model(**moved).loss
        return loss

    def _sample(
        self, batch: Sequence[TokenizedPair], generator: torch.Generator
    ) -> list[list[list[int]]]:
        """Sample freely written texts, a group for each input, up to and with `</s>`."""
        size, sources = self.settings.group, [e.source for e in batch]
        texts = decode_free(self.model, sources, _longest(batch) + EXTRA_TOKENS, size, generator)
        return [texts[i : i + size] for i in range(0, len(texts), size)]

    def _costs(self, sources: Sequence[Sequence[int]], texts: Sequence[Sequence[int]]) -> Tensor:
        """Compute (n_texts,) -log p; each source has equally many texts, one after the other."""
        labels = torch.from_numpy(pad(texts, IGNORE)).to(self.model.device)
        inputs = torch.from_numpy(pad(sources, PAD_ID)).to(self.model.device)
        mask = (inputs != PAD_ID).long()
        repeats = len(texts) // len(sources)
        encoded = self.model.encoder(input_ids=inputs, attention_mask=mask).last_hidden_state
        many = (encoded.repeat_interleave(repeats, 0), mask.repeat_interleave(repeats, 0))
        logits = self.model.target_logits(*many, labels)
        counted = labels != IGNORE
        costs = functional.cross_entropy(logits, labels[counted], reduction="none")
        return costs.new_zeros(len(texts)).index_add(0, counted.nonzero()[:, 0], costs)

    def _weigh(
        self,
        batch: Sequence[TokenizedPair],
        groups: Sequence[Sequence[Sequence[int]]],
        costs: Tensor,
    ) -> tuple[Tensor, dict[str, float]]:
        """Weigh the samples' log-likelihoods by the estimator; return also the mean rewards."""
        rewards, parts = self._earned(batch, groups)
        greedy = np.zeros(len(batch))
        if self.settings.estimator == "self-critical":
            decoded = decode_free(
                self.model, [e.source for e in batch], _longest(batch) + EXTRA_TOKENS
            )
            greedy = self._earned(batch, [[ids] for ids in decoded])[0][:, 0]
        log_probs = -costs.double().cpu().numpy().reshape(rewards.shape)
        weights = ESTIMATORS[self.settings.estimator](rewards, greedy, log_probs)
        log = dict(zip(Parts._fields, parts.mean(axis=(0, 1)).tolist(), strict=True))
        log["reward"] = float(rewards.mean())
        return torch.from_numpy(weights.ravel()).to(costs), log

    def _earned(
        self, batch: Sequence[TokenizedPair], groups: Sequence[Sequence[Sequence[int]]]
    ) -> tuple[Floats, Floats]:
        """Compute the rewards (n, group) and their parts (n, group, 3)."""
        parts = [self.reward(g, e.target, e.pair) for g, e in zip(groups, batch, strict=True)]
        value = self.settings.value
        return np.array([[value(p) for p in row] for row in parts]), np.array(parts)


def _longest(batch: Sequence[TokenizedPair]) -> int:
    return max(len(e.target) for e in batch)


def load_free(folder: Path, device: str = "cpu") -> t5.T5LanguageModel:
    """Load a checkpoint, ready to be trained and to write without a grammar.

    It may write any sequence of the tokens that spell targets, also when it is loaded elsewhere.

    Raises:
        UserError: no checkpoint there, or one of another codec.
    """
    loaded = t5.load(folder)
    model: T5ForRelaxation = T5ForRelaxation(loaded.model.config).to(device).eval()
    model.load_state_dict(loaded.model.state_dict())
    model.generation_config.suppress_tokens = list(range(TARGET_SIZE, model.config.vocab_size))
    return t5.T5LanguageModel(model, loaded.tokenizer, loaded.max_sites, FREE_TEXT_LOSS)


def optimizer_of(policy: Policy) -> torch.optim.Optimizer:
    """Make the optimizer that the first training has too (`t2relax.train`)."""
    return MuonAdamW(policy.model.named_parameters(), policy.settings.learning_rate, 0.0)


def updates(
    policy: Policy, optimizer: torch.optim.Optimizer, pairs: Sequence[Pair], first: int = 0
) -> Iterator[dict[str, float]]:
    """Train to the last step of the settings; yields the log of each.

    A step draws from a stream of its own, so that a resumed run goes on as if it had not stopped.

    Args:
        policy: The policy, which is trained in place.
        optimizer: The optimizer of its model.
        pairs: The pairs to train on.
        first: The number of steps already taken.
    """
    settings, tokenizer = policy.settings, policy.reward.tokenizer
    drawn = islice(batches(pairs, settings.batch_size, settings.seed), first, settings.steps)
    for step, chosen in enumerate(drawn, start=first):
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
            group["lr"] = group["initial_lr"] * (1 - step / settings.steps)
        rng = np.random.default_rng((settings.seed, step))
        generator = torch.Generator(policy.model.device).manual_seed(int(rng.integers(2**63)))
        batch = [tokenize_pair(pair, tokenizer, rng) for pair in chosen]
        loss, log = policy.loss(batch, generator)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(policy.model.parameters(), 1.0)
        optimizer.step()
        yield log
