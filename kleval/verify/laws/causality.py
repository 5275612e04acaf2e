"""Law of causality: log-probabilities of a beginning do not depend on what follows it.

At lengths around likely boundaries, which shows a wrong chunk through an interface that cannot set chunk sizes; where it can be set
(`prefill_tokens` of a backend), the same prompt cut differently as well.
"""

from __future__ import annotations

import random
from dataclasses import replace

from kleval.verify.engine import Engine, Ids
from kleval.verify.laws.law import NEEDS_SCORES, Law
from kleval.verify.plan import Plan
from kleval.verify.trial import Case, Deviation, Trial, compare, worst

CUTS = (16, 37, 64, 100, 512, 1000, 2049)  # tokens of a chunk
MOST_CHUNKS = 64


def cases(engine: Engine, plan: Plan) -> list[Case]:
    found = [
        Case("causality", "what follows", b + 1, followed, kind, b)
        for b in (1, *plan.boundaries(80))
        for kind in (("random", "repeated") if b in (16, 64, 512) else ("random",))
    ]
    if hasattr(engine.backend, "prefill_tokens"):
        found += [
            Case("causality", "cut differently", n, cut, kind)
            for n in plan.lengths(70, 200, 520, 1100, 2200, 4400)
            for kind in (("random", "repeated") if n <= 520 else ("random",))
        ]
    return found


def followed(engine: Engine, ids: Ids, rng: random.Random) -> Deviation:
    """Prompts that end below, at and above a boundary, and before two texts of one length."""
    n = rng.choice((1, 7, 40, 70))
    longer, other = (engine.score([(*ids, *rng.choices(engine.pool, k=n))])[0] for _ in range(2))
    alone = [engine.score([ids[:end]])[0] for end in range(max(2, len(ids) - 2), len(ids) + 1)]
    begins = replace(longer, logprobs=longer.logprobs[: len(ids) - 1])
    return worst([compare(one, begins, 1) for one in (other, *alone)])


def cut(engine: Engine, ids: Ids, rng: random.Random) -> Deviation:
    """One prompt in chunks of several sizes."""
    backend = engine.backend
    before = backend.prefill_tokens  # type: ignore[attr-defined]
    whole = engine.score([ids])[0]
    found = []
    try:
        for tokens in (t for t in CUTS if len(ids) / MOST_CHUNKS <= t < len(ids)):
            backend.prefill_tokens = tokens  # type: ignore[attr-defined]
            found.append(compare(whole, engine.score([ids])[0], 1))
    finally:
        backend.prefill_tokens = before  # type: ignore[attr-defined]
    return worst(found)


def cause(trial: Trial) -> str:
    if trial.case.measure is cut:
        lasting = trial.deviation.last - trial.deviation.at > 8
        return (
            "the recurrent state is not carried from one prefill chunk to the next, or in another layout"
            if lasting
            else "the tail of the short convolution is lost between prefill chunks"
        )
    return (
        f"a prefill chunk that ends near token {trial.case.boundary} is computed differently when it is not full: padding that is "
        "not masked, or a block of the next tokens read too early"
    )


LAW = Law(
    "causality",
    "Causality",
    cases,
    cause,
    lambda engine, plan: "" if engine.scores else f"{NEEDS_SCORES}: {engine.why_not}",
)
