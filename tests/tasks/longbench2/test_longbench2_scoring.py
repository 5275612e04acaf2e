"""Extraction of the letter and the official table, against what the official code gave."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kleval.tasks.longbench2.official import LETTERS, Judged, extract, official_table


@pytest.fixture(scope="module")
def golden(fixtures_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((fixtures_dir / "golden/longbench_v2.json").read_text("utf-8"))
    return found


def test_extraction_equals_the_official_one(golden: dict[str, Any]) -> None:
    assert len(golden["extract_answer"]) == 32
    for case in golden["extract_answer"]:
        assert extract(case["response"]) == case["pred"], case


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("**The correct answer is (C)**", "C"),
        ("The correct answer is Andromeda", "A"),
        ("The correct answer is B. No: The correct answer is (D).", "D"),
        ("the correct answer is (A)", None),
        ("The correct answer is: (D)", None),
        (r"\boxed{B}", None),
        ("", None),
    ],
)
def test_a_few_that_need_no_file(response: str, letter: str | None) -> None:
    assert extract(response) == letter


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=200))
def test_whatever_is_said_gives_a_letter_or_none(response: str) -> None:
    assert extract(response) in (*LETTERS, None)
    assert extract(f"The correct answer is (B) {response}") == "B"


def judged(rows: list[dict[str, Any]]) -> list[Judged]:
    return [Judged(row["difficulty"], row["length"], row["answer"], row["model_reply"]) for row in rows]


@pytest.mark.parametrize(("compensated", "name"), [(False, "expected"), (True, "expected_compensated")])
def test_the_table_equals_the_official_one(compensated: bool, name: str, golden: dict[str, Any]) -> None:
    aggregation = golden["aggregation"]
    assert official_table(judged(aggregation["rows"]), compensated) == aggregation[name]


@pytest.mark.parametrize(("compensated", "name"), [(False, "expected"), (True, "expected_compensated")])
def test_the_table_is_rounded_as_the_official_one(compensated: bool, name: str, golden: dict[str, Any]) -> None:
    case = golden["aggregation_rounding"]
    rows = [dict(zip(case["columns"], row, strict=True)) for row in case["rows"]]
    replies = {letter: f"The correct answer is ({letter})" for letter in LETTERS}
    made = [
        Judged(row["difficulty"], row["length"], row["answer"], replies.get(row["pred"], "no idea")) for row in rows
    ]
    assert official_table(made, compensated) == case[name]


def test_a_part_without_rows_has_no_value(golden: dict[str, Any]) -> None:
    kept = set(golden["aggregation_empty_subset"]["kept_ids"])
    rows = [row for row in golden["aggregation"]["rows"] if row["_id"] in kept]
    table = official_table(judged(rows))
    assert math.isnan(table.pop("Long"))
    assert not any(math.isnan(value) for value in table.values())
