"""Choice of the lengths that are run in full or sampled, and how often, so that prefill keeps to its time budget.

In mode `auto`, in this order:

1. every length is sampled once (in full where it has too few chunks to sample);
2. at least two lengths are also run in full, so that sampling can be checked; longer ones as long as FULL_SHARE of what is left
   pays for them, shortest first;
3. second, then third repeats, shortest first, while they fit: of full runs, then of sampled ones.

`full` leaves out sampling, `sampled` runs no more in full than the two checks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from kleval.profiler.integrate import positions_for, sample_positions
from kleval.profiler.workload import REPEATS, ProfileSpec

if TYPE_CHECKING:
    from kleval.profiler.rates import Rates

FULL_SHARE = 0.6
MIN_CHUNKS = 8  # shorter prompts are only run in full
CHECKS = 2


def prefill_repeats(
    spec: ProfileSpec, ctxs: Sequence[int], rates: Mapping[str, Rates], chunk: int, left: float
) -> tuple[dict[int, int], dict[int, int]]:
    """(length -> repeats in full, length -> repeats sampled); see the module's docstring for the order of spending."""
    most = spec.repeats or REPEATS
    long = [ctx for ctx in ctxs if ctx >= MIN_CHUNKS * chunk]
    short = [ctx for ctx in ctxs if ctx < MIN_CHUNKS * chunk]

    def full_cost(ctx: int) -> float:
        return sum(rate.prefill(ctx, chunk) for rate in rates.values())

    if spec.prefill == "full" or not long:
        full = dict.fromkeys(ctxs, 1)
        return _more_repeats(full, full_cost, left - sum(map(full_cost, full)), most, spec.repeats), {}

    checks = _check_lengths(long, chunk)
    positions = sample_positions(sorted({*long, *checks}), chunk)
    nodes = {ctx: set(positions_for(ctx, chunk, positions)) for ctx in {*long, *checks}}

    def sampled_cost(ctx: int) -> float:
        below = set().union(*(nodes[other] for other in nodes if other < ctx))
        fill = sum(rate.fill(1, ctx) for rate in rates.values())
        return fill + sum(rate.chunk(p) for rate in rates.values() for p in nodes[ctx] - below)

    full = dict.fromkeys([*short, *checks], 1)
    sampled = dict.fromkeys(sorted({*long, *checks}), 1)
    left -= sum(map(full_cost, full)) + sum(map(sampled_cost, sampled))
    pot = FULL_SHARE * left if spec.prefill == "auto" else 0.0
    for ctx in (ctx for ctx in long if ctx not in full):
        if full_cost(ctx) > pot:
            break
        full[ctx] = 1
        pot -= full_cost(ctx)
        left -= full_cost(ctx)
    full = _more_repeats(full, full_cost, left, most, spec.repeats)
    left -= sum((full[ctx] - 1) * full_cost(ctx) for ctx in full)
    return full, _more_repeats(sampled, sampled_cost, left, most, spec.repeats)


def _check_lengths(long: Sequence[int], chunk: int) -> list[int]:
    """Two lengths that are run in full as well as sampled: the shortest that can be, or short ones beside a single length."""
    if len(long) >= CHECKS:
        return sorted(long)[:CHECKS]
    extra = [n for n in (MIN_CHUNKS * chunk, 4 * MIN_CHUNKS * chunk) if n < long[0]]
    return sorted({*extra, *([] if len(extra) == CHECKS else long)})


def _more_repeats(
    counts: dict[int, int], cost: Callable[[int], float], left: float, most: int, asked: int | None
) -> dict[int, int]:
    """counts with repeats added round by round, shortest length first, while they fit; all of them when asked for."""
    counts = dict(counts)
    if asked is not None:
        return dict.fromkeys(counts, asked)
    for _ in range(most - 1):
        for ctx in sorted(counts):
            if counts[ctx] < most and cost(ctx) <= left:
                counts[ctx] += 1
                left -= cost(ctx)
            else:
                return counts
    return counts
