"""A mean's 95 % interval.

`interval` is for a mean of values in [0, 1], `open_interval` for one of any numbers (`student`, `bca` and `abc` alone):

- `wilson`: every value is 0 or 1. Wilson's score interval (Wilson 1927; Newcombe 1998, method 3).
- `bca`: fractional values. Bias-corrected and accelerated bootstrap (Efron 1987) of N_RESAMPLES resamples, seeded; the same
  limits as scipy.stats.bootstrap's.
- `abc`: more than BCA_MAXIMUM fractional values. What BCa tends to, without resampling: the approximate bootstrap confidence
  interval, corrected for skewness (DiCiccio & Efron 1992; Efron & Tibshirani 1993, section 14.4), exact in form for a mean.
- `wilson-fractional`: fractional values where the bootstrap has nothing to resample: fewer than BCA_MINIMUM values,
  or all the same. Wilson's formula with the sum of the values as the number of successes. It is conservative: among all
  distributions on [0, 1] with a given mean, the 0/1 one has the largest variance.
- `student`: Student's t, of 2 to BCA_MINIMUM numbers that have no ends, or that are all the same.
- `none`: there is no value, or a single one of such numbers; low and high are NaN.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist, stdev
from typing import Any

CONFIDENCE = 0.95
N_RESAMPLES = 9999
BCA_MINIMUM = 20  # below, the bootstrap of a mean is erratic where most values are at an end of the scale
BCA_MAXIMUM = 5000  # above, `abc` differs from the bootstrap by less than the bootstrap's own noise
BLOCK_VALUES = 1 << 20  # resampled at a time


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and its 95 % interval; low and high are NaN when method is `none`."""

    mean: float
    low: float
    high: float
    method: str


