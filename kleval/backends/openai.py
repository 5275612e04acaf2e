"""Runs a model behind any OpenAI-compatible server: vLLM, SGLang, llama.cpp, hosted services.

Prompts go as token ids where the server takes them, so that it sees what every other backend sees; else as text, or as messages to the
chat endpoint. Which it is was tried when the backend was opened, and is in `describe`. Token counts are the server's own (usage), never
text counted again. What servers do without saying so is noticed: another model's answer, a prompt that was cut, an answer that was
clamped, half a stream. The parts: server_address (secrets), server_opening (probing), served_tokenizer, server_wire (requests and
streams), server_reply (an answer put together), server_answers (what counts as one), server_counts (prompts that were cut),
server_errors, server_pace (429), server_asking (the loop), server_timing, server_arrivals (of timed answers).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from kleval.backends.served_tokenizer import compare, counts_only, find_tokenizer, with_date
from kleval.backends.server_address import Server, parse_address
from kleval.backends.server_answers import Expected, generated, likelihood, tolerated_share
from kleval.backends.server_asking import Asker, in_background
from kleval.backends.server_counts import Doubted, PromptCounts, Shorter
from kleval.backends.server_errors import refused_field
from kleval.backends.server_opening import Served, choose_dialect, look
from kleval.backends.server_pace import Pace
from kleval.backends.server_reply import Answer
from kleval.backends.server_timing import Free, ServerTiming
from kleval.backends.server_tokenizer import RemoteTokenizer
from kleval.backends.server_wire import (
    CONTINUES_ANSWERS,
    OPTIONAL,
    Dialect,
    chat_messages,
    generation_body,
    likelihood_body,
)
from kleval.backends.spec import BackendSpec, without_secrets
from kleval.tokenization import ModelTokenizer, asked_with, dates, decode_behind, encode_pair
from kleval.types import Failure, Outcome, Request, TimedRequest, Tokenizer, Trace, UsageError


def open_openai(spec: BackendSpec) -> OpenAIBackend:
    """A backend for a model on the server at spec.base_url, after one token was generated on it.

    UsageError: no server answers there, it refuses the key, does not serve the model, or cuts text into other tokens.
    """
    if spec.base_url is None:
        raise UsageError("--backend openai needs the server's address: add --base-url, like http://localhost:8000/v1")
    spec.own_arguments("openai")
    server, served = look(parse_address(spec.base_url, spec.api_key_env), spec.model, spec.served_name)
    names = [spec.model, *([served.root] if served.root else [])]
    tokenizer = find_tokenizer(spec.tokenizer, names, server, spec.model, spec.api == "chat")
    of_model = isinstance(tokenizer, ModelTokenizer | RemoteTokenizer)
    ids, compared = None, "unknown"
    if of_model and spec.api != "chat":
        compared = compare(tokenizer, server, spec.model)
        ids = tokenizer.encode("Hello world")
    has_template = isinstance(tokenizer, ModelTokenizer) or bool(tokenizer.chat_template_digest)
    dialect, answers_as = choose_dialect(server, served, spec, ids, has_template)
    _check_begin(spec, dialect, tokenizer)
    # A template that is the server's alone is given its arguments with each request.
    only_there = (dialect.chats or dialect.prompts == "messages") and not tokenizer.chat_template_digest
    asked_with(tokenizer, spec.add_bos, {} if only_there else spec.template_args)
    dialect, dated = with_date(server, dialect, tokenizer)
    facts = {
        "software": served.software,
        "version": served.version,
        "served_from": served.root,
        "answers_as": answers_as,
        "server_tokenizer": compared,
        "tokenizer_counts_only": not of_model and counts_only(spec.tokenizer),
    }
    given: dict[str, Any] = {
        "served_name": spec.served_name,
        "request_fields": without_secrets(spec.request_fields),
        "without_fields": list(spec.without_fields),
        dates.ARGUMENT: dialect.template_args.get(dates.ARGUMENT),
        "caveat": dated,
    }
    facts |= {name: value for name, value in given.items() if value}
    return OpenAIBackend(spec, server, served, tokenizer, dialect, facts)


def _check_begin(spec: BackendSpec, dialect: Dialect, tokenizer: Tokenizer) -> None:
    """UsageError where --add-bos says what the way that prompts are sent cannot do."""
    if spec.add_bos == "auto":
        return
    if dialect.prompts == "messages":
        raise UsageError(
            f"--add-bos {spec.add_bos}: what a prompt begins with is up to the chat template of {spec.base_url}; leave it out, or "
            "use a server that answers /completions"
        )
    if spec.add_bos == "no" and dialect.prompts == "text" and dialect.adds_begin and _own_begin(tokenizer):
        raise UsageError(
            f"--add-bos no: {spec.base_url} is sent text and puts its begin token before it; leave it out, or give the model's "
            "tokenizer with --tokenizer hf:PATH, if the server takes token ids"
        )


def _own_begin(tokenizer: Tokenizer) -> str:
    return str(getattr(tokenizer, "own_begin", ""))


@dataclass(frozen=True, slots=True)
class _Job:
    request: Request
    ids: tuple[int, ...]
    continuation: tuple[int, ...]
    text: str | None


class OpenAIBackend:
    """kleval.types.Timed on one model of a server."""

    name = "openai"
    times_answers = True

    def __init__(
        self,
        spec: BackendSpec,
        server: Server,
        served: Served,
        tokenizer: Tokenizer,
        dialect: Dialect,
        facts: dict[str, Any] | None = None,
    ) -> None:
        self.model = spec.model
        self.tokenizer = tokenizer
        limits = [n for n in (served.max_ctx, spec.max_model_len) if n is not None]
        self.max_ctx: int | None = min(limits) if limits else None
        self.stats: dict[str, int] = {"prompt_tokens": 0, "output_tokens": 0, "rate_limited": 0}
        self._server, self._served, self._dialect = server, served, dialect
        self._facts = facts or {}
        self._spec = spec
        self._timer: ServerTiming | None = None
        self._learnt = False
        self._pace = Pace(spec.concurrency)
        self._asker = Asker(server, self._pace, spec.request_timeout, served.keeps_connections)
        self._tolerated = tolerated_share(tokenizer)
        self._counts = PromptCounts()
        self._refused: frozenset[str] = frozenset()  # fields of requests

    def describe(self) -> dict[str, Any]:
        return {
            "server": self._server.url,
            **self._facts,
            "prompts_sent_as": {"ids": "token ids", "text": "text", "messages": "chat messages"}[self._dialect.prompts],
            "messages_sent_as": "chat messages" if self._dialect.chats else "like other prompts",
            "streamed": self._dialect.stream,
            "tokenizer_sha256": self.tokenizer.digest,
            "max_ctx": self.max_ctx,
            "concurrency": self._pace.most,
            **self._hardware(),
        }

    def _hardware(self) -> dict[str, str]:
        return {"hardware": self._spec.hardware} if self._spec.hardware else {}

    def close(self) -> None:
        """Nothing is held between calls of `run`; of `timed` connections are."""
        if self._timer is not None:
            self._timer.close()
            self._timer = None

    def as_text(self, chats: bool = False) -> OpenAIBackend:
        """The same server sent text, also where it takes token ids: what it makes of that is its own tokenizer's. chats: messages
        go to its chat endpoint, and are its own template's."""
        prompts: Any = "text" if self._dialect.prompts == "ids" else self._dialect.prompts
        dialect = replace(self._dialect, prompts=prompts, chats=chats or self._dialect.chats)
        return OpenAIBackend(self._spec, self._server, self._served, self.tokenizer, dialect, self._facts)

    def timed(self, requests: Sequence[TimedRequest], together: int | None = None) -> list[Trace]:
        """All of them free, or none. UsageError when the key is refused, or the server streams nothing that can be counted."""
        if not any(one.free for one in requests):
            return self._timing().timed(requests, together)
        self._learn_fields(requests[0].request)
        jobs = [self._job(one.request) for one in requests]
        sent = [
            self._free(job, one.submit_seconds)
            for job, one in zip(jobs, requests, strict=True)
            if not isinstance(job, Failure)
        ]
        traces = iter(self._timing().free(sent, together) if sent else ())
        return [Trace(0.0, failure=job, outcome=job) if isinstance(job, Failure) else next(traces) for job in jobs]

    def _free(self, job: _Job, submit_seconds: float) -> Free:
        dialect = replace(self._dialect, without=(*self._dialect.without, *self._refused))
        body = generation_body(self._dialect, job.request, self._prompt(job))

        def judge(answer: Answer, seconds: float) -> Outcome:
            return self._noted(generated(answer, job.request, self._expected(job, None), seconds), body)

        return Free(job.request, dialect, body, submit_seconds, judge)

    def _learn_fields(self, like: Request) -> None:
        """Which fields the server refuses is found out before a round, with a short answer to another prompt."""
        if not self._learnt:
            self._learnt = True
            for _ in self.run([replace(like, prompt="Hello", token_ids=None, max_new_tokens=2)]):
                pass

    @property
    def paid(self) -> bool:
        """Whether asking may cost money: a key was given."""
        return self._server.has_key

    @property
    def continues_answers(self) -> bool:
        """Whether a prompt of text can have an answer prefix."""
        return self._dialect.prompts != "messages" or self._dialect.software in CONTINUES_ANSWERS

    def renders(self, request: Request) -> bool:
        """Whether the prompt is written here and not by the server's chat template."""
        return not self._dialect.is_chat(request)

    def describe_timed(self) -> dict[str, Any]:
        return self._timing().describe() | self._hardware()

    def memory_told(self) -> dict[str, Any]:
        return self._timing().memory_told()

    def vocabulary(self) -> Sequence[int]:
        """Empty where prompts are sent as text."""
        return self._timing().pool or ()

    def _timing(self) -> ServerTiming:
        """How the server is timed is found out with a few short answers, when it is first asked for."""
        if self._timer is None:
            self._timer = ServerTiming(self._server, self._served, self._spec)
        return self._timer

    def run(self, requests: Sequence[Request]) -> Iterator[tuple[int, Outcome]]:
        jobs: list[_Job] = []
        positions: list[int] = []
        for position, request in enumerate(requests):
            job = self._job(request)
            if isinstance(job, Failure):
                yield position, job
            else:
                jobs.append(job)
                positions.append(position)
        order = sorted(range(len(jobs)), key=lambda n: 0 if self._sends_ids(jobs[n].request) else len(jobs[n].ids))
        # Of prompts that a server cuts the short ones may be whole, and show what the long ones should have been counted as.
        jobs, positions = [jobs[n] for n in order], [positions[n] for n in order]
        if not jobs:
            return
        estimates = [0 if self._sends_ids(job.request) else len(job.ids) for job in jobs]
        shorter, doubted = Shorter(self._counts, estimates), list[tuple[int, Doubted]]()
        for number, outcome in in_background(jobs, self._answer, self._asker, self._spec.timeout):
            self.stats["rate_limited"] = self._pace.n_refused
            if isinstance(outcome, Doubted):
                doubted.append((number, outcome))
                continue
            for done, told in shorter.take(number, jobs[number].request, estimates[number], outcome):
                yield positions[done], told
        for number, one in doubted:
            yield positions[number], one.answer if self._counts.proven else one.failure
        for number, told in shorter.rest():
            yield positions[number], told

    def _job(self, request: Request) -> _Job | Failure:
        """The request as tokens, or why it is not worth sending."""
        scoring = request.kind == "loglikelihood"
        if request.fault:
            return Failure("bad_request", request.fault)
        if scoring and self._dialect.is_chat(request):
            return Failure(
                "bad_request",
                "the chat endpoint gives no likelihoods: use --api completions on a server that gives them, or another backend",
            )
        if request.answer_prefix and self._dialect.is_chat(request) and self._dialect.software not in CONTINUES_ANSWERS:
            return Failure(
                "bad_request",
                "the chat endpoint cannot be made to continue the answer prefix of this task: use a server that answers "
                "/completions, with --tokenizer hf:PATH of its model",
            )
        chat, exact = self._dialect.is_chat(request), self._sends_ids(request)
        rendered = None if exact or chat else self.tokenizer.render(request.prompt, request.answer_prefix)
        ids, continuation = request.token_ids, request.continuation_ids or ()
        if ids is None:
            whole = self.tokenizer.render(request.prompt, request.answer_prefix) if rendered is None else rendered
            if scoring:
                ids, continuation = encode_pair(self.tokenizer, whole, request.continuation)
            else:
                ids = tuple(self.tokenizer.encode(whole))
        if not ids or (scoring and not continuation):
            return Failure("bad_request", f"the {'continuation' if ids else 'prompt'} has no tokens")
        new = len(continuation) + 1 if scoring else request.max_new_tokens
        if exact and self.max_ctx is not None and len(ids) + new > self.max_ctx:
            return Failure(
                "context_overflow", f"{len(ids)} prompt + {new} new tokens exceed {self.max_ctx}, the server's"
            )
        return _Job(
            request, ids, continuation, None if rendered is None else self._as_text(rendered) + request.continuation
        )

    def _as_text(self, rendered: str) -> str:
        """A prompt for a server that is sent text, without the begin token that it puts before every text itself."""
        return str(rendered).removeprefix(_own_begin(self.tokenizer) if self._dialect.adds_begin else "")

    def _sends_ids(self, request: Request) -> bool:
        return self._dialect.prompts == "ids" and not self._dialect.is_chat(request)

    async def _answer(self, client: Any, job: _Job) -> Outcome:
        request, expected = job.request, self._expected(job, self._counts)
        scoring = request.kind == "loglikelihood"
        prompt = self._prompt(job)
        body = likelihood_body(self._dialect, prompt) if scoring else generation_body(self._dialect, request, prompt)
        answer, seconds = await self._ask(client, request, body)
        if isinstance(answer, Failure):
            return answer
        outcome: Outcome
        if scoring:
            outcome = likelihood(answer, request, job.ids, job.continuation, expected, seconds)
        else:
            outcome = generated(answer, request, expected, seconds)
        self._count(answer)
        return self._noted(outcome, body)

    def _expected(self, job: _Job, counts: PromptCounts | None) -> Expected:
        local = isinstance(self.tokenizer, ModelTokenizer)
        decode = self.tokenizer.decode if local else None
        written = partial(decode_behind, self.tokenizer, job.ids[-1] if job.ids else None) if local else None
        exact, accepts = self._sends_ids(job.request), self._served.accepts
        return Expected(
            self._server, self._dialect, len(job.ids), exact, self._tolerated, accepts, decode, counts, written
        )

    def _noted(self, outcome: Outcome, body: Mapping[str, Any]) -> Outcome:
        """With the fields that it was asked without."""
        left = sorted(name for name in self._refused if name in body)
        if not left or isinstance(outcome, Failure):
            return outcome
        note = f"sent without {', '.join(left)}, which the server refuses"
        return replace(outcome, notes=(*outcome.notes, note))

    async def _ask(self, client: Any, request: Request, body: Mapping[str, Any]) -> tuple[Answer | Failure, float]:
        """An answer, or why there is none. A field that the server refuses by name is left out, and stays so where that helped."""
        without, first = self._refused, None
        while True:
            dialect = replace(self._dialect, without=(*self._dialect.without, *without))
            path, stream = dialect.path(request), dialect.streams(request)
            answer, seconds = await self._asker.ask(client, path, dialect.encode(body), stream)
            if not isinstance(answer, Failure):
                self._refused |= without
                return answer, seconds
            first = first or answer
            refused = refused_field(answer, [name for name in OPTIONAL if name in body and name not in dialect.without])
            if refused is None:
                return first if answer.kind == "bad_request" else answer, seconds
            without |= {refused}

    def _prompt(self, job: _Job) -> Any:
        """What goes into the body: messages, ids, or text."""
        request = job.request
        if self._dialect.is_chat(request):
            return chat_messages(request)
        return [*job.ids, *job.continuation] if job.text is None else job.text

    def _count(self, answer: Answer) -> None:
        n_prompt, cached = answer.count("prompt_tokens") or 0, answer.cached_tokens
        self.stats["prompt_tokens"] += n_prompt
        self.stats["output_tokens"] += answer.count("completion_tokens") or 0
        if cached is not None:
            self.stats["cached_tokens"] = self.stats.get("cached_tokens", 0) + cached
            self.stats["prefilled_tokens"] = self.stats.get("prefilled_tokens", 0) + n_prompt - cached
        if answer.reasoning:
            self.stats["answers_with_reasoning"] = self.stats.get("answers_with_reasoning", 0) + 1
