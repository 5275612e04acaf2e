"""A window of samples through Task.step and Backend.run until each has its score or its failure.

Samples go in waves: what all of them ask next is one batch, longest first, so that what does not fit into memory shows at
once. Only what a sample itself was asked and answered decides what it is asked next and with which seed; batches, order
and neighbours do not.
"""

from __future__ import annotations

import math
import random
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from kleval.harness.earlier import completion_of, outcome_record
from kleval.harness.preparing import Asked, Call, Policy, prepare, same_prompt, short_question
from kleval.tasks.own.files import said
from kleval.types import (
    Backend,
    Completion,
    Failure,
    Outcome,
    Request,
    Score,
    Task,
    UsageError,
    unit_of,
)
from kleval.work.loop import describe

MAX_STEPS = 64
MAX_WAIT_SECONDS = 30.0
End = Score | Failure
Answer = tuple[int, Outcome] | None  # a position and what came; None: of replicas, nothing has come yet


def finish(
    window: Sequence[Asked], backend: Backend, judge: Backend | None, policy: Policy
) -> Iterator[tuple[Asked, End]]:
    """Each sample of the window with how it ended, as it ends. UsageError when a task wants a judge and there is none."""
    return (one for one in in_turn(window, backend, judge, policy) if one is not None)


def in_turn(
    window: Sequence[Asked], backend: Backend, judge: Backend | None, policy: Policy
) -> Iterator[tuple[Asked, End] | None]:
    """As `finish`; None where replicas have not answered yet, so that another window has its turn."""
    calls: list[Call] = []
    for asked in window:
        ended = _advance(asked, backend, judge, policy, calls)
        if ended is not None:
            yield asked, ended
    unsure: list[tuple[Call, Completion]] = []

    def find_out(call: Call) -> Iterator[tuple[Call, Outcome] | None]:
        answering = judge if call.request.kind == "judge" else backend
        return _answers([] if answering is None else [short_question(call, answering)], backend, judge)

    while calls or unsure:
        wave, calls = sorted(calls, key=lambda call: -call.length), []
        again: list[Call] = []
        failures: list[Failure] = []
        for told in _unsure_last(_answers(wave, backend, judge), unsure, find_out, policy):
            if told is None:
                yield None
                continue
            call, answered = told
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
    answers: Iterator[tuple[Call, Outcome] | None],
    unsure: list[tuple[Call, Completion]],
    find_out: Callable[[Call], Iterator[tuple[Call, Outcome] | None]],
    policy: Policy,
) -> Iterator[tuple[Call, Outcome] | None]:
    """The answers as they come, but those that may be reasoning alone when the others have shown whether it is; where none does, a
    short question shows it (`find_out`), asked once per model."""
    for answer in answers:
        if answer is None:
            yield None
            continue
        call, outcome = answer
        call.attempts += 1
        shown = call.reading.shows(outcome)
        if shown is not None and not policy.opened.get(call.answering):
            policy.opened[call.answering] = shown
        if not (isinstance(outcome, Completion) and call.reading.unsure(call.request, outcome)):
            yield call, outcome
        elif call.answering in policy.opened:
            yield _read_as(policy.opened[call.answering], call, outcome)
        else:
            unsure.append((call, outcome))
    waited = list(unsure)
    unsure.clear()
    for call, _ in waited:
        if call.answering in policy.opened:
            continue
        for told in find_out(call):
            if told is None:
                yield None
            elif isinstance(told[1], Completion):
                policy.opened[call.answering] = call.reading.shows_whole(told[1])
    for call, outcome in waited:
        yield _read_as(policy.opened.get(call.answering), call, outcome)


def _read_as(opened: str | None, call: Call, outcome: Completion) -> tuple[Call, Completion]:
    """An answer that may be reasoning alone, with what is known now of the tag that the server's template opens."""
    call.reading = replace(call.reading, opened=opened)
    if opened is None:
        note = "it was cut, and may be reasoning alone: nothing shows whether the server's template opens reasoning"
        outcome = replace(outcome, notes=(*outcome.notes, note))
    return call, outcome


def _answers(wave: Sequence[Call], backend: Backend, judge: Backend | None) -> Iterator[tuple[Call, Outcome] | None]:
    """Every call of the wave with its outcome, each exactly once, whatever the backends do."""
    for answering, judging in ((backend, False), (judge, True)):
        calls = [call for call in wave if (call.request.kind == "judge") == judging]
        if calls and answering is not None:
            for answer in run_safely(answering, [call.reading.sent(call.request) for call in calls]):
                yield None if answer is None else (calls[answer[0]], answer[1])


def run_safely(backend: Backend, requests: Sequence[Request]) -> Iterator[Answer]:
    """backend.run, but each position exactly once: an exception or a missing answer becomes Failure(internal)."""
    waiting = set(range(len(requests)))
    reason = f"{backend.name} gave no outcome for this request"
    answers: Iterator[Answer] | None = None
    try:
        while waiting:
            try:
                answers = answers if answers is not None else iter(backend.run(requests))
                answer = next(answers)
            except StopIteration:
                break
            except UsageError:
                raise
            except Exception as error:
                reason = describe(error)
                break
            if answer is None:
                yield None
                continue
            position, outcome = answer
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


def _advance(asked: Asked, backend: Backend, judge: Backend | None, policy: Policy, calls: list[Call]) -> End | None:
    """Ask the task what comes next: its end, or None after adding its requests to calls."""
    try:
        step = asked.task.step(asked.sample, tuple(asked.completions))
        if isinstance(step, Failure):
            return step
        if isinstance(step, Score):
            return checked(step, asked.task)
        requests = list(step)
    except UsageError:
        raise
    except Exception as error:
        return fault(asked.task, error)
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
        call = prepare(request, position, number, asked, judge if request.kind == "judge" else backend, policy)
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


def fault(task: Task, error: Exception) -> Failure:
    """A task's own code raised: where, and the traceback."""
    return Failure("internal", f"{task.id}: {said(error)}", traceback="".join(traceback.format_exception(error)))


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


def checked(score: Score, task: Task) -> End:
    """The score; a failure where its metrics are not as they must be."""
    if task.metric not in score.metrics:
        why = f"{task.id} scored without its metric {task.metric}: it has {', '.join(score.metrics) or 'none'}"
        return Failure("internal", why, traceback=why)
    bounded = not unit_of(task.protocol)
    wrong = {
        name: v for name, v in score.metrics.items() if not (v != v or (0 <= v <= 1 if bounded else math.isfinite(v)))
    }
    if wrong:
        why = f"{task.id} scored {'outside [0, 1]' if bounded else 'no number'}: {wrong}"
        return Failure("internal", why, traceback=why)
    return score
