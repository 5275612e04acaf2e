"""The few words everybody speaks: what is asked, what came back, what it is worth.

A `Task` turns a context length into `Sample`s and, step by step, a sample into `Request`s and finally a `Score`.
A `Backend` turns requests into `Outcome`s. Neither knows the other; the harness carries the objects between them.
Everything here is plain data: no torch, no files, no network.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

Message = Mapping[str, str]  # {"role": ..., "content": ...}
Prompt = str | tuple[Message, ...]

RequestKind = Literal["generate", "loglikelihood", "judge"]
FinishReason = Literal["eos", "stop", "length"]
FailureKind = Literal[
    "context_overflow",
    "rate_limit",
    "timeout",
    "server",
    "bad_request",
    "empty",
    "reasoning_cut",
    "judge",
    "not_asked",
    "out_of_memory",
    "internal",
    # Of requests that are timed: an answer that ended early, that came all at once, a prompt of another length than asked.
    "fewer_tokens",
    "not_streamed",
    "prompt_length",
]


# How the protocols of paired likelihood begin (`kleval.tasks.likelihood`), and what their metrics are in.
LIKELIHOOD, NATS = "likelihood-", "nats per token"


# Exit codes: done, internal error, usage, finished incomplete, regression found, undecided, interrupted with the state saved.
OK, INTERNAL, USAGE, INCOMPLETE, REGRESSION, UNDECIDED, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130


class UsageError(Exception):
    """Something the user asked for cannot be done as asked. One line that says what to do; exit code 2."""


class ContextTooSmall(UsageError):
    """A task does not fit into the context that was asked for.

    minimum_tokens: the smallest ctx at which it fits, as far as the task can tell.
    """

    def __init__(self, message: str, minimum_tokens: int) -> None:
        super().__init__(message)
        self.minimum_tokens = minimum_tokens


class TextTooShort(ContextTooSmall):
    """No text of a task is as long as the context that was asked for: a shorter one helps. minimum_tokens: of the longest."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One question, made deterministically.

    id: stable, derived from task, version, edition, length, seed and index.
    prompt: without the answer prefix. answer_prefix: what the model's answer is made to begin with; it sits after any
    assistant header, so that generation continues it, and is sent even when empty.
    prompt_tokens: tokens of the rendered prompt + answer prefix, in the tokenizer that made the sample; the sample holds
    prompt_tokens + max_new_tokens <= ctx.
    meta: what a reader of the row may want to know (needle depth, haystack size); JSON values only.
    """

    id: str
    task: str
    ctx: int
    index: int
    prompt: Prompt
    references: tuple[str, ...]
    max_new_tokens: int
    prompt_tokens: int
    answer_prefix: str = ""
    stop: tuple[str, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def prompt_hash(self) -> str:
        """sha256 over prompt and answer prefix, hex."""
        return prompt_hash(self.prompt, self.answer_prefix)


@dataclass(frozen=True, slots=True)
class Unfit:
    """What stands in place of a sample whose data do not fit into ctx: never cut, never asked, counted as skipped.

    index: of the sample in its data. minimum_tokens: the smallest ctx at which it fits, as far as the task can tell.
    """

    index: int
    reason: str
    minimum_tokens: int


@dataclass(frozen=True, slots=True)
class Request:
    """One call to a model.

    kind: `generate` and `judge` ask for text, `loglikelihood` for the log-probability of `continuation` after the prompt.
    token_ids: the rendered prompt + answer prefix in the backend's own tokenizer; set by the harness, used by every
    backend that takes ids, so that all see the same prompt. continuation_ids: likewise of `continuation`, as
    `kleval.tokenization.encode_pair` splits the two.
    temperature 0 is greedy. seed makes sampling reproducible per request. logprobs: tell the log-probability of each token, of the
    continuation or of the answer, where the backend can; of an answer's also those of so many most likely tokens.
    """

    kind: RequestKind
    prompt: Prompt
    answer_prefix: str = ""
    continuation: str = ""
    max_new_tokens: int = 0
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    token_ids: tuple[int, ...] | None = None
    continuation_ids: tuple[int, ...] | None = None
    logprobs: int = 0

    @property
    def fault(self) -> str:
        """Why no engine can answer it, "" where one may."""
        if self.kind != "loglikelihood":
            return "" if self.max_new_tokens >= 1 else f"max_new_tokens is {self.max_new_tokens}: at least 1 is needed"
        if self.token_ids is not None and self.continuation_ids is None:
            return "token_ids without continuation_ids: give both, as kleval.tokenization.encode_pair makes them, or neither"
        return ""


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model answered.

    text: the generated text, without prompt and answer prefix, cut before a stop string. reasoning: what a model wrote before its
    answer and is not part of it; a backend tells what a server sent apart, the harness reads what stands in the text.
    logprob_sum: for `loglikelihood`, the natural-log probability of the continuation; greedy: whether it is the argmax.
    seconds: wall time of the call that produced it, divided among the requests it served together.
    notes: remarks on the answer for its row. logprobs: of each token, where they were asked for and the backend tells them; else empty.
    likely: the most likely tokens at each place of an answer, by id or as the server spells them, with their log-probabilities.
    """

    text: str
    prompt_tokens: int
    output_tokens: int
    finish_reason: FinishReason = "eos"
    token_ids: tuple[int, ...] = ()
    logprob_sum: float | None = None
    greedy: bool | None = None
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    reasoning: str = ""
    logprobs: tuple[float, ...] = ()
    likely: tuple[Mapping[int | str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no answer. Never the empty string, never a wrong answer. traceback: of a fault in a task's own code."""

    kind: FailureKind
    message: str
    retryable: bool = False
    traceback: str = ""


Outcome = Completion | Failure


class TimedRequest(NamedTuple):
    """A request that is timed: its answer has max_new_tokens tokens, whatever would end it before. submit_seconds: when it is
    submitted, from the begin of the round. free: it is asked as `Backend.run` asks it, its answer ends where the model or a stop
    string ends it, and the trace has its outcome; of backends that say `times_answers` alone."""

    request: Request
    submit_seconds: float = 0.0
    free: bool = False


class Arrival(NamedTuple):
    """Content that reached the caller at once. seconds: of the round's clock. tokens: how many, None where that is not told.
    late_seconds: by how much the caller may have noted it too late."""

    seconds: float
    tokens: int | None = None
    late_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Trace:
    """One timed request as its caller saw it. What is not known is None.

    submitted: when it was sent, seconds of the clock of the arrivals (to an engine in this process: when it was due). arrivals: in
    order. output_tokens, prompt_tokens, cached_tokens: as the engine counts them, never text tokenised again; where a server tells
    of cached tokens only how many all requests of a round had, they are shared out evenly. state_bytes: by component, of this
    sequence when its last token was made, measured. peak_bytes: most memory held while its round was under way (of the device; of
    the process on a CPU). failure: then the times count for nothing. late_seconds: how long after its time it was sent.
    connect_seconds: what opening its connection took, before it was sent; None on one that was open. outcome: of a free request,
    as `Backend.run` gives it.
    """

    submitted: float
    arrivals: tuple[Arrival, ...] = ()
    output_tokens: int | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    state_bytes: Mapping[str, int] | None = None
    peak_bytes: int | None = None
    failure: Failure | None = None
    late_seconds: float = 0.0
    connect_seconds: float | None = None
    outcome: Outcome | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """Metric name -> value in [0, 1] (shown x 100), or in the task's own unit; plus what was read out of the answer. NaN is "not
    scored"."""

    metrics: Mapping[str, float]
    extracted: Any = None

    def scored(self) -> bool:
        return any(not math.isnan(v) for v in self.metrics.values())


@runtime_checkable
class Tokenizer(Protocol):
    """Text to ids and back.

    name: how a user names it (`words`, `tiktoken:cl100k_base`, `hf:PATH`, `kimi-linear@nano`).
    digest: sha256 over what defines it, hex. chat_template_digest: the same for its chat template, "" when it has none.
    """

    name: str
    digest: str
    chat_template_digest: str

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: Sequence[int]) -> str: ...

    def count(self, text: str) -> int: ...

    def render(self, prompt: Prompt, answer_prefix: str = "") -> str:
        """The exact text that the model sees: prompt, chat template if there is one, answer prefix last."""
        ...


class Task(Protocol):
    """What is asked and how it is scored.

    id: `family/task`. metric: the headline metric's name. edition: `official` or `builtin`. protocol: name and version of
    prompt + scoring. data_revision, data_digest: where the data come from and their sha256.
    """

    id: str
    version: str
    metric: str
    edition: str
    protocol: str
    data_revision: str
    data_digest: str

    def samples(self, tokenizer: Tokenizer, ctx: int, n: int, seed: int) -> Iterator[Sample | Unfit]:
        """The first n samples that fit into ctx, in the data's order, with an Unfit for each one passed over on the way.

        Fewer when the data end. Raises ContextTooSmall where the task as a whole does not fit.
        """
        ...

    def step(self, sample: Sample, outcomes: Sequence[Completion]) -> Sequence[Request] | Score | Failure:
        """The next requests, given the completions of all earlier ones in order; or the score; or why there is none
        (an empty answer where the protocol calls that a failure, a judge's verdict that cannot be read)."""
        ...


class TaskOptions(Protocol):
    """What a task may have besides the members of Task: each is read where it is there, and nothing fails without.

    What a task needs, `kleval run` asks for before anything is answered; a family with a card says it there (`needs`). `counts` gives
    a `kleval.tasks.counts.Counts`, or None.
    """

    description: str  # what `kleval ls tasks` shows of a task without a card
    needs_judge: bool  # a judge: --judge-model
    needs_code_execution: bool  # to run what the model writes: --allow-code-execution and a sandbox that isolates
    needs_continued_text: bool  # an endpoint that goes on from a text, as its samples have an answer prefix
    needs_likelihoods: bool  # a backend that gives likelihoods of texts
    unwrapped: Any  # the task itself, of one that asks another task's samples in a form of its own
    without_prefix: str  # the protocol that does without; named where an endpoint cannot do that
    grows: bool  # False: prompts do not grow with ctx, so that one length asks all there is to ask
    together: int  # how many samples of a length, in a row, one shard of a run has, as they are made or asked together; 0: all
    finds_needles: bool  # rows of `kleval generate` say at which token the first reference stands
    also_reads: str  # stands for data that data_digest leaves out (a word list's hash): the sample cache keeps by it
    code: tuple[str, str]  # digests of the user's code that asks and that scores, where the class is not the user's

    def card(self) -> dict[str, Any]:
        """What the task is and where it comes from, JSON values. `kleval ls tasks` shows its `description`, with --card all of it."""
        ...

    def counts(self) -> Any:
        """What the official edition asks, known without its data: `kleval plan` counts by it."""
        ...

    def question_alone(self, sample: Sample) -> Any:
        """The prompt without its context: `--protocol likelihood` asks both."""
        ...

    def whole_answer(self, sample: Sample) -> str:
        """The right answer as one text, of a task whose references are its parts in their order: `--protocol likelihood` scores it."""
        ...

    def reads_at(self, ctx: int) -> list[int]:
        """Tokens that each of its requests at a length reads, where they are not alike: the forecast counts by them."""
        ...

    def samples_at(
        self, tokenizer: Tokenizer, ctx: int, indices: Iterable[int], seed: int
    ) -> Iterator[Sample | Unfit] | None:
        """The samples with those indices, made without the others, for a shard of a run; None where that cannot be done."""
        ...


class Backend(Protocol):
    """Something that answers requests.

    model: the name that is printed (`kimi-linear@nano`). max_ctx: the longest prompt + output it takes, None if unbounded.
    More may be there: the method `renders(request) -> bool`, whether the prompt's last words are known here (a chat endpoint has
    a template of its own), and `continues_answers`, whether it goes on from an answer prefix. `paid`: asking may cost money.
    """

    name: str
    model: str
    tokenizer: Tokenizer
    max_ctx: int | None

    def describe(self) -> dict[str, Any]:
        """Settings for the run's manifest: versions, dtype, device, weights digest, whatever changes results. JSON values."""
        ...

    def run(self, requests: Sequence[Request]) -> Iterator[tuple[int, Outcome]]:
        """Answer all, yielding (position in requests, outcome) as each finishes, in any order, each exactly once.

        A request that cannot be answered yields a Failure; run itself raises only on a fault of the backend as a whole.
        """
        ...

    def close(self) -> None: ...


class Timed(Backend, Protocol):
    """A backend whose requests can be timed, as `kleval profile` does: `timed` is all that it takes.

    Two more methods may be there. `describe_timed() -> dict` says what shapes the times, JSON values (`prompts`: `token ids`,
    `text` or `chat`, the first where it does not say; `ignore_eos`; `server` for one behind an address), and under
    `environment` what may differ from session to session (versions). `vocabulary() -> Sequence[int]`: ids that random prompts
    are made of; without it they are those of random words in the backend's tokenizer. `times_answers`: true where requests may be
    `free`, so that what is timed can be scored. `memory_told() -> dict`: what the engine says of its caches, as vLLM's `/metrics`
    (`metrics`), its cache configuration (`cache`) or llama.cpp's `/props` (`props`).
    """

    def timed(self, requests: Sequence[TimedRequest], together: int | None = None) -> Sequence[Trace]:
        """Submit each at its time and return when all are over: one trace per request, in order. together: no more than so many may
        be under way, and one that is due waits for another's end; given for `--steady` alone.

        A request that fails has a trace with its Failure; timed itself raises only on a fault of the backend as a whole.
        """
        ...


def unit_of(protocol: str) -> str:
    """What the metrics of a protocol are in; "" where they are shares in [0, 1], which are shown x 100."""
    return NATS if protocol.startswith(LIKELIHOOD) else ""


def prompt_hash(prompt: Prompt, answer_prefix: str) -> str:
    """sha256 (hex) of a prompt as it is stored: text, or the messages' roles and contents, then the answer prefix."""
    h = hashlib.sha256()
    parts = [prompt] if isinstance(prompt, str) else [p for m in prompt for p in (m["role"], m["content"])]
    for part in [*parts, answer_prefix]:
        raw = part.encode("utf-8", "surrogatepass")
        h.update(len(raw).to_bytes(8, "big"))
        h.update(raw)
    return h.hexdigest()
