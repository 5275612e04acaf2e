"""Error messages of real servers, answers that are none, event streams, and how many requests are in flight."""

import asyncio
import itertools
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kleval.backends.server_address import Server, parse_address
from kleval.backends.server_answers import Expected, generated
from kleval.backends.server_errors import MalformedAnswer, failure_of_status, retry_after
from kleval.backends.server_pace import Pace
from kleval.backends.server_reply import Answer
from kleval.backends.server_wire import Dialect, EventReader, events
from kleval.types import Completion, Request, UsageError

SERVER = Server("http://there/v1")

TOO_LONG = [
    (400, '{"error":{"message":"This model\'s maximum context length is 4096 tokens. However, your prompt contains 5000 input'
          ' tokens, which exceeds this limit even without any output tokens.","type":"BadRequestError","code":400}}'),
    (400, '{"error":{"message":"max_tokens must be at least 1, got 0. (parameter=max_tokens, value=0)","code":400}}'),
    (400, '{"error":{"message":"too many","type":"invalid_request_error","code":"context_length_exceeded"}}'),
    (400, '{"error":{"code":400,"message":"the request exceeds the available context size. try increasing it",'
          '"type":"exceed_context_size_error","n_ctx":2048}}'),
    (400, '{"object":"error","message":"The input (9000 tokens) is longer than the model\'s context length (8192 tokens)."}'),
    (400, '{"message":"Requested token count exceeds the model\'s maximum context length of 8192 tokens."}'),
    (413, "<html>Request Entity Too Large</html>"),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body"), TOO_LONG)
def test_every_servers_way_to_say_too_long(status, body):
    got = failure_of_status(SERVER, status, body)
    assert (got.kind, got.retryable) == ("context_overflow", False)


@pytest.mark.parametrize(
    ("status", "body", "kind", "retryable"),
    [
        (429, "", "rate_limit", True),
        (429, '{"error":{"code":"insufficient_quota","message":"pay"}}', "rate_limit", False),
        (500, "Internal Server Error", "server", True),
        (503, '{"error":"loading"}', "server", True),
        (500, '{"error":{"message":"CUDA out of memory"}}', "out_of_memory", True),
        (408, "", "timeout", True),
        (400, '{"error":{"message":"max_tokens must be at least 1, got 0 apples"}}', "context_overflow", False),
        (400, '{"error":{"message":"Token id 100000 is out of vocabulary"}}', "bad_request", False),
        (422, '{"detail":[{"loc":["body"],"msg":"no"}]}', "bad_request", False),
        (403, '{"error":{"message":"your input was flagged"}}', "bad_request", False),
        (404, "[]", "bad_request", False),
        (308, "", "bad_request", False),
    ],
)
def test_status_codes(status, body, kind, retryable):
    got = failure_of_status(SERVER, status, body)
    assert (got.kind, got.retryable) == (kind, retryable)


def test_a_refused_key_ends_the_run():
    with pytest.raises(UsageError, match="refuses"):
        failure_of_status(SERVER, 401, "")


def outcome(piece, request=None, n_prompt=4, software="other", exact=True):
    answer = Answer()
    answer.feed(piece)
    expected = Expected(SERVER, Dialect("tiny", software), n_prompt, exact, 0.05, lambda name: name == "tiny")
    return generated(answer, request or Request("generate", "p", max_new_tokens=8), expected, 0.0)


def reply(finish="stop", usage=(4, 3), **choice):
    used = None if usage is None else {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    return {"model": "tiny", "choices": [{"text": "abc", "finish_reason": finish, **choice}], "usage": used}


@pytest.mark.parametrize(
    ("piece", "kind", "retryable"),
    [
        ({"model": "tiny", "choices": []}, "server", True),
        (reply(None), "server", True),
        (reply("length"), "context_overflow", False),
        (reply("content_filter"), "bad_request", False),
        (reply("tool_calls"), "empty", False),
        (reply("abort"), "server", True),
        (reply(usage=None), "server", True),
        (reply(usage=(3, 3)), "server", False),
        (reply(usage=(4, 0), text=""), "empty", True),
        (reply(text=None), "empty", True),
        (reply(text=None, message={"content": None, "reasoning_content": "hm"}), "empty", False),
        ({**reply(), "model": "other"}, "server", False),
        ({"error": {"message": "engine died", "code": 500}}, "server", True),
        ({"error": {"message": "This model's maximum context length is 1", "code": 400}}, "context_overflow", False),
    ],
)
def test_what_is_no_answer(piece, kind, retryable):
    got = outcome(piece)
    assert (got.kind, got.retryable) == (kind, retryable)


def test_what_is_an_answer():
    assert outcome(reply()) == Completion("abc", 4, 3, "eos")
    assert outcome(reply("length", (4, 8))).finish_reason == "length"
    assert outcome(reply(usage=(4, 1), text="")).text == ""
    assert outcome(reply(usage=(4, 0), text=""), software="llama.cpp").text == ""
    assert outcome(reply(text=None, message={"content": "abc", "reasoning_content": "hm"})).text == "abc"


def test_a_prompt_sent_as_text_may_gain_a_token_and_not_lose_a_tenth():
    assert outcome(reply(usage=(101, 3)), n_prompt=100, exact=False).text == "abc"
    assert outcome(reply(usage=(90, 3)), n_prompt=100, exact=False).kind == "context_overflow"


def test_which_end_it_was_is_told_by_the_stop_string():
    request = Request("generate", "p", max_new_tokens=8, stop=("x",))
    assert outcome(reply(stop_reason=None), request).finish_reason == "eos"
    assert outcome(reply(stop_reason="x"), request).finish_reason == "stop"
    assert outcome(reply(text="abxc"), request) == Completion("ab", 4, 3, "stop")


def read(raw, cuts=()):
    async def chunks():
        edges = [0, *sorted(cuts), len(raw)]
        for begin, end in itertools.pairwise(edges):
            yield raw[begin:end]

    async def collect():
        return [piece async for piece in events(chunks(), EventReader())]

    return asyncio.run(collect())


STREAM = (
    'data: {"a": "x\u2028y\u0085z"}\r\n\r\n: comment\n\ndata:{"a": 2}\n\ndata: [DONE]\n\ndata: {"a": 3}\n\n'.encode()
)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, len(STREAM)), max_size=6))
def test_where_a_stream_is_cut_into_packets_does_not_matter(cuts):
    assert read(STREAM, cuts) == [{"a": "x\u2028y\u0085z"}, {"a": 2}]


