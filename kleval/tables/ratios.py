"""How many times faster one model is than another, from a run's points: repeat by repeat, then together.

A profile measures its models in turn (A B A B), so the two measurements of one repeat share the state that the machine was in.
Each repeat gives one ratio; reported is their geometric mean with the 95 % interval of Student's t on the logarithms
(n - 1 degrees of freedom). One repeat gives a ratio and no interval.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from kleval.store.records import METRIC, Point

CLOSED_FORM = {"prefill": "flops", "decode": "bytes_per_step"}
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Ratio:
    """baseline's time over model's time: above 1, model is faster.

    low, high: the interval, NaN for n = 1. n: repeats that both have. ideal: the ratio that operations alone (prefill) or bytes
    alone (decode, per token) would give; None when unknown. estimate: a side is a sampled prefill. batch, baseline_batch: of
    the two sides; they differ in the protocol `largest-batch`.
    """

    kind: str
    protocol: str
    ctx: int
    model: str
    baseline: str
    value: float
    low: float
    high: float
    n: int
    ideal: float | None
    estimate: bool
    batch: int
    baseline_batch: int


def choose_baseline(models: Iterable[str]) -> str:
    """The model that others are compared with: the first `mla`, else the first. ValueError for no models."""
    names = list(models)
    if not names:
        raise ValueError("no models")
    return next((name for name in names if name.split("@")[0] == "mla"), names[0])


def ratios(points: Iterable[Point], baseline: str) -> list[Ratio]:
    """One Ratio per kind, protocol, ctx and other model, in that order; failed points are left out."""
    sides: dict[tuple[str, str, int, str], dict[int, Point]] = {}
    for point in points:
        if point.kind in METRIC and not point.failed and _time(point) is not None:
            sides.setdefault((point.kind, point.protocol, point.ctx, point.model), {})[point.repeat] = point
    found = []
    for (kind, protocol, ctx, model), mine in sorted(sides.items()):
        theirs = sides.get((kind, protocol, ctx, baseline), {})
        both = sorted(mine.keys() & theirs.keys())
        if model != baseline and both:
            found.append(_ratio([(theirs[repeat], mine[repeat]) for repeat in both], baseline))
    return found


def interval(values: list[float]) -> tuple[float, float, float]:
    """Geometric mean of positive values with its 95 % t interval; NaN bounds for a single value."""
    logs = [math.log(value) for value in values]
    mean = math.fsum(logs) / len(logs)
    if len(logs) < 2:
        return math.exp(mean), math.nan, math.nan
    from scipy.stats import t

    deviation = math.sqrt(math.fsum((x - mean) ** 2 for x in logs) / (len(logs) - 1))
    half = float(t.ppf(0.5 + CONFIDENCE / 2, len(logs) - 1)) * deviation / math.sqrt(len(logs))
    return math.exp(mean), math.exp(mean - half), math.exp(mean + half)


def _ratio(pairs: list[tuple[Point, Point]], baseline: str) -> Ratio:
    value, low, high = interval([_seconds(theirs) / _seconds(mine) for theirs, mine in pairs])
    theirs, mine = pairs[0]
    name = CLOSED_FORM[mine.kind]
    ideals = [(p.closed_form.get(name) or 0) / p.batch for p in (theirs, mine)]
    return Ratio(
        kind=mine.kind,
        protocol=mine.protocol,
        ctx=mine.ctx,
        model=mine.model,
        baseline=baseline,
        value=value,
        low=low,
        high=high,
        n=len(pairs),
        ideal=ideals[0] / ideals[1] if all(ideals) else None,
        estimate=mine.estimate or theirs.estimate,
        batch=mine.batch,
        baseline_batch=theirs.batch,
    )


def _time(point: Point) -> float | None:
    value = point.values.get(METRIC[point.kind])
    return None if value is None or value <= 0 else float(value)


def _seconds(point: Point) -> float:
    value = _time(point)
    assert value is not None
    return value


@dataclass(frozen=True, slots=True)
class KernelRatio:
    """slow's time over fast's at one shape: above 1, fast is faster. low, high: 95 % interval, NaN for one repeat.

    ideal: what operations alone would give.
    """

    slow: str
    fast: str
    heads: int
    head_dim: int
    ctx: int
    value: float
    low: float
    high: float
    n: int
    ideal: float | None


def kernel_shape(point: Point) -> tuple[int, int]:
    """(heads, head dim) of a kernel point, 0 where it does not say."""
    return int(point.settings.get("heads") or 0), int(point.settings.get("head_dim") or 0)


def kernel_ratios(points: Iterable[Point], slow: str = "dplr", fast: str = "kda") -> list[KernelRatio]:
    """One per shape and T at which both operators were measured, over the repeats that both have, in that order."""
    sides: dict[tuple[int, int, int], dict[str, dict[int, Point]]] = {}
    for point in points:
        if point.kind == "kernel" and point.protocol == "chunk" and point.values.get("seconds"):
            place = sides.setdefault((*kernel_shape(point), point.ctx), {})
            place.setdefault(point.model, {})[point.repeat] = point
    found = []
    for (heads, head_dim, ctx), by_name in sorted(sides.items()):
        theirs, mine = by_name.get(slow, {}), by_name.get(fast, {})
        both = sorted(theirs.keys() & mine.keys())
        if not both:
            continue
        quotients = [float(theirs[r].values["seconds"] or 0) / float(mine[r].values["seconds"] or 1) for r in both]
        value, low, high = interval(quotients)
        flops = [points_of[both[0]].closed_form.get("flops") for points_of in (theirs, mine)]
        ideal = flops[0] / flops[1] if flops[0] and flops[1] else None
        found.append(KernelRatio(slow, fast, heads, head_dim, ctx, value, low, high, len(both), ideal))
    return found
