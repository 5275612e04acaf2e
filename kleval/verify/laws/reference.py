"""Law of the reference: the engine computes the same function as another one that is trusted (`--reference`).

What both get wrong in the same way is not seen; what is consistent in itself and yet another model is: layers in another order,
positions where there are none, another gate, epsilon, router or head.
"""

from __future__ import annotations

import random

from kleval.verify.engine import Engine, Ids
from kleval.verify.laws.law import NEEDS_TOLD, Law
from kleval.verify.plan import Plan
from kleval.verify.trial import Case, Deviation, Trial, compare, rescored

EARLY = 4  # tokens: a function that differs there does so without any history


def cases(engine: Engine, plan: Plan) -> list[Case]:
    lengths = plan.lengths(8, 33, 70, 150, 300, 700, 1500, 3000)
    return [Case("reference", "same tokens", n, same, kind) for n in lengths for kind in ("random", "repeated")]


def same(engine: Engine, ids: Ids, rng: random.Random) -> Deviation:
    other = engine.reference
    assert other is not None
    if engine.scores:
        return compare(engine.score([ids])[0], other.score([ids])[0], 1)
    return rescored(engine, ids, engine.write([ids])[0], other)


def cause(trial: Trial) -> str:
    if trial.deviation.at <= EARLY:
        return (
            "another function from the first tokens on: weights that are left out, transposed or tied, the norm's epsilon, "
            "the router's bias or scale, the gate's form, the order of layers"
        )
    if trial.case.kind == "repeated":
        return "the delta rule where keys are alike or decays are large (its triangular inverse), or positions where there are none"
    return "another function of what came before: positions (RoPE) where there are none, decays, the state's layout, the convolution"


def _needs(engine: Engine, plan: Plan) -> str:
    if engine.reference is None:
        return "no --reference was given"
    if not engine.reference.scores:
        return "the reference gives no log-probabilities of a prompt's tokens"
    if engine.scores or (engine.tells and engine.writes_ids):
        return ""
    return NEEDS_TOLD


LAW = Law("reference", "Same function as the reference", cases, cause, _needs)
