"""A mean's 95 % interval.

Intervals hold for a mean of values in [0, 1]:

- `wilson`: every value is 0 or 1. Wilson's score interval (Wilson 1927; Newcombe 1998, method 3).
- `bca`: fractional values. Bias-corrected and accelerated bootstrap (Efron 1987), scipy.stats.bootstrap, seeded.
- `wilson-fractional`: fractional values where the bootstrap has nothing to resample: fewer than BCA_MINIMUM values,
  or all the same. Wilson's formula with the sum of the values as the number of successes. It is conservative: among all
  distributions on [0, 1] with a given mean, the 0/1 one has the largest variance.
- `none`: there is no value, and low and high are NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

CONFIDENCE = 0.95
N_RESAMPLES = 9999
BCA_MINIMUM = 20  # below, the bootstrap of a mean is erratic where most values are at an end of the scale


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and its 95 % interval, all in [0, 1]; NaN throughout when method is `none`."""

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
        low, high = _bca(kept, seed)
        if math.isfinite(low) and math.isfinite(high):
            return Interval(mean, min(low, mean), max(high, mean), "bca")
    return Interval(mean, *wilson(total, n), "wilson-fractional")


def _bca(values: Sequence[float], seed: int) -> tuple[float, float]:
    """BCa interval of the mean; NaN where it is undefined."""
    import warnings

    import numpy as np
    from scipy.stats import bootstrap

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # degenerate data come back as NaN, which the caller handles
        result = bootstrap(
            (np.asarray(values),),
            np.mean,
            n_resamples=N_RESAMPLES,
            batch=1000,  # bounds memory: 1000 x n values at a time
            confidence_level=CONFIDENCE,
            method="BCa",
            rng=np.random.default_rng(seed),
        )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
