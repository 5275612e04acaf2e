"""Load on a served model: when requests are sent, what their percentiles are, and what holds an SLO."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kleval.backends.spec import BackendSpec
from kleval.backends.timing import generator
from kleval.profiler.points import Outcome, PlannedPoint
from kleval.profiler.served import ServedSpec, figures, load_rounds
from kleval.profiler.served.caveats import caveats
from kleval.profiler.served.job import profile_served
from kleval.profiler.served.load import LEAST, STEP, best_rate, drift, interval, load_values, send_times, steps
from kleval.profiler.served.load_rounds import load_round
from kleval.profiler.served.slo import parse_slo
from kleval.store import Point, RunStore
from kleval.text import number
from kleval.types import Arrival, Failure, Trace, UsageError


def trace(submitted: float, first: float, step: float, n: int = 5) -> Trace:
    arrivals = tuple(Arrival(submitted + first + i * step, 1) for i in range(n))
    return Trace(submitted, arrivals, output_tokens=n, prompt_tokens=100)


@pytest.fixture
def spec(served_server: Any, manner: Any, tmp_path: Path) -> Iterator[ServedSpec]:
    with served_server.serving(manner) as url:
        engine = BackendSpec(model="tiny", backend="openai", base_url=url, request_timeout=10)
        given = {"ctxs": (64,), "concurrencies": (), "decode_tokens": 4, "repeats": 1, "requests": 12}
        yield ServedSpec(engine=engine, slo="ttft=10s", out=tmp_path / "run", **given)


def points(spec: ServedSpec) -> list[Point]:
    profile_served(spec)
    assert spec.out is not None
    return list(RunStore.open(spec.out).points())


def test_a_poisson_process_has_the_rate_and_the_same_seed_the_same_times() -> None:
    times = send_times(4.0, 4001, random.Random(1))
    assert times == send_times(4.0, 4001, random.Random(1))
    gaps = np.diff(times)
    assert times[0] == 0
    assert gaps.mean() == pytest.approx(0.25, rel=0.05)
    assert gaps.std() == pytest.approx(0.25, rel=0.05)  # exponential: as large as the mean


@pytest.mark.parametrize("seed", range(5))
def test_a_round_has_the_rate_that_it_is_labelled_with(seed: int) -> None:
    times = send_times(0.5, 32, random.Random(seed))
    assert 31 / times[-1] == pytest.approx(0.5)
    values, _ = load_values([trace(at, 0.1, 0.01) for at in times], 0, None)
    assert values["requests_per_second"] == pytest.approx(0.5)


@pytest.mark.parametrize(("seconds", "share"), [(1.0, 1.0), (8.0, 1.0), (40.0, 0.4)])
def test_throughput_is_that_of_the_load_once_it_is_there(seconds: float, share: float) -> None:
    """1 request per second of 50 tokens each, however long they take; but not where a round ends before one has ended."""
    values, _ = load_values([trace(float(at), 0.0, seconds / 49, n=50) for at in range(33)], 0, None)
    assert values["output_tokens_per_second"] == pytest.approx(50 * share, rel=0.05)
    assert values["under_way"] == pytest.approx(seconds * share, rel=0.05)


@pytest.mark.parametrize(("n", "share"), [(40, 0.5), (100, 0.9), (400, 0.99)])
def test_the_interval_of_a_quantile_covers_it(n: int, share: float) -> None:
    rng, hits = np.random.default_rng(3), 0
    for _ in range(150):
        low, high = interval(sorted(rng.exponential(size=n)), share)
        hits += (low or 0) <= -math.log(1 - share) <= (math.inf if high is None else high)
    assert hits / 150 >= 0.91


def test_too_few_requests_have_no_upper_end_of_p99() -> None:
    assert interval([float(i) for i in range(100)], 0.99)[1] is None


def test_steady_decode_leaves_out_the_steps_beside_another_prefill() -> None:
    alone = trace(0.0, 1.0, 0.1, n=11)  # decodes from 1.0 to 2.0
    blocked = replace(
        alone, arrivals=(*alone.arrivals[:6], *(a._replace(seconds=a.seconds + 0.4) for a in alone.arrivals[6:]))
    )
    other = trace(1.5, 0.5, 0.1)  # in its prefill from 1.5 to 2.0
    free, beside = steps([blocked, other], [blocked])
    assert free == [pytest.approx(0.1)]
    assert beside == [pytest.approx(0.5)]


def test_figures_are_those_of_the_requests_counted() -> None:
    traces = [trace(0.5 * i, 1.0 if i < 2 else 0.1, 0.05) for i in range(12)]
    values, estimate = load_values(traces, 0, parse_slo("ttft=200ms,tpot=60ms"), skip=2)
    assert not estimate
    assert (values["requests"], values["ttft_ms_p99"]) == (10, pytest.approx(100))
    assert values["requests_per_second"] == pytest.approx(2.0)
    assert (values["slo_share"], values["goodput"]) == (1.0, pytest.approx(2.0))
    all_of_them, _ = load_values(traces, 2, parse_slo("ttft=200ms"))
    assert all_of_them["slo_share"] == pytest.approx(10 / 14)  # failed ones do not keep to it


@given(st.floats(1, 500), st.floats(0.01, 10))
def test_the_best_rate_is_found_to_a_step(capacity: float, start: float) -> None:
    low, high = best_rate(lambda rate: (rate <= capacity, True), start)
    assert low <= capacity < high
    assert high / low <= STEP


def test_a_rate_that_the_client_cannot_keep_ends_the_search_there() -> None:
    assert best_rate(lambda rate: (True, rate <= 8), 1.0) == (8.0, math.inf)
    low, high = best_rate(lambda rate: (False, True), 1.0)
    assert (low, high < 1 / LEAST) == (0.0, True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ttft",
        "ttft=2",
        "ttft=2s,ttft=3s",
        "tpot=5%",
        "share=95%",
        "ttft=0s",
        "ttft=1s,share=101%",
        "x=1s",
        "ttft=nan",
    ],
)
def test_an_slo_that_says_nothing_is_refused_with_the_grammar(text: str) -> None:
    with pytest.raises(UsageError, match="--slo ttft=2s"):
        parse_slo(text)


def test_an_slo_reads_units() -> None:
    slo = parse_slo(" ttft=2s, tpot=50ms,E2E=1.5s,share=95%")
    assert (slo.ttft_ms, slo.tpot_ms, slo.e2e_ms, slo.share) == (2000, 50, 1500, pytest.approx(0.95))


def test_a_number_of_requests_is_held_under_way(spec: ServedSpec, manner: Any) -> None:
    (point,) = points(replace(spec, steady=(3,)))
    assert manner.most_under_way == 3
    assert (point.protocol, point.batch, point.values["requests"]) == ("steady-3", 3, 12)
    assert len(manner.measured) == 3 + 12 + 3  # warming up, counted, ramping up


def test_requests_at_a_rate_wait_for_no_answer(spec: ServedSpec, manner: Any) -> None:
    manner.first_seconds = 0.2
    (point,) = points(replace(spec, rates=(60.0,)))
    assert point.protocol == "rate-60"
    assert manner.most_under_way > 3
    assert point.values["slo_share"] == 1.0


def test_failures_beyond_one_percent_are_no_measurement(spec: ServedSpec, manner: Any) -> None:
    manner.faulty = frozenset({3})
    result = profile_served(replace(spec, rates=(60.0,)))
    assert (result.status, result.exit_code) == ("incomplete", 3)


def round_of(n: int, failed: int, rate: float, slowed: float = 1.0, kind: str = "server") -> Outcome:
    """At a rate, of which so many fail. slowed: how much later than asked requests are sent."""
    planned = PlannedPoint.of("served", f"rate-{rate:g}", "tiny", 100, 0, 0)
    engine = BackendSpec(model="tiny", backend="openai", base_url="http://localhost:1/v1")
    spec = ServedSpec(
        engine=engine, ctxs=(100,), concurrencies=(), rates=(rate,), requests=n, slo="ttft=1s", dry_run=True
    )

    def send(label: str, delays: Any, together: int | None) -> tuple[list[Trace], list[Failure | None], dict[str, Any]]:
        traces = [trace(1 + slowed * delay, 0.1, 0.01) for delay in delays]
        return traces, [Failure(kind, "planned") if at < failed else None for at in range(n)], {}

    return load_round(planned, spec, send, lambda: ([], [], {}))


@pytest.mark.parametrize(("protocol", "n"), [("rate-4", 4 * 4 * 10), ("best-rate", 32)])
def test_a_round_is_as_long_as_requests_of_its_own_take(protocol: str, n: int) -> None:
    """10 s each. The search begins with one per answer."""
    planned = PlannedPoint.of("served", protocol, "tiny", 100, 0, 0)
    engine = BackendSpec(model="tiny", backend="openai", base_url="http://localhost:1/v1")
    spec = ServedSpec(engine=engine, ctxs=(100,), concurrencies=(), rates=(4.0,), slo="ttft=1s", dry_run=True)
    rounds: list[list[float]] = []

    def send(label: str, delays: Any, together: int | None) -> tuple[list[Trace], list[Failure | None], dict[str, Any]]:
        rounds.append(delays)
        return [trace(1 + delay, 0.1, 0.01) for delay in delays], [None] * len(delays), {}

    whole = trace(0.0, 1.0, 9.0, n=2)
    load_round(planned, spec, send, lambda: ([whole, whole], [None, Failure("server", "planned")], {}))
    assert len(rounds[0]) == n
    if protocol == "best-rate":
        assert rounds[0] == send_times(0.1, n, generator(spec.seed, "rate", 0.1, "0-0.1"))


@pytest.mark.parametrize("slots", [1, 64])
def test_the_best_rate_is_one_that_the_server_can_keep(slots: int) -> None:
    """10 per second, whatever the SLO allows a queue to grow to meanwhile. Each of the slots takes its time for a request."""
    planned = PlannedPoint.of("served", "best-rate", "tiny", 100, 0, 0)
    engine = BackendSpec(model="tiny", backend="openai", base_url="http://localhost:1/v1")
    spec = ServedSpec(engine=engine, ctxs=(100,), concurrencies=(), best_rate=True, slo="e2e=30s", dry_run=True)
    step = slots / 10 / 5

    def send(label: str, delays: Any, together: int | None) -> tuple[list[Trace], list[Failure | None], dict[str, Any]]:
        free, traces = [1.0] * slots, []
        for delay in delays:
            begin = max(1 + delay, heapq.heappop(free))
            traces.append(trace(1 + delay, begin - delay - 1 + step, step))
            heapq.heappush(free, begin + 5 * step)
        return traces, [None] * len(traces), {}

    outcome = load_round(planned, spec, send, lambda: ([trace(0.0, step, step)], [None], {}))
    assert 8 <= (outcome.values["best_rate"] or 0) <= 10.5
    assert max(probe["requests"] or 0 for probe in outcome.settings["probes"]) > 32


def test_a_round_whose_request_alone_failed_has_its_reason() -> None:
    planned = PlannedPoint.of("served", "rate-4", "tiny", 100, 0, 0)
    engine = BackendSpec(model="tiny", backend="openai", base_url="http://localhost:1/v1")
    spec = ServedSpec(engine=engine, ctxs=(100,), concurrencies=(), rates=(4.0,), dry_run=True)
    alone = ([trace(0.0, 1.0, 1.0)], [Failure("fewer_tokens", "too short")], {})
    outcome = load_round(planned, spec, lambda *given: ([], [], {}), lambda: alone)  # type: ignore[arg-type]
    assert outcome.failure == {"kind": "fewer_tokens", "message": "too short"}


def test_the_time_of_a_request_is_that_of_one_with_the_budget_of_the_rounds(spec: ServedSpec, manner: Any) -> None:
    """0.03 s and 23 steps of 30 ms: four times 20 per second as long are 58 requests, of 8 tokens as in the warm-up 20."""
    manner.step_seconds = 0.03
    found = points(replace(spec, rates=(20.0,), requests=None, decode_tokens=24, repeats=2))
    assert [body["max_tokens"] for body in manner.measured[:3]] == [8, 24, 24]
    assert {body["max_tokens"] for body in manner.measured[1:]} == {24}
    assert all(point.values["requests"] >= 4 * 20 * (0.03 + 23 * 0.03) for point in found)
    assert len(manner.measured) == 2 + sum(point.values["requests"] or 0 for point in found)  # alone once


def test_the_request_alone_has_the_average_of_drawn_lengths(spec: ServedSpec, manner: Any) -> None:
    points(replace(spec, best_rate=True, slo="ttft=1ms", requests=2, decode_tokens="4-20"))
    assert [body["max_tokens"] for body in manner.measured[:2]] == [8, 12]


def test_one_request_in_a_hundred_may_fail_and_counts_against_the_slo() -> None:
    values = round_of(100, 1, 20.0).values
    assert (values["failed_requests"], values["requests"], values["slo_share"]) == (1, 99, pytest.approx(0.99))
    failure = round_of(100, 2, 20.0).failure
    assert failure is not None
    assert failure["message"] == "2 of 100 requests: planned"


def test_a_rate_that_this_machine_cannot_send_is_said_with_the_one_it_sent() -> None:
    slow, kept = round_of(50, 0, 20.0, slowed=2.0), round_of(50, 0, 20.0)
    assert (slow.values["client_limited"], "client_limited" in kept.values) == (1, False)
    planned = PlannedPoint.of("served", "rate-20", "tiny", 100, 0, 0)
    said = [text for text in caveats([planned.point(slow, {}, {})]) if "could not send" in text]
    sent = slow.values["requests_per_second"]
    assert said == [f"This machine could not send 20.0 requests per second: it sent {number(sent)}."]


def test_a_rate_that_could_not_be_sent_is_no_fault_of_the_server() -> None:
    late, kept = (round_of(50, 50, 20.0, slowed, "not_streamed") for slowed in (2.0, 1.0))
    assert late.failure is not None
    assert kept.failure is not None
    assert (late.failure["kind"], kept.failure["kind"]) == ("client", "not_streamed")
    assert "could not send 20.0 requests per second" in late.failure["message"]


@pytest.mark.parametrize(("slower", "told"), [(1.0, None), (3.0, 3.0)])
def test_a_server_that_becomes_slower_is_said(slower: float, told: float | None) -> None:
    firsts = [0.1 * (slower if at > 30 else 1) * (1 + at % 7 / 100) for at in range(60)]
    values, _ = load_values([trace(at, first, 0.01) for at, first in enumerate(firsts)], 0, None)
    assert values.get("ttft_drift") == (told if told is None else pytest.approx(told, rel=0.05))
    assert "tpot_drift" not in values
    planned = PlannedPoint.of("served", "rate-1", "tiny", 100, 0, 0)
    said = [text for text in caveats([planned.point(Outcome(values), {}, {})]) if "Slower at the end" in text]
    assert len(said) == (told is not None)
    assert all("3.0 times the TTFT of the first" in text for text in said)


@pytest.mark.parametrize("fault", [429, 500, "cut"])
def test_what_failed_is_told_and_asked_again_by_the_same_command(
    spec: ServedSpec, manner: Any, fault: int | str
) -> None:
    given = replace(spec, rates=(60.0,), repeats=2)
    manner.fault, manner.faulty = fault, frozenset(range(19, 40))  # in the second round
    manner.step_seconds = 0.03  # on a busy machine too tokens come one by one
    result = profile_served(given)
    assert (result.exit_code, result.counts["measured"], result.counts["failed"]) == (3, 1, 1), result.message
    manner.faulty = frozenset()
    result = profile_served(given)
    assert (result.exit_code, result.counts["measured"]) == (0, 2)


def test_the_best_rate_is_measured_and_its_search_kept(
    spec: ServedSpec, manner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    manner.step_seconds = 0.03  # on a busy machine too tokens come one by one
    for module in (figures, load_rounds):  # and what sends them late is no matter
        monkeypatch.setattr(module, "LATE_SHARE", 1e3)
    (point,) = points(replace(spec, best_rate=True, slo="ttft=10s", requests=4))
    assert point.failure is None
    best = point.values["best_rate"]
    assert best is not None
    held = [probe for probe in point.settings["probes"] if probe["slo_share"] == 1.0 and not probe["client_limited"]]
    assert best == max(probe["rate"] for probe in held)


def test_an_slo_that_never_holds_says_so(spec: ServedSpec) -> None:
    (point,) = points(replace(spec, best_rate=True, slo="ttft=1ms", requests=2))
    assert point.failure is not None
    assert point.failure["kind"] == "slo"
    assert "requests per second hold ttft=1ms" in point.failure["message"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rates": (0.0,)}, "--rate is requests per second"),
        ({"best_rate": True, "slo": ""}, "add --slo"),
        ({"concurrencies": (1,)}, "add --rate, --steady or --best-rate"),
        ({"rates": (1.0,), "requests": 1}, "--requests is at least 2"),
    ],
)
def test_what_cannot_be_asked_is_one_line(spec: ServedSpec, change: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        replace(spec, **change).check()


@pytest.mark.parametrize(("seconds", "asked", "said"), [(9.0, 32, None), (12.0, 32, 48), (1000.0, 2000, None)])
def test_a_round_that_was_over_before_its_load_was_there_is_said(seconds: float, asked: int, said: int | None) -> None:
    values: dict[str, float | int | None] = {"rate": 1.0, "requests_per_second": 1.0, "e2e_ms": 1000 * seconds}
    values |= {"requests": asked, "prompt_tokens": 100, "tokens_per_arrival": 1.0, "cached_tokens": 0}
    point = PlannedPoint.of("served", "rate-1", "tiny", 100, 0, 0).point(Outcome(values), {}, {})
    found = [text for text in caveats([point]) if text.startswith("Short")]
    assert [f"--requests {said}." in text for text in found] == ([True] if said else [])


def test_drift_takes_requests_enough_to_be_beyond_chance() -> None:
    assert drift([1.0] * 7 + [1.5] * 7 + [2.0] * 7) == 2.0
    assert drift([1.0] * 6 + [1.5] * 6 + [2.0] * 6) is None
    assert drift([0.0] * 10 + [1.0] * 10 + [2.0] * 10) is None
