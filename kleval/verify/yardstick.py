"""Yardstick of legal rounding: how far right numbers of this engine lie apart.

Repeats show too little: an engine that is deterministic repeats itself exactly, and yet other cuts of a prompt, or other neighbours,
round in other places. So harmless variations of several kinds are tried first. Rounding is either absent from a kind or about as
large as in any other, since layers amplify the last bit of anything; a kind that is far above the others holds a fault, and is left
out. The logarithms of what remains are about normal: the limit is the quantile (Student's t, of a further draw) at which one of N
checks is beyond it with probability alpha, and never less than the step of the dtype explains: a model of few layers rounds most
numbers alike however it is asked, and then one logit of many otherwise, by a whole step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kleval.verify.trial import Deviation, Trial

# Differences that no fault worth a name stays below (float32), and what bfloat16's own step makes of logits.
FLOOR = {"float32": 3e-3, "float64": 3e-3, "bfloat16": 2e-2, "float16": 6e-3}
# No rounding, however alone it stands: what even small models with many layers do not reach. An engine that says float32 and
# multiplies in fewer bits (TF32) is held to this as well.
CEILING = {"float32": 3e-3, "float64": 3e-3, "bfloat16": 1.0, "float16": 0.3, "unknown": 0.5}
ABSENT = 0.1  # of the floor: a smaller deviation says nothing of how large rounding is
MOST_STEPS = 4.0  # of rounded logits, where harmless variations happened to move none: two on either side
ALONE_STEPS = 8.0  # the same, for a kind of variation that is the only one to move any
APART = 3.5  # times as large as the next kind: no rounding
MOST_FLIPS = 0.5  # of a kind's texts: near ties part fewer
FEWEST = 4  # trials that say how large rounding is: of fewer the ceiling is taken
LEAST_SPREAD = 0.3  # of logarithms
REACH = 4.0  # trials of a quarter of the length and more say what its rounding is
MOST_ABOVE = 3.0  # times the largest harmless deviation, where the spread of a few says more


@dataclass(frozen=True, slots=True)
class Yardstick:
    """legal: the largest harmless deviation that is rounding. limit: above it is no rounding. flips: the share of pairs of texts that
    part."""

    legal: float
    limit: float
    flips: float = 0.0
    left_out: tuple[str, ...] = ()


def yardstick(
    trials: Sequence[Trial], n_tokens: int, n_checks: int, alpha: float, dtype: str, numbers: bool, step: float = 0.0
) -> Yardstick:
    """Of harmless trials, for checks of n_tokens. numbers: whether log-probabilities are compared, else texts. step: of the logits."""
    harmless = [t for t in trials if t.case.harmless]
    if not numbers:
        kinds: dict[str, list[Deviation]] = {}
        for trial in harmless:
            kinds.setdefault(trial.case.name, []).append(trial.deviation)
        shares = {
            name: (sum(d.parted for d in found) + 1) / (sum(d.texts for d in found) + 2)
            for name, found in kinds.items()
        }
        near = {name: share for name, share in shares.items() if share <= MOST_FLIPS}
        return Yardstick(0.0, 0.5, max(near.values(), default=MOST_FLIPS), tuple(shares.keys() - near.keys()))
    floor = max(FLOOR.get(dtype, FLOOR["float32"]), MOST_STEPS * step)
    ceiling = CEILING.get(dtype, CEILING["unknown"])
    if len(harmless) < FEWEST:
        return Yardstick(0.0, max(floor, ceiling))
    long_enough = [t for t in harmless if t.case.n * REACH >= n_tokens]
    long_enough = long_enough if len(long_enough) >= FEWEST else harmless
    least = FLOOR.get(dtype, FLOOR["float32"]) * ABSENT
    kept, left_out = _rounding(long_enough, least, ceiling, ALONE_STEPS * step)
    if not kept:
        seen = [t.size for t in long_enough if t.size <= least]
        return Yardstick(max(seen, default=0.0), floor, left_out=left_out)
    from scipy.special import stdtrit

    logs, n = np.log(kept), len(kept)
    middle = float(np.median(logs))
    spread = max(LEAST_SPREAD, 1.4826 * float(np.median(np.abs(logs - middle))))
    quantile = float(stdtrit(max(n - 1, 4), 1 - alpha / max(n_checks, 1)))
    legal = max(kept)
    limit = min(math.exp(middle + quantile * spread * math.sqrt(1 + 1 / n)), MOST_ABOVE * legal)
    return Yardstick(legal, max(limit, 1.5 * legal, floor), left_out=left_out)


def _rounding(
    harmless: Sequence[Trial], least: float, ceiling: float, alone: float
) -> tuple[list[float], tuple[str, ...]]:
    """Deviations of the kinds that are rounding, from `least` on; and the kinds that are more: in the middle, or once
    more than the ceiling, since a fault may fade with a prompt and depend on what was asked before. alone: the ceiling of a kind
    that no other can be held against, 0 where it is not known."""
    kinds: dict[str, list[float]] = {}
    for trial in harmless:
        if trial.size > least:
            kinds.setdefault(trial.case.name, []).append(trial.size)
    if len(kinds) == 1 and alone:
        ceiling = min(ceiling, alone)
    kept: list[float] = []
    used = set()
    for name, sizes in sorted(kinds.items(), key=lambda kind: float(np.median(kind[1]))):
        if max(sizes) > ceiling:
            continue
        if kept and float(np.median(sizes)) > APART * float(np.median(kept)):
            break
        kept += sizes
        used.add(name)
    return kept, tuple(sorted(kinds.keys() - used))
