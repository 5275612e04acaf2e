"""Long Code Arena's prompts against the official code's."""

from __future__ import annotations

from typing import Any

import pytest

from kleval.tasks.lca import prompts


def test_library_prompts_are_the_official_ones(golden: dict[str, Any]) -> None:
    for case in golden["library"]["prompts"]:
        assert prompts.library_prompt(case["instruction"]) == case["expected_prompt"]


def test_bm25_scores_and_prompts_are_the_official_ones(golden: dict[str, Any]) -> None:
    for case in golden["library"]["bm25_prompts"]:
        names = case["project_apis"]
        assert [prompts.identifier_words(name) for name in names] == case["token_lists"]
        assert prompts.bm25_scores(case["instruction"], names) == pytest.approx(case["scores"], abs=1e-12)
        if case["scores_all_distinct"]:
            assert prompts.bm25_prompt(case["instruction"], names) == case["expected_prompt"]


def test_names_of_equal_score_keep_one_order() -> None:
    assert prompts.bm25_prompt("Do it.", ["aa", "bb", "cc"]).endswith("\ncc, bb, aa")


def test_a_library_without_names_has_a_prompt() -> None:
    assert prompts.bm25_prompt("Do it.", []).endswith("helpful:\n")


def test_diffs_are_the_official_ones(golden: dict[str, Any]) -> None:
    for case in golden["commit"]["diffs"]:
        assert prompts.commit_diff(case["mods"]) == case["expected_diff"]


def test_commit_prompts_are_the_official_ones(golden: dict[str, Any]) -> None:
    expected = golden["commit"]["prompts"]
    diff = golden["commit"]["diffs"][expected["diff_of_commit"]]["expected_diff"]
    detailed, simple = prompts.commit_text(diff), prompts.commit_text(diff, simple=True)
    assert list(prompts.commit_prompt(detailed, chat=True)) == expected["detailed_chat"]
    assert list(prompts.commit_prompt(simple, chat=True)) == expected["simple_chat"]
    assert prompts.commit_prompt(detailed, chat=False) == expected["detailed_complete"]
