"""Exact match as evalscope computes it, and what is read out of a judge's reply."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kleval.tasks.answers import contains, normalize_answer
from kleval.tasks.frames.official import (
    answer_sentence,
    context,
    decision,
    exact_match,
    extract_answer,
    judge_prompt,
    question_prompt,
)


def test_exact_match_equals_evalscopes(golden: dict[str, Any]) -> None:
    for case in golden["exact_match"]:
        extracted, expected = extract_answer(case["prediction"]), case["expected"]
        assert extracted == expected["extracted"]
        assert normalize_answer(extracted) == expected["normalized_prediction"]
        assert exact_match(extracted, [case["reference"]]) == expected["acc"]


def test_the_prompt_equals_evalscopes(golden: dict[str, Any]) -> None:
    for case in golden["prompts"]:
        row = case["row"]
        documents = [(item["title"], item["text"]) for item in row["wiki_items"]]
        assert question_prompt(context(documents), row["Prompt"]) == case["expected_prompt"]


@pytest.mark.parametrize(
    ("text", "reference", "right"),
    [
        ("Therefore, the answer is Lake Norvale.", "Lake Norvale", 1),
        ("First the answer is 12. But in fact the answer is 14.", "14", 1),
        ("The answer is Lake Norvale.", "Lake Norvale", 0),
        ("Lake Norvale", "Lake Norvale", 0),
        ("", "Lake Norvale", 0),
        ("the answer is the", "the", 0),
    ],
)
def test_an_answer_counts_behind_its_mark_alone(text: str, reference: str, right: int) -> None:
    assert exact_match(extract_answer(text), [reference]) == right


@pytest.mark.parametrize(
    ("text", "reference", "right"),
    [
        ("It was Lake Norvale, I think.", "Lake Norvale", 1),
        ("It was Lake Norvaleton.", "Lake Norvale", 0),
        ("1790s", "1790", 0),
        ("", "1790", 0),
        ("anything", "the", 0),
    ],
)
def test_containing_is_by_whole_words(text: str, reference: str, right: int) -> None:
    assert contains(text, [reference]) == right


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ('"Explanation:" The year is given.\n"Decision:" "TRUE"', True),
        ("**Explanation:** no.\n**Decision:** FALSE.", False),
        ('"Decision:" ("FALSE")', False),
        ('{"explanation": "x", "decision": "TRUE"}', True),
        ("__Decision__: true", True),
        ("Decision: TRUE? No.\nDecision: FALSE", False),
        ("TRUE", True),
        (' "false". ', False),
        ('"Decision:" ("TRUE" or "FALSE" )', None),
        ("It is true that the answer is there.", None),
        ("I cannot judge this.", None),
        ("", None),
    ],
)
def test_a_decision_is_read_where_there_is_one(reply: str, expected: bool | None) -> None:
    assert decision(reply) is expected


def test_the_judges_prompt_is_no_decision_and_holds_what_is_judged() -> None:
    prompt = judge_prompt("Who {built} it?", "Nobody % did", "Nobody")
    assert decision(prompt) is None
    assert "- Question: Who {built} it?\n- Predicted Answer: Nobody % did\n- Ground Truth Answer: Nobody\n" in prompt


@settings(max_examples=80, deadline=None)
@given(st.text(max_size=80), st.text(min_size=1, max_size=20))
def test_whatever_is_answered_scores_are_in_range(text: str, reference: str) -> None:
    assert exact_match(extract_answer(text), [reference]) in (0, 1)
    assert contains(text, [reference]) in (0, 1)
    assert decision(text) in (None, True, False)


def test_the_sentence_that_is_asked_for_scores() -> None:
    assert exact_match(extract_answer(answer_sentence("Lake Norvale")), ["lake norvale"]) == 1


def test_a_long_reply_is_read_in_time_in_proportion() -> None:
    assert decision("decision " * 100_000 + "_" * 200_000) is None
    assert decision("*" * 1_000_000) is None
