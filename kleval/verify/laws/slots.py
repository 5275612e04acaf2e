"""Law of clean slots: what other requests did, left or broke does not reach the next one."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from kleval.types import Request
from kleval.verify.engine import Engine, Ids
from kleval.verify.laws.law import Law
from kleval.verify.plan import Plan, slices
from kleval.verify.trial import Case, Deviation, Trial, compare, rescored, worst

Disturb = Callable[[Engine, Ids, random.Random], None]
NEIGHBOURS = 5  # more than small engines have slots
FEW = 2  # tokens that are written


def cases(engine: Engine, plan: Plan) -> list[Case]:
    found = []
    for n in plan.lengths(6, 75):  # what is left in a slot fades with a prompt
        for name, measure in MEASURES.items():
            found.append(Case("slots", name, n, measure))
    return found


def _after(disturb: Disturb) -> Callable[[Engine, Ids, random.Random], Deviation]:
    """Something, and then a prompt as before it; and prompts that are new, so that no prefix cache answers them, as when they are asked
    once more."""

    def measure(engine: Engine, ids: Ids, rng: random.Random) -> Deviation:
        (before,) = engine.read([ids])
        disturb(engine, ids, rng)
        found = [compare(before, engine.read([ids])[0], 1)]
        fresh = [engine.prompt(len(ids), "random", rng) for _ in range(NEIGHBOURS)]
        first = [engine.write([one], FEW)[0] for one in fresh]
        if not all(one.finite for one in first):
            return Deviation(math.inf, len(ids), len(ids))
        if engine.scores and engine.writes_ids and engine.tells:
            # A state that was not clean is kept by a prefix cache with the prompt, and is then the same once more.
            found += [rescored(engine, one, wrote) for one, wrote in zip(fresh, first, strict=True)]
        else:
            again = [engine.write([one], FEW)[0] for one in fresh]
            found += [compare(a, b, len(ids)) for a, b in zip(first, again, strict=True)]
        return worst(found)

    return measure


def _leave(engine: Engine, ids: Ids, rng: random.Random) -> None:
    """Requests whose caller is gone before they are answered."""
    engine.drop(slices(ids[::-1], engine.begin, len(ids), len(ids) // 2, len(ids)), 64)


def _fail(engine: Engine, ids: Ids, rng: random.Random) -> None:
    """Requests that no engine answers: tokens that there are not, and a prompt past the limit."""
    bad = [Request("generate", "", max_new_tokens=2, token_ids=(*ids, 1 << 30))] if engine.sends_ids else []
    if engine.max_ctx is not None and engine.max_ctx <= 1 << 15:
        long = tuple(rng.choices(engine.pool, k=engine.max_ctx + 1))
        bad.append(Request("generate", "", max_new_tokens=2, token_ids=long))
    if bad:
        engine.provoke(bad)


def _strange(engine: Engine, ids: Ids, rng: random.Random) -> None:
    """One token over and over, the first and last of the vocabulary, a single one: what makes numbers overflow."""
    pool = engine.pool
    strange = [(pool[0],) * 200, (pool[-1],) * 67, (pool[0], pool[-1]) * 40, (rng.choice(pool),)]
    engine.provoke([engine.request((*engine.begin, *one), 4) for one in strange])


def _longer(engine: Engine, ids: Ids, rng: random.Random) -> None:
    """Much longer prompts in every slot."""
    n = min(2 * len(ids) + 130, (engine.max_ctx or 1 << 20) - 8)
    longer = [(*engine.begin, *rng.choices(engine.pool, k=n - len(engine.begin))) for _ in range(NEIGHBOURS)]
    engine.write(longer, FEW)


def _beside_strange(engine: Engine, ids: Ids, rng: random.Random) -> Deviation:
    """Together with strange neighbours."""
    pool = engine.pool
    alone = engine.write([ids])[0]
    strange = [(*engine.begin, *one) for one in ((pool[0],) * 200, (pool[-1],) * 67, (pool[0],))]
    together = engine.write([strange[0], ids, strange[1], ids, strange[2]])
    return worst([compare(alone, together[n], len(ids)) for n in (1, 3)])


MEASURES = {
    "after longer prompts": _after(_longer),
    "after callers that left": _after(_leave),
    "after strange prompts": _after(_strange),
    "after requests that fail": _after(_fail),
    "beside strange prompts": _beside_strange,
}


def cause(trial: Trial) -> str:
    if trial.size == float("inf"):
        return (
            "numbers that are not finite stay in a state that is used again, or reach other rows through a shared one"
        )
    return "a recurrent state or convolution tail is not cleared when its slot is given to the next request"


LAW = Law("slots", "Slots are clean", cases, cause)
