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

# Fault -> the law that finds it, at a strength that is far from the worst.
FOUND_BY = {
    "state-layout": ("state", 0.3),
    "carry-layout": ("state", 0.3),
    "state-not-carried": ("state", 0.3),
    "conv-tail-lost": ("state", 0.3),
    "cache-without-state": ("prefix-cache", 0.3),
    "cache-stale-state": ("prefix-cache", 1.0),
    "batch-mixes": ("batch", 0.3),
    "nan-slot": ("slots", 1.0),
    "dirty-slot": ("slots", 0.3),
    "wrong-inverse": ("state", 1.0),
    "rope-in-nope": ("reference", 0.3),
    "wrong-layers": ("reference", 0.3),
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


@pytest.mark.parametrize("fault", FOUND_BY)
def test_a_planted_fault_is_found_by_its_law(fault: str, engine_with: Callable[..., Any], tiny: Any) -> None:
    law, strength = FOUND_BY[fault]
    reference = open_backend(str(tiny), "native", dtype="float32") if law == "reference" else None
    found = judged(engine_with(fault, strength), law, reference=reference)
    assert found.verdict == "broken"
    assert found.cause
    assert found.smallest is not None


def test_every_fault_is_tried(faults: ModuleType) -> None:
    assert {*FOUND_BY, "overflow", "forgets"} == set(faults.FAULTS)


@pytest.mark.parametrize("law", [name for name in LAWS if name not in ("reference", "long")])
def test_a_right_engine_obeys_the_law(law: str, engine_with: Callable[..., Any]) -> None:
    found = judged(engine_with(), law, 110)
    assert (found.verdict, found.why) == ("holds", "")
