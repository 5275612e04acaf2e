"""LongBench v2's prompts and middle truncation, to the byte what the official code sent."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kleval.tasks.longbench2 import official as prompts
from kleval.types import Tokenizer


@pytest.fixture(scope="module")
def golden(fixtures_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((fixtures_dir / "golden/longbench_v2.json").read_text("utf-8"))
    return found


def parts(row: dict[str, Any]) -> tuple[str, str, list[str]]:
    return row["context"], row["question"], [row[f"choice_{letter}"] for letter in "ABCD"]


def test_the_prompts_equal_those_of_the_official_code(golden: dict[str, Any]) -> None:
    for case in golden["prompts"]:
        expected = case["expected"]
        (zero_shot,) = (call["messages"][0]["content"] for call in expected["0shot_calls"])
        first, second = (call["messages"][0]["content"] for call in expected["cot_calls"])
        assert prompts.filled(prompts.ZERO_SHOT, *parts(case["row"])) == zero_shot
        assert prompts.filled(prompts.COT, *parts(case["row"])) == first
        answering = prompts.filled(prompts.COT_ANSWER, *parts(case["row"]))
        assert prompts.with_reasoning(answering, case["model_cot_reply"]) == second


def test_the_ids_that_are_kept_are_the_official_ones(golden: dict[str, Any]) -> None:
    assert len(golden["truncation_ids"]) == 12
    for case in golden["truncation_ids"]:
        assert prompts.truncated_ids(case["input_ids"], case["max_len"]) == case["kept_ids"]


def test_a_prompt_without_its_middle_is_the_official_one(golden: dict[str, Any], characters: Tokenizer) -> None:
    for case in golden["truncation_prompt"]:
        row = next(one["row"] for one in golden["prompts"] if one["row"]["_id"] == case["row_id"])
        text = prompts.filled(prompts.ZERO_SHOT, *parts(row))
        cut, removed = prompts.truncated(characters, text, case["max_len"])
        assert cut == case["prompt_sent"]
        assert removed == len(text) - case["max_len"]


@pytest.mark.parametrize(
    ("template", "sha256"),
    [
        (prompts.ZERO_SHOT, "68a162252bc9ff71d5d7abca3d69bb31aac3c35f832d657a2866f2018b8a6950"),
        (prompts.COT, "6cc33d92fd8f611662b756c1f10f302c541ca005b58c46d5f3188ac3a939bfe8"),
        (prompts.COT_ANSWER, "85ec59df4ac0e27aabbc619a7ca5cf3ae1787dd5a76cf51a18944eb52c91955f"),
    ],
)
def test_the_templates_stay_what_they_are(template: str, sha256: str) -> None:
    assert hashlib.sha256(template.encode()).hexdigest() == sha256


def test_markers_inside_a_document_are_replaced_too() -> None:
    made = prompts.filled(prompts.ZERO_SHOT, "see $Q$ and $C_A$", "why?", ["a", "$Q$", "c", "d"])
    assert "<text>\nsee why? and a\n</text>" in made
    assert "(B) $Q$" in made


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(), max_size=40), st.integers(1, 50))
def test_kept_ids_are_both_ends(ids: list[int], max_len: int) -> None:
    kept = prompts.truncated_ids(ids, max_len)
    assert len(kept) == min(len(ids), max_len)
    head = max_len // 2
    if len(ids) > max_len:
        assert kept[:head] == ids[:head]
        assert kept[head:] == ids[len(ids) - (max_len - head) :]


@pytest.mark.parametrize("max_len", [2, 7, 100, 4999, 5000])
def test_a_tokenizer_that_cannot_give_the_text_back_cuts_at_characters(max_len: int, words: Tokenizer) -> None:
    text = "\n\n".join(f"Word{i},  other" for i in range(4000))
    cut, removed = prompts.truncated(words, text, max_len)
    assert removed == words.count(text) - max_len
    assert abs(words.count(cut) - max_len) <= 2 + max_len // 500
    head = next(i for i in range(len(cut) + 1) if i == len(cut) or cut[i] != text[i])
    assert text.endswith(cut[head:])
