"""Measures the rounds of a plan, in order, each on the disk before the next begins.

A cell is one length at one concurrency. It begins with a round that is not counted (what is compiled, captured or allocated for
the first time is in it), every session anew. A round is as many requests as the concurrency says, submitted together, each with a
prompt of its own. A round in which any request failed is a failed point: fewer requests were under way than it is labelled with.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

from kleval.backends.timing import generator
from kleval.profiler import events as ev
from kleval.profiler.plan import Plan
from kleval.profiler.points import PlannedPoint
from kleval.profiler.served.figures import Number, round_failure, round_values, ttft, why_not
from kleval.profiler.served.prompts import Prompts
from kleval.store import Point, RunStore
from kleval.store.manifest import now
from kleval.types import Failure, Timed, TimedRequest, Trace

WARMUP_TOKENS = 8
HOPELESS = ("context_overflow", "bad_request", "prompt_length")  # the next round would end the same way
MOST_DEAD_ROUNDS = 3  # rounds in succession that ended without any answer


class Session:
    """One time that a profile runs. prompt_seed: what its prompts are made from. gave_up: why it ended early, else ""."""

    def __init__(
        self,
        backend: Timed,
        prompts: Prompts,
        plan: Plan,
        store: RunStore,
        on_event: Callable[[ev.Event], None],
        settings: Mapping[str, Any],
        environment: Mapping[str, Any],
        prompt_seed: str,
    ) -> None:
        self.backend, self.prompts = backend, prompts
        self.plan, self.store, self.on_event = plan, store, on_event
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
            warm, failures = self._ask(cell[0], "warm-up", min(cell[0].steps, WARMUP_TOKENS))
            hopeless = next((f for f in failures if f is not None and f.kind in HOPELESS), None)
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
        traces, failures = self._ask(planned, str(planned.repeat), planned.steps)
        dead = all(f is not None and f.kind in ("server", "timeout") for f in failures)
        self._dead = self._dead + 1 if dead else 0
        failure = round_failure(failures)
        if failure is not None:
            self._file(planned, {}, failure)
            return
        values, estimate = round_values(traces)
        first = [ttft(trace) for trace in warm if trace.arrivals]
        if first:
            values["warmup_ttft_ms"] = 1000 * max(first)
        self._file(planned, values, None, estimate)

    def _ask(self, planned: PlannedPoint, label: str, n_out: int) -> tuple[list[Trace], list[Failure | None]]:
        """A round of planned.batch requests, each with a prompt of its own; and what is wrong with each."""
        place = (self.prompt_seed, planned.ctx, planned.batch, label)
        requests = [self.prompts.make(planned.ctx, n_out, generator(*place, index)) for index in range(planned.batch)]
        traces = list(self.backend.timed([TimedRequest(request) for request in requests]))
        self.prompts.learn(requests, traces)
        return traces, [why_not(trace, n_out, planned.ctx) for trace in traces]

    def _file(
        self, planned: PlannedPoint, values: dict[str, Number], failure: dict[str, str] | None, estimate: bool = False
    ) -> None:
        point = Point(
            id=planned.id,
            kind=planned.kind,
            model=planned.model,
            ctx=planned.ctx,
            batch=planned.batch,
            protocol=planned.protocol,
            repeat=planned.repeat,
            values=values,
            estimate=estimate,
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
