"""Paired test of two models, A and B, on the samples that both answered, stratified by task and length.

- Difference: B - A, the mean over strata (unweighted, or by size where a group's mean is), with the 95 % interval of
  `kleval.tables.differences`.
- Test: McNemar's exact test where every score is right or wrong and the strata weigh by their pairs; else a permutation test: under
  the null hypothesis the two scores of a pair are exchangeable, so the sign of each pair's difference is flipped at random within
  its stratum (all 2^m ways for m <= EXACT_FLIPS pairs that differ, else N_FLIPS seeded ones, the observed one counted among them; from
  MANY_FLIPS pairs that weigh alike on, the normal limit of all ways, which is off by less than the noise of N_FLIPS drawn ones).
- A question that comes again at several lengths (FRAMES and Long Code Arena of the official edition, whose ctx is only room) is one
  question: the signs of its differences flip together, and its strata's intervals combine as wholly correlated, never too narrow.
- Power: the n at which a true difference is found with POWER at a two-sided 5 % (Miettinen 1968, Biometrics 24:339-352, with the
  continuity correction 1 / difference for the exact test; for graded scores the second moment of the differences stands for the
  discordance), and the smallest difference found at this n. To scores two pairs that differ are added in four (Agresti & Coull), so
  that "none differed" does not promise that none would.
- Several tests: Holm (1979, Scandinavian Journal of Statistics 6:65-70).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from kleval.tables.differences import Difference, mcnemar, mean, paired

ALPHA = 0.05
POWER = 0.8
Z_ALPHA, Z_POWER = NormalDist().inv_cdf(1 - ALPHA / 2), NormalDist().inv_cdf(POWER)
EXACT_FLIPS = 12
N_FLIPS = 9999
MANY_FLIPS = 5000
MOST = 10_000_000  # samples or sessions: more than anybody asks

Pair = tuple[float, float]  # scores of A and B of one sample, in [0, 1]


@dataclass(frozen=True, slots=True)
class Contrast:
    """B against A. a, b: means over strata; difference: b - a, in [-1, 1] or in a unit.

    gained, lost: pairs that B has the higher, the lower score of. spread: second moment of the pairs' differences, two of four
    added. size: the n of equally large strata that would say as much. binary: every score is 0 or 1.
    """

    a: float
    b: float
    difference: Difference
    p: float
    test: str
    gained: int
    lost: int
    spread: float
    size: float
    binary: bool

    @property
    def n(self) -> int:
        return self.difference.n

    @property
    def sign(self) -> int:
        """1 where B is better, -1 where it is worse: the interval excludes zero and the test agrees; else 0."""
        if self.p > ALPHA:
            return 0
        return (self.difference.low > 0) - (self.difference.high < 0)

    def needed(self, effect: float) -> int:
        """Pairs in all at which a true difference of this size is found with POWER; MOST where it cannot be."""
        if self.difference.open and not self.spread:
            return MOST  # equal pairs say nothing of how others spread
        n = _pairs_for(abs(effect), self.spread, self.binary) * self.n / self.size
        return math.ceil(n) if n < MOST else MOST

    @property
    def detectable(self) -> float:
        """The smallest true difference that as many pairs find with POWER; where none is, 1 of scores and NaN in a unit, as of equal
        pairs there."""
        if self.difference.open and (not self.spread or _pairs_for(MOST, self.spread, self.binary) > self.size):
            return math.nan
        low, high = 0.0, 1.0
        while self.difference.open and _pairs_for(high, self.spread, self.binary) > self.size and high < MOST:
            high *= 2
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (low, middle) if _pairs_for(middle, self.spread, self.binary) <= self.size else (middle, high)
        return high


def contrast(
    strata: Sequence[Sequence[Pair]],
    seed: int = 0,
    unit: str = "",
    by_size: bool = False,
    marks: Sequence[Sequence[int]] | None = None,
) -> Contrast | None:
    """B against A over strata of pairs; None when there is no pair.

    unit: of values that are no scores in [0, 1]. by_size: strata weigh by their pairs, else alike. marks: of the pairs of
    a stratum, what tells their questions from others; of one that has none, every pair is a question of its own.
    """
    kept = [i for i, stratum in enumerate(strata) if stratum]
    if not kept:
        return None
    strata, marks = [strata[i] for i in kept], [marks[i] for i in kept] if marks else None
    parts = [_difference(stratum, seed, unit) for stratum in strata]
    sizes = [len(stratum) for stratum in strata]
    weights = [n / sum(sizes) for n in sizes] if by_size else [1 / len(sizes)] * len(sizes)
    keys = _components(marks) if marks else list(range(len(strata)))
    found = mean(parts, weights, keys) if len(parts) > 1 else parts[0]
    assert found is not None
    pairs = [pair for stratum in strata for pair in stratum]
    gained, lost = sum(b > a for a, b in pairs), sum(b < a for a, b in pairs)
    binary = not unit and all(value in (0.0, 1.0) for pair in pairs for value in pair)
    added = (0, 0) if unit else (2, 4)
    again = len(set(keys)) < len(keys)
    exact = binary and not again and (by_size or len(set(sizes)) == 1)
    differences = [[b - a for a, b in stratum] for stratum in strata]
    p = mcnemar(gained, lost) if exact else permutation(differences, seed, weights, marks if again else None)
    means = [[math.fsum(side) / len(stratum) for side in zip(*stratum, strict=True)] for stratum in strata]
    errors: dict[int, float] = {}  # in standard deviations of one pair, of one key
    for key, weight, n in zip(keys, weights, sizes, strict=True):
        errors[key] = errors.get(key, 0.0) + weight / math.sqrt(n)
    return Contrast(
        a=math.fsum(weight * a for weight, (a, _) in zip(weights, means, strict=True)),
        b=math.fsum(weight * b for weight, (_, b) in zip(weights, means, strict=True)),
        difference=found,
        p=p,
        test="McNemar, exact" if exact else "permutation",
        gained=gained,
        lost=lost,
        spread=(math.fsum((b - a) ** 2 for a, b in pairs) + added[0]) / (len(pairs) + added[1]),
        size=1 / math.fsum(error * error for error in errors.values()),
        binary=binary,
    )


def permutation(
    strata: Sequence[Sequence[float]],
    seed: int = 0,
    weights: Sequence[float] | None = None,
    marks: Sequence[Sequence[int]] | None = None,
) -> float:
    """Two-sided p of the weighted mean over strata of the strata's mean differences, signs flipped pair by pair, and of all pairs with
    one mark together. weights: equal unless given; marks: as `contrast` takes them."""
    import numpy as np

    weights = weights or [1.0] * len(strata)
    each: list[float] = []
    together: dict[int, list[float]] = {}
    for weight, stratum, of in zip(weights, strata, marks or [()] * len(strata), strict=True):
        of_stratum = [weight * d / len(stratum) for d in stratum]
        for mark, share in zip(of, of_stratum, strict=True) if of else ():
            together.setdefault(mark, []).append(share)
        each += () if of else of_stratum
    each += map(math.fsum, together.values())
    shares = np.asarray([share for share in each if share])
    if not len(shares):
        return 1.0
    observed, m = abs(shares.sum()), len(shares)
    if m <= EXACT_FLIPS:
        signs = 1 - 2 * (np.arange(2**m)[:, None] >> np.arange(m) & 1)
        return float(np.mean(np.abs(signs @ shares) >= observed - 1e-12))
    squares = shares * shares
    if (
        squares.sum() ** 2 >= MANY_FLIPS * (squares * squares).sum()
    ):  # m where all differ by as much, fewer where some weigh more
        return math.erfc(float(observed / np.sqrt(2 * squares.sum())))
    rng = np.random.default_rng(seed)
    rows = max((1 << 20) // m, 1)
    beyond = 0
    for done in range(0, N_FLIPS, rows):
        signs = 1 - 2 * rng.integers(0, 2, (min(rows, N_FLIPS - done), m), dtype=np.int8)
        beyond += int(np.sum(np.abs(signs @ shares) >= observed - 1e-12))
    return (1 + beyond) / (1 + N_FLIPS)


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given."""
    adjusted, worst = [1.0] * len(ps), 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        worst = max(worst, min(1.0, (len(ps) - rank) * ps[i]))
        adjusted[i] = worst
    return adjusted


def _components(marks: Sequence[Sequence[int]]) -> list[int]:
    """A number per stratum: one and the same for those that have a mark in common, also by way of others."""
    key, first = list(range(len(marks))), dict[int, int]()
    for i, of_stratum in enumerate(marks):
        for other in {first.setdefault(mark, i) for mark in of_stratum}:
            mine, theirs = key[i], key[other]
            key = [mine if k == theirs else k for k in key]
    return key


def _difference(stratum: Sequence[Pair], seed: int, unit: str) -> Difference:
    keys = [str(i) for i in range(len(stratum))]
    a, b = (dict(zip(keys, (pair[side] for pair in stratum), strict=True)) for side in (0, 1))
    found = paired(b, a, seed, unit)
    assert found is not None
    return found


def _pairs_for(effect: float, spread: float, binary: bool) -> float:
    """Right and wrong cannot differ by more than they are discordant."""
    if effect <= 0:
        return math.inf
    spread = max(spread, effect if binary else effect * effect)
    noise = Z_ALPHA * math.sqrt(spread) + Z_POWER * math.sqrt(max(spread - effect * effect, 0.0))
    return (noise / effect) ** 2 + (1 / effect if binary else 0)
