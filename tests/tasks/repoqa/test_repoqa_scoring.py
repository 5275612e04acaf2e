"""RepoQA's scorer against the official one's outputs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kleval.tasks.languages import LANGUAGES, PARSED_BYTES, first_function, without_comments
from kleval.tasks.repoqa import scoring
from kleval.tasks.repoqa.scoring import Candidate, judge

CODE = "def add(a, b):\n    # sums\n    return a + b"
CANDIDATES = [
    ("add", CODE),
    ("other", "def other(x):\n    while x:\n        x -= 1\n    return None"),
]


def candidates(golden: dict[str, Any], language: str, repo: str) -> list[Candidate]:
    found = next(r for r in golden["dataset"][language] if r["repo"] == repo)
    lines = {path: text.split("\n") for path, text in found["content"].items()}
    return [(n["name"], "\n".join(lines[n["path"]][n["start_line"] : n["end_line"]])) for n in found["needles"]]


def outputs(golden: dict[str, Any]) -> Iterator[tuple[dict[str, Any], bool, Any, float]]:
    """(output, ignore comments, best, similarity)."""
    for ignore, key in ((False, "expected"), (True, "expected_ignore_comments")):
        for run in golden["scorer_runs"]:
            for output, expected in zip(run["outputs"], run[key]["per_output"], strict=True):
                yield output, ignore, expected["best_target"], expected["best_similar_score"]
        for output in golden["scorer_single"]:
            yield output, ignore, output[key]["best_target"], output[key]["best_similarity"]


def test_every_official_similarity_comes_out(golden: dict[str, Any]) -> None:
    n = 0
    for output, ignore, best, similarity in outputs(golden):
        known = candidates(golden, output["language"], output["repo"])
        verdict = judge(output["output"], output["name"], known, output["language"], ignore)
        assert verdict.best == best
        assert verdict.similarity == pytest.approx(similarity, abs=1e-12)
        assert verdict.found == (best == output["name"])
        n += 1
    assert n == 212


def test_every_official_function_is_taken_out(golden: dict[str, Any]) -> None:
    for output, *_ in outputs(golden):
        assert scoring.answered_function(output["output"], output["language"]) == output["sanitized"]


def test_the_official_curve_comes_out(golden: dict[str, Any]) -> None:
    for run in golden["scorer_runs"]:
        verdicts = [
            judge(o["output"], o["name"], candidates(golden, o["language"], o["repo"]), o["language"])
            for o in run["outputs"]
        ]
        for threshold in scoring.THRESHOLDS:
            passed = sum(verdict.passes(threshold) for verdict in verdicts) / len(verdicts)
            assert passed == pytest.approx(run["expected"]["pass_at_1"]["all"][str(threshold)])


def test_a_paraphrase_falls_short_of_the_headline() -> None:
    assert scoring.similarity("def add(x, y):\n    return x + y", CODE) < scoring.HEADLINE


def test_an_exact_copy_is_one_and_an_empty_answer_nothing() -> None:
    assert judge(f"Here:\n```python\n{CODE}\n```\n", "add", CANDIDATES, "python").passes(1.0)
    empty = judge("", "add", CANDIDATES, "python")
    assert (empty.best, empty.similarity) == (None, 0.0)
    assert not empty.passes(0.0)


def test_the_wrong_needle_passes_nowhere() -> None:
    verdict = judge(f"```\n{CANDIDATES[1][1]}\n```", "add", CANDIDATES, "python")
    assert verdict.best == "other"
    assert not verdict.passes(0.0)


@given(*[st.lists(st.sampled_from("abc"), max_size=12).map(" ".join)] * 2)
@settings(deadline=None, max_examples=200)
def test_similarity_is_nltks_to_the_bit(answer: str, code: str) -> None:
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    method = SmoothingFunction().method4
    official = sentence_bleu([re.split(r"\s+", code)], re.split(r"\s+", answer), smoothing_function=method)
    assert scoring.similarity(answer, code) == official


@given(st.lists(st.sampled_from(["```", "```py", "\n", " ", "x", "def f():\n pass\n", "``"]), max_size=25))
@settings(deadline=None, max_examples=200)
def test_blocks_are_those_of_the_official_pattern(parts: list[str]) -> None:
    text = "".join(parts)
    official = re.findall(r"^```(?:\w+)?\s*\n(.*?)(?=^```)```", text, re.DOTALL | re.MULTILINE)
    assert scoring.code_blocks(text) == official


@given(text=st.text(max_size=200), language=st.sampled_from(LANGUAGES), ignore=st.booleans())
@settings(deadline=None, max_examples=60)
def test_any_answer_is_scored(text: str, language: str, ignore: bool) -> None:
    for answer in (text, f"```\n{text}\n```", text + "\ud800"):
        assert 0 <= judge(answer, "add", CANDIDATES, language, ignore).similarity <= 1 + 1e-9


@pytest.mark.parametrize(
    "answer", ["```" + "\n" * 50_000, "```\n" * 5_000, "```\n" + "(" * 40_000 + "\n```", "\0" * 999]
)
def test_a_degenerate_answer_is_scored(answer: str) -> None:
    assert not judge(answer, "add", CANDIDATES, "python").passes(0.1)


def test_only_the_beginning_of_an_endless_answer_is_parsed() -> None:
    assert first_function("x = 1\n" * PARSED_BYTES + CODE, "python") is None


@pytest.mark.parametrize(
    ("language", "code", "kept"),
    [
        ("python", 'def f():\n    """Doc."""\n    return 1  # one', "def f():\n    \n    return 1  "),
        ("cpp", "int f() { /* a */ return 1; } // b", "int f() {  return 1; } "),
        ("java", "class A { int f() { /* a */ return 1; } }", "class A { int f() {  return 1; } }"),
        ("typescript", "function f() { return 1; } // b", "function f() { return 1; } "),
        ("typescript", "<!-- a\nfunction f() { return 1; }\n--> b", "\nfunction f() { return 1; }\n"),
        ("rust", "fn f() -> u8 { /* a */ 1 }", "fn f() -> u8 {  1 }"),
    ],
)
def test_comments_go_in_every_language(language: str, code: str, kept: str) -> None:
    assert without_comments(code, language) == kept


def test_the_example_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[3] / "docs" / "repoqa.md").read_text("utf-8")
    exec(page.partition("```python\n")[2].partition("\n```\n")[0], {})  # noqa: S102
    assert capsys.readouterr().out == "double 1.0 True\n"


def test_code_that_does_not_parse_is_read_as_officially() -> None:
    answer = "```python\n" + "\n".join("+" + line for line in CODE.split("\n")) + "\n```"
    assert judge(answer, "add", CANDIDATES, "python").best == "add"
