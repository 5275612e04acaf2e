"""Harmless variations: other cuts, neighbours, repeats and ways of asking, whose deviations a right engine has too (yardstick.py)."""

from __future__ import annotations

import random
from dataclasses import replace

from kleval.verify.engine import Engine, Ids
from kleval.verify.plan import Plan
from kleval.verify.trial import Case, Deviation, compare, drawn, resumed, worst

LENGTHS = (23, 90, 200, 410, 900, 1700, 3300)  # away from boundaries
PROMPTS, OF_TEXTS = 3, 12  # of each of the shorter ones; a text tells little


def cases(engine: Engine, plan: Plan) -> list[Case]:
    """Every kind that the engine can be asked in, short prompts first."""
    kinds = [("repeat", repeat), ("copies", copies)]
    if engine.scores:
        kinds.append(("longer", longer))
        if engine.tells and engine.writes_ids:
            kinds.append(("rescored", _rescored))
    elif engine.tells and engine.writes_ids:
        kinds.append(("resumed", _resumed))
    found = []
    for n in plan.lengths(*LENGTHS):
        made = [Case("harmless", name, n, measure, harmless=True) for name, measure in kinds]
        some = PROMPTS if engine.scores or engine.tells else OF_TEXTS
        found += made * (some if n <= 410 else 1)
        if n == 200:
            found += [replace(case, kind="repeated") for case in made]
    return found


def repeat(engine: Engine, ids: Ids, rng: random.Random) -> Deviation:
    times = 2 if engine.scores or engine.tells else 4
    one, *others = (engine.read([ids])[0] for _ in range(times))
    return worst([compare(one, other, 1) for other in others])


def copies(engine: Engine, ids: Ids, rng: random.Random) -> Deviation:
    """Beside copies of itself, which no padding and no order tells apart."""
    alone, *together = engine.read([ids]) + engine.read([ids] * 3)
    return worst([compare(alone, one, 1) for one in together])


def longer(engine: Engine, ids: Ids, rng: random.Random) -> Deviation:
    """With three tokens more."""
    (alone,), (more,) = engine.score([ids]), engine.score([(*ids, *rng.choices(engine.pool, k=3))])
    return compare(alone, more, 1)


def _rescored(engine: Engine, ids: Ids, rng: random.Random) -> Deviation:
    return drawn(engine, ids, 5, rng)


def _resumed(engine: Engine, ids: Ids, rng: random.Random) -> Deviation:
    return resumed(engine, ids, 6, (3,), 3)
