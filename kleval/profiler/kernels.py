"""Profile of single operators, at the shape of the paper's Fig. 2 (batch 1, 16 heads of 128) and others. A Job of kleval.work.

Lengths ascend, and at each length the operators take turns (A B C D, A B C D), one point per turn: the median and p90 of several
calls after a warm-up that is timed apart. What would not fit into the time budget, judged by how long the operator took at
the length before, is left out with the reason. A kernel that fails its check (`operators.check`) is reported and not timed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kleval.profiler.environment import fingerprint, machine_settings, operator_code, resolve_device, resolve_dtype
from kleval.profiler.judge import noise
from kleval.profiler.points import PlannedPoint, machine_points, point_verdict
from kleval.profiler.workload import TURN_SECONDS, KernelSpec
from kleval.store import Point, RunStore
from kleval.work import Job, Result, Session, Verdict, work
from kleval.work.loop import OnEvent

if TYPE_CHECKING:
    from kleval.profiler.kernel_turns import Turns
    from kleval.profiler.operators import Protocol

TIME_BUDGET_SECONDS = {"cpu": 110.0, "cuda": 300.0}


def profile_kernels(spec: KernelSpec, on_event: OnEvent = lambda event: None) -> Result:
    """Measure what spec says, continuing what its run directory holds: `kleval.work.work` says how it ends."""
    return work(KernelJob(spec), on_event)


class KernelJob(Job):
    """Turns of single operators. A group is one shape, at which all operators take turns."""

    spec: KernelSpec
    command = "profile kernels"
    in_seconds = True

    def __init__(self, spec: KernelSpec) -> None:
        super().__init__(spec)
        self._turns: Turns | None = None

    @contextlib.contextmanager
    def open(self, old: RunStore | None) -> Iterator[None]:
        spec = self.spec
        self.models = {}
        self.device = resolve_device(spec.device)
        self.dtype = resolve_dtype(spec.dtype, self.device)
        self.environment = fingerprint(self.device) | operator_code(self.device)
        self.told = {
            "command": "profile kernels",
            "ctx": sorted(set(spec.ctxs)),
            "heads": list(spec.heads),
            "head_dim": spec.head_dim,
            "repeats": spec.repeats,
            "device": self.device.type,
            "dtype": self.dtype,
            "seed": spec.seed,
            **machine_settings(self.environment),
        }
        yield

    def units(self, say: Callable[[str], None]) -> tuple[PlannedPoint, ...]:
        return plan_kernels(self.spec, self.device.type)

    def facts(self) -> dict[str, Any]:
        return {"dtype": self.dtype, "models": {}, "unmeasured": [], "seeds": {"seed": self.spec.seed}}

    def measure(self, group: Sequence[PlannedPoint], session: Session) -> Iterator[tuple[PlannedPoint, Point]]:
        from kleval.profiler.kernel_turns import Turns

        if self._turns is None:
            budget = self.spec.time_budget or TIME_BUDGET_SECONDS[self.device.type]
            self._turns = Turns(self.spec, self.device, self.dtype, budget, session)
        settings = {"dtype": self.dtype, "device": str(self.device)}
        for planned, outcome in self._turns.group(group):
            yield planned, planned.point(outcome, settings, self.environment)

    def verdict(self, session: Session) -> Verdict:
        found = caveats(list(session.store.points()))
        verdict = point_verdict(session, caveats=found, unmeasured=list(session.skips))
        if session.skips and not verdict.problem and not any(p.kind == "kernel" for p in session.store.points()):
            why = f"no operator was timed ({session.skips[0]['reason']}): give shorter --ctx, fewer --heads or a longer --time-budget"
            return replace(verdict, problem=why, again=False)
        return verdict


def plan_kernels(spec: KernelSpec, device: str) -> tuple[PlannedPoint, ...]:
    """The machine, then steps, then prompts, shortest first; at each length by heads, then by repeat, operators in turn."""
    from kleval.profiler.operators import OPERATORS

    shapes: list[tuple[Protocol, int, int]] = [("recurrent", 1, heads) for heads in spec.heads]
    shapes += [("chunk", ctx, heads) for ctx in sorted(set(spec.ctxs)) for heads in spec.heads]
    turns = [
        PlannedPoint(
            f"kernel/{protocol}/{name}/h{heads}d{spec.head_dim}/{ctx}/r{repeat}",
            "kernel",
            name,
            ctx,
            1,
            protocol,
            repeat,
            TURN_SECONDS[device],
            heads=heads,
        )
        for protocol, ctx, heads in shapes
        for repeat in range(spec.repeats)
        for name in OPERATORS[protocol]
    ]
    return (*machine_points(), *turns)


def caveats(points: Sequence[Point]) -> list[str]:
    """What a reader must know before believing the numbers, one sentence each."""
    found = ["Random operands, batch 1, forward only: times do not depend on what a model has learnt."]
    by_name: dict[str, set[str]] = {}
    for point in points:
        if point.kind == "kernel" and point.protocol == "chunk" and "chunk_tokens" in point.settings:
            how = f"{point.settings['implementation']}, chunks of {point.settings['chunk_tokens']}"
            by_name.setdefault(how, set()).add(point.model)
    if by_name:
        said = "; ".join(f"{', '.join(sorted(names))}: {how}" for how, names in sorted(by_name.items()))
        found.append(f"What was run: {said}.")
    return [*found, *noise(points)[1]]
