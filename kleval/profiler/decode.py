"""Decode time per step at a depth: the cache is put there directly, fixed ids go in, nothing is sampled.

The first steps are dropped. The depth grows by one per step, so the timed steps lie at depth_first ... depth_last, which differ
by the number of steps and not more. Sampling is excluded: the logits are computed and left on the device. In the C++ library as many
steps follow one another as when an answer is written.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from kleval.backends.generation import MANY_STEPS
from kleval.models.cache import HybridCache
from kleval.models.decoder import Decoder
from kleval.models.stepper import Stepper
from kleval.profiler.measure import Clock
from kleval.profiler.points import Values
from kleval.quantiles import median, percentile


@torch.no_grad()
def decode_steps(
    decoder: Decoder, cache: HybridCache, ids: Tensor, steps: int, dropped: int
) -> tuple[list[float], float]:
    """Seconds of each of `steps` steps after `dropped` others, from where cache is; and of the very first (capture, allocation).

    ids [steps + dropped, B] are fed in. cache is left that much deeper: put it back with `restore`, or make a new one.
    """
    total = steps + dropped
    if len(ids) < total:
        raise ValueError(f"{total} steps need as many rows of ids, there are {len(ids)}")
    cache.reserve(total)
    stepper = Stepper(decoder, cache)
    clock = Clock(ids.device)
    if stepper.several:
        runs = [ids[:1], *(run for run in ids[1:total].split(MANY_STEPS) if len(run))]
        times = [b - a for run in runs for a, b in itertools.pairwise([clock.now(), *stepper.given(run)])]
        first, rest = times[0], times[1:]
    else:
        first = clock.seconds(lambda: stepper.step(ids[0]))
        rest = clock.each([lambda row=row: stepper.step(row) for row in ids[1:total]])  # type: ignore[misc]
    return [first, *rest][dropped:], first


def step_values(times: Sequence[float], first: float, dropped: int, depth: int, batch: int) -> Values:
    """The values of a decode point that need no bound. times, first: as of `decode_steps`, from depth on."""
    step = median(times)
    return {
        "step_ms_median": 1000 * step,
        "step_ms_p90": 1000 * percentile(times, 0.9),
        "step_ms_p99": 1000 * percentile(times, 0.99),
        "ms_per_token": 1000 * step / batch,
        "tokens_per_second": batch / step,
        "steps": len(times),
        "dropped_steps": dropped,
        "first_step_seconds": first,
        "depth_first": depth + dropped,
        "depth_last": depth + dropped + len(times) - 1,
    }
