"""Measuring the points of a native profile, group by group.

Points of one kind, protocol and length are a group. Within a group models take turns (A B C D, A B C D), so that what the machine does
meanwhile meets all of them; the caches of a group are made once, if all fit into memory together, and put back after every turn.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch

from kleval.models.cache import HybridCache
from kleval.profiler.bench import Bench, attempt
from kleval.profiler.bound import bound_of, machine_values
from kleval.profiler.decode import decode_steps, step_values
from kleval.profiler.energy import per_token
from kleval.profiler.footprint import state_footprint
from kleval.profiler.points import Measured, Outcome, PlannedPoint
from kleval.profiler.prefill import random_ids
from kleval.profiler.prefill_points import PrefillPoints, typical
from kleval.store import Point

TICK_SECONDS = 1.0
SHRINK = 0.9  # of a largest batch that the closed form allows and the allocator does not


class Told(Protocol):
    """What a group's measurements are told, and tell. done: points that are there, by id. A session is one."""

    @property
    def done(self) -> Mapping[str, Point]: ...

    def progress(self, unit: PlannedPoint, share: float) -> None: ...


class Measuring:
    """What the groups of a session share. planned: all points of the profile."""

    def __init__(self, bench: Bench, planned: Sequence[PlannedPoint]) -> None:
        self.bench = bench
        self._told: Told
        self.prefill = PrefillPoints(bench, planned, self._tick)
        self._rows: dict[tuple[str, int], int] = {}  # model, depth -> largest batch that could be allocated
        self._ticked = time.monotonic()

    def group(self, group: Sequence[PlannedPoint], told: Told) -> Measured:
        """Each point with what it came to; a failure is an outcome. KeyboardInterrupt and UsageError are raised."""
        self._told = told
        self.bench.bound = self.bench.bound or bound_of(told.done)
        yield from self._measure(group[0].kind, group[0].protocol, group)
        self.bench.release()

    def _measure(self, kind: str, protocol: str, group: Sequence[PlannedPoint]) -> Measured:
        if kind == "machine":
            return self._machine(group)
        if kind == "memory":
            return self._memory(group)
        if kind == "decode":
            return self._decode(group)
        return self.prefill.full(group) if protocol == "full" else self.prefill.sampled(group, self._full_seconds)

    def _machine(self, group: Sequence[PlannedPoint]) -> Measured:
        for planned in group:
            self._say(planned)
            kind: torch.dtype = getattr(torch, self.bench.dtype)
            yield planned, Outcome(machine_values(planned.protocol, self.bench.device, kind))

    def _memory(self, group: Sequence[PlannedPoint]) -> Measured:
        for planned in group:
            self._say(planned)
            yield planned, attempt(lambda p=planned: self._footprint(p))  # type: ignore[misc]
            self.bench.release()

    def _footprint(self, planned: PlannedPoint) -> Outcome:
        bench, config = self.bench, self.bench.configs[planned.model]
        decoder, state = bench.models[planned.model], config.state_bytes(planned.ctx, 1, bench.dtype)
        ids = random_ids(decoder, 1, 1, bench.seed)
        return Outcome(
            state_footprint(decoder, planned.ctx, ids, bench.seed),
            {
                "latent_bytes": state.latent,
                "recurrent_bytes": state.recurrent,
                "conv_bytes": state.conv,
                "state_bytes": state.total,
                "weights_bytes": config.weight_bytes(bench.dtype),
            },
        )

    def _decode(self, group: Sequence[PlannedPoint]) -> Measured:
        caches: dict[str, HybridCache] = {}
        together = self.bench.fit_together(sum({p.model: p.state_bytes for p in group}.values()))
        for planned in group:
            self._say(planned)
            yield planned, self._decode_point(planned, caches)
            if not together:
                caches.clear()
                self.bench.release()

    def _decode_point(self, planned: PlannedPoint, caches: dict[str, HybridCache]) -> Outcome:
        """One repeat. A largest batch that cannot be allocated after all is made smaller until it can."""
        key = (planned.model, planned.ctx)
        while True:
            batch = self._rows.get(key, planned.batch) if planned.protocol == "largest-batch" else planned.batch
            outcome = attempt(lambda b=batch: self._steps(planned, b, caches))  # type: ignore[misc]
            full = outcome.failure is not None and outcome.failure["kind"] == "out_of_memory"
            if not full or planned.protocol != "largest-batch" or batch == 1:
                return outcome
            caches.clear()
            self.bench.release()
            self._rows[key] = max(int(batch * SHRINK), 1)

    def _steps(self, planned: PlannedPoint, batch: int, caches: dict[str, HybridCache]) -> Outcome:
        bench, name = self.bench, planned.model
        decoder, config = bench.models[name], bench.configs[name]
        fed = planned.steps + planned.dropped
        if name not in caches:
            caches[name] = bench.filled(name, planned.ctx, batch, more=fed)
        cache = caches[name]
        before = cache.snapshot()
        ids = random_ids(decoder, fed, batch, bench.seed + planned.repeat)
        with bench.meter.running():
            times, first = decode_steps(decoder, cache, ids, planned.steps, planned.dropped)
            end = time.perf_counter()
        cache.restore(before)
        values = step_values(times, first, planned.dropped, planned.ctx, batch)
        values |= per_token(bench.meter.joules(end - sum(times), end), len(times) * batch)
        nbytes, flops = config.decode_bytes(planned.ctx, batch, bench.dtype), config.decode_flops(planned.ctx, batch)
        assert bench.bound is not None
        seconds = float(values["step_ms_median"] or 0) / 1000
        return Outcome(
            values | {"mbu": nbytes / seconds / bench.bound.bytes_per_second, "state_bytes": before.used_bytes()},
            {
                "bytes_per_step": nbytes,
                "flops_per_step": flops,
                "bound_ms": 1000 * bench.bound.decode_seconds(flops, nbytes),
                "state_bytes": bench.state_bytes(name, planned.ctx, batch),
            },
            batch=batch,
        )

    def _full_seconds(self, planned: PlannedPoint) -> float | None:
        """What the same prompt took in full: in the same repeat, else the median of those there are."""
        full = [
            point
            for point in self._told.done.values()
            if (point.protocol, point.model, point.ctx) == ("full", planned.model, planned.ctx)
        ]
        same = [point for point in full if point.repeat == planned.repeat] or full
        return typical([float(point.values["seconds"] or 0) for point in same])

    def _tick(self, planned: PlannedPoint, share: float) -> None:
        if time.monotonic() - self._ticked > TICK_SECONDS:
            self._say(planned, share)

    def _say(self, planned: PlannedPoint, share: float = 0.0) -> None:
        self._ticked = time.monotonic()
        self._told.progress(planned, share)
