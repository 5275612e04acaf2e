"""The two metrics of MRCR against values that the official code gave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kleval.tasks.mrcr import official as grading


@pytest.fixture(scope="module")
def golden(fixtures_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((fixtures_dir / "golden/mrcr.json").read_text("utf-8"))
    return found


def test_the_openai_grader_equals_the_official_values(golden: dict[str, Any]) -> None:
    cases = golden["openai_mrcr_grade"]
    assert len(cases) == 20
    for case in cases:
        graded = grading.openai_grade(case["response"], case["answer"], case["random_string_to_prepend"])
        assert graded == case["expected"], case["name"]


def test_the_google_metric_equals_the_official_values(golden: dict[str, Any]) -> None:
    cases = golden["mrcr_v2_metric"]
    assert len(cases) == 13
    for case in cases:
        assert grading.google_grade(case["prediction"], case["target"]) == case["expected"], case["name"]


def test_small_values_that_need_no_file() -> None:
    answer = "abcdefghijHello world"
    assert grading.openai_grade(answer, answer, "abcdefghij") == 1
    assert grading.openai_grade(" " + answer, answer, "abcdefghij") == 0
    assert grading.openai_grade("abcdefghij Hello world", answer, "abcdefghij") == pytest.approx(0.9565, abs=1e-4)
    assert grading.google_grade("Sure! abcdefghij Hello world", answer, 10) == 1


def test_autojunk_stays_on() -> None:
    shorter, longer = "abcd" * 49, "abcd" * 50
    assert grading.openai_grade("#z" + shorter, "#" + shorter, "#") > 0.99
    assert grading.openai_grade("#z" + longer, "#" + longer, "#") == 0
    assert grading.google_grade("#z" + longer, "#" + longer, 1) == 0


def test_google_takes_the_last_of_two_hashes() -> None:
    assert grading.google_grade("HASHwrong HASHright", "HASHright", 4) == 1
    assert grading.google_grade("HASHright HASH", "HASHright", 4) == 0


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=300), st.text(max_size=300), st.text(min_size=1, max_size=12))
def test_grades_lie_between_0_and_1(said: str, wanted: str, prefix: str) -> None:
    for response in (said, prefix + said):
        assert 0 <= grading.openai_grade(response, prefix + wanted, prefix) <= 1
        assert 0 <= grading.google_grade(response, prefix + wanted, len(prefix)) <= 1


def test_what_is_beyond_the_limit_counts_as_not_matching() -> None:
    long = "x" * (grading.LONGEST_CHARS + 1000)
    graded = grading.openai_grade("#y" + long, "#y", "#")
    assert graded == 2 / (len(long) + 2)


def test_a_perfect_answer_is_perfect_at_any_length() -> None:
    text = "".join(chr(0x4E00 + i % 9_000) for i in range(25_000))
    assert grading.openai_grade("#" + text, "#" + text, "#") == 1
    assert grading.google_grade("#" + text, "#" + text, 1) == 1


def test_google_strips_the_target_before_its_hash_is_read() -> None:
    assert grading.google_grade("Zk3pQ9vB0xYtA kettle.", "  Zk3pQ9vB0xYt A kettle.\n") == 1


def test_a_target_shorter_than_a_hash_is_never_met() -> None:
    assert grading.google_grade("short", "short") == 0
    assert grading.google_grade("short", " short        ") == 0
