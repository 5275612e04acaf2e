from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from misbehaving import write_byte_tokenizer

from kleval.backends.reasoning import TAGS, Split, opened_by, split, tags, unwrapped
from kleval.harness.reading import Reading
from kleval.tokenization import load_tokenizer
from kleval.types import Completion, Request, UsageError


def test_what_precedes_the_last_closing_tag_is_reasoning() -> None:
    assert split("<think>a</think>b</think>\n\n42") == Split("a</think>b", "42", closed=True)


@pytest.mark.parametrize("opened", ["", None])
def test_an_answer_that_quotes_both_tags_is_whole(opened: str | None) -> None:
    assert split("he wrote <think>x</think> here", opened) is None


def test_a_closing_tag_alone_counts_only_where_the_template_opened_or_is_unknown() -> None:
    text = "so it is\n</think>42"
    assert split(text, "<think>") == split(text, None) == Split("so it is", "42", closed=True)
    assert split(text, "") is None


def test_reasoning_that_never_closes_has_no_answer() -> None:
    assert split("<think>on and on") == Split("on and on", "", closed=False)
    assert split("on and on", "<think>") == Split("on and on", "", closed=False)


def test_a_template_that_closed_what_it_opened_opens_nothing() -> None:
    assert opened_by("<bot><think>\n\n</think>\n\n") == ""
    assert opened_by("<bot><think>\n") == "<think>"


@pytest.mark.parametrize("pair", TAGS)
def test_every_known_pair_is_found_and_has_a_name(pair: tuple[str, str]) -> None:
    opening, closing = pair
    assert split(f"{opening}a{closing}b") == Split("a", "b", closed=True)
    assert split(f"{opening}a{closing}b", pairs=tags("off")) is None


def test_a_tag_of_ones_own() -> None:
    assert split("<plan>a</plan>b", pairs=tags("plan")) == Split("a", "b", closed=True)
    with pytest.raises(UsageError, match="--reasoning"):
        tags("a b")


HARMONY = "<|channel|>analysis<|message|>1 or 2?<|end|><|start|>assistant<|channel|>final<|message|>42"


@pytest.mark.parametrize("opened", ["", None])
@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (HARMONY, "42"),
        ("<|channel|>final<|message|>42", "42"),
        ("analysisIs it 1 or 2?assistantfinal42", "42"),
        ("analysisIs it 1 or", ""),
        ("<|channel>thought\nIs it 1 or 2?<channel|>42", "42"),
        ("<|channel>thought\n<channel|>42", "42"),
        ("<|channel>thought\nIs it 1", ""),
        ("</think>\n\n42", "42"),
    ],
)
def test_channels_of_gpt_oss_and_gemma_are_told_apart(text: str, answer: str, opened: str | None) -> None:
    found = split(text, opened)
    assert found is not None
    assert found.answer == answer
    assert found.closed is (answer == "42")


@pytest.mark.parametrize("text", ["analysis of the text", "analysis", "Analysis: assistantfinal", "final"])
def test_a_word_that_is_a_channels_name_too_opens_none(text: str) -> None:
    assert split(text, "") is None


def test_an_answer_is_taken_out_of_the_tags_around_it() -> None:
    assert unwrapped("<|START_RESPONSE|>42<|END_RESPONSE|>") == "42"
    assert unwrapped("<|START_RESPONSE|>42 and") == "42 and"
    assert unwrapped("42<|END_RESPONSE|>") == "42"  # Command A's template writes the first
    assert unwrapped("x <|START_RESPONSE|>42<|END_RESPONSE|>") == "x <|START_RESPONSE|>42<|END_RESPONSE|>"
    outcome = Completion("<|START_THINKING|>a<|END_THINKING|><|START_RESPONSE|>42<|END_RESPONSE|>", 1, 9, "eos")
    read = Reading("", TAGS, excused=True).read(Request("generate", "q"), outcome)
    assert isinstance(read, Completion)
    assert (read.text, read.reasoning) == ("42", "a")


@pytest.mark.parametrize("said", [HARMONY, "<|channel|>final<|message|>42"])
def test_channels_of_a_servers_answer_do_not_say_that_its_template_opened_one(said: str) -> None:
    assert Reading(None, TAGS, excused=True).shows(Completion(said, 1, 9, "length")) is None


@given(st.text())
def test_text_without_tags_is_whole(text: str) -> None:
    if not any(tag in text for pair in TAGS for tag in pair):
        assert split(text) is None
        assert split(text, "") is None


@given(st.text(), st.text())
def test_reasoning_never_reaches_the_answer(reasoning: str, answer: str) -> None:
    if "</think>" not in answer:
        found = split(f"<think>{reasoning}</think>{answer}")
        assert found is not None
        assert found.answer == answer.lstrip()


@pytest.mark.parametrize(
    ("ends", "opened"),
    [
        *(("<think>\n", "<think>"), ("<think>\n\n</think>\n\n", ""), ("", ""), ("◁think▷", "◁think▷")),
        ("<think>\nOkay, ", "<think>"),
    ],
)
def test_what_a_template_opens_is_read_from_the_end_of_the_prompts_tokens(
    tmp_path: Path, ends: str, opened: str
) -> None:
    folder = write_byte_tokenizer(tmp_path)
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<bot>" + ends, encoding="utf-8"
    )
    tokenizer = load_tokenizer(f"hf:{folder}")
    messages = ({"role": "user", "content": "does <think> open?"},)
    backend: Any = SimpleNamespace(tokenizer=tokenizer)
    request = Request("generate", messages, token_ids=tuple(tokenizer.encode(tokenizer.render(messages))))
    assert Reading.of(request, backend, TAGS, excused=False).opened == opened
