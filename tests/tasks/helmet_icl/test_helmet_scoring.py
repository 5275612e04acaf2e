"""Answers are read and scored as by the official code."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kleval.tasks.answers import normalize_answer
from kleval.tasks.helmet_icl.official import parse_output, score_answer

SHARED = ("exact_match", "substring_exact_match", "f1")


def test_scores_equal_the_official_ones(golden: dict[str, Any]) -> None:
    for case in golden["post_process"]:
        metrics, parsed = score_answer(case["completion"], case["gold"])
        assert parsed == case["expected"]["parsed_output"]
        assert {name: metrics[name] for name in SHARED} == {name: float(case["expected"][name]) for name in SHARED}


def test_answers_are_read_as_officially(golden: dict[str, Any]) -> None:
    for case in golden["parse_output_without_prefix"]:
        assert parse_output(case["output"]) == case["expected"]
    for case in golden["normalize_answer"]:
        assert normalize_answer(case["text"]) == case["expected"]


@pytest.mark.parametrize(
    ("completion", "right"),
    [
        (" 33", 1),
        (" 33\n\nfoo", 1),
        (" label: 33", 1),
        (" **33**", 1),
        ("\n33", 0),
        (" 999", 0),
        (" 33 33", 0),
        ("", 0),
    ],
)
def test_an_answer_counts_when_its_first_line_is_the_number(completion: str, right: int) -> None:
    assert score_answer(completion, "33")[0]["exact_match"] == right


def test_without_a_prefix_the_answer_may_bring_its_own() -> None:
    assert score_answer("The label: 33\nmore", "33", prefixed=False)[0]["exact_match"] == 1
    assert score_answer("33", "33", prefixed=False)[0]["exact_match"] == 1


@settings(max_examples=80, deadline=None)
@given(st.text(max_size=80), st.booleans())
def test_whatever_is_answered_scores_are_in_range(text: str, prefixed: bool) -> None:
    metrics, _ = score_answer(text, "7", prefixed)
    assert all(0 <= value <= 1 for value in metrics.values())
