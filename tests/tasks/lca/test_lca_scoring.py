"""Long Code Arena's scorers against the official code's numbers."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kleval.tasks.lca import scoring


def test_code_is_taken_out_as_officially(golden: dict[str, Any]) -> None:
    for case in golden["library"]["extract_code"]:
        assert scoring.extract_code(case["message"]) == case["expected"]


def test_calls_chrf_and_recall_are_the_official_ones(golden: dict[str, Any]) -> None:
    for sample in golden["library"]["samples"]:
        expected = sample["expected"]
        code = scoring.extract_code(sample["output"])
        assert code == expected["code"]
        assert sorted(scoring.called_names(code)) == expected["called_functions"]
        assert scoring.chrf(code, sample["clean_reference"]) == pytest.approx(expected["ChrF"], abs=1e-9)
        assert scoring.api_recall(code, sample["unique_apis"]) == pytest.approx(expected["API_recall"], abs=1e-12)


def test_fixed_values_without_the_official_outputs() -> None:
    assert scoring.chrf("print(a)", "print(b)") == pytest.approx(0.6148809523809524, abs=1e-9)
    assert scoring.api_recall("x.foo(1)\nbar()", ["foo", "bar", "baz"]) == pytest.approx(2 / 3)
    assert scoring.pair_scores("", "Bump version to 2")["bnorm"] == pytest.approx(0.018315638888734178, abs=1e-12)


def test_a_reference_without_calls_is_not_scored() -> None:
    assert math.isnan(scoring.api_recall("f()", []))


def test_pairs_have_the_official_scores(golden: dict[str, Any]) -> None:
    for pair in golden["commit"]["pairs"]:
        scores = scoring.pair_scores(pair["prediction"], pair["reference"])
        assert {name: 100 * value for name, value in scores.items()} == pytest.approx(pair["expected"], abs=1e-9)


def test_the_corpus_has_the_official_scores(golden: dict[str, Any]) -> None:
    pairs = [(p["prediction"], p["reference"]) for p in golden["commit"]["pairs"]]
    expected = {
        name.removesuffix("_plain_mean"): value for name, value in golden["commit"]["corpus"]["expected"].items()
    }
    assert {k: 100 * v for k, v in scoring.corpus_scores(pairs).items()} == pytest.approx(expected, abs=1e-9)


def test_the_official_bootstrap_comes_out_at_the_state_evaluate_gave_it(golden: dict[str, Any]) -> None:
    pairs = [(p["prediction"], p["reference"]) for p in golden["commit"]["pairs"]]
    official = golden["commit"]["corpus"]["official_rouge_by_numpy_seed"]
    ours = {seed: {k: 100 * v for k, v in scoring.bootstrap_rouge(pairs, seed).items()} for seed in (0, 1)}
    for seed, inner in {"0": 1, "1": 0, "2": 1}.items():
        assert ours[inner] == pytest.approx(official[seed], abs=1e-9)


def test_a_corpus_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no pairs"):
        scoring.corpus_scores([])


def plain_lcs(first: list[str], second: list[str]) -> int:
    rows = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, a in enumerate(first, 1):
        for j, b in enumerate(second, 1):
            rows[i][j] = rows[i - 1][j - 1] + 1 if a == b else max(rows[i - 1][j], rows[i][j - 1])
    return rows[-1][-1]


@given(*[st.lists(st.sampled_from("abcd"), max_size=12)] * 2)
@settings(deadline=None)
def test_the_longest_common_subsequence_is_the_table_one(first: list[str], second: list[str]) -> None:
    assert scoring.lcs_length(first, second) == plain_lcs(first, second)


@given(st.text(max_size=120))
@settings(deadline=None, max_examples=60)
def test_any_answer_is_scored(text: str) -> None:
    for answer in (text, f"```python\n{text}\n```", text + "\ud800"):
        code = scoring.extract_code(answer)
        assert 0 <= scoring.chrf(code, "print(1)") <= 1
        assert scoring.api_recall(code, ["f"]) in (0.0, 1.0)
        assert all(0 <= value <= 1 for value in scoring.pair_scores(answer, "Fix it").values())


@pytest.mark.parametrize("answer", ["(" * 20_000, "```" * 9_999, "lorem ipsum " * 5_000, "\n" * 50_000, "\0\x1b"])
def test_a_degenerate_answer_is_scored(answer: str) -> None:
    assert scoring.api_recall(scoring.extract_code(answer), ["f", "g"]) == 0
    assert scoring.pair_scores(answer, "Rename this to that")["rouge1"] == 0


def test_match_as_a_statement_is_no_call_as_officially() -> None:
    assert scoring.called_names("match(1)\nx = load(2)") == {"load"}
