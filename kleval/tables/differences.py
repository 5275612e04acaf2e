"""Two models on the same samples: the paired difference of their scores, with an interval.

Method: MOVER, "square and add" (Zou & Donner 2008, Statistics in Medicine 27:1693-1702). For a difference of two
correlated estimates m1, m2 with limits [l1, u1], [l2, u2] and correlation r

    low = m1 - m2 - sqrt((m1 - l1)^2 + (u2 - m2)^2 - 2 r (m1 - l1)(u2 - m2))        and high likewise.

With Wilson limits and the phi coefficient this is Newcombe's interval for paired proportions (1998, Statistics in
Medicine 17:2635-2650), which stays honest where the bootstrap has nothing to resample: when one model is always right.
Of a few graded scores, where Wilson's limits are those of right and wrong and much too wide, Student's interval of the pairs'
differences stands instead; it needs GRADED_MINIMUM pairs of which at least half differ.
The mean of the tasks' differences combines their intervals in the same way (`intervals.square_and_add`).

Samples are the same when id and prompt hash are: the same text was asked. Repeats of a sample are averaged first.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kleval.tables.intervals import BCA_MINIMUM, interval, open_interval, square_and_add, student

GRADED_MINIMUM = 5

Scores = Mapping[Any, float]  # sample key -> mean score of its repeats, in [0, 1]


@dataclass(frozen=True, slots=True)
class Difference:
    """a - b with its 95 % limits, in [-1, 1] unless it is of values in a unit (`open`).

    n: pairs it rests on, summed over tasks for a mean. p: of the exact test, where all scores are 0 or 1, else None.
    """

    value: float
    low: float
    high: float
    n: int
    p: float | None = None
    open: bool = False

    @property
    def clear(self) -> bool:
        """Whether the interval excludes zero and the exact test, if there is one, agrees.

        With a handful of pairs the interval alone is too quick: 3 of 5 against 0 of 5 has p = 0.25.
        """
        return (self.low > 0 or self.high < 0) and (self.p is None or self.p <= 0.05)


def paired(a: Scores, b: Scores, seed: int = 0, unit: str = "") -> Difference | None:
    """a - b over the samples that both have a score for; None when there is none. unit: of values without ends, whose interval is that
    of the pairs' differences."""
    shared = sorted(a.keys() & b.keys())
    if not shared:
        return None
    xs, ys = [a[key] for key in shared], [b[key] for key in shared]
    if unit:
        found = open_interval([x - y for x, y in zip(xs, ys, strict=True)], seed)
        return Difference(found.mean, found.low, found.high, len(shared), open=True)
    x, y, r = interval(xs, seed), interval(ys, seed), correlation(xs, ys)
    centre = x.mean - y.mean
    binary = all(v in (0.0, 1.0) for v in (*xs, *ys))
    differ = sum(u != v for u, v in zip(xs, ys, strict=True))
    if not binary and GRADED_MINIMUM <= len(shared) < BCA_MINIMUM and 2 * differ >= len(shared):
        below = above = student([x - y for x, y in zip(xs, ys, strict=True)])
    else:
        below = _correlated(x.mean - x.low, y.high - y.mean, r)
        above = _correlated(x.high - x.mean, y.mean - y.low, r)
    p = None
    if binary:
        p = mcnemar(sum(u > v for u, v in zip(xs, ys, strict=True)), sum(u < v for u, v in zip(xs, ys, strict=True)))
    return Difference(centre, max(-1.0, centre - below), min(1.0, centre + above), len(shared), p)


def mcnemar(only_first: int, only_second: int) -> float:
    """McNemar's exact two-sided p: of the discordant pairs, each side is as likely if the models are equal."""
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(only_first, only_second), only_first + only_second, 0.5)))


def mean(
    parts: Sequence[Difference], weights: Sequence[float] | None = None, keys: Sequence[Hashable] | None = None
) -> Difference | None:
    """The mean of the differences on several tasks; None for none. weights, keys: as `intervals.square_and_add` takes them."""
    if not parts:
        return None
    centre, low, high = square_and_add([(p.value, p.low, p.high) for p in parts], weights, keys)
    n = sum(p.n for p in parts)
    if parts[0].open:
        return Difference(centre, low, high, n, open=True)
    return Difference(centre, max(-1.0, low), min(1.0, high), n)


def correlation(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Pearson's r over pairs (phi for 0/1 values); 0 where one side does not vary, as Newcombe sets it."""
    if len(xs) != len(ys):
        raise ValueError(f"{len(xs)} values against {len(ys)}: correlation needs pairs")
    if not xs:
        return 0.0
    mx, my = math.fsum(xs) / len(xs), math.fsum(ys) / len(ys)
    sxx = math.fsum((x - mx) ** 2 for x in xs)
    syy = math.fsum((y - my) ** 2 for y in ys)
    if sxx < 1e-18 or syy < 1e-18:
        return 0.0
    sxy = math.fsum((x - mx) * (y - my) for x, y in zip(xs, ys, strict=True))
    return max(-1.0, min(1.0, sxy / math.sqrt(sxx * syy)))


def _correlated(one: float, other: float, r: float) -> float:
    return math.sqrt(max(0.0, one * one + other * other - 2 * r * one * other))
