"""Requests made ready to be sent: token ids, seed, sampling and generation budget, and whether they fit."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kleval.backends.reasoning import TAGS
from kleval.harness.reading import Reading
from kleval.text import format_length
from kleval.tokenization import encode_pair
from kleval.types import Backend, Completion, Failure, Outcome, Prompt, Request, Sample, Task, Tokenizer
from kleval.work.loop import describe

SHORT_QUESTION_TOKENS = 2048  # models that reason take some hundreds of tokens for it


@dataclass(frozen=True, slots=True)
class Policy:
    """How requests are asked. counter: the tokenizer of the samples' lengths; None when it is the backend's own.

    reasoning: pairs of tags that it stands between. max_new_tokens: that generation budgets are raised to.
    opened: by model, the tag that its server's template turned out to open, "" for none, None where a question showed nothing.
    sleep, on_retry(n requests, seconds, message): called between the attempts.
    """

    seed: int = 0
    temperature: float | None = None
    top_p: float | None = None
    retries: int = 3
    retry_seconds: float = 1.0
    counter: Tokenizer | None = None
    reasoning: Sequence[tuple[str, str]] = TAGS
    max_new_tokens: int = 0
    opened: dict[tuple[str, bool], str | None] = field(default_factory=dict)
    sleep: Callable[[float], None] = lambda seconds: None
    on_retry: Callable[[int, float, str], None] = lambda n, seconds, message: None


@dataclass(slots=True)
class Asked:
    """One sample on its way, once per repeat. token_ids: of its prompt + answer prefix in the backend's tokenizer, where
    they are known.

    records: one dict per request that was answered or failed, as kept in the row. begin_tokens: that the generation budget gave up.
    """

    task: Task
    sample: Sample
    repeat: int
    token_ids: tuple[int, ...] | None = None
    earlier: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    records: list[dict[str, Any]] = field(default_factory=list)
    completions: list[Completion] = field(default_factory=list)
    n_steps: int = 0
    open: int = 0
    begin_tokens: int = 0
    step_outcomes: dict[int, tuple[Request, int, Outcome]] = field(default_factory=dict)
    model: str = ""

    @property
    def label(self) -> str:
        return f"{self.model}, {self.task.id} at {format_length(self.sample.ctx)}"

    @property
    def prompt(self) -> Prompt:
        return self.sample.prompt

    @property
    def weight(self) -> int:
        """What it counts for in the progress: prompt and generation budget."""
        return self.sample.prompt_tokens + self.sample.max_new_tokens


@dataclass(slots=True)
class Call:
    asked: Asked
    position: int
    request: Request
    reading: Reading
    notes: tuple[str, ...] = ()
    attempts: int = 0

    @property
    def answering(self) -> tuple[str, bool]:
        """Who is asked: the model, or its judge."""
        return self.asked.model, self.request.kind == "judge"

    @property
    def length(self) -> int:
        return len(self.request.token_ids or ()) + self.request.max_new_tokens


def prepare(
    request: Request, position: int, before: int, asked: Asked, backend: Backend | None, policy: Policy
) -> Call | Failure:
    """The request as it is sent: seed, sampling, token ids; Failure(context_overflow) when it does not fit. before: requests of the
    sample's earlier steps."""
    assert backend is not None
    judging = request.kind == "judge"
    own = not judging and same_prompt(request, asked.sample)
    try:
        ids = asked.token_ids if own else None
        continuation = None
        if request.kind == "loglikelihood":
            rendered = backend.tokenizer.render(request.prompt, request.answer_prefix)
            ids, continuation = encode_pair(backend.tokenizer, rendered, request.continuation)
        elif ids is None:
            ids = encode(backend.tokenizer, request.prompt, request.answer_prefix)
        counted = len(ids)
        if policy.counter is not None:
            counted = asked.sample.prompt_tokens if own else count(policy.counter, request)
        new = request.max_new_tokens
        if continuation is not None:
            new = max(new, len(continuation))
        elif policy.max_new_tokens:
            room = (backend.max_ctx or math.inf) - len(ids) if judging else asked.sample.ctx - counted
            new = max(new, int(min(policy.max_new_tokens, room)))
        elif own and policy.counter is None:
            asked.begin_tokens = _for_begin_token(asked, counted, new)
            new -= asked.begin_tokens
        excused = asked.task.edition != "official" and not policy.max_new_tokens
        reading = Reading.of(replace(request, token_ids=ids), backend, policy.reasoning, excused)
    except Exception as error:
        return Failure("internal", f"cannot tokenize the request: {describe(error)}")
    if not judging and counted + new > asked.sample.ctx:
        return Failure("context_overflow", f"{counted} prompt + {new} new tokens exceed ctx {asked.sample.ctx}")
    if backend.max_ctx is not None and len(ids) + new > backend.max_ctx:
        return Failure(
            "context_overflow", f"{len(ids)} prompt + {new} new tokens exceed {backend.max_ctx}, the model's"
        )
    generating = request.kind == "generate"
    prepared = replace(
        request,
        max_new_tokens=request.max_new_tokens if continuation is not None else new,
        token_ids=ids,
        continuation_ids=continuation,
        seed=request_seed(policy.seed, asked.sample.id, asked.repeat, before + position),
        temperature=policy.temperature if generating and policy.temperature is not None else request.temperature,
        top_p=policy.top_p if generating and policy.top_p is not None else request.top_p,
    )
    return Call(asked, position, prepared, reading, _rendered_otherwise(prepared, backend))


def short_question(call: Call, backend: Backend) -> Call:
    """One that any model answers at once, beside its reasoning, asked as a call is: without a stop string and with a long budget."""
    prompt = ({"role": "user", "content": "Reply with the word OK."},)
    ids = encode(backend.tokenizer, prompt, "")
    new = int(min(SHORT_QUESTION_TOKENS, (backend.max_ctx or math.inf) - len(ids)))
    asked = replace(
        call.request, prompt=prompt, answer_prefix="", stop=(), max_new_tokens=new, token_ids=ids, logprobs=0
    )
    return replace(call, request=asked)


def _rendered_otherwise(request: Request, backend: Backend) -> tuple[str, ...]:
    """What the chat template makes of a request that its task wrote otherwise, where it is rendered here."""
    renders = getattr(backend, "renders", None)
    deviations = getattr(backend.tokenizer, "deviations", None)
    if deviations is None or not (renders is None or renders(request)):
        return ()
    found: tuple[str, ...] = deviations(request.prompt)
    return found


def _for_begin_token(asked: Asked, counted: int, new: int) -> int:
    """Tokens that the generation budget gives up for a begin token which an official protocol does not count."""
    over, uncounted = counted + new - asked.sample.ctx, counted - asked.sample.prompt_tokens
    return over if asked.task.edition == "official" and 0 < over <= uncounted and over < new else 0


def request_seed(seed: int, sample_id: str, repeat: int, number: int) -> int:
    """31 bits that depend on nothing but what is asked, so that any backend takes them and any order gives them."""
    digest = hashlib.sha256(f"{seed}|{sample_id}|{repeat}|{number}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def same_prompt(request: Request, sample: Sample) -> bool:
    return request.prompt == sample.prompt and request.answer_prefix == sample.answer_prefix


def encode(tokenizer: Tokenizer, prompt: Prompt, answer_prefix: str) -> tuple[int, ...]:
    return tuple(tokenizer.encode(tokenizer.render(prompt, answer_prefix)))


def count(tokenizer: Tokenizer, request: Request) -> int:
    return tokenizer.count(tokenizer.render(request.prompt, request.answer_prefix))
