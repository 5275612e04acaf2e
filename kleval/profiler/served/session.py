"""Measures the rounds of a plan, in order, each on the disk before the next begins.

A cell is one length at one concurrency. It begins with a round that is not counted (what is compiled, captured or allocated for
the first time is in it), every session anew. A round is as many requests as the concurrency says, submitted together, each with a
prompt of its own. A round in which any request failed is a failed point: fewer requests were under way than it is labelled with.
"""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any, Protocol

from kleval.profiler import events as ev
from kleval.profiler.plan import Plan, PlannedPoint
from kleval.profiler.served.prompts import generator
from kleval.profiler.served.trace import Fault, Trace, judged, round_fault, round_values
from kleval.store import Point, RunStore
from kleval.store.manifest import now
from kleval.store.records import Number

WARMUP_TOKENS = 8
LENGTH_TOLERANCE = (
    0.1  # |counted / asked - 1| of a prompt; beyond it the server has cut it, or words were counted wrongly
)
HOPELESS = ("context_overflow", "bad_request", "prompt_length")  # the next round would end the same way
MOST_DEAD_ROUNDS = 3  # rounds in succession that ended without any answer


class Target(Protocol):
    """A model that is served. exact: whether prompts have exactly as many tokens as asked."""

    model: str
    max_ctx: int | None

    @property
    def exact(self) -> bool: ...
    def describe(self) -> dict[str, Any]: ...
    def environment(self) -> dict[str, Any]: ...
    def prompt(self, n_tokens: int, rng: random.Random) -> Any: ...
    def ask(self, prompts: Sequence[Any], n_out: int) -> list[Trace]: ...
    def cached_total(self) -> int | None: ...
    def close(self) -> None: ...


class Session:
    """One time that a profile runs. prompt_seed: what its prompts are made from. gave_up: why it ended early, else ""."""

    def __init__(
        self,
        target: Target,
        plan: Plan,
        store: RunStore,
        on_event: Callable[[ev.Event], None],
        settings: Mapping[str, Any],
        environment: Mapping[str, Any],
        prompt_seed: str,
    ) -> None:
        self.target, self.plan, self.store, self.on_event = target, plan, store, on_event
        self.settings = {**settings, "prompt_seed": prompt_seed}
        self.environment, self.prompt_seed = environment, prompt_seed
        done = {point.id for point in store.points() if not point.failed}
        self.open = [planned for planned in plan.points if planned.id not in done]
        self.n_before = len(plan.points) - len(self.open)
        self.gave_up = ""
        self._n_finished, self._work_done = 0, 0.0
        self._dead = 0
        self._began = time.monotonic()

    def run(self) -> None:
        """Measure all that is open. Failures become points; KeyboardInterrupt and UsageError are raised."""
        for _, group in groupby(self.open, key=lambda p: (p.ctx, p.batch)):
            cell = list(group)
            self._say(cell[0], " (warming up)")
            warm = self._ask(cell[0], "warm-up", min(cell[0].steps, WARMUP_TOKENS))
            hopeless = next((t.fault for t in warm if t.fault is not None and t.fault.kind in HOPELESS), None)
            for planned in cell:
                self._say(planned)
                if hopeless is not None:
                    self._file(planned, {}, {"kind": hopeless.kind, "message": hopeless.message})
                    continue
                self._measure(planned, warm)
                if self._dead == MOST_DEAD_ROUNDS:
                    self.gave_up = f"{self._dead} rounds in succession had no answer: the rest was not asked"
                    return

    def _measure(self, planned: PlannedPoint, warm: Sequence[Trace]) -> None:
        before = self.target.cached_total()
        traces = self._ask(planned, str(planned.repeat), planned.steps)
        after = self.target.cached_total()
        dead = all(t.fault is not None and t.fault.kind in ("server", "timeout") for t in traces)
        self._dead = self._dead + 1 if dead else 0
        failure = round_fault(traces)
        if failure is not None:
            self._file(planned, {}, failure)
            return
        values: dict[str, Number] = round_values(traces)
        if "cached_tokens" not in values and before is not None and after is not None:
            values["cached_tokens"] = after - before
        first = [trace.ttft for trace in warm if trace.arrivals]
        if first:
            values["warmup_ttft_ms"] = 1000 * max(first)
        self._file(planned, values, None)

    def _ask(self, planned: PlannedPoint, label: str, n_out: int) -> list[Trace]:
        """A round of planned.batch requests, each with a prompt of its own."""
        place = (self.prompt_seed, planned.ctx, planned.batch, label)
        prompts = [self.target.prompt(planned.ctx, generator(*place, index)) for index in range(planned.batch)]
        return [_right_length(judged(t, n_out), planned.ctx) for t in self.target.ask(prompts, n_out)]

    def _file(self, planned: PlannedPoint, values: dict[str, Number], failure: dict[str, str] | None) -> None:
        point = Point(
            id=planned.id,
            kind=planned.kind,
            model=planned.model,
            ctx=planned.ctx,
            batch=planned.batch,
            protocol=planned.protocol,
            repeat=planned.repeat,
            values=values,
            settings=dict(self.settings),
            environment=dict(self.environment),
            failure=failure,
            finished=now(),
        )
        self.store.append_point(point)
        self._n_finished += 1
        self._work_done += work(planned)
        self.on_event(ev.PointDone(point))
        self._say(planned)

    def _say(self, planned: PlannedPoint, more: str = "") -> None:
        elapsed, total = time.monotonic() - self._began, sum(work(point) for point in self.open)
        requests = f", {planned.batch} requests together" if planned.batch > 1 else ""
        self.on_event(
            ev.Progress(
                label=f"{planned.model} at {planned.ctx}{requests}{more}",
                n_done=self.n_before + self._n_finished,
                n_total=len(self.plan.points),
                seconds_done=self._work_done,
                seconds_total=total,
                elapsed_seconds=elapsed,
                eta_seconds=(total - self._work_done) * elapsed / self._work_done if self._work_done else None,
            )
        )


def work(planned: PlannedPoint) -> float:
    """How much a point is of the whole, for the progress bar: the tokens that it sends."""
    return float(planned.batch * (planned.ctx + planned.steps))


def _right_length(trace: Trace, ctx: int) -> Trace:
    """The trace, with a fault when its prompt has not about as many tokens as asked."""
    counted = trace.prompt_tokens
    if trace.fault is not None or counted is None or abs(counted - ctx) <= max(LENGTH_TOLERANCE * ctx, 8):
        return trace
    said = f"the server counts {counted} tokens in a prompt of {ctx}: it may cut long prompts"
    return dataclasses.replace(trace, fault=Fault("prompt_length", said))
