"""A window of samples through Task.step and Backend.run until each has its score or its failure.

Samples go in waves: what all of them ask next is one batch, longest first, so that what does not fit into memory shows at
once. Only what a sample itself was asked and answered decides what it is asked next and with which seed; batches, order
and neighbours do not.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kleval.backends.reasoning import TAGS
from kleval.harness.earlier import completion_of, outcome_record
from kleval.harness.reading import Reading
from kleval.text import format_length
from kleval.tokenization import encode_pair
from kleval.types import (
    Backend,
    Completion,
    Failure,
    Outcome,
    Prompt,
    Request,
    Sample,
    Score,
    Task,
    Tokenizer,
    UsageError,
)
from kleval.work.loop import describe

MAX_STEPS = 64
MAX_WAIT_SECONDS = 30.0
End = Score | Failure


@dataclass(frozen=True, slots=True)
class Policy:
    """How requests are asked. counter: the tokenizer of the samples' lengths; None when it is the backend's own.

    reasoning: pairs of tags that it stands between. max_new_tokens: that generation budgets are raised to.
    opened: by model, the tag that its server's template turned out to open, "" for none. tried: models of which one answer was
    asked for again to find that out.
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
    opened: dict[tuple[str, bool], str] = field(default_factory=dict)
    tried: set[tuple[str, bool]] = field(default_factory=set)
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
class _Call:
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


def finish(
    window: Sequence[Asked], backend: Backend, judge: Backend | None, policy: Policy
) -> Iterator[tuple[Asked, End]]:
    """Each sample of the window with how it ended, as it ends. UsageError when a task wants a judge and there is none."""
    calls: list[_Call] = []
    for asked in window:
        ended = _advance(asked, backend, judge, policy, calls)
        if ended is not None:
            yield asked, ended
    unsure: list[tuple[_Call, Completion]] = []
    while calls or unsure:
        wave, calls = sorted(calls, key=lambda call: -call.length), []
        again: list[_Call] = []
        failures: list[Failure] = []
        for call, answered in _unsure_last(_answers(wave, backend, judge), unsure, calls, policy):
            outcome = call.reading.read(call.request, answered)
            if outcome is None:
                call.reading = replace(call.reading, unstopped=True)
                calls.append(call)
                continue
            if isinstance(outcome, Completion) and call.notes:
                outcome = replace(outcome, notes=(*outcome.notes, *call.notes))
            if isinstance(outcome, Failure) and outcome.retryable and call.attempts <= policy.retries:
                again.append(call)
                failures.append(outcome)
                continue
            asked = call.asked
            asked.step_outcomes[call.position] = (call.request, call.attempts, outcome)
            asked.open -= 1
            if asked.open == 0:
                ended = _close_step(asked) or _advance(asked, backend, judge, policy, calls)
                if ended is not None:
                    yield asked, ended
        if again:
            wait = policy.retry_seconds * 2 ** (max(call.attempts for call in again) - 1)
            wait = min(wait, MAX_WAIT_SECONDS) * random.uniform(0.5, 1.0)
            policy.on_retry(len(again), wait, f"{failures[-1].kind}: {failures[-1].message}")
            policy.sleep(wait)
            calls += again


def _unsure_last(
    answers: Iterator[tuple[_Call, Outcome]], unsure: list[tuple[_Call, Completion]], calls: list[_Call], policy: Policy
) -> Iterator[tuple[_Call, Outcome]]:
    """The answers as they come, but those that may be reasoning alone when the others have shown whether it is. Where none does, one
    that a stop string ended is asked for again without, once per model."""
    for call, outcome in answers:
        call.attempts += 1
        shown = call.reading.shows(outcome)
        if shown is not None:
            policy.opened.setdefault(call.answering, shown)
        if not (isinstance(outcome, Completion) and call.reading.unsure(call.request, outcome)):
            yield call, outcome
        elif call.answering in policy.opened:
            call.reading = replace(call.reading, opened=policy.opened[call.answering])
            yield call, outcome
        else:
            unsure.append((call, outcome))
    for call, outcome in unsure:
        known = call.answering in policy.opened or call.answering in policy.tried
        if not known and outcome.finish_reason == "stop":
            policy.tried.add(call.answering)
            unsure.remove((call, outcome))
            call.reading = replace(call.reading, unstopped=True)
            calls.append(call)
            return
    waited = list(unsure)
    unsure.clear()
    for call, outcome in waited:
        call.reading = replace(call.reading, opened=policy.opened.get(call.answering))
        yield call, outcome


def _answers(wave: Sequence[_Call], backend: Backend, judge: Backend | None) -> Iterator[tuple[_Call, Outcome]]:
    """Every call of the wave with its outcome, each exactly once, whatever the backends do."""
    for answering, judging in ((backend, False), (judge, True)):
        calls = [call for call in wave if (call.request.kind == "judge") == judging]
        if calls and answering is not None:
            for position, outcome in run_safely(answering, [call.reading.sent(call.request) for call in calls]):
                yield calls[position], outcome


