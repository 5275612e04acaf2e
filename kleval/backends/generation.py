"""One request on its way through an engine in this process: what it still needs, which token comes next, when it is done.

Nothing here sees a batch: a row's tokens depend on its own logits and its own random state alone.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kleval.backends.reasoning import LAST_TOKENS, TURN_END_NOTE, first_stop, turn_end
from kleval.models.stepper import Steps
from kleval.tokenization import decode_behind, encode_pair
from kleval.types import Completion, Failure, FinishReason, Outcome, Request, Tokenizer

# Steps before answers are looked at: a stop string is seen then. A step is a third shorter without a look after each.
MANY_STEPS, FEW_STEPS = 16, 4
NOT_FINITE = Failure("internal", "the model's logits are not finite")
TOO_LATE = Failure("timeout", "no complete answer within the time of a request (--request-timeout)")


@dataclass(slots=True)
class Job:
    """position: in the caller's list. inputs: tokens of the prefill.

    first: the index in inputs from which on logits are wanted: one position to generate from, or one per token of
    `continuation`. arrivals: when each new token was known (time.perf_counter); deadline: when the request is given up, by that
    clock. state_bytes: of its row at its end, by component, where it is asked for.
    """

    position: int
    request: Request
    prompt: tuple[int, ...]
    continuation: tuple[int, ...] = ()
    new_ids: list[int] = field(default_factory=list)
    seconds: float = 0.0
    logprob_sum: float = 0.0
    logprobs: list[float] = field(default_factory=list)
    likely: list[dict[int | str, float]] = field(default_factory=list)
    greedy: bool = True
    rng: random.Random = field(default_factory=random.Random)
    arrivals: list[float] = field(default_factory=list)
    deadline: float = math.inf
    state_bytes: dict[str, int] | None = None

    @property
    def inputs(self) -> tuple[int, ...]:
        return self.prompt + self.continuation[:-1]

    @property
    def first(self) -> int:
        return len(self.prompt) - 1

    @property
    def total_tokens(self) -> int:
        """What the cache must hold at most."""
        return len(self.prompt) + max(len(self.continuation), self.request.max_new_tokens)

    def restart(self) -> None:
        """Forget what was generated; the next attempt gives the same."""
        self.new_ids, self.arrivals, self.logprobs, self.likely = [], [], [], []
        self.logprob_sum, self.greedy = 0.0, True
        self.rng = random.Random(self.request.seed)


def make_job(position: int, request: Request, tokenizer: Tokenizer, vocab_size: int, max_ctx: int) -> Job | Failure:
    """The request as tokens, or why it cannot be answered."""
    if request.fault:
        return Failure("bad_request", request.fault)
    ids, continuation = ids_of(request, tokenizer)
    scoring = request.kind == "loglikelihood"
    if not ids:
        return Failure("bad_request", "the prompt has no tokens")
    if scoring and not continuation:
        return Failure("bad_request", "the continuation has no tokens")
    if outside := [i for i in (*ids, *continuation) if not 0 <= i < vocab_size]:
        return Failure("bad_request", f"token id {outside[0]} is not in the vocabulary of {vocab_size}")
    job = Job(position, request, ids, continuation, rng=random.Random(request.seed))
    if job.total_tokens > max_ctx:
        extra = job.total_tokens - len(ids)
        return Failure("context_overflow", f"{len(ids)} prompt + {extra} new tokens exceed {max_ctx}, the model's")
    return job


def ids_of(request: Request, tokenizer: Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Token ids of prompt + answer prefix, and of the continuation (empty unless `loglikelihood`)."""
    scoring = request.kind == "loglikelihood"
    if request.token_ids is not None:
        return request.token_ids, request.continuation_ids or ()
    rendered = tokenizer.render(request.prompt, request.answer_prefix)
    return (
        encode_pair(tokenizer, rendered, request.continuation) if scoring else (tuple(tokenizer.encode(rendered)), ())
    )


def score_continuation(job: Job, logits: Tensor, offset: int) -> None:
    """Add the log-probabilities of continuation[offset : offset + n]. logits [n, V] of the positions before them."""
    wanted = torch.tensor(job.continuation[offset : offset + len(logits)], device=logits.device)
    chosen = logits.double().log_softmax(-1).gather(-1, wanted[:, None])
    job.logprob_sum += float(chosen.sum())
    if job.request.logprobs:
        job.logprobs += chosen[:, 0].tolist()
    job.greedy = job.greedy and bool((logits.argmax(-1) == wanted).all())


def next_token(job: Job, logits: Tensor, greedy: int) -> int:
    """The next token from logits [V]; greedy: their argmax.

    Sampling inverts the cumulative distribution of the tokens in order of probability, cut at top_p (the token that reaches it
    included), at one number of the request's own random generator: the same on any device and in any batch.
    """
    request = job.request
    if request.temperature <= 0:
        return greedy
    probabilities, order = (logits.double().cpu() / request.temperature).softmax(-1).sort(descending=True, stable=True)
    cumulative = probabilities.cumsum(-1)
    kept = max(1, int((cumulative - probabilities < request.top_p).sum()))
    at = torch.searchsorted(cumulative[:kept], job.rng.random() * cumulative[kept - 1], right=True)
    return int(order[min(int(at), kept - 1)])