def wilson(successes: float, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval for successes out of n >= 1; successes may be fractional (see the module's docstring)."""
    z2 = NormalDist().inv_cdf(0.5 + confidence / 2) ** 2
    p = min(max(successes / n, 0.0), 1.0)
    centre = p + z2 / (2 * n)
    half = math.sqrt(z2 * (p * (1 - p) / n + z2 / (4 * n * n)))
    low, high = (centre - half) / (1 + z2 / n), (centre + half) / (1 + z2 / n)
    # At the ends the formula is exact on paper and off by an ulp in floats.
    return (0.0 if p == 0 else min(max(low, 0.0), p)), (1.0 if p == 1 else max(min(high, 1.0), p))


def interval(values: Sequence[float], seed: int = 0) -> Interval:
    """Mean of values in [0, 1] with its 95 % interval. The order of the values does not matter.

    NaN values are left out; with none left the method is `none`. ValueError for values outside [0, 1].
    """
    kept = sorted(float(v) for v in values if not math.isnan(v))
    if not kept:
        return Interval(math.nan, math.nan, math.nan, "none")
    if kept[0] < 0 or kept[-1] > 1:
        raise ValueError(f"values must lie in [0, 1], found {kept[0]} to {kept[-1]}")
    n, total = len(kept), math.fsum(kept)
    mean = min(max(total / n, kept[0]), kept[-1])
    if all(v in (0.0, 1.0) for v in kept):
        return Interval(mean, *wilson(total, n), "wilson")
    if n >= BCA_MINIMUM and kept[0] < kept[-1]:
        method = "bca" if n <= BCA_MAXIMUM else "abc"
        low, high = _bca(kept, seed) if method == "bca" else _abc(kept)
        if math.isfinite(low) and math.isfinite(high):
            return Interval(mean, min(low, mean), max(high, mean), method)
    return Interval(mean, *wilson(total, n), "wilson-fractional")


def open_interval(values: Sequence[float], seed: int = 0) -> Interval:
    """Mean of any numbers with its 95 % interval; NaN values are left out."""
    kept = sorted(float(v) for v in values if not math.isnan(v))
    if len(kept) < 2:
        return Interval(kept[0] if kept else math.nan, math.nan, math.nan, "none")
    mean = math.fsum(kept) / len(kept)
    if len(kept) >= BCA_MINIMUM and kept[0] < kept[-1]:
        method = "bca" if len(kept) <= BCA_MAXIMUM else "abc"
        low, high = _bca(kept, seed) if method == "bca" else _abc(kept)
        if math.isfinite(low) and math.isfinite(high):
            return Interval(mean, min(low, mean), max(high, mean), method)
    half = student(kept)
    return Interval(mean, mean - half, mean + half, "student")


def square_and_add(
    parts: Sequence[tuple[float, float, float]],
    weights: Sequence[float] | None = None,
    keys: Sequence[Hashable] | None = None,
) -> tuple[float, float, float]:
    """The mean of estimates with their limits, (value, low, high) each -> the same of the mean (Zou & Donner 2008).

    weights: equal unless given. keys: estimates of one key rest on the same questions; the ends of their limits are averaged, which is
    right where they are wholly correlated and never too narrow. Those of different keys are independent.
    """
    total = math.fsum(weights) if weights else len(parts)
    shares = [w / total for w in weights] if weights else [1 / total] * len(parts)
    below: dict[Hashable, float] = {}
    above: dict[Hashable, float] = {}
    mean = math.fsum(share * value for share, (value, _, _) in zip(shares, parts, strict=True))
    for i, (share, (value, low, high)) in enumerate(zip(shares, parts, strict=True)):
        key = keys[i] if keys else i
        below[key] = below.get(key, 0.0) + share * (value - low)
        above[key] = above.get(key, 0.0) + share * (high - value)
    down, up = (math.sqrt(math.fsum(d * d for d in ends.values())) for ends in (below, above))
    return mean, mean - down, mean + up


def student(values: Sequence[float]) -> float:
    """Half of Student's interval of the mean of two or more numbers."""
    from scipy.special import stdtrit

    n = len(values)
    return float(stdtrit(n - 1, 0.5 + CONFIDENCE / 2)) * stdev(values) / math.sqrt(n)


def _bca(values: Sequence[float], seed: int) -> tuple[float, float]:
    """BCa interval of the mean; NaN where it is undefined. As scipy.stats.bootstrap, resample for resample, but with the
    jackknife of a mean in closed form and resamples in blocks, so that neither time nor memory grows with n squared."""
    import numpy as np

    x = np.asarray(values)
    rng = np.random.default_rng(seed)
    rows = max(BLOCK_VALUES // len(x), 1)
    means = np.concatenate(
        [
            x[rng.integers(0, len(x), (min(rows, N_RESAMPLES - done), len(x)))].mean(axis=1)
            for done in range(0, N_RESAMPLES, rows)
        ]
    )
    mean = x.mean()
    below = ((means < mean).sum() + (means <= mean).sum()) / (2 * N_RESAMPLES)
    if not 0 < below < 1:
        return math.nan, math.nan
    normal, acceleration = NormalDist(), _acceleration(x)
    bias = normal.inv_cdf(float(below))
    shares = []
    for share in (0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2):
        shifted = bias + normal.inv_cdf(share)
        shares.append(normal.cdf(bias + shifted / (1 - acceleration * shifted)))
    low, high = np.quantile(means, shares)
    return float(low), float(high)


def _abc(values: Sequence[float]) -> tuple[float, float]:
    """ABC interval of the mean: mean + s w / (1 - a w)^2 with w = a + z, s the standard error and a the acceleration."""
    import numpy as np

    x = np.asarray(values)
    mean, error, a = float(x.mean()), float(x.std()) / math.sqrt(len(x)), _acceleration(x)
    limits = []
    for share in (0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2):
        w = a + NormalDist().inv_cdf(share)
        limits.append(mean + error * w / (1 - a * w) ** 2)
    return max(limits[0], values[0]), min(limits[1], values[-1])


def _acceleration(x: Any) -> float:
    """A sixth of the mean's skewness; the jackknife's estimate of it is this for a mean, in closed form."""
    d = x - x.mean()
    return float((d**3).sum() / (6 * (d**2).sum() ** 1.5))
