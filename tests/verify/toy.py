"""Engine of a few lines: a linear recurrence in numpy, right unless a fault is planted, that can be asked as little as a server."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from kleval.types import Completion, Failure, Outcome, Request

VOCAB, WIDTH = 257, 24
_rng = np.random.default_rng(0)
EMBED = _rng.normal(size=(VOCAB, WIDTH))
HEAD = _rng.normal(size=(WIDTH, VOCAB))


class Letters:
    """A character per token."""

    name, digest, chat_template_digest = "letters", "", ""

    def encode(self, text: str) -> list[int]:
        return [(ord(c) - 64) % VOCAB for c in text]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(64 + i) for i in ids)

    def count(self, text: str) -> int:
        return len(text)

    def render(self, prompt: Any, answer_prefix: str = "") -> str:
        return f"{prompt}{answer_prefix}"


@dataclass
class Toy:
    """abilities: of `scores`, `tells` and `ids`. fault: a name that `run` knows. dies_after: requests; noise: of each number, nats."""

    fault: str = ""
    abilities: tuple[str, ...] = ("scores", "tells", "ids")
    dies_after: float = math.inf
    noise: float = 0.0
    dtype: str = "float32"
    max_ctx: int | None = 400
    name: str = "toy"
    model: str = "toy"
    tokenizer: Any = field(default_factory=Letters)
    keeps: float = 0.97  # of its state at each token
    rounded: float = 0.0  # its state and its logits, to multiples of it
    decimals: int = 15  # of the log-probabilities that it tells
    finite_to: float = math.inf  # tokens, past which its numbers are not
    silent: bool = False  # it writes nothing after a prompt that it knows
    written: set[tuple[int, ...]] = field(default_factory=set)
    n_asked: int = 0
    left: np.ndarray = field(default_factory=lambda: np.zeros(WIDTH))

    def describe(self) -> dict[str, Any]:
        return {"dtype": self.dtype, "prompts_sent_as": "token ids" if "ids" in self.abilities else "text"}

    def vocabulary(self) -> range:
        return range(VOCAB)

    def close(self) -> None: ...

    def run(self, requests: Sequence[Request]) -> Iterator[tuple[int, Outcome]]:
        for position, request in enumerate(requests):
            self.n_asked += 1
            if self.n_asked > self.dies_after:
                yield position, Failure("server", "connection refused", retryable=True)
                continue
            yield position, self._answer(request, len(requests))

    def _answer(self, request: Request, together: int) -> Outcome:
        ids = list(request.token_ids if request.token_ids is not None else self.tokenizer.encode(str(request.prompt)))
        if max(ids, default=0) >= VOCAB:
            return Failure("bad_request", "no such token")
        if self.max_ctx is not None and len(ids) > self.max_ctx:
            return Failure("context_overflow", "too long")
        scoring = request.kind == "loglikelihood"
        if scoring and "scores" not in self.abilities:
            return Failure("bad_request", "no log-probabilities of prompts")
        whole = [*ids, *(request.continuation_ids or ())]
        if len(whole) > self.finite_to:
            return Failure("server", "the server gives nan as log-probability")
        known = scoring or not self.silent or self.n_asked <= 2 or tuple(ids) not in self.written
        self.written.add(tuple(ids))
        if not known:
            return Failure("empty", "an answer without a single token")
        state = self.left * 0.5 if self.fault == "slot" and not scoring else np.zeros(WIDTH)
        at_each = []
        for n, token in enumerate(whole):
            if self.fault == "chunk" and n % 16 == 0:
                state = state * 0.7
            if self.fault == "forgets" and n == 70:
                state = np.zeros(WIDTH)
            state = self._step(state, token)
            at_each.append(state)
        if self.fault == "batch" and together > 1:
            at_each = [one * 0.2 for one in at_each]
        if self.fault == "future" and scoring and len(whole) % 16:
            at_each[-8:] = [one * (1 + 0.01 * whole[-1]) for one in at_each[-8:]]
        if scoring:
            chosen = [self._logprobs(s)[t] for s, t in zip(at_each[len(ids) - 1 :], whole[len(ids) :], strict=False)]
            return Completion(
                "", len(ids), len(chosen), "length", tuple(whole[len(ids) :]), sum(chosen), logprobs=tuple(chosen)
            )
        return self._written(request, ids, at_each[-1])

    def _written(self, request: Request, ids: list[int], state: np.ndarray) -> Completion:
        new, told, likely = [], [], []
        for n in range(request.max_new_tokens):
            each = self._logprobs(state)
            token = (int(each.argmax()) + (7 * n + request.seed) % 5 * (request.temperature > 0)) % (VOCAB - 1)
            new.append(token)
            told.append(float(each[token]))
            likely.append({int(t): float(each[t]) for t in each.argsort()[-5:]})
            state = self._step(state, token)
        self.left = state
        text = self.tokenizer.decode(new)
        stops = [(text.find(s), len(s)) for s in request.stop if s in text]
        cut, more = min(stops, default=(len(text), 0))
        if stops and self.fault != "stop":  # else it is the client alone who cuts
            new, told, likely = (each[: cut + more] for each in (new, told, likely))
        why: Any = "stop" if stops else "length"
        found = Completion(text[:cut], len(ids), len(new), why, tuple(new), logprobs=tuple(told), likely=tuple(likely))
        found = found if "tells" in self.abilities else replace(found, logprobs=(), likely=())
        return found if "ids" in self.abilities else replace(found, token_ids=())

    def _step(self, state: np.ndarray, token: int) -> np.ndarray:
        return state * self.keeps + EMBED[token]

    def _logprobs(self, state: np.ndarray) -> np.ndarray:
        if self.rounded:
            state = np.round(state / self.rounded / 16) * self.rounded * 16
        logits = np.tanh(state / 4) @ HEAD / 2
        if self.rounded:
            logits = np.round(logits / self.rounded) * self.rounded
        logits = logits + self.noise * np.random.default_rng(self.n_asked).normal(size=VOCAB)
        return (logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()).round(self.decimals)
