"""Planted faults: each is found by its law, and a right engine obeys them all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from kleval.backends.registry import open_backend
from kleval.verify.engine import Engine
from kleval.verify.judge import Finding, Judge
from kleval.verify.laws import LAWS, harmless
from kleval.verify.plan import Plan

pytestmark = pytest.mark.slow

# Strengths, most of them far from the worst.
STRENGTHS = {
    **dict.fromkeys(
        ("state-layout", "carry-layout", "state-not-carried", "conv-tail-lost", "cache-without-state"), 0.3
    ),
    **dict.fromkeys(("batch-mixes", "dirty-slot", "rope-in-nope", "wrong-layers", "overflow", "forgets"), 0.3),
    **dict.fromkeys(("cache-stale-state", "nan-slot", "wrong-inverse"), 1.0),
}


def judged(backend: Any, law: str, longest: int = 230, reference: Any = None) -> Finding:
    engine = Engine.of(backend)
    engine.reference = reference and Engine.of(reference)
    judge = Judge(engine, Plan(longest), 1e-3, n_checks=150)
    judge.measure([case for case in harmless.cases(engine, judge.plan) if case.n < 100][:5])
    # One broken case is enough here.
    short = replace(LAWS[law], cases=lambda engine, plan: LAWS[law].cases(engine, plan))
    return judge.try_law(short)


@pytest.fixture(scope="module", autouse=True)
def one_is_enough() -> Any:
    from kleval.verify import judge

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judge, "MOST_BROKEN", 1)
        patch.setattr(judge, "AGAIN", 1)
        patch.setattr(judge, "SHRINK_TRIES", 2)
        yield


@pytest.mark.parametrize("fault", STRENGTHS)
def test_a_planted_fault_is_found_by_its_law(
    fault: str, engine_with: Callable[..., Any], tiny: Any, faults: ModuleType
) -> None:
    law, strength = faults.FOUND_BY[fault], STRENGTHS[fault]
    reference = open_backend(str(tiny), "native", dtype="float32") if law == "reference" else None
    found = judged(engine_with(fault, strength), law, reference=reference)
    assert found.verdict == "broken"
    assert found.cause
    assert found.smallest is not None


def test_every_fault_is_tried(faults: ModuleType) -> None:
    assert set(STRENGTHS) == set(faults.FAULTS) == set(faults.FOUND_BY)


@pytest.mark.parametrize("law", [name for name in LAWS if name not in ("reference", "long")])
def test_a_right_engine_obeys_the_law(law: str, engine_with: Callable[..., Any]) -> None:
    found = judged(engine_with(), law, 110)
    assert (found.verdict, found.why) == ("holds", "")