def steps_at_once(active: Sequence[Job]) -> int:
    """How many steps of these may follow one another before anybody looks: one where a token is not simply the most likely one, or its
    probability is wanted. What a row has been given beyond its end is thrown away with it."""
    if any(job.request.temperature > 0 or job.request.logprobs for job in active):
        return 1
    most = FEW_STEPS if any(job.request.stop for job in active) else MANY_STEPS
    return min(most, *(job.request.max_new_tokens - len(job.new_ids) for job in active))


def advance(
    active: Sequence[Job], steps: Steps, tokenizer: Tokenizer, ends: Collection[int], seconds: float
) -> tuple[list[int], list[tuple[Job, Outcome]]]:
    """The tokens of some steps for every row of a batch, up to the row's end. ends: tokens that end an answer.

    Returns the rows that go on, and the jobs that have ended (a likelihood at once) with their outcomes. seconds: since the
    last call, shared out among the rows.
    """
    finite, best = steps.logits.isfinite().all(-1).tolist(), steps.logits.argmax(-1).tolist()
    kept: list[int] = []
    done: list[tuple[Job, Outcome]] = []
    for row, job in enumerate(active):
        job.seconds += seconds / len(active)
        outcome = None
        for chosen, known in zip(steps.chosen, steps.seconds, strict=True):
            if outcome := _take(job, chosen[row], known, tokenizer, ends):
                break
        else:
            if not (finite[row] and math.isfinite(job.logprob_sum)):
                outcome = NOT_FINITE
            elif job.continuation:
                outcome = completion(job, "length", tokenizer)
            else:
                token = next_token(job, steps.logits[row], best[row])
                outcome = _take(job, token, time.perf_counter(), tokenizer, ends, steps.logits[row])
        if outcome is None:
            kept.append(row)
        else:
            done.append((job, outcome))
    return kept, done


def _take(
    job: Job, token: int, known: float, tokenizer: Tokenizer, ends: Collection[int], logits: Tensor | None = None
) -> Outcome | None:
    """One token more, known then, chosen of logits [V]; what the job ends with, if it ends with it."""
    job.new_ids.append(token)
    job.arrivals.append(known)
    if job.request.logprobs and logits is not None:
        _tell(job, logits)
    if known > job.deadline:
        return TOO_LATE
    reason = finish_reason(job, tokenizer, ends)
    return None if reason is None else completion(job, reason, tokenizer)


def finish_reason(job: Job, tokenizer: Tokenizer, ends: Collection[int]) -> FinishReason | None:
    """Whether the tokens so far end the answer: one of `ends`, a stop string, or the budget."""
    if job.new_ids[-1] in ends:
        return "eos"
    if job.request.stop and _stop_at(job, tokenizer) is not None:
        return "stop"
    return "length" if len(job.new_ids) >= job.request.max_new_tokens else None


def completion(job: Job, reason: FinishReason, tokenizer: Tokenizer) -> Outcome:
    """What is returned: text without end of sequence and from the first stop string on; all produced token ids."""
    if job.request.kind == "loglikelihood":
        return Completion(
            job.request.continuation,
            len(job.prompt),
            len(job.continuation),
            "length",
            job.continuation,
            logprob_sum=job.logprob_sum,
            greedy=job.greedy,
            seconds=job.seconds,
            logprobs=tuple(job.logprobs),
        )
    text = decode_behind(tokenizer, job.prompt[-1], job.new_ids[:-1] if reason == "eos" else job.new_ids)
    notes: tuple[str, ...] = ()
    if reason == "stop":
        text = text[: first_stop(text, job.request.stop)]
    elif reason == "eos" and (end := turn_end(text, [tokenizer.decode([i]) for i in job.new_ids[-LAST_TOKENS:]])):
        text, notes = text.removesuffix(end), (TURN_END_NOTE.format(end.strip()),)
    return Completion(
        text,
        len(job.prompt),
        len(job.new_ids),
        reason,
        tuple(job.new_ids),
        seconds=job.seconds,
        notes=notes,
        logprobs=tuple(job.logprobs),
        likely=tuple(job.likely),
    )


def _tell(job: Job, logits: Tensor) -> None:
    """The log-probability of the token that was chosen from logits [V], and the most likely ones."""
    each = logits.double().log_softmax(-1)
    job.logprobs.append(float(each[job.new_ids[-1]]))
    values, ids = each.topk(min(job.request.logprobs, len(each)))
    job.likely.append(dict(zip(ids.tolist(), values.tolist(), strict=True)))


def _stop_at(job: Job, tokenizer: Tokenizer) -> int | None:
    # A token is at least a byte of a character of up to four, so a stop string that has just been completed lies in this tail.
    tail = 4 * max(len(stop) for stop in job.request.stop) + 4
    last = job.prompt[-1]
    if first_stop(decode_behind(tokenizer, last, job.new_ids[-tail:]), job.request.stop) is None:
        return None
    return first_stop(decode_behind(tokenizer, last, job.new_ids), job.request.stop)
