"""The rule behind sampled prefill: chunks timed at a few positions stand for the whole prompt.

A chunk of c tokens at position p costs t(p): projections, experts and the delta rule cost the same everywhere, attention over the
p tokens before it grows with p, so t(p) = a + b p up to cache and kernel effects. A few positions (`nodes`) are timed and t is
interpolated linearly between them; a prompt's latency is the sum of t over all of its chunk starts 0, c, 2c, ..., plus the head.

Nodes are position 0, the last full chunk of every length asked for, and the middle of every gap in which positions more than
double. So one sweep serves all lengths and nothing is extrapolated (but the last, partial chunk, by one chunk).

Error: none for t = a + b p. Where t bends, linear interpolation over a gap h adds at most h^3 max|t''| / 12 / c, too much for a
convex t: with lengths a factor 4 apart, 6 % of the total (11 % for a prompt of 8 chunks) for a purely quadratic t and nothing
else. Noise: the sum weights each node by the half-gaps around it; relative noise s of every node becomes at most s of the sum.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import TypeVar

N = TypeVar("N", int, float)
GAP_FACTOR = 2  # positions further apart than this factor get the middle between them


def last_full_start(ctx: int, chunk: int) -> int:
    """Where the last full chunk of a prompt begins; ctx >= chunk."""
    return (ctx // chunk - 1) * chunk


def sample_positions(ctxs: Sequence[int], chunk: int) -> tuple[int, ...]:
    """Where chunks are timed so that every length in ctxs can be integrated: multiples of chunk, ascending.

    ValueError for a length below one chunk: there is nothing to sample in it.
    """
    if min(ctxs) < chunk:
        raise ValueError(f"a length of {min(ctxs)} tokens is less than one chunk of {chunk}")
    ends = sorted({0, *(last_full_start(ctx, chunk) for ctx in ctxs)})
    middles = [
        (low + high) // 2 // chunk * chunk
        for low, high in itertools.pairwise(ends)
        if high + chunk > GAP_FACTOR * (low + chunk)
    ]
    return tuple(sorted({*ends, *middles}))


def positions_for(ctx: int, chunk: int, positions: Sequence[int]) -> tuple[int, ...]:
    """The positions that decide the estimate of one length: those up to its last full chunk."""
    return tuple(p for p in positions if p <= last_full_start(ctx, chunk))


def interpolate(times: Mapping[N, float], position: float) -> float:
    """Piecewise linear through times; beyond the ends the first or last piece goes on. A single time is constant."""
    known = sorted(times)
    if len(known) == 1:
        return times[known[0]]
    at = min(max(bisect_right(known, position), 1), len(known) - 1)
    low, high = known[at - 1], known[at]
    share = (position - low) / (high - low)
    return times[low] + share * (times[high] - times[low])


def integrate(times: Mapping[int, float], ctx: int, chunk: int) -> float:
    """Seconds of a prompt of ctx tokens from seconds of one chunk at some positions.

    times: position -> seconds; only positions up to the last full chunk of ctx count. A partial last chunk counts by its share
    of the tokens. ValueError when ctx is less than one chunk or no position lies in it.
    """
    if ctx < chunk:
        raise ValueError(f"a length of {ctx} tokens is less than one chunk of {chunk}")
    inside = {p: times[p] for p in positions_for(ctx, chunk, sorted(times))}
    if not inside:
        raise ValueError("no chunk was timed inside the prompt")
    total = sum(interpolate(inside, start) for start in range(0, ctx - chunk + 1, chunk))
    if rest := ctx % chunk:
        total += interpolate(inside, ctx - rest) * rest / chunk
    return total
