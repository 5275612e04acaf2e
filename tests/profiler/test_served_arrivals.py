"""Which events of a stream are arrivals of tokens, and how many tokens each has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kleval.backends.server_address import Server
from kleval.backends.server_exchange import Received
from kleval.backends.server_opening import Served
from kleval.backends.server_timing import read_trace
from kleval.backends.spec import BackendSpec
from kleval.profiler.served import ServedSpec
from kleval.profiler.served.figures import tpot
from kleval.profiler.served.job import profile_served
from kleval.store import RunStore
from kleval.types import Trace

ROLE = {"delta": {"role": "assistant", "content": ""}}
EMPTY, X = {"delta": {"content": ""}}, {"delta": {"content": "x"}}
LAST = {"delta": {}, "finish_reason": "length"}


def read(choices: list[dict[str, Any]], n_out: int, counts: list[int] | None = None, **usage: Any) -> Trace:
    """Events a second apart, the usage behind them. counts: of output tokens, beside each event. usage: further fields."""
    events: list[dict[str, Any]] = [{"choices": [choice]} for choice in choices]
    for event, count in zip(events, counts or (), strict=False):
        event["usage"] = {"prompt_tokens": 5, "completion_tokens": count}
    events.append({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": n_out} | usage})
    raw = [f"data: {json.dumps(event)}\n\n".encode() for event in events]
    pieces = [(float(at), piece) for at, piece in enumerate([*raw, b"data: [DONE]\n\n"])]
    got = Received(0.0, 0.0, 200, pieces, [0.0] * len(pieces), None, None)
    return read_trace(Server("http://127.0.0.1:9/v1"), Served("tiny"), 1.0, got)


def moments(trace: Trace) -> list[float]:
    assert trace.failure is None
    return [arrival.seconds for arrival in trace.arrivals]


@pytest.mark.parametrize(
    "before",
    [
        [ROLE, ROLE],
        [ROLE, EMPTY],
        [ROLE, EMPTY, ROLE, EMPTY],
        [ROLE, {"delta": {"content": "", "reasoning_content": ""}}],
        [ROLE, {"delta": {"content": [{"type": "text", "text": ""}]}}],
        [ROLE, {"delta": {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": ""}]}]}}],
    ],
)
def test_the_first_token_is_the_first_content_that_is_not_empty(before: list[dict[str, Any]]) -> None:
    trace = read([*before, X, X, X, LAST], 3)
    assert moments(trace) == [len(before), len(before) + 1, len(before) + 2]


def test_reasoning_is_content() -> None:
    assert moments(read([ROLE, ROLE, {"delta": {"content": "", "reasoning_content": "x"}}, X, LAST], 2)) == [2, 3]


def test_an_empty_text_between_is_a_token_where_there_are_as_many() -> None:
    """A character that is made of several tokens."""
    assert moments(read([ROLE, X, EMPTY, X, LAST], 3)) == [1, 2, 3]


def test_an_empty_text_is_no_token_where_the_others_are_all_that_are_counted() -> None:
    assert moments(read([ROLE, X, EMPTY, X, EMPTY, EMPTY, X, EMPTY, LAST], 3)) == [1, 3, 6]


def test_an_answer_of_empty_texts_alone_arrives_as_they_do() -> None:
    """Tokens that have no text, as where the model would have ended its answer."""
    assert moments(read([ROLE, EMPTY, EMPTY, EMPTY, LAST], 3)) == [1, 2, 3]
    assert moments(read([ROLE, EMPTY, EMPTY, EMPTY, LAST], 2)) == []


def test_reasoning_and_text_of_one_step_have_its_tokens_once() -> None:
    """SGLang tells them apart in two events, with the same count."""
    trace = read([ROLE, {"delta": {"reasoning_content": "x"}}, X, X, LAST], 3, [0, 2, 2, 3, 3])
    assert [arrival.tokens for arrival in trace.arrivals] == [2, 0, 1]


def test_a_count_that_stays_0_until_the_end_tells_nothing() -> None:
    trace = read([ROLE, X, X, X, LAST], 3, [0, 0, 0, 0, 3])
    assert [arrival[:2] for arrival in trace.arrivals] == [(1, None), (2, None), (3, None)]


def test_reasoning_that_is_counted_and_not_shown_is_none_of_the_tokens_that_arrived() -> None:
    """A time per token would be a tenth of what it is."""
    hidden = {"completion_tokens_details": {"reasoning_tokens": 27}}
    trace = read([ROLE, X, X, X, LAST], 30, **hidden)
    assert (trace.output_tokens, tpot(trace)) == (3, (1.0, False))
    assert read([ROLE, X, X, X, LAST], 3, total_tokens=35, **hidden).output_tokens == 3  # counted beside
    shown = [{"delta": {"reasoning_content": "x"}}] * 27
    assert read([ROLE, *shown, X, X, X, LAST], 30, **hidden).output_tokens == 30
    assert read([ROLE, *([X] * 30), LAST], 30, **hidden).output_tokens == 30  # between tags


def test_a_server_that_names_the_role_again_and_again_has_the_time_to_its_first_token(
    served_server: Any, manner: Any, tmp_path: Path
) -> None:
    manner.owner, manner.roles_before, manner.first_seconds = "someone", 3, 0.2
    with served_server.serving(manner) as url:
        engine = BackendSpec(model="tiny", backend="openai", base_url=url, request_timeout=10, api="chat")
        result = profile_served(ServedSpec(engine=engine, ctxs=(64,), decode_tokens=6, repeats=1, out=tmp_path / "run"))
    assert result.out is not None
    (point,) = RunStore.open(result.out).points()
    assert point.failure is None
    assert point.values["ttft_ms"] >= 200
    assert point.values["tokens_per_arrival"] == 1
