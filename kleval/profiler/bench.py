"""Bench of a native profile: models, device and rates that its measurements share; and one attempt at a point."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

from kleval.models.cache import HybridCache
from kleval.models.config import ModelConfig
from kleval.models.decoder import Decoder
from kleval.profiler.bound import Bound
from kleval.profiler.energy import Meter
from kleval.profiler.environment import free_bytes
from kleval.profiler.points import Outcome
from kleval.profiler.prefill import new_cache
from kleval.profiler.rates import Rates
from kleval.types import UsageError

TOGETHER_SHARE = 0.6  # of free memory that the caches of several models may take to be kept side by side


@dataclass(slots=True)
class Bench:
    """configs, models, rates: by printed name; models and rates once they are built and tried out. bound: once it is measured.

    meter: of the device's energy.
    """

    device: torch.device
    dtype: str
    chunk: int
    seed: int
    configs: Mapping[str, ModelConfig]
    models: dict[str, Decoder] = field(default_factory=dict)
    rates: dict[str, Rates] = field(default_factory=dict)
    bound: Bound | None = None
    meter: Meter = field(default_factory=lambda: Meter(()))

    def state_bytes(self, model: str, ctx: int, batch: int = 1) -> int:
        """Closed form, all sequences together."""
        return self.configs[model].state_bytes(ctx, batch, self.dtype).total

    def fit_together(self, state_bytes: int) -> bool:
        return state_bytes <= TOGETHER_SHARE * free_bytes(self.device)

    def filled(self, model: str, depth: int, batch: int = 1, more: int = 0) -> HybridCache:
        """A cache at that depth with room for `more` tokens; no model has run."""
        cache = new_cache(self.models[model], batch, depth + more)
        cache.fill(depth, self.seed)
        return cache

    def release(self) -> None:
        """Give the allocator's unused memory back to the device, so that what comes next finds what is free."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def attempt(work: Callable[[], Outcome]) -> Outcome:
    """What work returns, or its failure. UsageError and KeyboardInterrupt end the profile and are raised."""
    try:
        return work()
    except UsageError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        memory = isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate memory" in text
        kind = "out_of_memory" if memory else "internal"
        return Outcome({}, failure={"kind": kind, "message": f"{type(error).__name__}: {text}"[:500]})
