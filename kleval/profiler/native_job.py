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
    from kleval.models.decoder import Decoder
    from kleval.profiler.native import Measuring
    from kleval.profiler.rates import Rates

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
        self._decoders: dict[str, Decoder] = {}
        self._rates: dict[str, Rates] = {}
        self._measuring: Measuring | None = None

    @contextlib.contextmanager
    def open(self, old: RunStore | None) -> Iterator[None]:
        """Find the models' shapes and the device, and see that they fit into its memory; nothing is allocated."""
        from kleval.models.registry import config_of, resolve

        spec, self._old = self.spec, old
        self.configs = {model.name: config_of(model) for model in map(resolve, spec.models)}
        self.models = {name: {} for name in self.configs}
        self.device = resolve_device(spec.device)
        self.dtype = resolve_dtype(spec.dtype, self.device)
        self.chunk = min(spec.chunk_tokens or CHUNK_TOKENS[self.device.type], max(spec.ctxs))
        self.environment = fingerprint(self.device)
        self.told = {
            "models": list(self.configs),
            "ctx": list(unique_lengths(spec.ctxs)),
            "batch": [str(batch) for batch in spec.batches],
            "prefill": spec.prefill,
            "decode_tokens": spec.decode_tokens,
            "repeats": spec.repeats,
            "memory_budget": spec.memory_budget,
            "time_budget": spec.time_budget,
            "chunk_tokens": self.chunk,
            "device": self.device.type,
            "dtype": self.dtype,
            "seed": spec.seed,
            **machine_settings(self.environment),
        }
        free = int(FREE_SHARE[self.device.type] * free_bytes(self.device))
        longest = max(spec.ctxs) + fed_tokens(spec, self.device.type)
        check_memory(self.configs, self.dtype, longest, spec.memory_budget, free, str(self.device))
        left = free - shared_weight_bytes(self.configs, self.dtype)
        self.budget = spec.memory_budget or default_memory_budget(
            spec, self.configs, self.dtype, left, self.device.type
        )
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
        else:
            self.plan = make_plan(
                spec, self.configs, self._rates, self.dtype, self.chunk, self.budget, self.device.type
            )
        return self.plan.points

    def _try_out(self, say: Say) -> None:
        """Models (none for a dry run of large ones), and how fast they are."""
        import torch

        from kleval.profiler.bound import Bound, copy_bandwidth, matmul_rate
        from kleval.profiler.rates import from_bound, measured

        spec, configs, kind, longest = self.spec, self.configs, getattr(torch, self.dtype), max(self.spec.ctxs)
        if spec.dry_run and shared_weight_bytes(configs, self.dtype) > TRY_OUT_BYTES:
            say("measuring the machine; the models are too large to try out in a dry run")
            bound = Bound(copy_bandwidth(self.device), matmul_rate(self.device, kind))
            self._rates = {
                name: from_bound(config, bound, self.chunk, self.dtype, longest) for name, config in configs.items()
            }
            return
        say(f"building {', '.join(configs)} with random weights")
        self._decoders = build(configs, self.device, kind, spec.seed)
        for name, decoder in self._decoders.items():
            say(f"trying out {name}")
            began = time.perf_counter()
            self._rates[name] = measured(decoder, self.chunk, longest, spec.seed)
            say(f"trying out {name} took {time.perf_counter() - began:.1f} s")

    def facts(self) -> dict[str, Any]:
        return {
            "dtype": self.dtype,
            "models": {
                name: {
                    "name": name,
                    "weights": WEIGHTS,
                    "config": config.to_dict(),
                    "parameters": config.parameters(),
                    "active_parameters": config.active_parameters(),
                    "rates": self._rates[name].record(),
                }
                for name, config in self.configs.items()
            },
            "plan": self.plan.record(),
            "unmeasured": list(self.plan.unmeasured),
            "seeds": {"seed": self.spec.seed},
            "caveats": [*self.plan.notes, *caveats(self.configs)],
        }

    def measure(self, group: Sequence[PlannedPoint], session: Session) -> Iterator[tuple[PlannedPoint, Point]]:
        from kleval.profiler.bench import Bench
        from kleval.profiler.native import Measuring

        if self._measuring is None:
            bench = Bench(
                self.device, self.dtype, self.chunk, self.spec.seed, self.configs, self._decoders, self._rates
            )
            self._measuring = Measuring(bench, self.plan.points, session)
        settings = {
            "chunk_tokens": self.chunk,
            "dtype": self.dtype,
            "device": str(self.device),
            "seed": self.spec.seed,
            "weights": WEIGHTS,
        }
        for planned, outcome in self._measuring.group(group):
            yield planned, planned.point(outcome, settings, self.environment)

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
