"""The forms in which services send one and the same answer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kleval.backends.server_address import Server
from kleval.backends.server_answers import Expected, _told, finish_kind, generated
from kleval.backends.server_errors import MalformedAnswer
from kleval.backends.server_reply import Answer
from kleval.backends.server_wire import Dialect, EventReader, Software
from kleval.types import Completion, Request

USAGE = {"prompt_tokens": 4, "completion_tokens": 3}


def fed(choices: Sequence[dict[str, Any]], usage: dict[str, Any] | None = None) -> Answer:
    """The last choice ends the answer."""
    answer = Answer()
    for number, choice in enumerate(choices):
        last = number == len(choices) - 1
        answer.feed({"choices": [{"finish_reason": "stop" if last else None, **choice}]})
    answer.feed({"choices": [], "usage": usage or USAGE})
    return answer


def outcome(answer: Answer, software: Software = "other", **request: Any) -> Any:
    asked = Request("generate", "p", max_new_tokens=8, **request)
    expected = Expected(Server("http://there/v1"), Dialect("tiny", software), 4, False, 1.0, lambda name: True)
    return generated(answer, asked, expected, 0.0)


def deltas(*texts: Any) -> list[dict[str, Any]]:
    return [{"delta": {"content": text}} for text in texts]


SHAPES = {
    "whole": [{"message": {"role": "assistant", "content": "the answer"}}],
    "parts": [{"message": {"content": [{"type": "text", "text": "the "}, {"type": "output_text", "text": "answer"}]}}],
    "one part": [{"message": {"content": {"type": "text", "text": "the answer"}}}],
    "texts in a list": [{"message": {"content": ["the ", "answer"]}}],
    "deltas": deltas("", "the ", "answer", None, ""),
    "deltas of parts": deltas([], [{"type": "text", "text": "the "}], [{"type": "text", "text": "answer"}], []),
    "messages as deltas": [{"message": {"content": "the "}}, {"message": {"content": "answer"}}],
    "a delta without text beside the message": [{"delta": {"role": "assistant"}, "message": {"content": "the answer"}}],
    "an empty delta beside the message": [{"delta": {"content": ""}, "message": {"content": "the answer"}}],
    "the whole message at the end": [*deltas("the ", "answer"), {"delta": {}, "message": {"content": "the answer"}}],
    "the message grows beside the delta": [
        {"delta": {"content": "the "}, "message": {"content": "the "}},
        {"delta": {"content": "answer"}, "message": {"content": "the answer"}},
    ],
    "the whole text at the end": deltas("the ", "answer", "the answer"),
    "values": [{"message": {"content": [{"type": "text", "text": {"value": "the answer", "annotations": []}}]}}],
    "each repeats all before": deltas("the", "the ", "the answer", "the answer"),
    "messages repeat all before": [{"message": {"content": text}} for text in ("the", "the ", "the answer")],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_same_answer_in_every_shape(shape: str) -> None:
    assert outcome(fed(SHAPES[shape])).text == "the answer"


def test_short_texts_that_repeat_are_what_they_are() -> None:
    assert fed(deltas("1", "11", "111")).text == "111111"
    assert fed(deltas("ha", "ha", "ha", "ha", "ha")).text == "hahahahaha"


def test_where_a_server_is_known_to_repeat_short_texts_are_read_so() -> None:
    answer = fed(deltas("4", "42"))
    answer.repeats = True
    assert answer.text == "42"


@given(st.text(min_size=1, max_size=40), st.data())
def test_a_text_cut_anywhere_even_inside_a_character_is_whole(text: str, data: st.DataObject) -> None:
    units = text.encode("utf-16-le", "surrogatepass")
    cuts = sorted(data.draw(st.sets(st.integers(0, len(units) // 2))))
    edges = [0, *(2 * cut for cut in cuts), len(units)]
    pieces = [units[a:b].decode("utf-16-le", "surrogatepass") for a, b in pairwise(edges)]
    answer = fed(deltas(*pieces))
    # Which pieces happen to repeat is another test's.
    if not any(after.startswith(before) for before, after in pairwise(pieces) if before):
        assert answer.text == text


@pytest.mark.parametrize(
    "content", [{"type": "image_url", "image_url": "x"}, [{"type": "refusal", "refusal": "no"}], 3, [3]]
)
def test_a_type_that_is_no_text_is_a_failure_and_no_empty_answer(content: Any) -> None:
    with pytest.raises(MalformedAnswer, match="no text"):
        fed([{"message": {"content": content}}])


@pytest.mark.parametrize("finish", ["eos", "end_turn", "COMPLETE", "eos_token", "STOP", "stop_sequence", "finished"])
def test_a_whole_answer_with_usage_is_kept_whatever_its_end_is_called(finish: str) -> None:
    assert outcome(fed([{"text": "the answer", "finish_reason": finish}])).text == "the answer"


@pytest.mark.parametrize(("n", "reason"), [(3, "eos"), (8, "length")])
def test_a_whole_answer_that_does_not_say_why_it_ended_is_kept_and_half_a_one_is_not(n: int, reason: str) -> None:
    answer = fed([{"text": "the answer", "finish_reason": None}], {"prompt_tokens": 4, "completion_tokens": n})
    assert outcome(answer).kind == "server"
    answer.ended = True
    got = outcome(answer)
    assert (got.text, got.finish_reason) == ("the answer", reason)


def test_usage_in_the_last_choice_counts() -> None:
    answer = Answer()
    answer.feed({"choices": [{"delta": {"content": "the answer"}, "finish_reason": "stop", "usage": USAGE}]})
    assert outcome(answer).text == "the answer"


REASONED = {
    "reasoning_content": [{"message": {"content": "yes", "reasoning_content": "hm"}}],
    "reasoning": [{"delta": {"reasoning": "h"}}, {"delta": {"reasoning": "m"}}, *deltas("yes")],
    "details": [{"message": {"content": "yes", "reasoning_details": [{"type": "reasoning.text", "text": "hm"}]}}],
    "a part": [{"message": {"content": [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "yes"}]}}],
}  # fmt: skip


@pytest.mark.parametrize("shape", REASONED)
def test_reasoning_that_a_server_tells_apart_is_kept_beside_the_answer(shape: str) -> None:
    got = outcome(fed(REASONED[shape]))
    assert (got.text, got.reasoning) == ("yes", "hm")


ONLY_REASONING = [{"message": {"content": None, "reasoning_content": " 42"}, "finish_reason": "length"}]


def test_an_answer_whose_beginning_was_given_is_read_from_the_reasoning_field() -> None:
    got = outcome(fed(ONLY_REASONING, {"prompt_tokens": 4, "completion_tokens": 8}), answer_prefix="so:")
    assert got == Completion(" 42", 4, 8, "length")


@pytest.mark.parametrize("counted", [2, 8, 90])
def test_counts_without_reasoning_or_beyond_the_budget_are_no_overflow(counted: int) -> None:
    got = outcome(fed(ONLY_REASONING, {"prompt_tokens": 4, "completion_tokens": counted}))
    assert (got.text, got.reasoning, got.finish_reason) == ("", " 42", "length")
    inline = [{"text": "<think>hm</think>yes", "finish_reason": "length"}]
    assert outcome(fed(inline, {"prompt_tokens": 4, "completion_tokens": counted})).text == "<think>hm</think>yes"


def test_a_server_that_counts_all_and_stops_early_for_length_has_no_room() -> None:
    usage = {"prompt_tokens": 4, "completion_tokens": 2}
    assert outcome(fed(ONLY_REASONING, usage), software="vllm").kind == "context_overflow"


@pytest.mark.parametrize(
    "usage",
    [
        {"completion_tokens": 8, "completion_tokens_details": {"reasoning_tokens": 8}},
        {"completion_tokens": 8, "reasoning_tokens": 8},
        {"completion_tokens": 0, "total_tokens": 12},
    ],
)
def test_reasoning_that_is_only_counted_is_told(usage: dict[str, Any]) -> None:
    usage = {"prompt_tokens": 4, **usage}
    got = outcome(fed([{"message": {"content": ""}, "finish_reason": "length"}], usage))
    assert (got.text, got.reasoning) == ("", "(8 tokens that the server does not show)")


@pytest.mark.parametrize(
    ("finish", "kind"),
    [
        *(("FinishReason.STOP", "end"), ("complete", "end"), ("FinishReason.MAX_TOKENS", "length")),
        *(("max-output-tokens", "length"), ("token_limit", "length"), ("ERROR_LIMIT", "broken"), ("failed", "broken")),
        *(("IMAGE_SAFETY", "filtered"), ("UNEXPECTED_TOOL_CALL", "tool"), ("content-filter", "filtered")),
    ],
)
def test_what_a_finish_reason_means_shows_in_its_parts(finish: str, kind: str) -> None:
    assert finish_kind(finish) == kind


COUNTED = {
    "in two events": ({"prompt_tokens": 4, "completion_tokens": None}, {"completion_tokens": 3}),
    "under other names": ({"input_tokens": 4}, {"input_tokens": 4, "output_tokens": 3}),
    "as floats": ({}, {"prompt_tokens": 4.0, "completion_tokens": 3.0}),
}


@pytest.mark.parametrize("form", COUNTED)
def test_counts_in_every_form(form: str) -> None:
    first, last = COUNTED[form]
    got = outcome(fed([{"delta": {"content": "the "}, "usage": first}, {"delta": {"content": "answer"}}], last))
    assert (got.text, got.prompt_tokens, got.output_tokens) == ("the answer", 4, 3)


ANSWER = b'{"choices": [{"text": "a\\u2028", "finish_reason": "stop"}]}'


@pytest.mark.parametrize(
    "raw", [ANSWER, b"\n" + ANSWER.replace(b", ", b",\n"), b"data:" + ANSWER + b"\r\n\r\ndata: [DONE]", b"\xef\xbb\xbfdata: " + ANSWER]
)  # fmt: skip
def test_an_answer_is_read_by_what_it_is_and_not_by_its_header(raw: bytes) -> None:
    reader = EventReader()
    read = [event for at in range(len(raw)) for event in reader.feed(raw[at : at + 1])] + list(reader.finish())
    assert [event["choices"][0]["finish_reason"] for event in read] == ["stop"]


@pytest.mark.parametrize(
    "raw",
    [
        b'error: {"code": 400, "message": "the request exceeds the available context size"}\n\n',
        b'event: error\ndata: {"object": "error", "message": "prompt is too long: 9 tokens > 4", "code": 400}\n\n',
        b'data: {"code": "InvalidParameter", "message": "Range of input length should be [1, 6]", "request_id": "r"}\n\n',
        b'{"object": "error", "message": "This model\'s maximum context length is 4 tokens.", "code": 40303}',
    ],
)
def test_an_error_in_place_of_an_answer_is_known_in_every_form(raw: bytes) -> None:
    answer, reader = Answer(), EventReader()
    for event in [*reader.feed(raw), *reader.finish()]:
        answer.feed(event)
    assert outcome(answer).kind == "context_overflow"


def test_a_remark_beside_an_answer_is_no_error() -> None:
    answer = fed([{"text": "the answer"}])
    answer.feed({"code": 0, "message": "Success", "choices": []})
    assert outcome(answer).text == "the answer"


def test_an_end_token_that_is_left_in_is_taken_away_and_told() -> None:
    got = outcome(fed([{"message": {"content": "the answer <|eot_id|>"}}]))
    assert got.text == "the answer"
    assert "<|eot_id|>" in got.notes[0]
    struck = "<s>the</s>"
    assert outcome(fed([{"message": {"content": struck}}])).text == struck


def test_a_place_whose_likely_tokens_are_null_has_none() -> None:
    told = {"token_logprobs": [-0.5, -1.0], "top_logprobs": [None, {"a": -1.0}]}
    answer = Answer()
    answer.feed({"choices": [{"text": "xa", "logprobs": told}]})
    assert _told(answer, 2) == ((-0.5, -1.0), ({}, {"a": -1.0}), ())
