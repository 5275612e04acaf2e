"""Law of the batch: what a prompt is answered does not depend on its neighbours: their lengths, their order, their number."""

from __future__ import annotations

import random

from kleval.verify.engine import Engine, Ids, Reading
from kleval.verify.laws.law import Law
from kleval.verify.plan import Plan, slices
from kleval.verify.trial import Case, Deviation, Measure, Trial, compare, worst

FULL = 16  # requests of a full batch


def cases(engine: Engine, plan: Plan) -> list[Case]:
    found = []
    for n in plan.lengths(30, 70, 300, 700):
        found.append(Case("batch", "written beside others", n, _beside(False)))
        if engine.scores:
            found.append(Case("batch", "scored beside others", n, _beside(True)))
    found += [Case("batch", "many at once", n, many) for n in plan.lengths(24, 130)]
    return found


def _beside(scored: bool) -> Measure:
    """Prompts of several lengths alone, together, and in the other order."""

    def measure(engine: Engine, ids: Ids, rng: random.Random) -> Deviation:
        def ask(*prompts: Ids) -> list[Reading]:
            return engine.score(prompts) if scored else engine.write(prompts)

        n = len(ids)
        prompts = slices(ids, engine.begin, n, max(3, n // 7), n // 2, n - 1, max(2, n // 3))
        alone = [ask(prompt)[0] for prompt in prompts]
        orders = (ask(*prompts), ask(*prompts[::-1])[::-1])
        pairs = [(a, b, p) for found in orders for a, b, p in zip(alone, found, prompts, strict=True)]
        return worst([compare(a, b, 1 if scored else len(p)) for a, b, p in pairs])

    return measure


def many(engine: Engine, ids: Ids, rng: random.Random) -> Deviation:
    """The same prompt many times in a full batch, among two others."""
    others = slices(ids, engine.begin, 5, len(ids) // 2)
    alone: Reading = engine.write([ids])[0]
    together = engine.write([ids, others[0], *[ids] * (FULL - 3), others[1]])
    mine = [one for n, one in enumerate(together) if n not in (1, FULL - 1)]
    return worst([compare(alone, one, len(ids)) for one in mine])


def cause(trial: Trial) -> str:
    if trial.size == float("inf"):
        return "numbers of one row are not finite in a batch: padding, or a state that rows share, is not masked"
    return "rows of a batch mix: padding that is not masked, lengths of another row, states picked by the wrong index"


LAW = Law("batch", "Batch = alone", cases, cause)
