"""Device of a native profile, opened: the models built on it and tried out, and points measured there, in whatever process it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kleval.profiler.building import WEIGHTS, build, check_memory, shared_weight_bytes
from kleval.profiler.environment import (
    FREE_SHARE,
    fingerprint,
    free_bytes,
    operator_code,
    resolve_device,
    resolve_dtype,
)
from kleval.profiler.plan import default_memory_budget, fed_tokens
from kleval.profiler.points import PlannedPoint
from kleval.profiler.rates import Rates
from kleval.profiler.workload import ProfileSpec
from kleval.store import Point

if TYPE_CHECKING:
    from kleval.models.config import ModelConfig
    from kleval.profiler.native import Measuring, Told

CHUNK_TOKENS = {"cpu": 512, "cuda": 8192}
TRY_OUT_BYTES = 1 << 31  # a dry run builds models up to this size to see how fast they are
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Facts:
    """What a plan is made from, as plain values. device: `cpu` or `cuda`. budget: bytes of a largest batch's states. rates: filled once
    the models are tried out."""

    configs: Mapping[str, ModelConfig]
    device: str
    dtype: str
    chunk: int
    budget: int
    environment: Mapping[str, Any]
    rates: Mapping[str, Rates]


class Device:
    """side_by_side: processes that share the machine's memory with this one, itself counted; 0 where there are none.

    Opening finds the models' shapes and the device, and sees that they fit into its memory (UsageError); nothing is allocated.
    """

    def __init__(self, spec: ProfileSpec, side_by_side: int = 0) -> None:
        from kleval.models.registry import config_of, resolve
        from kleval.profiler.bench import Bench
        from kleval.profiler.energy import Meter, counters

        self._spec, self._side_by_side = spec, side_by_side
        configs = {model.name: config_of(model) for model in map(resolve, spec.models)}
        device = resolve_device(spec.device)
        dtype = resolve_dtype(spec.dtype, device)
        chunk = min(spec.chunk_tokens or CHUNK_TOKENS[device.type], max(spec.ctxs))
        self._bench = Bench(device, dtype, chunk, spec.seed, configs)
        if not spec.dry_run:
            self._bench.meter = Meter(counters(str(device)))
        environment = fingerprint(device) | operator_code(device)
        shared = max(side_by_side, 1) if device.type == "cpu" else 1
        free = int(FREE_SHARE[device.type] * free_bytes(device) / shared)
        longest = max(spec.ctxs) + fed_tokens(spec, device.type)
        check_memory(configs, dtype, longest, spec.memory_budget, free, str(device))
        left = free - shared_weight_bytes(configs, dtype)
        budget = spec.memory_budget or default_memory_budget(spec, configs, dtype, left, device.type)
        self.facts = Facts(configs, device.type, dtype, chunk, budget, environment, self._bench.rates)
        self._measuring: Measuring | None = None

    def try_out(self, say: Say) -> None:
        """Models (none for a dry run of large ones), and how fast they are."""
        import torch

        from kleval.profiler.bound import Bound, copy_bandwidth, peak_rate
        from kleval.profiler.rates import from_bound, measured

        spec, b, longest = self._spec, self._bench, max(self._spec.ctxs)
        kind: torch.dtype = getattr(torch, b.dtype)
        if spec.dry_run and shared_weight_bytes(b.configs, b.dtype) > TRY_OUT_BYTES:
            say("measuring the machine; the models are too large to try out in a dry run")
            bound = Bound(copy_bandwidth(b.device), peak_rate(b.device, kind))
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

    def points(
        self, group: Sequence[PlannedPoint], planned: Sequence[PlannedPoint], told: Told
    ) -> Iterator[tuple[PlannedPoint, Point]]:
        """Each point of a group, measured. planned: all points of the profile, the same at every call. told: what else is known."""
        from kleval.profiler.native import Measuring

        if self._measuring is None:
            self._measuring = Measuring(self._bench, planned)
        b = self._bench
        settings = {
            "chunk_tokens": b.chunk,
            "dtype": b.dtype,
            "device": str(b.device),
            "seed": self._spec.seed,
            "weights": WEIGHTS,
            **({"side_by_side": self._side_by_side} if self._side_by_side else {}),
        }
        for one, outcome in self._measuring.group(group, told):
            yield one, one.point(outcome, settings | b.meter.describe(), self.facts.environment)
