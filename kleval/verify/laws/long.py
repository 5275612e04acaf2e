"""Law of long prompts: nothing past a length is forgotten at once.

The influence of a changed early token on the last log-probabilities may fade with distance, smoothly; where it ends between one
length and a slightly longer one, tokens were cut, overwritten or left out of a window. That asks for no skill of the model: one that
retrieves nothing is tried too, as long as an early token has any influence at a quarter of the length.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from kleval.verify.engine import Engine, Ids
from kleval.verify.laws.law import Law
from kleval.verify.plan import Plan
from kleval.verify.trial import Case, Deviation, Trial, compare

LAST = 12  # tokens whose log-probabilities show the influence
CHANGED = 4  # tokens of the beginning
STEP = 16  # tokens between the two lengths that are told apart
DROP = 20.0  # times less influence within STEP tokens is no fading
SEEN = 1e-4  # nats: an influence below it is none


def cases(engine: Engine, plan: Plan) -> list[Case]:
    lengths = []
    n = 512
    while n < plan.longest - LAST:
        lengths.append(n)
        n *= 2
    lengths.append(plan.longest - LAST - 8)
    return [
        Case("long", f"changed token at {share:.0%}", n, _at(share), exact=True)
        for n in lengths
        for share in (0.0, 0.3)
    ]


def _at(share: float) -> Callable[[Engine, Ids, random.Random], Deviation]:
    def measure(engine: Engine, ids: Ids, rng: random.Random) -> Deviation:
        """0, or the logarithm of how much influence ends within STEP tokens."""
        at = max(len(engine.begin), int(share * len(ids) / 4))
        other = [rng.choice(engine.pool) for _ in range(CHANGED)]
        tail = ids[-LAST:]

        def influence(n: int) -> float:
            one = (*ids[: n - LAST], *tail)
            changed = (*one[:at], *other, *one[at + CHANGED :])
            return _influence(engine, one, changed)

        low, high = at + CHANGED + 2 * LAST + len(ids) // 4, len(ids)
        low_seen, high_seen = influence(low), influence(high)
        if low_seen < DROP * max(SEEN, high_seen):
            return Deviation(0.0)
        while high - low > STEP:
            middle = (low + high) // 2
            seen = influence(middle)
            if seen >= math.sqrt(max(high_seen, SEEN) * low_seen):
                low, low_seen = middle, seen
            else:
                high, high_seen = middle, seen
        sudden = low_seen >= DROP * max(SEEN, high_seen)
        return Deviation(math.log(low_seen / max(SEEN, high_seen)) if sudden else 0.0, high, high)

    return measure


def _influence(engine: Engine, one: Ids, other: Ids) -> float:
    if engine.scores:
        a, b = (engine.score([ids])[0] for ids in (one, other))
        pairs = list(zip(a.logprobs[-LAST:], b.logprobs[-LAST:], strict=True))
    else:
        a, b = (engine.write([ids], 1)[0] for ids in (one, other))
        pairs = list(zip(a.logprobs, b.logprobs, strict=True))
    if not (a.finite and b.finite):
        return compare(a, b).size
    return max((abs(x - y) for x, y in pairs), default=0.0)


def cause(trial: Trial) -> str:
    return (
        f"past {trial.deviation.at} tokens the beginning is gone at once: an index that overflows, a cache that is overwritten, "
        "a window that the model does not have, or a prompt that is cut without a word"
    )


def _needs(engine: Engine, plan: Plan) -> str:
    return "" if engine.tells or engine.scores else "the engine gives no log-probabilities"


LAW = Law("long", "Nothing forgotten at once", cases, cause, _needs)