@pytest.mark.parametrize("raw", [b'data: {"a": \n\n', b"data: [1]\n\n"])
def test_a_broken_event_is_noticed(raw):
    with pytest.raises(MalformedAnswer):
        read(raw)


def test_retry_after_in_seconds_and_as_a_date():
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    assert retry_after("7") == 7
    assert 90 < retry_after(soon) <= 100
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert [retry_after(v) for v in (None, "", "soon", "nan", "inf")] == [None] * 5


@settings(max_examples=30, deadline=None)
@given(most=st.integers(1, 20), said=st.lists(st.booleans(), max_size=60))
def test_the_limit_grows_with_answers_and_at_most_halves(most, said):
    async def walk():
        pace = Pace(most)
        for busy in said:
            before, era = pace.limit, await pace.enter()
            await pace.leave()
            if busy:
                pace.refused(era, 1, None)
                assert pace.limit == max(1.0, before / 2)
            else:
                pace.answered()
                assert min(most, before) <= pace.limit <= min(most, before + 1)
            assert 1 <= pace.limit <= most

    asyncio.run(walk())


def test_refusals_of_requests_sent_together_halve_once():
    async def both():
        pace = Pace(8)
        eras = [await pace.enter(), await pace.enter()]
        for era in eras:
            pace.refused(era, 1, None)
        return pace.limit

    assert asyncio.run(both()) == 2.0


def test_an_address_is_shown_without_what_is_secret(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    server = parse_address("https://me:p%40ssword@host:1/v1/chat/completions?key=abcdefgh")
    assert server.url == "https://host:1/v1"
    assert server.hide("p@ssword p%40ssword abcdefgh sk-0123456789ab fine") == "*** *** *** *** fine"
