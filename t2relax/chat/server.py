"""A server that speaks the OpenAI chat protocol: what is asked of it, and what its faults mean.

A fault that may pass (too many requests, an overloaded or unreachable server) is waited out, as
long as a structure's time lasts; after that, and where the server refuses us for good, nothing is
said about the structure, and the run ends so that it can go on later. A fault of the one answer (a
refused request, silence, a reply that is none) is the outcome of its structure.

The key comes from the environment. It is in no message, and is blotted out of what a server says.
"""

from __future__ import annotations

import ipaddress
import json
import os
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from itertools import count
from typing import Any, Final, NoReturn
from urllib.parse import urlsplit

import httpx2
import openai

from benchmarks.core import Status, UnavailableError, UserError

API: Final = "https://api.openai.com/v1"
"""The server that is asked if no other is named."""
LARGEST: Final = 2**20
"""Bytes of a reply that are read; a longer one is no answer."""
CONNECT: Final = 10.0
"""Seconds until a server that does not take a connection counts as unreachable."""
FIRST_WAIT = 1.0
"""Seconds before the second attempt; each later wait is twice as long …"""
LONGEST_WAIT: Final = 60.0
"""… up to this. A `Retry-After` of the server is obeyed instead."""
ATTEMPTS: Final = 5
"""A request that a server answers with its own error so often is the structure's failure."""
PASSING: Final = frozenset({408, 409, 425, 429, 502, 503, 504, 529})
"""Statuses of a server that is busy, which say nothing about the request."""
SHORTEST_KEY: Final = 8
"""Characters of a key that is blotted out; a shorter one (`none`) keeps nothing secret."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server answered to one request."""

    text: str
    """The text of the answer, or of the refusal, verbatim."""
    version: str
    """The model that the server says has answered; empty where it does not say."""
    finish: str
    """Why the text ends: `stop`, `length`, `content_filter`, …"""
    prompt_tokens: int | None
    completion_tokens: int | None
    """As the server counts them; None where it does not."""
    refused: bool = False


class AnswerError(Exception):
    """One request has no answer, which is the outcome of its structure.

    Args:
        status: The outcome.
        detail: The reason, in one line.
    """

    def __init__(self, status: Status, detail: str) -> None:
        super().__init__(detail)
        self.status = status


