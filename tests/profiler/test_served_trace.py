"""The figures of rounds, from times that are written down here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kleval.backends.timing import generator, random_tokens, random_words
from kleval.profiler.points import Outcome, PlannedPoint
from kleval.profiler.served.caveats import caveats
from kleval.profiler.served.figures import (
    FEWEST_TO_STREAM,
    e2e,
    gaps,
    round_failure,
    round_values,
    tpot,
    ttft,
    why_not,
    why_not_free,
)
from kleval.types import Arrival, Failure, Trace


def trace(submitted: float, *arrivals: float, tokens: int | None = None, **given: Any) -> Trace:
    """tokens: of each arrival."""
    found = tuple(Arrival(seconds, tokens) for seconds in arrivals)
    return Trace(submitted, found, **{"output_tokens": len(arrivals), "prompt_tokens": 5, **given})


ONE = trace(10.0, 10.5, 10.6, 10.8, 10.9, prompt_tokens=100)


def test_times_are_those_of_the_definition() -> None:
    assert ttft(ONE) == pytest.approx(0.5)
    assert tpot(ONE) == (pytest.approx(0.4 / 3), False)
    assert e2e(ONE) == pytest.approx(0.9)
    assert gaps(ONE) == pytest.approx([0.1, 0.2, 0.1])


def test_a_round_pools_gaps_and_takes_medians_over_requests() -> None:
    other = trace(10.0, 11.0, 11.5, prompt_tokens=120)
    values, estimate = round_values([ONE, other])
    assert not estimate
    assert values["ttft_ms"] == pytest.approx(750)
    assert values["ttft_ms_max"] == pytest.approx(1000)
    assert values["itl_ms_median"] == pytest.approx(150)
    assert values["itl_ms_p90"] == pytest.approx(410)  # of 100, 100, 200, 500
    assert values["output_tokens_per_second"] == pytest.approx(6 / 1.5)
    assert values["prompt_tokens_per_second"] == pytest.approx(220)
    assert (values["requests"], values["prompt_tokens"], values["output_tokens"]) == (2, 110, 6)


@pytest.mark.parametrize(
    ("tokens", "n_out", "expected", "estimate"),
    [(3, 9, 2000 / 6, False), (None, 9, 2000 / 8, True), (1, 3, 2000 / 2, False), (None, 3, 2000 / 2, False)],
)
def test_tokens_of_the_first_arrival_took_no_time_that_was_seen(
    tokens: int | None, n_out: int, expected: float, estimate: bool
) -> None:
    values, estimated = round_values([trace(0.0, 1.0, 2.0, 3.0, tokens=tokens, output_tokens=n_out)])
    assert values["tpot_ms"] == pytest.approx(expected)
    assert values["tokens_per_arrival"] == pytest.approx(n_out / 3)
    assert estimated is estimate


def test_cached_tokens_are_absent_unless_every_request_tells_them() -> None:
    told = trace(0.0, 1.0, 2.0, cached_tokens=3)
    assert round_values([told, told])[0]["cached_tokens"] == 6
    assert "cached_tokens" not in round_values([told, trace(0.0, 1.0, 2.0)])[0]


def test_state_bytes_are_of_one_sequence_and_absent_where_one_does_not_tell() -> None:
    small, large = ({"kv": 10, "conv": 2}, {"kv": 30, "conv": 2})
    values, _ = round_values([trace(0.0, 1.0, 2.0, state_bytes=s, peak_bytes=p) for s, p in ((small, 5), (large, 9))])
    assert (values["kv_bytes"], values["conv_bytes"], values["state_bytes"], values["peak_bytes"]) == (20, 2, 22, 9)
    assert "state_bytes" not in round_values([ONE, trace(0.0, 1.0, 2.0, state_bytes=small)])[0]


@pytest.mark.parametrize(
    ("trace", "kind"),
    [
        (trace(0.0, 1.0, 2.0, output_tokens=3), "fewer_tokens"),
        (trace(0.0, 1.0, 2.0, output_tokens=None), "server"),
        (trace(0.0, 1.0, 2.0, output_tokens=4, prompt_tokens=None), "server"),
        (trace(0.0, output_tokens=4), "empty"),
        (trace(0.0, 1.0, output_tokens=4), "not_streamed"),
        (trace(0.0, 1.0, 2.0, output_tokens=4, prompt_tokens=50), "prompt_length"),
        (trace(0.0, 1.0, 2.0, output_tokens=3, failure=Failure("timeout", "")), "timeout"),
    ],
)
def test_what_is_no_measurement_is_a_failure(trace: Trace, kind: str) -> None:
    found = why_not(trace, 4, 5)
    assert found is not None
    assert found.kind == kind


def test_a_request_with_all_its_tokens_is_a_measurement() -> None:
    assert why_not(ONE, 4, 100) is None


def test_a_round_says_how_many_requests_failed_and_the_most_frequent_reason() -> None:
    bad = [Failure("timeout", "timeout!"), Failure("server", "server!"), Failure("server", "server!")]
    assert round_failure([None, *bad]) == {"kind": "server", "message": "3 of 4 requests: server!"}
    assert round_failure([None, None]) is None


@given(st.integers(1, 50), st.integers(0, 3))
@settings(max_examples=20, deadline=None)
def test_prompts_are_as_long_as_asked_made_again_from_their_seed_and_different_for_every_request(
    n: int, seed: int
) -> None:
    pool = range(300, 20000)
    assert random_tokens(pool, n, generator(seed, 0)) == random_tokens(pool, n, generator(seed, 0))
    assert len(random_tokens(pool, n, generator(seed, 0))) == n
    words = random_words(n, generator(seed, 0))
    assert len(words.split()) == n
    assert words.isascii()
    assert words.isprintable()
    assert random_tokens(pool, 8, generator(seed, 0)) != random_tokens(pool, 8, generator(seed, 1))


def test_tpot_of_requests_together_counts_the_steps_in_which_all_decode_and_a_neighbours_prefill_apart() -> None:
    """Steps of 4 ms; while the second request is in its prefill, from 100 to 600 ms, one step of the first takes 500 ms."""
    early = trace(0.0, 0.096, 0.1, *(0.6 + 0.004 * at for at in range(10)))
    late = trace(0.0, *(0.6 + 0.004 * at for at in range(10)))
    values, estimate = round_values([early, late])
    assert values["tpot_ms"] == pytest.approx(4)
    assert values["stalled_tpot_ms"] == pytest.approx(504 / 2)
    assert values["common_steps"] == 9
    assert not estimate


def test_requests_that_never_decode_together_have_their_own_spans_and_say_so() -> None:
    values, _ = round_values([ONE, trace(10.0, 11.0, 11.2)])
    assert values["common_steps"] == 0
    assert values["tpot_ms"] == pytest.approx((400 / 3 + 200) / 2)
    assert "stalled_tpot_ms" not in values


def test_tokens_faster_than_any_server_makes_them_were_made_before_the_first_was_sent() -> None:
    """0.02 ms between tokens."""
    buffered = trace(0.0, *(1.0 + 2e-5 * at for at in range(64)))
    assert why_not(buffered, 64, 5, served=True).kind == "not_streamed"  # type: ignore[union-attr]
    assert why_not(buffered, 64, 5) is None
    assert why_not(trace(0.0, *(1.0 + 2e-4 * at for at in range(64))), 64, 5, served=True) is None


def test_a_last_piece_behind_all_others_is_no_stream() -> None:
    """31 tokens at once and the last 0.1 ms later: a proxy that holds all back."""
    held = Trace(0.0, (Arrival(1.0, 31), Arrival(1.0001, 1)), output_tokens=32, prompt_tokens=5)
    assert why_not(held, 32, 5, served=True).kind == "not_streamed"  # type: ignore[union-attr]


def test_a_long_answer_that_arrives_at_once_has_no_times_and_a_short_one_has() -> None:
    found = [why_not_free(trace(0.0, 1.0, output_tokens=n), True) for n in (FEWEST_TO_STREAM, FEWEST_TO_STREAM - 1)]
    assert [failure and failure.kind for failure in found] == ["not_streamed", None]
    assert why_not_free(trace(0.0, output_tokens=100), True) is None  # nothing arrived


@pytest.mark.parametrize("bundle", [8, 16])
def test_bundles_of_equal_steps_give_the_step(bundle: int) -> None:
    """64 tokens, 10 ms each, that arrive `bundle` at a time."""
    told = trace(0.0, *(0.01 * bundle * (at + 1) for at in range(64 // bundle)), tokens=bundle, output_tokens=64)
    assert tpot(told) == (pytest.approx(0.01), False)


def test_a_round_that_the_client_sent_late_is_limited_by_it() -> None:
    """E2E is 1 s or more: 20 ms are less than 5 % of it, 200 ms more."""
    limited = ["client_limited" in round_values([replace(ONE, late_seconds=late)])[0] for late in (0.02, 0.2)]
    assert limited == [False, True]


@pytest.mark.parametrize(("share", "said"), [(0.0, False), (0.02, True)])
def test_rare_arrivals_that_were_read_late_are_said_though_the_median_is_right(share: float, said: bool) -> None:
    """200 steps of 10 ms, of which some were noted 50 ms late."""
    whole = trace(0.0, *(1 + 0.01 * at for at in range(200)), prompt_tokens=64)
    late = tuple(
        a._replace(late_seconds=0.05 if at < 200 * share else 0.0) for at, a in enumerate(whole.arrivals[::-1])
    )
    values, _ = round_values([replace(whole, arrivals=late[::-1])])
    assert "client_limited" not in values
    point = PlannedPoint.of("served", "concurrency-1", "tiny", 64, 1, 0).point(Outcome(values), {}, {})
    assert any("up to 50.0 ms late" in text for text in caveats([point])) is said


@pytest.mark.parametrize(("late", "limited"), [(0.0, False), (0.02, True)])
def test_a_round_that_the_client_noted_late_is_limited_by_it(late: float, limited: bool) -> None:
    """TTFT is 0.5 s and TPOT 0.1 to 0.2 s: 20 ms are more than 5 % of the second."""
    arrivals = tuple(arrival._replace(late_seconds=late) for arrival in ONE.arrivals)
    values, _ = round_values([replace(ONE, arrivals=arrivals, late_seconds=0.004, connect_seconds=0.003)])
    assert ("client_limited" in values) is limited
    assert values["late_ms"] == pytest.approx(1000 * late)
    assert (values["late_send_ms"], values["connect_ms"]) == (pytest.approx(4), pytest.approx(3))
