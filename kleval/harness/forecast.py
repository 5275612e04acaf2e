"""Forecast of a run: requests, tokens, money and time, before anything is asked.

Each task's first sample that fits is rehearsed: what the task would ask for it is counted, with a made-up answer where a second
request depends on the first. A prompt that fills its ctx is taken to fill every ctx, another to stay as long as it is; answers are
taken to use their whole generation budget. So tokens are an estimate, and what is written is at most that.

Time is tried out, where trying costs nothing: short prompts are timed on the backend, and what is asked is taken to go one answer after
the other at their pace. A server answers up to --concurrency at once, so that its forecast has two ends.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from kleval.harness.asking import run_safely
from kleval.harness.plan import ModelFacts, Plan
from kleval.harness.preparing import encode, same_prompt
from kleval.harness.spending import Price
from kleval.tasks.base import OneCall
from kleval.types import Backend, Completion, Request, Sample, Task, Tokenizer

MOST_STEPS = 8
FILLS = 0.6  # of its ctx: a prompt that takes more is made to fill it
TRIED_TOKENS = 16
TRIED_SECONDS = 1.0  # what a second, longer prompt may take by the pace of the first


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """A request of a task's sample at `ctx`: tokens read, and at most written."""

    judging: bool
    read: int
    written: int
    ctx: int

    def at(self, ctx: int) -> int:
        """Tokens read at another ctx."""
        filled = self.read + self.written
        return max(1, ctx * filled // self.ctx - self.written) if filled >= FILLS * self.ctx else self.read


@dataclass(frozen=True, slots=True)
class Forecast:
    """requests: judges' included. read, written: tokens, of the model and (judge_…) of the judge. cost: None without a price. seconds:
    (least, most), None where it was not tried, which `untried` says why."""

    requests: int
    judge_requests: int
    read: int
    written: int
    judge_read: int
    judge_written: int
    cost: float | None = None
    seconds: tuple[float, float] | None = None
    untried: str = ""

    def record(self) -> dict[str, Any]:
        return asdict(self)


def rehearse(task: Task, sample: Sample, counter: Tokenizer) -> list[Rehearsed]:
    """What is asked for a sample. A task of one call is not made to score; nor is one that runs code. One that fails at a made-up
    answer is counted up to there."""
    found: list[Rehearsed] = []
    outcomes: list[Completion] = []
    once = isinstance(task, OneCall) or getattr(task, "needs_code_execution", False)
    with contextlib.suppress(Exception):
        for _ in range(1 if once else MOST_STEPS):
            step = task.step(sample, tuple(outcomes))
            if not isinstance(step, Sequence):
                break
            for request in step:
                own = same_prompt(request, sample)
                read = sample.prompt_tokens if own else _count(counter, request)
                likelihood = request.kind == "loglikelihood"
                written = 1 if likelihood else max(request.max_new_tokens, sample.max_new_tokens if own else 0)
                read += counter.count(request.continuation) if likelihood else 0
                found.append(Rehearsed(request.kind == "judge", read, written, sample.ctx))
                text = sample.references[0] if sample.references else "A"
                outcomes.append(Completion(text, read, written, logprob_sum=-1.0 if likelihood else None, greedy=False))
    return found or [Rehearsed(False, sample.prompt_tokens, sample.max_new_tokens, sample.ctx)]


def _count(counter: Tokenizer, request: Request) -> int:
    return counter.count(counter.render(request.prompt, request.answer_prefix))


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds of one answer: of a prompt of n tokens per_token * n + per_square * n², and of each token written."""

    per_token: float
    per_square: float
    per_written: float

    def seconds(self, read: int, written: int) -> float:
        return read * self.per_token + read * read * self.per_square + written * self.per_written


@dataclass(frozen=True, slots=True)
class Load:
    """n samples of a task at a length, each asked by those requests."""

    model: str
    task: str
    ctx: int
    n: int
    requests: tuple[Rehearsed, ...]

    def total(self, name: str, judging: bool = False) -> int:
        """Tokens `read` or `written`."""
        return self.n * sum(getattr(request, name) for request in self.requests if request.judging == judging)

    def asked(self, judging: bool = False) -> int:
        """Requests."""
        return self.n * sum(request.judging == judging for request in self.requests)


def loads(plan: Plan, models: Sequence[ModelFacts], tasks: Mapping[str, Task]) -> list[Load]:
    """Of the answers that are not there yet, in the plan's order."""
    counters = {model.name: model.counter for model in models}
    asked = {key: rehearse(tasks[key[1]], first, counters[key[0]]) for key, first in plan.samples.items()}
    found = []
    for cell in plan.cells:
        # Tokens that each request reads, where ctx decides how many there are.
        reads_at = getattr(tasks[cell.task], "reads_at", None)
        requests = (
            tuple(Rehearsed(False, n, 1, cell.ctx) for n in reads_at(cell.ctx))
            if reads_at
            else tuple(
                Rehearsed(one.judging, one.at(cell.ctx), one.written, cell.ctx)
                for one in asked.get((cell.model, cell.task), ())
            )
        )
        found.append(Load(cell.model, cell.task, cell.ctx, cell.n - cell.n_done, requests))
    return found


def forecast(
    found: Sequence[Load],
    price: Price | None = None,
    judge_price: Price | None = None,
    paces: Mapping[str, Pace | str] | None = None,
    together: Mapping[str, float] | None = None,
) -> Forecast:
    """paces: by model; a text says why there is none. together: how many answers of a model are under way at once, 1 unless given."""
    paces, together = paces or {}, together or {}
    own, judged = (
        {name: sum(load.total(name, judging) for load in found) for name in ("read", "written")}
        | {"requests": sum(load.asked(judging) for load in found)}
        for judging in (False, True)
    )
    cost = None
    if price is not None:
        cost = price.cost(own["read"], own["written"])
        cost += (judge_price or price).cost(judged["read"], judged["written"])
    untried = "; ".join(pace for pace in dict.fromkeys(paces.values()) if isinstance(pace, str))
    spans = None
    if paces and not untried:
        seconds = dict.fromkeys(paces, 0.0)
        for load in found:
            if isinstance(pace := paces.get(load.model), Pace):
                each = (pace.seconds(one.read, one.written) for one in load.requests if not one.judging)
                seconds[load.model] += load.n * sum(each)
        spans = (sum(total / together.get(name, 1.0) for name, total in seconds.items()), sum(seconds.values()))
    return Forecast(
        own["requests"] + judged["requests"],
        judged["requests"],
        own["read"],
        own["written"],
        judged["read"],
        judged["written"],
        cost,
        spans,
        untried,
    )


def try_pace(backend: Backend, model: ModelFacts, plan: Plan) -> Pace | str:
    """Of a model, by asking its shortest sample with one and with some new tokens, and in this process a longer one too; or why not."""
    if model.paid:
        return "not tried, since a key was given and asking may cost"
    mine = [sample for (name, _), sample in plan.samples.items() if name == model.name]
    if not mine:
        return "not tried, since no sample could be made"
    sample = min(mine, key=lambda one: one.prompt_tokens)
    ids = encode(backend.tokenizer, sample.prompt, sample.answer_prefix)
    first = Request("generate", sample.prompt, sample.answer_prefix, max_new_tokens=1, token_ids=ids)
    _asked(backend, replace(first, max_new_tokens=2))  # what is done once, the first time, is not the pace
    short, more = _asked(backend, first), _asked(backend, replace(first, max_new_tokens=TRIED_TOKENS))
    if short is None or more is None:
        return f"not tried, since {model.name} gave no answer"
    (seconds, _), (longer, n) = short, more
    per_written = max(0.0, longer - seconds) / (n - 1) if n > 1 else 0.0
    per_token, per_square, tokens = seconds / len(ids), 0.0, len(ids)
    far = min(max(cell.ctx for cell in plan.cells) - 1, int(TRIED_SECONDS / per_token))
    if "concurrency" not in model.describe and far >= 2 * tokens:
        repeated = (ids * (far // tokens + 1))[:far]
        if (measured := _asked(backend, replace(first, token_ids=repeated))) is not None:
            # Through both points; where a long prompt is read faster per token, that is the pace of all.
            per_square = max(0.0, (measured[0] / far - per_token) / (far - tokens))
            per_token = (measured[0] - per_square * far * far) / far
    return Pace(per_token, per_square, per_written)


def _asked(backend: Backend, request: Request) -> tuple[float, int] | None:
    """Seconds, and tokens written."""
    began = time.perf_counter()
    outcomes = [answer[1] for answer in run_safely(backend, [request]) if answer is not None]
    seconds = time.perf_counter() - began
    return (seconds, outcomes[0].output_tokens) if isinstance(outcomes[0], Completion) else None