def run_safely(backend: Backend, requests: Sequence[Request]) -> Iterator[tuple[int, Outcome]]:
    """backend.run, but each position exactly once: an exception or a missing answer becomes Failure(internal)."""
    waiting = set(range(len(requests)))
    reason = f"{backend.name} gave no outcome for this request"
    answers: Iterator[tuple[int, Outcome]] | None = None
    try:
        while waiting:
            try:
                answers = answers if answers is not None else iter(backend.run(requests))
                position, outcome = next(answers)
            except StopIteration:
                break
            except UsageError:
                raise
            except Exception as error:
                reason = describe(error)
                break
            if position in waiting:
                waiting.remove(position)
                yield position, sound(requests[position], outcome)
    finally:
        close = getattr(answers, "close", None)
        if close is not None:
            close()
    for position in sorted(waiting):
        yield position, Failure("internal", reason)


def sound(request: Request, outcome: Outcome) -> Outcome:
    """The outcome; a failure in place of what a task would score all the same: a likelihood that is missing or no number."""
    if isinstance(outcome, Failure):
        return outcome
    if not isinstance(outcome, Completion):
        return Failure("internal", f"the backend gave {type(outcome).__name__} in place of a Completion or a Failure")
    if request.kind == "loglikelihood":
        if outcome.logprob_sum is None:
            return Failure("bad_request", "the backend gave no log-likelihood")
        if not math.isfinite(outcome.logprob_sum):
            return Failure("internal", f"the log-likelihood is {outcome.logprob_sum}: too large for the model's dtype?")
    return outcome


def _advance(asked: Asked, backend: Backend, judge: Backend | None, policy: Policy, calls: list[_Call]) -> End | None:
    """Ask the task what comes next: its end, or None after adding its requests to calls."""
    try:
        step = asked.task.step(asked.sample, tuple(asked.completions))
        if isinstance(step, Failure):
            return step
        if isinstance(step, Score):
            return _checked(step, asked.task)
        requests = list(step)
    except UsageError:
        raise
    except Exception as error:
        return Failure("internal", f"{asked.task.id}: {describe(error)}")
    if not requests or asked.n_steps >= MAX_STEPS:
        what = "gave neither a request nor a score" if not requests else f"has no score after {MAX_STEPS} steps"
        return Failure("internal", f"{asked.task.id} {what}")
    if any(request.kind == "judge" for request in requests):
        if judge is None:
            raise UsageError(f"{asked.task.id} is scored by a judge: name one with --judge-model")
        answers = [record["text"] for record in asked.records if record["kind"] == "generate"]
        if answers and not any(text.strip() for text in answers):
            return Score({asked.task.metric: 0.0}, extracted="")  # a judge may call an empty answer right
    asked.n_steps += 1
    asked.open = len(requests)
    asked.step_outcomes = {}
    number = len(asked.records)
    for position, request in enumerate(requests):
        call = _prepare(request, position, number, asked, judge if request.kind == "judge" else backend, policy)
        if isinstance(call, Failure):
            asked.step_outcomes[position] = (request, 0, call)
            asked.open -= 1
            continue
        record = asked.earlier.get(number + position)
        known = completion_of(record, call.request)
        if record is not None and known is not None:
            asked.step_outcomes[position] = (call.request, record["attempts"], known)
            asked.open -= 1
        else:
            calls.append(call)
    if not any(isinstance(outcome, Failure) for _, _, outcome in asked.step_outcomes.values()):
        if asked.open:
            return None
        return _close_step(asked) or _advance(asked, backend, judge, policy, calls)
    # One request that cannot be asked decides the sample: the others of its step are not worth asking.
    calls[:] = [call for call in calls if call.asked is not asked]
    return _close_step(asked)


def _prepare(
    request: Request, position: int, before: int, asked: Asked, backend: Backend | None, policy: Policy
) -> _Call | Failure:
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
        excused = asked.task.edition == "builtin" and not policy.max_new_tokens
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
    return _Call(asked, position, prepared, reading, _rendered_otherwise(prepared, backend))


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


def _close_step(asked: Asked) -> Failure | None:
    """File the step's outcomes in the requests' order; the first failure among them ends the sample."""
    failure = None
    for _, (request, attempts, outcome) in sorted(asked.step_outcomes.items()):
        record = outcome_record(request, attempts, outcome)
        asked.records.append(record | _deviations(asked, request))
        if isinstance(outcome, Failure):
            failure = failure or outcome
        else:
            asked.completions.append(outcome)
    return failure


def _deviations(asked: Asked, request: Request) -> dict[str, Any]:
    """What the record of a request says beside its answer: how it was asked otherwise than its protocol has it."""
    if asked.begin_tokens and same_prompt(request, asked.sample):
        return {"budget_tokens_for_begin": asked.begin_tokens}
    return {}


def _checked(score: Score, task: Task) -> End:
    if task.metric not in score.metrics:
        return Failure("internal", f"{task.id} scored without its metric {task.metric}")
    wrong = {name: v for name, v in score.metrics.items() if not (v != v or 0 <= v <= 1)}
    if wrong:
        return Failure("internal", f"{task.id} scored outside [0, 1]: {wrong}")
    return score


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
