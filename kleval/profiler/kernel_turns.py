"""Turns of single operators, shape by shape: check, warm-up, then so many calls per turn that it can be timed.

What would not fit into memory, or into what is left of the time, is skipped with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import cast

import torch

from kleval.profiler.bench import attempt
from kleval.profiler.bound import bound_of, machine_values
from kleval.profiler.environment import free_bytes
from kleval.profiler.measure import Clock
from kleval.profiler.operators import (
    Operands,
    Protocol,
    call_tokens,
    check,
    draw,
    flops,
    implementation,
    nbytes,
    operand_bytes,
    prompt_call,
    step_call,
)
from kleval.profiler.points import Measured, Outcome, PlannedPoint
from kleval.profiler.workload import TURN_SECONDS, KernelSpec
from kleval.quantiles import median, percentile
from kleval.text import size
from kleval.work import Session

MAX_CALLS = 200
OPERAND_SHARE = 0.7  # of free memory, the rest is for what the operators need meanwhile

Call = tuple[Callable[[], object], int, float]  # work, how often in a turn, seconds of the first time


class Turns:
    """What the shapes of a session share. budget: seconds, from the session's beginning."""

    def __init__(self, spec: KernelSpec, device: torch.device, dtype: str, budget: float, session: Session) -> None:
        self.spec, self.device, self.dtype, self.budget, self.session = spec, device, dtype, budget, session
        self.kind: torch.dtype = getattr(torch, dtype)
        self.clock = Clock(device)
        self._seconds: dict[tuple[str, int], tuple[int, float]] = {}  # operator, heads -> length, seconds of a call
        self._wrong: dict[tuple[str, Protocol, int], str | None] = {}

    def group(self, group: Sequence[PlannedPoint]) -> Measured:
        """Each point with what it came to; a failure is an outcome. KeyboardInterrupt and UsageError are raised."""
        if group[0].kind == "machine":
            for planned in group:
                self.session.progress(planned)
                yield planned, Outcome(machine_values(planned.protocol, self.device, self.kind))
            return
        yield from self._shape(group)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _shape(self, group: Sequence[PlannedPoint]) -> Measured:
        """All operators at one shape, each warmed up before the first turn."""
        turns: dict[str, list[PlannedPoint]] = {}
        for planned in group:
            turns.setdefault(planned.model, []).append(planned)
        ready = []
        for mine in turns.values():
            if (wrong := self._wrong_result(mine[0])) is not None:
                yield from self._failed(mine, {"kind": "wrong_result", "message": wrong})
            elif (reason := self._no_room(mine[0])) is not None:
                self._skip(mine, reason)
            else:
                ready.append(mine)
        if not ready:
            return
        operands = draw(group[0].ctx, group[0].heads, self.spec.head_dim, self.device, self.kind, self.spec.seed)
        calls: dict[str, Call] = {}
        for mine in ready:
            self.session.progress(mine[0], more=" (warming up)")
            warm = attempt(lambda p=mine[0]: self._warm(p, operands, calls))  # type: ignore[misc]
            if warm.failure is not None:
                yield from self._failed(mine, warm.failure)
        for planned in group:
            if planned.model in calls:
                self.session.progress(planned)
                outcome = attempt(lambda p=planned: self._turn(p, *calls[p.model]))  # type: ignore[misc]
                yield planned, replace(outcome, settings=self._settings(planned))

    def _wrong_result(self, planned: PlannedPoint) -> str | None:
        """What is wrong with the operator, by its check."""
        key = (planned.model, cast("Protocol", planned.protocol), planned.heads)
        if key not in self._wrong:
            self._wrong[key] = check(*key, self.spec.head_dim, self.device, self.kind, self.spec.seed)
        return self._wrong[key]

    def _no_room(self, planned: PlannedPoint) -> str | None:
        """Why the operator fits neither into memory nor into what is left of the time; None where it does."""
        need = operand_bytes(planned.ctx, planned.heads, self.spec.head_dim, self.dtype)
        room = int(OPERAND_SHARE * free_bytes(self.device))
        if need > room:
            return f"operands of {size(need)}, {size(room)} free"
        expected, left = self._expected(planned), self.budget - self.session.elapsed_seconds()
        if expected > left:
            return f"about {expected:.0f} s, {max(left, 0):.0f} s left of the time budget"
        return None

    def _expected(self, planned: PlannedPoint) -> float:
        """Seconds that warming up and all turns will take; 0 for what has not been seen at any length."""
        known = self._seconds.get((planned.model, planned.heads))
        if known is None:
            others = [(h, seen) for (name, h), seen in self._seconds.items() if name == planned.model]
            if not others or planned.protocol == "recurrent":
                return 0.0
            heads, (ctx, seconds) = others[0]
            known = ctx, seconds * planned.heads / heads
        ctx, seconds = known
        one = seconds * (planned.ctx / ctx) ** (2 if planned.model == "softmax" else 1)
        return one + self.spec.repeats * max(one, min(TURN_SECONDS[self.device.type], MAX_CALLS * one))

    @torch.inference_mode()
    def _warm(self, planned: PlannedPoint, operands: Operands, calls: dict[str, Call]) -> Outcome:
        """Puts into calls what to call, how often in a turn, and how long the first call took."""
        if planned.protocol == "recurrent":
            state = operands.g.new_zeros(1, planned.heads, self.spec.head_dim, self.spec.head_dim)
            work = step_call(planned.model, operands, state)
        else:
            work = prompt_call(planned.model, operands)
        warmup = self.clock.seconds(work)
        quick = self.device.type == "cuda" or warmup < TURN_SECONDS["cpu"]
        seconds = self.clock.seconds(work) if quick else warmup
        if planned.protocol == "chunk":
            self._seconds[planned.model, planned.heads] = planned.ctx, seconds
        count = round(TURN_SECONDS[self.device.type] / max(seconds, 1e-9))
        calls[planned.model] = work, max(1, min(count, MAX_CALLS)), warmup
        return Outcome({})

    @torch.inference_mode()
    def _turn(self, planned: PlannedPoint, work: Callable[[], object], count: int, warmup: float) -> Outcome:
        bound = bound_of(self.session.done)
        assert bound is not None
        times = self.clock.each([work] * count)
        shape = (planned.model, cast("Protocol", planned.protocol), planned.ctx, planned.heads, self.spec.head_dim)
        n_flops, n_bytes, seconds = flops(*shape), nbytes(*shape, self.dtype), median(times)
        return Outcome(
            {
                "seconds": seconds,
                "seconds_p90": percentile(times, 0.9),
                "calls": count,
                "warmup_seconds": warmup,
                "tokens_per_second": planned.ctx / seconds,
                "flops_per_second": n_flops / seconds,
                "mfu": n_flops / seconds / bound.flops_per_second,
                "mbu": n_bytes / seconds / bound.bytes_per_second,
            },
            {"flops": n_flops, "bytes": n_bytes, "bound_seconds": bound.decode_seconds(n_flops, n_bytes)},
        )

    def _failed(self, mine: Sequence[PlannedPoint], failure: Mapping[str, str]) -> Measured:
        for planned in mine:
            yield planned, Outcome({}, settings=self._settings(planned), failure=failure)

    def _skip(self, mine: Sequence[PlannedPoint], reason: str) -> None:
        first, n = mine[0], len(mine)
        shape = {"operator": first.model, "protocol": first.protocol, "ctx": first.ctx, "heads": first.heads}
        self.session.skip({**shape, "n": n, "reason": reason})
        self.session.meter.dropped(n, first.weight)

    def _settings(self, planned: PlannedPoint) -> dict[str, object]:
        return {
            "heads": planned.heads,
            "head_dim": self.spec.head_dim,
            "direction": "forward",
            "seed": self.spec.seed,
            "call_tokens": planned.ctx if planned.model == "softmax" else call_tokens(self.device, planned.ctx),
            **implementation(planned.model, cast("Protocol", planned.protocol), self.device, self.kind),
        }
