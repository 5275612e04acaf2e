"""Law of long prompts: nothing past a length is forgotten at once.

A needle is put at several depths, and the prompt ends with the same tokens: a model that retrieves finds their likelihood there, in any
other an early token has some influence on the last ones. Either may fade with distance, smoothly; where it ends between one length and
a slightly longer one, tokens were cut, overwritten or left out of a window. It asks for no skill of the model; where nothing has any
influence at a quarter of the distance, it cannot be tried.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from kleval.verify.engine import Engine, Ids, Untestable
from kleval.verify.laws.law import NEEDS_TOLD, Law
from kleval.verify.plan import Plan
from kleval.verify.trial import Case, Deviation, Trial, compare

LAST = 12  # tokens of the needle, and of the end that repeats it
PAST = 24  # tokens past a power of two, where an index overflows
STEP = 16  # tokens between the two lengths that are told apart
FURTHER = (5, LAST - 1)  # tokens past the longer one, where it must not be seen either
DROP = 20.0  # times less influence within STEP tokens is no fading
SEEN = 1e-4  # nats: an influence below it is none, nor one as small as rounding
LEAST = 8 * LAST  # tokens of a prompt that has room for all this
DEPTHS = (0.0, 0.5)
ALL_DEPTHS = (0.0, 0.25, 0.5, 0.75, 0.9)  # of prompts beyond 2^15


def cases(engine: Engine, plan: Plan) -> list[Case]:
    last = plan.longest - LAST
    lengths = {1 << power for power in range(9, 21)}
    lengths = {n for n in (*(n + PAST for n in lengths), last - 8) if LEAST <= n < last}
    return [
        Case("long", f"needle at {depth:.0%}", n, _at(depth), exact=True)
        for n in sorted(lengths)
        for depth in (ALL_DEPTHS if n > 1 << 15 else DEPTHS)
    ]


def _at(depth: float) -> Callable[[Engine, Ids, random.Random], Deviation]:
    def measure(engine: Engine, ids: Ids, rng: random.Random) -> Deviation:
        """0, or the logarithm of how much influence ends within STEP tokens."""
        at = max(len(engine.begin), int(depth * len(ids)))
        needle, other, behind = (tuple(rng.choices(engine.pool, k=LAST)) for _ in range(3))
        whole = (*ids, *behind)

        def influence(n: int) -> float:
            one, changed = ((*ids[:at], *each, *whole[at + LAST : n - LAST], *needle) for each in (needle, other))
            return _influence(engine, one, changed)

        low, high = at + 2 * LAST + (len(ids) - at) // 4, len(ids)
        least = max(SEEN, engine.rounding, engine.step)
        low_seen, high_seen = influence(low), influence(high)
        if low_seen < DROP * least:
            raise Untestable(f"the model makes nothing of a token {low - at} tokens before the end")
        if low_seen < DROP * high_seen:
            return Deviation(0.0)
        while high - low > STEP:
            middle = (low + high) // 2
            seen = influence(middle)
            if seen >= math.sqrt(max(high_seen, least) * low_seen):
                low, low_seen = middle, seen
            else:
                high, high_seen = middle, seen
        # What is forgotten stays so; an influence that is small by chance does not.
        high_seen = max(high_seen, *(influence(high + more) for more in FURTHER))
        drop = low_seen / max(least, high_seen)
        return Deviation(math.log(drop) if drop >= DROP else 0.0, high, high)

    return measure


def _influence(engine: Engine, one: Ids, other: Ids) -> float:
    a, b = (engine.read([ids])[0] for ids in (one, other))
    if engine.scores:
        a, b = (one.after(len(one.logprobs) - LAST) for one in (a, b))
    size = compare(a, b).size
    return 0.0 if math.isnan(size) else size


def cause(trial: Trial) -> str:
    return (
        f"past {trial.deviation.at} tokens the beginning is gone at once: an index that overflows, a cache that is overwritten, "
        "a window that the model does not have, or a prompt that is cut without a word"
    )


def _needs(engine: Engine, plan: Plan) -> str:
    return "" if engine.tells or engine.scores else NEEDS_TOLD


LAW = Law("long", "Nothing forgotten at once", cases, cause, _needs)
