"""Served models measured on a small server in this process, whose delays, chunks, counts and faults are known."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kleval.backends import server_wire
from kleval.backends.server_address import Server
from kleval.backends.server_exchange import Received
from kleval.backends.server_opening import Served
from kleval.backends.server_timing import read_hits, read_trace
from kleval.backends.spec import BackendSpec
from kleval.profiler.served import ServedSpec
from kleval.profiler.served.figures import why_not
from kleval.profiler.served.job import profile_served
from kleval.profiler.served.planning import asked_settings
from kleval.store import Point, RunStore
from kleval.tables.cost_rows import served_rows
from kleval.tables.costs import make_profile
from kleval.types import Arrival, Failure, Trace, UsageError
from kleval.work import Result
from kleval.work import events as ev


@pytest.fixture
def spec(served_server: Any, manner: Any, tmp_path: Path) -> Iterator[ServedSpec]:
    """One length, one request at a time, two rounds of 6 tokens."""
    with served_server.serving(manner) as url:
        engine = BackendSpec(model="tiny", backend="openai", base_url=url, request_timeout=10)
        yield ServedSpec(engine=engine, ctxs=(64,), decode_tokens=6, repeats=2, out=tmp_path / "run")


def points(result: Result) -> list[Point]:
    assert result.out is not None
    return list(RunStore.open(result.out).points())


def caveats(result: Result) -> str:
    assert result.out is not None
    return " ".join(RunStore.open(result.out).manifest["caveats"])


def test_times_are_at_least_the_servers_delays_and_counts_are_exact(served_server: Any, spec: ServedSpec) -> None:
    result = profile_served(spec)
    assert (result.status, result.exit_code) == ("complete", 0)
    found = points(result)
    assert [p.id for p in found] == [f"served/concurrency-1/tiny/64/b1/r{i}" for i in range(2)]
    for point in found:
        values = point.values
        assert values["ttft_ms"] >= 1000 * served_server.FIRST_SECONDS
        assert values["e2e_ms"] >= 1000 * (served_server.FIRST_SECONDS + 5 * served_server.STEP_SECONDS)
        # A piece may be read late and the next at once: single gaps have no floor, their sum has nearly one.
        assert values["e2e_ms"] == pytest.approx(values["ttft_ms"] + 5 * values["tpot_ms"])
        assert values["itl_ms_median"] <= values["itl_ms_p90"] <= values["itl_ms_p99"]
        assert (values["requests"], values["prompt_tokens"], values["output_tokens"]) == (1, 64, 6)
        assert 1 <= values["tokens_per_arrival"] < 6
        assert point.closed_form == {}
        assert "state_bytes" not in values


def test_the_first_round_is_sent_and_not_counted(spec: ServedSpec, manner: Any) -> None:
    result = profile_served(spec)
    assert len(manner.measured) == 1 + spec.repeats
    assert len(points(result)) == spec.repeats
    assert all(point.values["warmup_ttft_ms"] > 0 for point in points(result))


def test_no_prompt_is_sent_twice_not_even_by_the_same_command_again(
    spec: ServedSpec, manner: Any, tmp_path: Path
) -> None:
    spec = replace(spec, concurrencies=(1, 3))
    profile_served(spec)
    profile_served(replace(spec, out=tmp_path / "again"))
    prompts = [tuple(body["prompt"]) for body in manner.measured]
    assert len(prompts) == 2 * (1 + spec.repeats) * (1 + 3)
    assert len({prompt[:16] for prompt in prompts}) == len(prompts)


def test_requests_of_a_round_are_under_way_together(spec: ServedSpec, manner: Any) -> None:
    result = profile_served(replace(spec, concurrencies=(5,), repeats=1))
    assert manner.most_under_way == 5
    (point,) = points(result)
    assert (point.batch, point.values["requests"], point.values["output_tokens"]) == (5, 5, 30)


def test_answers_are_asked_to_have_the_length(spec: ServedSpec, manner: Any) -> None:
    manner.stops_after = 3
    result = profile_served(spec)
    assert result.status == "complete"
    assert all(body["ignore_eos"] and body["min_tokens"] == body["max_tokens"] for body in manner.measured)


def test_several_tokens_in_a_chunk_are_counted_by_usage_and_said(spec: ServedSpec, manner: Any) -> None:
    manner.tokens_per_event = 3
    result = profile_served(spec)
    for point in points(result):
        values = point.values
        assert (values["output_tokens"], values["tokens_per_arrival"]) == (6, 3)  # 2 arrivals; one is no measurement
        assert values["e2e_ms"] == pytest.approx(values["ttft_ms"] + 3 * values["tpot_ms"])  # 3 tokens came first
        assert not point.estimate
    assert "Several tokens arrive together" in caveats(result)


def test_a_server_that_stops_early_has_failed_points_and_no_values(spec: ServedSpec, manner: Any) -> None:
    manner.owner, manner.takes_ignore_eos, manner.stops_after = "someone", False, 4
    result = profile_served(spec)
    assert (result.status, result.exit_code) == ("incomplete", 3)
    for point in points(result):
        assert point.values == {}
        assert point.failure == {"kind": "fewer_tokens", "message": "the model ended its answer after 4 of 6 tokens"}


@pytest.mark.parametrize("fault", [500, 429, "error", "cut"])
def test_a_fault_fails_its_round_alone_and_the_same_command_measures_it_again(
    spec: ServedSpec, manner: Any, fault: int | str
) -> None:
    manner.fault, manner.faulty = (
        fault,
        frozenset({5}),
    )  # 2 warm up, 2 of the first round; the second of the second round
    spec = replace(spec, concurrencies=(2,))
    result = profile_served(spec)
    assert result.counts == {"planned": 2, "measured": 1, "failed": 1, "missing": 0}
    good, bad = points(result)
    assert good.values["requests"] == 2
    assert bad.failure is not None
    assert bad.failure["kind"] == ("rate_limit" if fault == 429 else "server")
    assert bad.failure["message"].startswith("1 of 2 requests: ")
    (row,) = served_rows(make_profile(points(result), {}))
    assert (row["rounds"], row["failed"], row["ttft_ms"]) == (1, 1, good.values["ttft_ms"])
    again = profile_served(spec)
    assert again.status == "complete"
    assert again.counts["measured"] == 2
    assert points(again)[0] == good


def test_a_server_that_is_gone_is_not_asked_for_the_rest(spec: ServedSpec, manner: Any) -> None:
    manner.fault, manner.faulty = 503, frozenset(range(1000))
    result = profile_served(replace(spec, ctxs=(32, 64), repeats=4))
    assert result.counts == {"planned": 8, "measured": 0, "failed": 3, "missing": 5}
    assert "3 rounds in succession" in result.message


def test_a_prompt_that_the_server_cuts_is_no_measurement(spec: ServedSpec, manner: Any) -> None:
    manner.cuts_prompts_to = 40
    result = profile_served(spec)
    assert all(p.failure is not None and p.failure["kind"] == "prompt_length" for p in points(result))
    assert "counts 40 tokens in a prompt of 64" in result.message


def test_ids_of_which_a_server_drops_some_are_no_measurement(spec: ServedSpec, manner: Any) -> None:
    """5 % fewer, which of words would be how they were counted."""
    manner.cuts_prompts_to = 190
    result = profile_served(replace(spec, ctxs=(200,)))
    assert all(p.failure is not None and p.failure["kind"] == "prompt_length" for p in points(result))
    assert "counts 190 tokens in a prompt of 200" in result.message


def test_ids_that_are_counted_a_little_otherwise_are_said_to_be_no_text(spec: ServedSpec, manner: Any) -> None:
    manner.cuts_prompts_to = 62
    said = caveats(profile_served(spec))
    assert "Prompts are up to 3.1% off the length asked for" in said


def test_an_answer_that_comes_at_once_is_no_stream(spec: ServedSpec, manner: Any) -> None:
    manner.buffers = True
    result = profile_served(spec)
    assert all(p.failure is not None and p.failure["kind"] == "not_streamed" for p in points(result))


def test_content_is_text_reasoning_ids_or_a_count_that_grows_and_pieces_may_be_cut_anywhere() -> None:
    events: list[dict[str, Any]] = [
        {"choices": [{"delta": {"role": "assistant", "content": ""}}]},
        {"choices": [{"delta": {"reasoning": "x"}}]},
        {"choices": [{"text": "", "token_ids": [5]}]},
        {"choices": [{"text": "y"}], "usage": {"prompt_tokens": 1, "completion_tokens": 3}},
        {"choices": [{"text": ""}], "usage": {"prompt_tokens": 1, "completion_tokens": 3}},
        {"choices": [{"text": "x", "finish_reason": "length"}]},
        {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 4}},
    ]
    raw = [f"data: {json.dumps(event)}\r\n\r\n".encode() for event in events]
    whole = read(list(enumerate([*raw, b": a comment\n\n", b"data: [DONE]\n\n"])))
    assert [arrival[:2] for arrival in whole.arrivals] == [(1, None), (2, 1), (3, None), (5, None)]
    assert (whole.failure, whole.output_tokens) == (None, 4)
    cut = read([(0.0, raw[1][:20]), (1.0, raw[1][20:] + raw[2] + raw[3][:10])])
    assert cut.arrivals == (Arrival(1.0),)
    assert cut.failure is not None
    assert "ended in the middle" in cut.failure.message
    assert read([(0.0, raw[2] + raw[3]), (1.0, raw[-1])]).arrivals == (Arrival(0.0, 3),)


def read(pieces: list[tuple[float, bytes]]) -> Trace:
    got = Received(0.0, 0.0, 200, pieces, [0.0] * len(pieces), None, None)
    return read_trace(Server("http://127.0.0.1:9/v1"), Served("tiny"), 1.0, got)


def test_cached_tokens_of_usage_are_shown_and_warned_of(spec: ServedSpec, manner: Any) -> None:
    manner.cached = 16
    result = profile_served(spec)
    assert [p.values["cached_tokens"] for p in points(result)] == [16, 16]
    assert "Cached prompts: 32 of 128" in caveats(result)


def test_no_cached_tokens_are_zero_and_no_warning(spec: ServedSpec, manner: Any) -> None:
    manner.cached = 0
    result = profile_served(spec)
    assert [p.values["cached_tokens"] for p in points(result)] == [0, 0]
    assert "ache" not in caveats(result)


def test_cached_tokens_are_read_from_metrics_where_usage_is_silent(spec: ServedSpec, manner: Any) -> None:
    manner.hits, manner.hits_per_request = 1000, 8
    result = profile_served(spec)
    assert [p.values["cached_tokens"] for p in points(result)] == [8, 8]


@pytest.mark.parametrize("odd", [-8, 1000])
def test_metrics_that_cannot_be_of_this_round_tell_nothing(spec: ServedSpec, manner: Any, odd: int) -> None:
    """As those of another server behind the same address: fewer hits than before, or more than prompts were sent."""
    manner.hits, manner.hits_per_request = 100_000, odd
    result = profile_served(spec)
    assert all("cached_tokens" not in p.values for p in points(result))
    assert "does not tell how many prompt tokens came from its cache" in caveats(result)


def test_where_nothing_tells_cached_tokens_are_absent_and_it_is_said(spec: ServedSpec) -> None:
    result = profile_served(spec)
    assert all("cached_tokens" not in p.values for p in points(result))
    assert "does not tell how many prompt tokens came from its cache" in caveats(result)


def test_hits_of_several_engines_are_added() -> None:
    lines = [
        "# TYPE vllm:prefix_cache_hits counter",
        'vllm:prefix_cache_hits_total{engine="0"} 3.0',
        'vllm:prefix_cache_hits_total{engine="1"} 1e+02',
        "vllm:prefix_cache_hits_created 9",
    ]
    assert read_hits("\n".join(lines)) == 103
    assert read_hits("vllm:prefix_cache_queries_total 5") is None


@pytest.mark.parametrize("value", ["", " many", " NaN", " +Inf"])
def test_hits_that_are_no_number_are_not_told(value: str) -> None:
    assert read_hits(f"vllm:prefix_cache_hits_total{value}") is None


def test_a_stream_without_end_is_cut_off(spec: ServedSpec, manner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_wire, "LONGEST_ANSWER", 750)
    result = profile_served(spec)
    assert all(p.failure is not None and p.failure["kind"] == "server" for p in points(result))
    assert "an answer of more than" in result.message


def test_more_tokens_counted_than_asked_are_no_measurement() -> None:
    trace = Trace(0.0, (Arrival(1.0), Arrival(2.0)), output_tokens=100, prompt_tokens=8)
    assert why_not(trace, 6, 8) == Failure("server", "the server counts 100 tokens where 6 were asked")
    assert why_not(replace(trace, output_tokens=7), 6, 8) is None


def test_no_secret_of_an_engine_argument_is_in_the_settings(tmp_path: Path) -> None:
    engine = BackendSpec(model="tiny", backend="vllm", engine_args={"hf_token": "hf_0123", "seed": "5"})
    settings = asked_settings(ServedSpec(engine=engine, ctxs=(64,), out=tmp_path))
    assert settings["engine_args"] == {"hf_token": "***", "seed": "5"}


@pytest.mark.parametrize("api", ["auto", "chat"])
def test_words_are_sent_where_ids_are_not_taken_and_their_tokens_are_the_servers(
    spec: ServedSpec, manner: Any, api: str
) -> None:
    manner.takes_ids = False
    result = profile_served(replace(spec, engine=replace(spec.engine, api=api)))
    assert result.status == "complete"
    for point in points(result):
        assert point.settings["prompts"] == ("chat" if api == "chat" else "text")
        assert abs(point.values["prompt_tokens"] - 64) <= 1  # 2 tokens per word and 3 more
    assert all(isinstance(body.get("prompt", ""), str) for body in manner.measured)


def test_reasoning_is_output(spec: ServedSpec, manner: Any) -> None:
    manner.reasons = True
    result = profile_served(replace(spec, engine=replace(spec.engine, api="chat")))
    assert result.status == "complete"
    assert all(p.values["output_tokens"] == 6 for p in points(result))


def test_lengths_beyond_the_models_are_left_out_and_named(spec: ServedSpec, manner: Any) -> None:
    manner.max_model_len = 100
    result = profile_served(replace(spec, ctxs=(64, 95)))
    assert result.status == "complete"
    assert result.out is not None
    (one,) = RunStore.open(result.out).manifest["unmeasured"]
    assert (one["ctx"], one["reason"]) == (95, "95 + 6 tokens, the model takes 100")
    with pytest.raises(UsageError, match=r"choose another --ctx \(512 \+ 6 tokens, the model takes 100\)"):
        profile_served(replace(spec, ctxs=(512,), out=result.out.with_name("other")))


def test_another_models_name_in_the_middle_is_noticed(spec: ServedSpec, manner: Any) -> None:
    manner.answers_as = "large"
    result = profile_served(replace(spec, decode_tokens=20))
    assert all(p.failure is not None and "answered as large" in p.failure["message"] for p in points(result))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": "other"}, "does not serve tiny: --model is one of other"),
        ({"usage": False}, "does not count tokens in its streams"),
        ({"key": "sesame"}, "refuses a request without a key"),
    ],
)
def test_what_cannot_be_measured_is_said_before_anything_is(
    spec: ServedSpec, manner: Any, change: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for name, value in change.items():
        setattr(manner, name, value)
    with pytest.raises(UsageError, match=said) as error:
        profile_served(spec)
    assert "\n" not in str(error.value)
    assert spec.out is not None
    assert not spec.out.exists()


def test_no_server_is_said_within_seconds(tmp_path: Path) -> None:
    engine = BackendSpec(model="tiny", backend="openai", base_url="http://127.0.0.1:9/v1")
    with pytest.raises(UsageError, match=r"no server answers at http://127\.0\.0\.1:9/v1"):
        profile_served(ServedSpec(engine=engine, ctxs=(64,), out=tmp_path / "run"))


def test_the_key_is_sent_and_never_written(spec: ServedSpec, manner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    manner.key = "secret-sesame-1"
    monkeypatch.setenv("OPENAI_API_KEY", manner.key)
    result = profile_served(spec)
    assert result.status == "complete"
    assert result.out is not None
    for file in result.out.rglob("*"):
        assert not file.is_file() or manner.key not in file.read_text("utf-8")


def test_interrupted_it_goes_on_with_what_is_left(spec: ServedSpec) -> None:
    def stop(event: ev.Event) -> None:
        if isinstance(event, ev.UnitDone):
            raise KeyboardInterrupt

    first = profile_served(spec, stop)
    assert (first.status, first.exit_code) == ("interrupted", 130)
    (kept,) = points(first)
    second = profile_served(spec)
    assert second.status == "complete"
    assert points(second)[0] == kept
    assert len(points(second)) == 2


def test_where_a_loop_is_running_already_it_is_measured_too(spec: ServedSpec) -> None:
    async def notebook() -> Result:
        return profile_served(spec)

    assert asyncio.run(notebook()).status == "complete"


def test_another_command_on_the_same_directory_is_refused(spec: ServedSpec) -> None:
    profile_served(spec)
    with pytest.raises(UsageError, match="decode_tokens: 6 -> 7"):
        profile_served(replace(spec, decode_tokens=7))


def test_a_dry_run_measures_nothing(spec: ServedSpec, manner: Any) -> None:
    result = profile_served(replace(spec, out=None, dry_run=True))
    assert [p.steps for p in result.units] == [6, 6]
    assert manner.measured == []


def test_another_session_is_further_rounds(spec: ServedSpec) -> None:
    profile_served(spec)
    for n in (4, 6):
        found = points(profile_served(replace(spec, append=True)))
        assert [point.repeat for point in found] == list(range(n))
    assert len(points(profile_served(spec))) == 6
