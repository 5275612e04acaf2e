"""Decode time per step at a depth: the cache is put there directly, fixed ids go in, nothing is sampled.

The first steps are dropped. The depth grows by one per step, so the timed steps lie at depth_first ... depth_last, which differ
by the number of steps and not more. Sampling is excluded: the logits are computed and left on the device.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kleval.models.cache import HybridCache
from kleval.models.decoder import Decoder
from kleval.models.stepper import Stepper
from kleval.profiler.measure import Clock, median, percentile


@dataclass(frozen=True, slots=True)
class Steps:
    """Times of single decode steps, seconds, first ones dropped. first_seconds: the very first step's (capture, allocation)."""

    seconds: tuple[float, ...]
    dropped: int
    first_seconds: float
    depth_first: int
    depth_last: int

    def values(self, batch: int) -> dict[str, float | int | None]:
        """The values of a decode point that need no bound."""
        step = median(self.seconds)
        return {
            "step_ms_median": 1000 * step,
            "step_ms_p90": 1000 * percentile(self.seconds, 0.9),
            "step_ms_p99": 1000 * percentile(self.seconds, 0.99),
            "ms_per_token": 1000 * step / batch,
            "tokens_per_second": batch / step,
            "steps": len(self.seconds),
            "dropped_steps": self.dropped,
            "first_step_seconds": self.first_seconds,
            "depth_first": self.depth_first,
            "depth_last": self.depth_last,
        }


@torch.no_grad()
def decode_steps(decoder: Decoder, cache: HybridCache, ids: Tensor, steps: int, dropped: int) -> Steps:
    """Time `steps` steps after `dropped` others, from where cache is; ids [steps + dropped, B] are fed in.

    cache is left that much deeper: put it back with `restore`, or make a new one.
    """
    total = steps + dropped
    if len(ids) < total:
        raise ValueError(f"{total} steps need as many rows of ids, there are {len(ids)}")
    depth = max(cache.lengths_host)
    cache.reserve(total)
    stepper = Stepper(decoder, cache)
    clock = Clock(ids.device)
    first = clock.seconds(lambda: stepper.step(ids[0]))
    rest = clock.each([lambda row=row: stepper.step(row) for row in ids[1:total]])  # type: ignore[misc]
    kept = [first, *rest][dropped:]
    return Steps(tuple(kept), dropped, first, depth + dropped, depth + total - 1)
