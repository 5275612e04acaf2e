"""What a plan contains: everything asked for, within its time where it can be, and checks wherever something is sampled."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kleval.models.sizes import preset
from kleval.profiler.decode_levels import LEVELS, choose_levels
from kleval.profiler.integrate import integrate
from kleval.profiler.plan import MAX_ROWS, Plan, default_memory_budget, make_plan
from kleval.profiler.rates import Rates
from kleval.profiler.workload import ProfileSpec, ladder

NAMES = ("kimi-linear@nano", "mla@nano")
CONFIGS = {name: preset(name.split("@")[0], "nano") for name in NAMES}
RATES = {
    "kimi-linear@nano": Rates(0.05, 6e-6, 0.005, 1e-4, 2e-8, 1e-7),
    "mla@nano": Rates(0.03, 2.3e-5, 0.004, 1e-4, 8e-8, 4e-7),
}
SPEC = ProfileSpec(models=NAMES, ctxs=ladder(1 << 20), out=Path("x"))


def plan(spec: ProfileSpec = SPEC, budget: int = 1 << 31, speed: float = 1.0) -> Plan:
    rates = {
        name: Rates(*(speed * getattr(rate, field) for field in list(Rates.__dataclass_fields__)[:6]))
        for name, rate in RATES.items()
    }
    return make_plan(spec, CONFIGS, rates, "float32", 512, budget, "cpu")


def lengths(plan: Plan, protocol: str) -> list[int]:
    return sorted({point.ctx for point in plan.points if point.protocol == protocol})


def test_a_million_fits_the_default_time_on_a_slow_machine() -> None:
    made = plan()
    assert made.seconds <= SPEC.time_budget
    assert lengths(made, "sampled") == list(SPEC.ctxs)
    assert len(lengths(made, "full")) >= 2
    assert 1048576 not in lengths(made, "full")
    for protocol in ("batch-1", "largest-batch", "state"):
        assert lengths(made, protocol) == list(SPEC.ctxs)


def test_on_a_fast_machine_everything_is_run_in_full_three_times() -> None:
    made = plan(speed=1e-5)
    counts = Counter((p.protocol, p.ctx) for p in made.points if p.model == "mla@nano" and p.kind == "prefill")
    assert all(counts["full", ctx] == 3 for ctx in SPEC.ctxs)


def test_a_smaller_budget_never_measures_more() -> None:
    seconds = [plan(dataclasses.replace(SPEC, time_budget=t)).seconds for t in (3600.0, 600.0, 240.0, 60.0)]
    assert seconds == sorted(seconds, reverse=True)


def test_what_cannot_fit_is_planned_and_said() -> None:
    made = plan(dataclasses.replace(SPEC, time_budget=1.0))
    assert made.seconds > 1
    assert any("more than the time budget" in note for note in made.notes)
    assert {p.ctx for p in made.points if p.kind == "prefill"} == set(SPEC.ctxs)


@pytest.mark.parametrize("mode", ["auto", "sampled"])
@pytest.mark.parametrize("ctxs", [(1 << 20,), (65536, 1 << 20), ladder(1 << 20), (4096,)])
def test_wherever_something_is_sampled_two_lengths_are_run_both_ways(mode: str, ctxs: tuple[int, ...]) -> None:
    made = plan(dataclasses.replace(SPEC, ctxs=ctxs, prefill=mode))  # type: ignore[arg-type]
    both = set(lengths(made, "sampled")) & set(lengths(made, "full"))
    assert len(both) >= (2 if max(ctxs) > 4096 else 1)


def test_full_means_full() -> None:
    made = plan(dataclasses.replace(SPEC, prefill="full"))
    assert lengths(made, "full") == list(SPEC.ctxs)
    assert lengths(made, "sampled") == []


def test_a_prompt_of_few_chunks_is_only_run_in_full() -> None:
    made = plan(dataclasses.replace(SPEC, ctxs=(100, 600, 65536)))
    assert {100, 600} <= set(lengths(made, "full"))
    assert not {100, 600} & set(lengths(made, "sampled"))


def test_repeats_and_steps_that_were_asked_for_are_kept() -> None:
    made = plan(dataclasses.replace(SPEC, repeats=5, decode_tokens=100, ctxs=(4096, 65536)))
    for kind, protocol in Counter((p.kind, p.protocol) for p in made.points if p.kind in ("decode", "prefill")):
        repeats = {p.repeat for p in made.points if (p.kind, p.protocol) == (kind, protocol)}
        assert repeats == set(range(5))
    assert {p.steps for p in made.points if p.kind == "decode"} == {100}


def test_the_largest_batch_of_a_plan_fits_its_budget_with_the_tokens_it_decodes() -> None:
    budget = 64 << 20
    for point in plan(budget=budget).points:
        if point.protocol == "largest-batch":
            config = CONFIGS[point.model]
            grown = point.ctx + point.steps + point.dropped
            assert config.state_bytes(grown, point.batch, "float32").total <= budget
            if point.batch < MAX_ROWS["cpu"]:
                assert config.state_bytes(point.ctx + 34, point.batch + 1, "float32").total > budget


def test_a_batch_that_does_not_fit_is_told_and_not_measured() -> None:
    made = plan(dataclasses.replace(SPEC, batches=(1, 8, "max"), ctxs=(1 << 20,)), budget=1 << 29)
    missing = {(one["model"], one["protocol"]) for one in made.unmeasured}
    assert ("mla@nano", "largest-batch") in missing
    assert ("mla@nano", "batch-8") in missing
    assert not any(one["protocol"] == "batch-1" for one in made.unmeasured)
    assert not any(p.model == "mla@nano" and p.protocol == "largest-batch" for p in made.points)


def test_a_batch_that_is_asked_for_by_number_may_pass_the_cap_on_the_largest() -> None:
    asked = MAX_ROWS["cpu"] + 8
    made = plan(dataclasses.replace(SPEC, batches=(asked,), ctxs=(4096,)))
    assert made.unmeasured == ()
    assert {p.batch for p in made.points if p.kind == "decode"} == {asked}


def test_memory_is_measured_whatever_batches_fit() -> None:
    made = plan(dataclasses.replace(SPEC, batches=(1000, "max")), budget=1)
    assert not any(p.kind == "decode" for p in made.points)
    assert {(p.model, p.ctx) for p in made.points if p.kind == "memory"} == {(n, c) for n in NAMES for c in SPEC.ctxs}


def test_ids_are_unique_and_a_plan_reads_back() -> None:
    made = plan()
    assert len({point.id for point in made.points}) == len(made.points)
    assert Plan.from_record(json.loads(json.dumps(made.record()))) == made


def test_full_runs_come_before_the_estimates_that_they_check() -> None:
    order = [point.id for point in plan().points if point.kind == "prefill"]
    for ctx in (4096, 16384):
        full = [i for i, id in enumerate(order) if id.startswith("prefill/full") and f"/{ctx}/" in id]
        sampled = [i for i, id in enumerate(order) if id.startswith("prefill/sampled") and f"/{ctx}/" in id]
        assert max(full) < min(sampled)


def test_the_default_budget_holds_the_hungriest_sequence_but_not_more_than_half() -> None:
    one = CONFIGS["mla@nano"].state_bytes((1 << 20) + 34, 1, "float32").total
    assert one < default_memory_budget(SPEC, CONFIGS, "float32", 1 << 40, "cpu") < 1.1 * one
    assert default_memory_budget(SPEC, CONFIGS, "float32", 1 << 30, "cpu") == 1 << 29
    assert default_memory_budget(SPEC, CONFIGS, "bfloat16", 1 << 40, "cuda") == int(0.9 * (1 << 40))


@given(st.lists(st.floats(1e-4, 10), min_size=1, max_size=8), st.floats(0.1, 100))
@settings(max_examples=60, deadline=None)
def test_decode_keeps_to_its_share_unless_the_least_is_too_much(costs: list[float], budget: float) -> None:
    levels = choose_levels(costs, lambda per_step, steps: per_step * steps, budget)
    spent = sum(c * steps * repeats for c, (steps, repeats) in zip(costs, levels, strict=True))
    least = sum(c * math.prod(LEVELS[-1]) for c in costs)
    assert spent <= budget + 1e-9 or spent <= budget + least


@given(st.floats(1e-4, 1), st.floats(0, 1e-4), st.integers(1, 200))
@settings(max_examples=60, deadline=None)
def test_expected_seconds_of_whole_chunks_are_their_sum(base: float, slope: float, n: int) -> None:
    rate = Rates(base, slope, 0, 0, 0, 0)
    exact = integrate({0: rate.chunk(0), 512: rate.chunk(512)}, n * 512, 512) if n > 1 else rate.chunk(0)
    assert rate.prefill(n * 512, 512) == pytest.approx(exact, rel=1e-9)