def is_loopback(url: str) -> bool:
    """Say whether a URL names this machine itself, so that nothing goes over a network."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def key_variable(url: str) -> str:
    """Name the environment variable of a server's key; OpenAI's goes to OpenAI alone."""
    return "OPENAI_API_KEY" if url == API else "CHAT_API_KEY"


def read_key(url: str) -> str:
    """Read the key of a server from the environment; empty where it is not set.

    Raises:
        UserError: It has characters that no key has, or OpenAI's is not set.
    """
    name = key_variable(url)
    key = os.environ.get(name, "").strip()
    if not all("!" <= letter <= "~" for letter in key):
        raise UserError(f"{name} holds a space or a letter that no key has: set it again")
    if not key and url == API:
        raise UserError(f"{name} is not set: export the key, or name another server by @URL")
    return key


class Server:
    """Asks one model of one server; several threads may ask at the same time.

    Args:
        model: The name of the model, as the server knows it.
        url: The base URL, which mostly ends with `/v1`.

    Raises:
        UserError: The key cannot be used.
    """

    def __init__(self, model: str, url: str) -> None:
        self.model, self.url = model, url
        self._key = read_key(url)
        self._client = openai.OpenAI(
            base_url=url,
            api_key=self._key or "none",
            max_retries=0,
            # A redirect could leave this machine, and a proxy has no part in what stays on it.
            http_client=httpx2.Client(follow_redirects=False, trust_env=not is_loopback(url)),
        )
        self._reached = False
        """A server that has never been there is not waited for."""
        if url != API:  # names of an account that the environment may hold
            self._client.organization = self._client.project = None

    def version(self, limit: float = 300.0) -> str:
        """Ask the server which model answers, by one question of a few tokens.

        Args:
            limit: The time that it has [s]; a local server loads its model first.

        Raises:
            UserError: It does not answer, with the reason.
        """
        question = [{"role": "user", "content": "Answer with the one word: ready"}]
        try:
            return self.ask({"messages": question, **self.limit_of(16)}, limit).version
        except (AnswerError, UnavailableError) as error:
            raise UserError(str(error)) from None

    def limit_of(self, n_tokens: int) -> dict[str, int]:
        """Write the largest number of tokens as the server wants it; OpenAI has renamed it."""
        return {"max_completion_tokens" if self.url == API else "max_tokens": n_tokens}

    def ask(self, request: Mapping[str, Any], limit: float) -> Reply:
        """Send one request, again after faults that may pass.

        Args:
            request: The fields of the request beside the model.
            limit: The time for all attempts and waits [s].

        Raises:
            AnswerError: This request has no answer.
            UnavailableError: The server cannot be asked: it refuses the key or the model, or it
                was busy or out of reach until the end.
        """
        end = time.monotonic() + limit
        wait, fault = FIRST_WAIT, ""
        for attempt in count(1):
            asked: float | None = None
            left = end - time.monotonic()
            try:
                body = self._send(request, end)
            except openai.APIStatusError as error:
                self._reached = True
                asked = self._judge(error, last=attempt == ATTEMPTS)
                fault = f"status {error.status_code}{self._said(error)}"
            except (openai.APIConnectionError, httpx2.HTTPError) as error:
                cause = error.__cause__ or error
                connected = not isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout)
                if isinstance(cause, httpx2.TimeoutException) and connected:
                    if left < limit / 2:  # what came before took the time
                        self._unavailable(f"{fault}, {attempt - 1} times within {limit:g} s")
                    late = f"the server gave no answer within {limit:g} s"
                    raise AnswerError(Status.RESOURCE, late) from None
                fault = self._line(f"{type(cause).__name__}: {cause}")
                if not (connected or self._reached):
                    self._unavailable(fault)
                if connected and attempt == ATTEMPTS:
                    cut = f"the connection broke {attempt} times, the last with {fault}"
                    raise AnswerError(Status.ERROR, cut) from None
            else:
                self._reached = True
                return self._read(body)
            pause = wait * random.uniform(0.5, 1.0) if asked is None else asked  # noqa: S311
            wait = min(2 * wait, LONGEST_WAIT)
            if time.monotonic() + pause >= end:
                self._unavailable(f"{fault}, {attempt} times within {limit:g} s")
            time.sleep(pause)
        raise AssertionError

    def _send(self, request: Mapping[str, Any], end: float) -> bytes:
        """Send a request and read the body of its reply, up to `LARGEST` and until `end`."""
        left = max(end - time.monotonic(), 0.001)
        body = bytearray()
        with self._client.chat.completions.with_streaming_response.create(
            model=self.model,
            timeout=httpx2.Timeout(left, connect=min(left, CONNECT)),
            **request,
        ) as response:
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > LARGEST:
                    raise AnswerError(Status.INVALID, f"a reply of more than {LARGEST} bytes")
                if time.monotonic() > end:  # it drips
                    raise httpx2.ReadTimeout("too slow")
        return bytes(body)

    def _judge(self, error: openai.APIStatusError, *, last: bool) -> float | None:
        """Decide about a status: return if it may pass, with the wait [s] that the server wants."""
        status, said = error.status_code, self._said(error)
        if status in (401, 403):
            variable = key_variable(self.url)
            key = f"the key of {variable}" if self._key else f"a request without key ({variable})"
            self._unavailable(f"it refuses {key}{said}")
        if status == 404:
            self._unavailable(f"it has no model {self.model}, or its URL ends otherwise{said}")
        if status == 402 or error.code == "insufficient_quota":
            self._unavailable(f"the account has no credit left{said}")
        if 300 <= status < 400:
            self._unavailable("it sends to another address: give that one")
        if status not in PASSING and (status < 500 or last):
            long = "context" in said and ("length" in said or "window" in said)
            outcome = Status.UNSUPPORTED if long and status < 500 else Status.ERROR
            raise AnswerError(outcome, f"the server answered with status {status}{said}") from None
        return _retry_after(error.response.headers.get("retry-after", ""))

    def _unavailable(self, reason: str) -> NoReturn:
        raise UnavailableError(f"{self.model} at {self.url} cannot be asked: {reason}") from None

    def _read(self, body: bytes) -> Reply:
        """Read a reply, which may be anything.

        Raises:
            AnswerError: It is none.
        """
        try:
            content = json.loads(body)
            choice = content["choices"][0]
            message = choice["message"]
            refusal, text = message.get("refusal"), message.get("content")
            usage = content.get("usage") or {}
            counts = [usage.get(f"{kind}_tokens") for kind in ("prompt", "completion")]
            version, finish = content.get("model"), choice.get("finish_reason")
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            begin = self._line(body[:100].decode(errors="replace"))
            detail = f"the server's reply is none of a chat: {begin}"
            raise AnswerError(Status.ERROR, detail) from None
        prompt, completion = (x if type(x) is int and 0 <= x < 2**53 else None for x in counts)
        return Reply(
            self._blotted(refusal or text),
            self._line(version),
            self._line(finish),
            prompt,
            completion,
            refused=bool(refusal) or finish == "content_filter",
        )

    def _said(self, error: openai.APIStatusError) -> str:
        body = error.body
        text = body.get("message") if isinstance(body, dict) else body
        return f" ({said})" if (said := self._line(text)) else ""

    def _blotted(self, value: object) -> str:
        """Give a text of the server without our key and without halves of surrogate pairs."""
        text = value if isinstance(value, str) else ""
        text = text.encode("utf-8", "replace").decode("utf-8")
        return text.replace(self._key, "[key]") if len(self._key) >= SHORTEST_KEY else text

    def _line(self, value: object) -> str:
        """Give a text of the server as a part of one line: short, printable, without our key."""
        words = " ".join(self._blotted(value).split())
        line = "".join(letter for letter in words if letter.isprintable())
        return line if len(line) <= 200 else f"{line[:200]} …"


def _retry_after(value: str) -> float | None:
    """Read a `Retry-After`, seconds or a date, as seconds from now; None if it is neither."""
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return max(seconds, 0.0) if seconds < float("inf") else None
