"""A prompted model as a relaxer, and what its run needs to know before and after."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from pymatgen.core import Structure

from benchmarks.core import Geometry, Relaxed, RelaxSettings, Status, UnavailableError
from t2relax.chat.answers import AnswerFile, read_answer, request_hash, token_counts
from t2relax.chat.questions import (
    Choice,
    ExamplePool,
    Message,
    cif_of,
    messages,
    prompt_bound,
    token_bound,
)
from t2relax.chat.server import API, AnswerError, Reply, Server, is_loopback, key_variable

SHARE: Final = 0.9
"""The share of the time limit of a structure that the server has; the rest is for the way back."""
LONGEST_DETAIL: Final = 20_000
"""Characters of a text that are stored with the outcome; the file of replies has it whole."""
_SAMPLE: Final = Geometry(
    np.eye(3) * 5.64, np.array([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]]), np.array([11, 17], np.int16)
)
"""A question whose text stands for the form of all questions in the identity of a run."""


@dataclass(frozen=True)
class ChatModel:
    """A model of a server, and how it is asked.

    Args:
        model: The name of the model, as the server knows it.
        url: The base URL of the server.
        shots: The number of examples in each question.
        shots_from: The source whose training part has the examples.
        shots_by: The rule that chooses them, see `ExamplePool.choose`.
        temperature: Of the sampling; `server` leaves it to the server.
        max_tokens: The longest answer, thoughts included.
        requests: The number of requests at a time.
        price: For a million tokens of questions, and of answers; no part of the identity.
    """

    model: str
    url: str = API
    shots: int = 0
    shots_from: str = "embedded"
    shots_by: Choice = "nearest"
    temperature: float | Literal["server"] = 0.0
    max_tokens: int = 4096
    requests: int = 8
    price: tuple[float, float] | None = None

    @cached_property
    def pool(self) -> ExamplePool:
        """The examples to choose from."""
        return ExamplePool.of(self.shots_from)

    def question(self, initial: Geometry) -> list[Message]:
        """Write the chat that asks about a crystal."""
        examples = self.pool.choose(initial, self.shots, self.shots_by) if self.shots else []
        return messages(initial, examples)

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float | None:
        """Compute what tokens cost, in the currency of the price; None if there is no price."""
        if self.price is None:
            return None
        return (self.price[0] * prompt_tokens + self.price[1] * completion_tokens) / 1e6


class ChatRelaxer:
    """Relaxes by asking a model of a server: a CIF in, a CIF out.

    Args:
        answers: The file that keeps every reply; what it has is not asked again.
        settings: The time limit, and the seed where something is sampled, are used.
        about: The arguments of `ChatModel`.
    """

    def __init__(
        self,
        *,
        answers: str | None = None,
        settings: RelaxSettings = RelaxSettings(),
        **about: Any,
    ) -> None:
        self.model = ChatModel(**about)
        self.server = Server(self.model.model, self.model.url)
        self.answers = AnswerFile(Path(answers) if answers else None)
        self.limit = SHARE * settings.timeout
        self.seed = settings.seed

    def relax(self, structures: Sequence[Structure], /) -> list[Relaxed]:
        """See `benchmarks.core.Relaxer`; `n_tokens` are those that the server counts as written.

        Raises:
            UnavailableError: The server cannot be asked, or another version of the model answers.
        """
        pool = ThreadPoolExecutor(self.model.requests)
        try:
            return list(pool.map(self._relax, structures))
        finally:
            pool.shutdown(cancel_futures=True)

    def _relax(self, structure: Structure) -> Relaxed:
        if not structure.is_ordered:
            reason = "a site is shared by several species: order the structure first"
            return Relaxed(status=Status.UNSUPPORTED, detail=reason)
        initial = Geometry.of(structure)
        try:
            reply = self._reply(initial)
        except AnswerError as error:
            return Relaxed(status=error.status, detail=str(error))
        text = reply.text
        if len(text) > LONGEST_DETAIL:
            text = f"{text[:LONGEST_DETAIL]}\n… ({len(text)} characters)"
        answer, problem = read_answer(reply.text, initial)
        if answer is not None and np.array_equal(answer.numbers, initial.numbers):
            return Relaxed(
                status=Status.OK,
                structure=answer.structure(),
                n_tokens=reply.completion_tokens,
                detail=text,
            )
        if answer is not None:
            problem = "the CIF lists other atoms than the question's, or in another order"
        if reply.refused:
            problem = f"the model refuses: {problem}"
        elif reply.finish == "length":
            problem = f"the answer was cut off at {self.model.max_tokens} tokens: {problem}"
        return Relaxed(
            status=Status.INVALID,
            structure=None if answer is None else answer.structure(),
            n_tokens=reply.completion_tokens,
            detail=f"{problem}\n{text}",
        )

    def _reply(self, initial: Geometry) -> Reply:
        """The reply to the question about a crystal, from the file or from the server."""
        model = self.model
        request: dict[str, Any] = {"messages": [turn._asdict() for turn in model.question(initial)]}
        request |= self.server.limit_of(model.max_tokens)
        if model.temperature != "server":
            request["temperature"] = model.temperature
        if model.temperature != 0:
            request["seed"] = self.seed
        name = request_hash(request | {"model": model.model}, self.seed)
        if (kept := self.answers.get(name)) is not None:
            return kept
        begin = time.monotonic()
        reply = self.server.ask(request, self.limit)
        if (version := self.answers.version) not in (None, reply.version):
            raise UnavailableError(
                f"{model.model} at {model.url} answers as {reply.version!r}, and the answers so "
                f"far are of {version!r}: begin another run with another --out"
            )
        self.answers.keep(name, reply, time.monotonic() - begin)
        return reply


def identity(**about: Any) -> dict[str, Any]:
    """Give what decides the answers: the model that the server reports, and how it is asked.

    The address of the server is none of it, because a local one changes with every start.

    Raises:
        UserError: The server does not answer, or there are no examples.
    """
    model = ChatModel(**about)
    form = json.dumps(model.question(_SAMPLE))
    facts: dict[str, Any] = {
        "model": model.model,
        "served": Server(model.model, model.url).version(),
        "temperature": model.temperature,
        "max_tokens": model.max_tokens,
        "prompt_sha256": hashlib.sha256(form.encode()).hexdigest(),
        "shots": model.shots,
    }
    if model.shots:
        pool = model.pool
        facts["examples"] = [pool.source, pool.revision, model.shots_by]
    return facts


def forecast(initial: Iterable[Geometry], repeats: int, **about: Any) -> str:
    """Say how many tokens a run sends and gets, and what they cost, without sending anything.

    Tokens are counted at most (`token_bound`). An answer is taken to be as long as the CIF of its
    question.

    Args:
        initial: The crystals that are asked about.
        repeats: How often each is asked about.
        about: The arguments of `ChatModel`.
    """
    model = ChatModel(**about)
    prompts = answers = n = 0
    for geometry in initial:
        prompts += prompt_bound(model.question(geometry))
        answers += token_bound(cif_of(geometry))
        n += 1
    prompts, answers, n = repeats * prompts, repeats * answers, repeats * n
    most = n * model.max_tokens
    name = key_variable(model.url)
    text = (
        f"{n} requests to {model.url}, {model.requests} at a time, key from {name}: up to "
        f"{prompts} tokens in, about {answers} out (never more than {most})"
    )
    expected, worst = model.cost(prompts, answers), model.cost(prompts, most)
    if expected is None or worst is None:
        return f"{text}; --price IN,OUT tells what they cost"
    return f"{text}, which costs about {expected:.4g} (never more than {worst:.4g})"


def spent(answers: str, **about: Any) -> dict[str, Any]:
    """Tell what all replies of a file of replies took: their number, tokens and price."""
    counts = token_counts(Path(answers))
    cost = ChatModel(**about).cost(counts["prompt_tokens"], counts["completion_tokens"])
    return counts | ({} if cost is None else {"cost": cost})


def stays_here(*, url: str = API, **_: Any) -> bool:
    """Say whether nothing leaves this machine when the model is asked."""
    return is_loopback(url)
