"""Groups of a native profile measured side by side: a pool of processes, each with all models open on a device of its own.

A group (one kind, protocol and length) is the unit of work: one device measures all of its models in turn, so that models are never
compared across devices. What the machine can do is measured before all else and by one process alone, since bounds rest on it, and a
sampled prefill after the full one of its length, which it is checked against; else the longest group goes first. A group that killed
its workers is the failure of its points; a point is kept once its whole group has come back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from kleval.profiler.environment import machine_settings, resolve_device
from kleval.profiler.opened import Device, Facts
from kleval.profiler.points import Outcome, PlannedPoint
from kleval.profiler.workload import ProfileSpec
from kleval.store import Point
from kleval.types import UsageError
from kleval.work import Session
from kleval.work.pool import Launcher, Lost, Part, Pool, Work

Points = list[tuple[PlannedPoint, Point]]


@dataclass(frozen=True, slots=True)
class _Group:
    """What a worker is sent, a `kleval.profiler.native.Told`. planned: all points of the profile. done: what it rests on."""

    points: Sequence[PlannedPoint]
    planned: Sequence[PlannedPoint]
    done: Mapping[str, Point]

    def progress(self, unit: PlannedPoint, share: float) -> None:
        """Told by the points alone."""


class _Measurer:
    """kleval.work.worker.Engine of a device: payloads are groups, results their points."""

    def __init__(self, spec: ProfileSpec, side_by_side: int) -> None:
        self._device = Device(spec, side_by_side)
        self._device.try_out(lambda text: None)
        self.facts = self._device.facts

    def work(self, payloads: Sequence[_Group]) -> tuple[Sequence[Points], Mapping[str, int]]:
        return [list(self._device.points(group.points, group.planned, group)) for group in payloads], {}

    def close(self) -> None:
        """Nothing outlives the process."""


@dataclass(frozen=True, slots=True)
class _Make:
    spec: ProfileSpec
    side_by_side: int

    def __call__(self, device: str) -> _Measurer:
        return _Measurer(replace(self.spec, device=device), self.side_by_side)


class Devices:
    """The pool of a profile. UsageError where two processes would be on one GPU."""

    def __init__(self, launcher: Launcher, spec: ProfileSpec) -> None:
        check_apart(spec)
        self._spec, self._launcher = spec, launcher
        self._pool = Pool(launcher, _Make(spec, len(launcher.places())), _differs)

    def open(self) -> Facts:
        """One of them, with its models built and tried out; the others open once it has measured what the machine can do."""
        facts: Facts = self._pool.open()
        return facts

    def threads_here(self) -> dict[str, int]:
        """What the fingerprint of a profile has by one process on this machine: its own threads, not a share of them."""
        if self._launcher.kind != "processes":
            return {}
        import torch

        return {"threads": torch.get_num_threads()}

    def measure(
        self, units: Sequence[PlannedPoint], planned: Sequence[PlannedPoint], session: Session
    ) -> Iterator[tuple[PlannedPoint, Point]]:
        """Points of all units, a group at a time as groups come back."""
        self._pool.say = session.say
        waiting = [list(group) for _, group in groupby(units, key=lambda unit: unit.group)]
        waiting.sort(key=lambda group: -_seconds(group))
        away: dict[int, list[PlannedPoint]] = {}
        inbox: deque[tuple[int, Points | Lost]] = deque()
        number = 0
        while waiting or away:
            while self._pool.hungry and (group := _next(waiting, away.values())):
                waiting.remove(group)
                if group := session.in_time(group):
                    number += 1
                    away[number] = group
                    payload = _Group(group, planned, _needed(group, session.done))
                    self._pool.add([Work([Part(number, payload, inbox)], _seconds(group), group[0].protocol)])
            while inbox:
                key, found = inbox.popleft()
                group = away.pop(key)
                yield from self._lost(group, found) if isinstance(found, Lost) else found
            if away:
                alone = any(group[0].kind == "machine" for group in away.values())
                self._pool.wait(most=1 if alone else None)

    def _lost(self, group: Sequence[PlannedPoint], lost: Lost) -> Iterator[tuple[PlannedPoint, Point]]:
        facts: Facts = self._pool.facts
        kind = "out_of_memory" if lost.out_of_memory else "internal"
        why = f"{lost.n} workers ended while they measured its group; the last one {lost.why}"
        for one in group:
            outcome = Outcome({}, failure={"kind": kind, "message": why})
            yield one, one.point(outcome, {"dtype": facts.dtype, "chunk_tokens": facts.chunk}, facts.environment)

    def record(self) -> dict[str, Any]:
        return self._pool.record()

    def close(self) -> None:
        self._pool.close()


def check_apart(spec: ProfileSpec) -> None:
    """UsageError where two processes would measure on one GPU."""
    found = [str(resolve_device(name)) for name in spec.devices]
    twice = next((name for name in found if name != "cpu" and found.count(name) > 1), None)
    if twice:
        raise UsageError(f"--devices names {twice} twice: two processes on one device would time each other")
    if spec.gpus_per_model is not None and 0 < spec.gpus_per_model < 1:
        raise UsageError(
            f"--gpus-per-model {spec.gpus_per_model:g}: two processes on one device would time each other; give 1 or more"
        )


def _next(waiting: Sequence[list[PlannedPoint]], away: Any) -> list[PlannedPoint] | None:
    """The longest group that nothing is in the way of."""
    open_ = [*waiting, *away]
    machine = [group for group in waiting if group[0].kind == "machine"]
    if any(group[0].kind == "machine" for group in open_):
        return machine[0] if machine else None
    unchecked = {group[0].ctx for group in open_ if group[0].protocol == "full"}
    return next((g for g in waiting if g[0].protocol != "sampled" or g[0].ctx not in unchecked), None)


def _needed(group: Sequence[PlannedPoint], done: Mapping[str, Point]) -> dict[str, Point]:
    """What bounds are computed from, and what a sampled prefill is checked against."""
    first = group[0]
    against = (first.ctx, "full") if first.protocol == "sampled" else None
    return {k: point for k, point in done.items() if point.kind == "machine" or (point.ctx, point.protocol) == against}


def _seconds(group: Sequence[PlannedPoint]) -> float:
    return sum(point.seconds for point in group)


def _differs(first: Facts, other: Facts) -> str:
    """Why another device's times would not be the first one's."""
    one, two = (
        {"device": facts.device, "dtype": facts.dtype, **machine_settings(facts.environment)}
        for facts in (first, other)
    )
    told = [
        f"{name.removeprefix('machine.')} {two.get(name)!r} in the place of {one.get(name)!r}"
        for name in sorted(one.keys() | two.keys())
        if one.get(name) != two.get(name)
    ]
    return f"it has {', '.join(told)[:300]}" if told else ""
