"""How many times longer one operator takes than another, from a run's kernel points: repeat by repeat, as for models (`comparison`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kleval.store.comparison import interval
from kleval.store.points import Point


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
