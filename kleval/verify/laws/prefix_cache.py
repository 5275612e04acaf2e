"""Law of the prefix cache: a prompt whose beginning was seen before is answered as a new one.

Engines leave their cache aside where a prompt's log-probabilities are asked, so what is written is compared: with what was written when
the prompt was new, and with scores of the same tokens.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from kleval.verify.engine import WRITTEN, Engine, Ids
from kleval.verify.laws.law import Law
from kleval.verify.plan import Plan, slices
from kleval.verify.trial import Case, Deviation, Trial, compare, drawn, resumed, worst

FLOOD = 12  # prompts that push out what is cached


def cases(engine: Engine, plan: Plan) -> list[Case]:
    def of(name: str, n: int, measure: object) -> Case:
        return Case("prefix-cache", name, n, measure, boundary=n)  # type: ignore[arg-type]

    lengths = plan.lengths(17, 65, 130, 300, 1030)
    found = [of("twice", n, twice) for n in lengths]
    if engine.writes_ids and engine.tells:
        found += [of("beginning of another", n, continued) for n in lengths]
    if engine.scores and engine.tells and engine.writes_ids:
        found += [of("shared beginning", n, shared) for n in plan.lengths(70, 150, 600)]
        found += [of("same end, other history", n, other_history) for n in plan.lengths(96, 400)]
    found += [of("another conversation between", n, between) for n in plan.lengths(70, 300)]
    found += [of("pushed out", n, pushed_out) for n in plan.lengths(130)]
    if engine.scores:
        found += [of("shared in one call", n, together) for n in plan.lengths(60, 200, 600)]
    return found


def twice(engine: Engine, ids: Ids, rng: random.Random) -> Deviation:
    cold, *warm = [engine.write([ids])[0] for _ in range(3)]
    return worst([compare(cold, one, len(ids)) for one in warm])


def continued(engine: Engine, ids: Ids, rng: random.Random) -> Deviation:
    """A prompt that is the beginning of another: with the first of its own tokens behind it, the others must follow."""
    return resumed(engine, ids, 3 * WRITTEN, (1, 5, 2 * WRITTEN, 2 * WRITTEN + 3), 4)


def shared(engine: Engine, ids: Ids, rng: random.Random) -> Deviation:
    """Prompts that share their first tokens, of many lengths around blocks, and then differ."""
    engine.write([ids], 2)
    found = []
    for kept in sorted({15, 16, 17, 31, 33, 64, 65, len(ids) // 2, len(ids) - 8, len(ids) - 1}):
        if 0 < kept < len(ids):
            own = tuple(rng.choices(engine.pool, k=rng.choice((1, 9, 30))))
            found.append(drawn(engine, (*ids[:kept], *own), WRITTEN - 2, rng))
    return worst(found)


def other_history(engine: Engine, ids: Ids, rng: random.Random) -> Deviation:
    """The same last tokens behind another beginning of the same length."""
    half = len(ids) // 2 // 16 * 16
    other = (*ids[: len(engine.begin)], *rng.choices(engine.pool, k=half - len(engine.begin)), *ids[half:])
    engine.write([ids], 2)
    return worst([drawn(engine, one, WRITTEN - 2, rng) for one in (other, ids)])


def between(engine: Engine, ids: Ids, rng: random.Random) -> Deviation:
    return _still(engine, ids, slices(ids[::-1], engine.begin, len(ids), 20, len(ids) // 2))


def pushed_out(engine: Engine, ids: Ids, rng: random.Random) -> Deviation:
    """Answered again after many other prompts, one of which shares a half."""
    others = [(*engine.begin, *rng.choices(engine.pool, k=len(ids))) for _ in range(FLOOD)]
    return _still(engine, ids, [*others, (*ids[: len(ids) // 2], *rng.choices(engine.pool, k=9))])


def _still(engine: Engine, ids: Ids, others: Sequence[Ids]) -> Deviation:
    """What a prompt is answered before others and after them."""
    (cold,) = engine.write([ids])
    for other in others:
        engine.write([other], 4)
    return compare(cold, engine.write([ids])[0], len(ids))


def together(engine: Engine, ids: Ids, rng: random.Random) -> Deviation:
    """Asked in one call, where an engine may compute what they share once."""
    kept = (len(ids), len(ids) - 3, 2 * len(ids) // 3, len(ids) // 3)
    prompts = [(*ids[:n], *rng.choices(engine.pool, k=5)) for n in kept]
    alone = [engine.score([prompt])[0] for prompt in prompts]
    return worst([compare(a, b, 1) for a, b in zip(alone, engine.score(prompts), strict=True)])


def cause(trial: Trial) -> str:
    if trial.case.measure is other_history:
        return "blocks are looked up by their own tokens, not by all before them"
    if trial.case.measure is pushed_out:
        return "a block that was pushed out is used again with another prompt's content"
    if trial.case.measure is together:
        return "what prompts share in one call is computed once, and its state not copied whole"
    return (
        "a hit restores the keys and values of attention layers but not the recurrent state, or the convolution's tail"
    )


LAW = Law("prefix-cache", "Prefix cache = cold", cases, cause)
