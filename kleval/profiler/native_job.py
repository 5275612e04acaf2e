"""A native profile: models of this package with random weights, measured in this process. A Job of kleval.work."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from kleval.files import usage_errors
from kleval.profiler.building import WEIGHTS, build, check_memory, shared_weight_bytes
from kleval.profiler.environment import (
    FREE_SHARE,
    fingerprint,
    free_bytes,
    machine_settings,
    operator_code,
    resolve_device,
    resolve_dtype,
)
from kleval.profiler.judge import caveats, checks, noise
from kleval.profiler.plan import Plan, default_memory_budget, fed_tokens, make_plan
from kleval.profiler.points import PlannedPoint, point_verdict
from kleval.profiler.workload import ProfileSpec, unique_lengths
from kleval.store import Point, RunStore
from kleval.types import UsageError
from kleval.work import Job, Result, Session, Verdict, work
from kleval.work.loop import OnEvent

if TYPE_CHECKING:
    from kleval.profiler.native import Measuring

CHUNK_TOKENS = {"cpu": 512, "cuda": 8192}
TRY_OUT_BYTES = 1 << 31  # a dry run builds models up to this size to see how fast they are
Say = Callable[[str], None]


def profile(spec: ProfileSpec, on_event: OnEvent = lambda event: None) -> Result:
    """Measure what spec says, continuing what its run directory already holds: `kleval.work.work` says how it ends.

    UsageError besides: what is asked cannot be measured, told before anything is allocated.
    """
    return work(NativeJob(spec), on_event)


class NativeJob(Job):
    """Points of prefill, decode and memory, models in turn."""

    spec: ProfileSpec
    in_seconds = True
    plan: Plan

    def __init__(self, spec: ProfileSpec) -> None:
        super().__init__(spec)
        self.limit_seconds = None if spec.repeats else spec.time_budget
        self._measuring: Measuring | None = None

    @contextlib.contextmanager
    def open(self, old: RunStore | None) -> Iterator[None]:
        """Find the models' shapes and the device, and see that they fit into its memory; nothing is allocated."""
        from kleval.models.registry import config_of, resolve
        from kleval.profiler.bench import Bench
        from kleval.profiler.energy import Meter, counters

        spec, self._old = self.spec, old
        configs = {model.name: config_of(model) for model in map(resolve, spec.models)}
        device = resolve_device(spec.device)
        dtype = resolve_dtype(spec.dtype, device)
        chunk = min(spec.chunk_tokens or CHUNK_TOKENS[device.type], max(spec.ctxs))
        self.bench = Bench(device, dtype, chunk, spec.seed, configs)
        if not spec.dry_run:
            self.bench.meter = Meter(counters(str(device)))
        self.models = {name: {} for name in configs}
        self.environment = fingerprint(device) | operator_code(device)
        self.told = {
            "models": list(configs),
            "ctx": list(unique_lengths(spec.ctxs)),
            "batch": [str(batch) for batch in spec.batches],
            "prefill": spec.prefill,
            "decode_tokens": spec.decode_tokens,
            "repeats": spec.repeats,
            "memory_budget": spec.memory_budget,
            "time_budget": spec.time_budget,
            "chunk_tokens": chunk,
            "device": device.type,
            "dtype": dtype,
            "seed": spec.seed,
            **machine_settings(self.environment),
        }
        free = int(FREE_SHARE[device.type] * free_bytes(device))
        longest = max(spec.ctxs) + fed_tokens(spec, device.type)
        check_memory(configs, dtype, longest, spec.memory_budget, free, str(device))
        left = free - shared_weight_bytes(configs, dtype)
        self.budget = spec.memory_budget or default_memory_budget(spec, configs, dtype, left, device.type)
        yield

    def units(self, say: Say) -> tuple[PlannedPoint, ...]:
        """Build the models and see how fast they are; the plan is that of the first session if there was one."""
        spec = self.spec
        if spec.out is not None and not spec.dry_run:
            with usage_errors(spec.out):  # before models are built for nothing
                spec.out.mkdir(parents=True, exist_ok=True)
        self._try_out(say)
        if self._old is not None and not spec.dry_run:
            try:
                self.plan = Plan.from_record(self._old.manifest["plan"])
            except (KeyError, TypeError) as error:
                raise UsageError(f"{spec.out}/run.json has no plan that can be read: give another --out") from error
            if spec.append:
                self.plan = self.plan.another_session(self._old)
        else:
            b = self.bench
            self.plan = make_plan(spec, b.configs, b.rates, b.dtype, b.chunk, self.budget, b.device.type)
        return self.plan.points

    def _try_out(self, say: Say) -> None:
        """Models (none for a dry run of large ones), and how fast they are."""
        import torch

        from kleval.profiler.bound import Bound, copy_bandwidth, matmul_rate
        from kleval.profiler.rates import from_bound, measured

        spec, b, longest = self.spec, self.bench, max(self.spec.ctxs)
        kind: torch.dtype = getattr(torch, b.dtype)
        if spec.dry_run and shared_weight_bytes(b.configs, b.dtype) > TRY_OUT_BYTES:
            say("measuring the machine; the models are too large to try out in a dry run")
            bound = Bound(copy_bandwidth(b.device), matmul_rate(b.device, kind))
            b.rates |= {
                name: from_bound(config, bound, b.chunk, b.dtype, longest) for name, config in b.configs.items()
            }
            return
        say(f"building {', '.join(b.configs)} with random weights")
        b.models |= build(b.configs, b.device, kind, spec.seed)
        for name, decoder in b.models.items():
            say(f"trying out {name}")
            began = time.perf_counter()
            b.rates[name] = measured(decoder, b.chunk, longest, spec.seed)
            say(f"trying out {name} took {time.perf_counter() - began:.1f} s")

    def facts(self) -> dict[str, Any]:
        return {
            "dtype": self.bench.dtype,
            "models": {
                name: {
                    "name": name,
                    "weights": WEIGHTS,
                    "config": config.to_dict(),
                    "parameters": config.parameters(),
                    "active_parameters": config.active_parameters(),
                    "rates": self.bench.rates[name].record(),
                }
                for name, config in self.bench.configs.items()
            },
            "plan": self.plan.record(),
            "unmeasured": list(self.plan.unmeasured),
            "seeds": {"seed": self.spec.seed},
            "caveats": [*self.plan.notes, *caveats(self.bench.configs)],
        }

    def measure(self, group: Sequence[PlannedPoint], session: Session) -> Iterator[tuple[PlannedPoint, Point]]:
        from kleval.profiler.native import Measuring

        if self._measuring is None:
            self._measuring = Measuring(self.bench, self.plan.points, session)
        settings = {
            "chunk_tokens": self.bench.chunk,
            "dtype": self.bench.dtype,
            "device": str(self.bench.device),
            "seed": self.spec.seed,
            "weights": WEIGHTS,
        }
        for planned, outcome in self._measuring.group(group):
            yield planned, planned.point(outcome, settings | self.bench.meter.describe(), self.environment)

    def verdict(self, session: Session) -> Verdict:
        """With what the points say of noise, and of sampling against full runs."""
        points = list(session.store.points())
        (spreads, noisy), (errors, checked) = noise(points), checks(points)
        # The plan's own word on sampling makes way for what the checks found.
        stale = ("Noisy", "Sampled", "Slower", *(("sampled prefill",) if checked else ()))
        kept = [text for text in session.store.manifest["caveats"] if not text.startswith(stale)]
        left_out = len(session.left_out)
        if left_out:
            kept.append(
                f"Slower than planned: {left_out} repeats were left out when the time budget was spent; the same command on this "
                "directory measures them."
            )
        return point_verdict(
            session, left_out, caveats=[*kept, *noisy, *checked], noise=spreads, sampling_checks=errors
        )
