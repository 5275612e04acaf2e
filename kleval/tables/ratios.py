"""Ratios of costs between models, from a run's points: repeat by repeat, then together.

A profile measures its models in turn (A B A B), so the two measurements of one repeat share the state that the machine was in.
Each repeat gives one ratio; reported is their geometric mean with the 95 % interval of Student's t on the logarithms
(n - 1 degrees of freedom). One repeat gives a ratio and no interval.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from kleval.store import Point

# What is compared, and the closed form that would give the ratio alone.
TIMES = {"prefill": "seconds", "decode": "ms_per_token", "kernel": "seconds"}
CLOSED_FORM = {"prefill": "flops", "decode": "bytes_per_step", "kernel": "flops"}
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Ratio:
    """baseline's time (or bytes) over model's: above 1, model is faster (or smaller). Of kernels, both are operators.

    low, high: the interval, NaN for n = 1. n: repeats that both have. ideal: the ratio that operations alone (prefill, kernels) or
    bytes alone (decode, per token) would give; None when unknown. estimate: a side is a sampled prefill. batch, baseline_batch: of
    the two sides; they differ in the protocol `largest-batch`. heads, head_dim: of kernels, else 0.
    """

    kind: str
    protocol: str
    ctx: int
    model: str
    baseline: str
    value: float
    low: float = math.nan
    high: float = math.nan
    n: int = 1
    ideal: float | None = None
    estimate: bool = False
    batch: int = 1
    baseline_batch: int = 1
    heads: int = 0
    head_dim: int = 0


def choose_baseline(models: Iterable[str]) -> str:
    """The model that others are compared with: the first `mla`, else the first. ValueError for no models."""
    names = list(models)
    if not names:
        raise ValueError("no models")
    return next((name for name in names if name.split("@")[0] == "mla"), names[0])


def ratios(points: Iterable[Point], baseline: str) -> list[Ratio]:
    """One Ratio per kind, protocol, shape, ctx and other model, in that order; failed points are left out."""
    sides: dict[tuple[str, str, int, int, int], dict[str, dict[int, Point]]] = {}
    for point in points:
        if not point.failed and _time(point) > 0:
            place = (point.kind, point.protocol, *kernel_shape(point), point.ctx)
            sides.setdefault(place, {}).setdefault(point.model, {})[point.repeat] = point
    found = []
    for _, by_model in sorted(sides.items()):
        theirs = by_model.pop(baseline, {})
        for _, mine in sorted(by_model.items()):
            if both := sorted(mine.keys() & theirs.keys()):
                found.append(_ratio([(theirs[repeat], mine[repeat]) for repeat in both]))
    return found


def kernel_ratios(points: Iterable[Point], slow: str = "dplr", fast: str = "kda") -> list[Ratio]:
    """slow's time over fast's per shape and T at which both operators were measured on whole prompts."""
    chunks = [point for point in points if (point.kind, point.protocol) == ("kernel", "chunk")]
    return [ratio for ratio in ratios(chunks, slow) if ratio.model == fast]


def kernel_shape(point: Point) -> tuple[int, int]:
    """(heads, head dim) of a kernel point, 0 where it does not say."""
    if point.kind != "kernel":
        return 0, 0
    return int(point.settings.get("heads") or 0), int(point.settings.get("head_dim") or 0)


def interval(values: list[float]) -> tuple[float, float, float]:
    """Geometric mean of positive values with its 95 % t interval; NaN bounds for a single value."""
    logs = [math.log(value) for value in values]
    mean = math.fsum(logs) / len(logs)
    if len(logs) < 2:
        return math.exp(mean), math.nan, math.nan
    from scipy.special import stdtrit

    deviation = math.sqrt(math.fsum((x - mean) ** 2 for x in logs) / (len(logs) - 1))
    half = float(stdtrit(len(logs) - 1, 0.5 + CONFIDENCE / 2)) * deviation / math.sqrt(len(logs))
    return math.exp(mean), math.exp(mean - half), math.exp(mean + half)


def _ratio(pairs: list[tuple[Point, Point]]) -> Ratio:
    theirs, mine = pairs[0]
    ideals = [(p.closed_form.get(CLOSED_FORM[mine.kind]) or 0) / max(p.batch, 1) for p in (theirs, mine)]
    heads, head_dim = kernel_shape(mine)
    return Ratio(
        mine.kind,
        mine.protocol,
        mine.ctx,
        mine.model,
        theirs.model,
        *interval([_time(slow) / _time(fast) for slow, fast in pairs]),
        n=len(pairs),
        ideal=ideals[0] / ideals[1] if all(ideals) else None,
        estimate=mine.estimate or theirs.estimate,
        batch=mine.batch,
        baseline_batch=theirs.batch,
        heads=heads,
        head_dim=head_dim,
    )


def _time(point: Point) -> float:
    """0 where there is none."""
    return float(point.values.get(TIMES.get(point.kind, "")) or 0)
