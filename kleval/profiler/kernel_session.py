"""One time that `kleval profile kernels` runs: checks, warm-ups and turns, each point on the disk before the next begins."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

import torch

from kleval.profiler import events as ev
from kleval.profiler.bench import attempt
from kleval.profiler.bound import Bound, copy_bandwidth, matmul_rate
from kleval.profiler.environment import free_bytes
from kleval.profiler.kernels import KernelSpec, OnEvent, PlannedKernel
from kleval.profiler.measure import Clock, median, percentile
from kleval.profiler.operators import (
    Operands,
    Protocol,
    call_tokens,
    check,
    draw,
    implementation,
    operand_bytes,
    prompt_call,
    step_call,
)
from kleval.profiler.points import Outcome
from kleval.store import Point, RunStore
from kleval.store.manifest import now
from kleval.text import size

TURN_SECONDS = {"cpu": 0.3, "cuda": 0.2}  # what the calls of one turn should take together
MAX_CALLS = 200
OPERAND_SHARE = 0.7  # of free memory, the rest is for what the operators need meanwhile

Call = tuple[Callable[[], object], int, float]  # work, how often in a turn, seconds of the first time


class Session:
    """One time that the command runs."""

    def __init__(
        self,
        spec: KernelSpec,
        planned: Sequence[PlannedKernel],
        store: RunStore,
        device: torch.device,
        dtype: str,
        environment: Mapping[str, Any],
        budget: float,
        on_event: OnEvent,
    ) -> None:
        self.spec, self.planned, self.store, self.device = spec, planned, store, device
        self.dtype, self.environment, self.on_event = dtype, environment, on_event
        self.kind: torch.dtype = getattr(torch, dtype)
        self.clock = Clock(device)
        self.ends = time.monotonic() + budget
        self.done = {point.id: point for point in store.points() if not point.failed}
        self.unmeasured: list[dict[str, Any]] = []
        self._seconds: dict[tuple[str, int], tuple[int, float]] = {}  # operator, heads -> length, seconds of a call
        self._wrong: dict[tuple[str, Protocol, int], str | None] = {}

    def run(self) -> None:
        """Measure all that is open. Failures become points; KeyboardInterrupt and UsageError are raised."""
        with torch.inference_mode():
            bound = self._bound()
            for (_, ctx, heads), group in groupby(self.planned, key=lambda p: (p.protocol, p.ctx, p.heads)):
                self._group(ctx, heads, list(group), bound)
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()

    def _bound(self) -> Bound:
        """Machine points, measured unless they are there."""
        found = {}
        for protocol, name in (("copy", "bytes_per_second"), ("matmul", "flops_per_second")):
            id = f"machine/{protocol}"
            if id not in self.done:
                self.on_event(ev.Phase(f"measuring the machine: {protocol}"))
                value = copy_bandwidth(self.device) if protocol == "copy" else matmul_rate(self.device, self.kind)
                self._file(self._machine_point(id, protocol, name, value))
            found[name] = float(self.done[id].values[name] or 0)
        return Bound(found["bytes_per_second"], found["flops_per_second"])

    def _machine_point(self, id: str, protocol: str, name: str, value: float) -> Point:
        return Point(
            id=id,
            kind="machine",
            model="",
            ctx=0,
            batch=0,
            protocol=protocol,
            repeat=0,
            values={name: value},
            settings={"dtype": self.dtype, "device": str(self.device)},
            environment=dict(self.environment),
            finished=now(),
        )

    def _group(self, ctx: int, heads: int, group: Sequence[PlannedKernel], bound: Bound) -> None:
        """All operators at one shape."""
        open_ = [
            p for p in group if any(p.id(self.spec.head_dim, r) not in self.done for r in range(self.spec.repeats))
        ]
        ready = [planned for planned in open_ if self._may(planned)]
        if not ready:
            return
        operands = draw(ctx, heads, self.spec.head_dim, self.device, self.kind, self.spec.seed)
        calls: dict[str, Call] = {}
        for planned in ready:
            self.on_event(ev.Phase(f"{planned.operator} {planned.protocol}, {ctx} tokens, {heads} heads"))
            outcome = attempt(lambda p=planned: self._warm(p, operands, calls))  # type: ignore[misc]
            if outcome.failure is not None:
                self._fail(planned, outcome.failure)
        for repeat in range(self.spec.repeats):
            for planned in ready:
                if planned.operator in calls and planned.id(self.spec.head_dim, repeat) not in self.done:
                    self._turn(planned, repeat, calls[planned.operator], bound)

    def _may(self, planned: PlannedKernel) -> bool:
        """Whether this operator is right, fits into memory and into what is left of the time; says so when not."""
        key = (planned.operator, planned.protocol, planned.heads)
        if key not in self._wrong:
            self._wrong[key] = check(*key, self.spec.head_dim, self.device, self.kind, self.spec.seed)
        wrong = self._wrong[key]
        if wrong is not None:
            self._fail(planned, {"kind": "wrong_result", "message": wrong})
            return False
        need = operand_bytes(planned.ctx, planned.heads, self.spec.head_dim, self.dtype)
        room = int(OPERAND_SHARE * free_bytes(self.device))
        if need > room:
            self._leave(planned, f"operands of {size(need)}, {size(room)} free")
            return False
        expected, left = self._expected(planned), self.ends - time.monotonic()
        if expected > left:
            self._leave(planned, f"about {expected:.0f} s, {max(left, 0):.0f} s left of the time budget")
            return False
        return True

    def _expected(self, planned: PlannedKernel) -> float:
        """Seconds that warming up and all turns will take; 0 for what has not been seen at any length."""
        known = self._seconds.get((planned.operator, planned.heads))
        if known is None:
            others = [(h, seen) for (name, h), seen in self._seconds.items() if name == planned.operator]
            if not others or planned.protocol == "recurrent":
                return 0.0
            heads, (ctx, seconds) = others[0]
            known = ctx, seconds * planned.heads / heads
        ctx, seconds = known
        one = seconds * (planned.ctx / ctx) ** (2 if planned.operator == "softmax" else 1)
        return one + self.spec.repeats * max(one, min(TURN_SECONDS[self.device.type], MAX_CALLS * one))

    def _warm(self, planned: PlannedKernel, operands: Operands, calls: dict[str, Call]) -> Outcome:
        """Puts into calls what to call, how often in a turn, and how long the first call took."""
        if planned.protocol == "recurrent":
            state = operands.g.new_zeros(1, planned.heads, self.spec.head_dim, self.spec.head_dim)
            work = step_call(planned.operator, operands, state)
        else:
            work = prompt_call(planned.operator, operands)
        warmup = self.clock.seconds(work)
        quick = self.device.type == "cuda" or warmup < TURN_SECONDS["cpu"]
        seconds = self.clock.seconds(work) if quick else warmup
        if planned.protocol == "chunk":
            self._seconds[planned.operator, planned.heads] = planned.ctx, seconds
        count = round(TURN_SECONDS[self.device.type] / max(seconds, 1e-9))
        calls[planned.operator] = work, max(1, min(count, MAX_CALLS)), warmup
        return Outcome({})

    def _turn(self, planned: PlannedKernel, repeat: int, call: Call, bound: Bound) -> None:
        work, count, warmup = call
        times: list[float] = []

        def measure() -> Outcome:
            times.extend(self.clock.each([work] * count))
            return Outcome({})

        outcome = attempt(measure)
        if outcome.failure is not None:
            self._fail(planned, outcome.failure, [repeat])
            return
        seconds = median(times)
        values: dict[str, float | int | None] = {
            "seconds": seconds,
            "seconds_p90": percentile(times, 0.9),
            "calls": count,
            "warmup_seconds": warmup,
            "tokens_per_second": planned.ctx / seconds,
            "flops_per_second": planned.flops / seconds,
            "mfu": planned.flops / seconds / bound.flops_per_second,
            "mbu": planned.bytes / seconds / bound.bytes_per_second,
        }
        closed: dict[str, float | int | None] = {
            "flops": planned.flops,
            "bytes": planned.bytes,
            "bound_seconds": bound.decode_seconds(planned.flops, planned.bytes),
        }
        self._file(self._point(planned, repeat, values, closed))

    def _point(
        self,
        planned: PlannedKernel,
        repeat: int,
        values: dict[str, float | int | None],
        closed: dict[str, float | int | None],
        failure: dict[str, str] | None = None,
    ) -> Point:
        settings = {
            "heads": planned.heads,
            "head_dim": self.spec.head_dim,
            "direction": "forward",
            "dtype": self.dtype,
            "device": str(self.device),
            "seed": self.spec.seed,
            "call_tokens": planned.ctx if planned.operator == "softmax" else call_tokens(self.device, planned.ctx),
            **implementation(planned.operator, planned.protocol, self.device, self.kind),
        }
        return Point(
            id=planned.id(self.spec.head_dim, repeat),
            kind="kernel",
            model=planned.operator,
            ctx=planned.ctx,
            batch=1,
            protocol=planned.protocol,
            repeat=repeat,
            values=values,
            closed_form=closed,
            settings=settings,
            environment=dict(self.environment),
            failure=failure,
            finished=now(),
        )

    def _fail(self, planned: PlannedKernel, failure: Mapping[str, str], repeats: Sequence[int] | None = None) -> None:
        for repeat in range(self.spec.repeats) if repeats is None else repeats:
            if planned.id(self.spec.head_dim, repeat) not in self.done:
                self._file(self._point(planned, repeat, {}, {}, dict(failure)))

    def _leave(self, planned: PlannedKernel, reason: str) -> None:
        kept = ("operator", "protocol", "ctx", "heads")
        self.unmeasured.append({name: getattr(planned, name) for name in kept} | {"reason": reason})

    def _file(self, point: Point) -> None:
        self.store.append_point(point)
        if not point.failed:
            self.done[point.id] = point
        self.on_event(ev.PointDone(point))
