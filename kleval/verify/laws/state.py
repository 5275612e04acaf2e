"""Law of the carried state: a continuation scored at once has the log-probabilities that it has token by token, and as written."""

from __future__ import annotations

import random

from kleval.verify.engine import WRITTEN, Engine, Ids
from kleval.verify.laws.law import NEEDS_IDS, NEEDS_TOLD, Law
from kleval.verify.plan import Plan
from kleval.verify.trial import Case, Deviation, Trial, drawn, resumed

BEFORE = 8  # tokens of a prompt that ends before a boundary which the answer crosses
MOST_WRITTEN = 2048


def cases(engine: Engine, plan: Plan) -> list[Case]:
    if not engine.scores:
        return [Case("state", "resumed", n, in_parts, boundary=b) for b, n in plan.around(96)]
    found = []
    for boundary in plan.boundaries(96):
        n = boundary - BEFORE
        found += [Case("state", "crossing", n, crossing, kind, boundary) for kind in ("random", "repeated")]
        found.append(Case("state", "crossing", boundary, crossing, "random", boundary))
    found += [
        Case("state", "token by token", n, steps, kind)
        for n in plan.lengths(20, 66, 200)
        for kind in ("random", "repeated")
    ]
    found += [Case("state", "a long answer", n, long_answer) for n in (40, 256) if 4 * n < plan.longest]
    return found


def crossing(engine: Engine, ids: Ids, rng: random.Random) -> Deviation:
    return drawn(engine, ids, 2 * BEFORE, rng)


def long_answer(engine: Engine, ids: Ids, rng: random.Random) -> Deviation:
    room = (engine.max_ctx or MOST_WRITTEN) - len(ids) - 2
    return drawn(engine, ids, min(MOST_WRITTEN, room, 8 * len(ids)), rng)


def steps(engine: Engine, ids: Ids, rng: random.Random) -> Deviation:
    """The next tokens of a prompt one at a time, each with those before in the prompt."""
    return resumed(engine, ids, 6, range(6), 1)


def in_parts(engine: Engine, ids: Ids, rng: random.Random) -> Deviation:
    """Written at once, and with the first tokens in the prompt, where prompts cannot be scored."""
    return resumed(engine, ids, 3 * WRITTEN, (1, 4, 9, 2 * WRITTEN), WRITTEN)


def cause(trial: Trial) -> str:
    if trial.case.kind == "repeated":
        return "the delta rule of a chunk (its triangular inverse) is not that of single steps where keys are alike"
    lasting = trial.deviation.last - trial.deviation.at > 4
    if trial.case.boundary and trial.deviation.at >= trial.case.boundary:
        what = "the recurrent state is not carried" if lasting else "the tail of the short convolution is lost"
        return f"{what} where a prefill chunk ends at token {trial.case.boundary}"
    what = (
        "the recurrent state is handed over in another layout"
        if lasting
        else "the tail of the short convolution is lost"
    )
    return f"{what} between prefill and decode, or between prefill chunks"


def _needs(engine: Engine, plan: Plan) -> str:
    if not engine.tells:
        return NEEDS_TOLD
    return "" if engine.writes_ids else NEEDS_IDS


LAW = Law("state", "State carried", cases, cause, _needs)
