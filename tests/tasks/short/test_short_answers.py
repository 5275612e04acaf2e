"""Answers are read as lm-eval reads them, and as CMATH's script does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from kleval.tasks.short import answers
from kleval.tasks.short.question import Reading

TEXTS = (
    "",
    " ",
    "5 * 3 = 15\n#### 15",
    "#### 1,500",
    "#### -3.5.",
    "#### 7 dollars, or 8",
    "It costs $1,200.",
    "The total is 15.",
    "15 or 16",
    "-15",
    "#### nothing",
    "So the answer is True.",
    "the answer is (B). So the answer is (C).",
    "the answer is",
    "The answer is (C).",
    "The answer is C.",
    "answer is (J)",
    "(A) or (B)",
    "A",
    "a.",
    "B\nA",
    "  Paris ",
    "paris!",
    "William Shakespeare",
    "x" * 50,
    "Final Answer: The final answer is $5$. I hope it is correct.",
)


def lm_eval_score(yaml: dict[str, Any], filter_name: str, text: str, reference: str) -> float:
    """What lm-eval's own filters and exact_match make of an answer."""
    metrics = pytest.importorskip("lm_eval.api.metrics", reason="lm-eval is not installed: pip install -e '.[lm-eval]'")
    from lm_eval.filters import build_filter_ensemble

    steps = next(f["filter"] for f in yaml["filter_list"] if f["name"] == filter_name)
    built = [(step["function"], {k: v for k, v in step.items() if k != "function"} or None) for step in steps]
    ensemble = build_filter_ensemble(filter_name, built)
    resps: Any = [[text]]
    for step in ensemble.filters:
        resps = step().apply(resps, [{"choices": ["x"]}])
    kwargs = {k: v for k, v in yaml["metric_list"][0].items() if k.startswith(("ignore", "regexes"))}
    read = next(iter(resps))
    return float(metrics.exact_match_hf_evaluate([read], [reference], **kwargs)["exact_match"])


_NUMBERS = {
    "ignore_case": True,
    "ignore_punctuation": False,
    "regexes_to_ignore": [",", "\\$", "(?s).*#### ", "\\.$"],
}
_LOOSE = {"ignore_case": True, "ignore_punctuation": True}


def regex(pattern: str, **more: Any) -> list[dict[str, Any]]:
    return [{"function": "regex", "regex_pattern": pattern, **more}, {"function": "take_first"}]


CASES = (
    (
        answers.stories,
        "exact_match,strict-match",
        regex(r"#### (\-?[0-9\.\,]+)"),
        _NUMBERS,
        ("15", "1500", "-3.5", "7"),
    ),
    (
        answers.stories,
        "exact_match,flexible-extract",
        regex("(-?[$0-9.,]{2,})|(-?[0-9]+)", group_select=-1),
        _NUMBERS,
        ("15", "1200", "16", "8"),
    ),
    (
        answers.reasoned,
        "exact_match,get-answer",
        regex("(?<=the answer is )(.*)(?=.)"),
        {},
        ("True", "(B)", "(B). So th"),
    ),
    (answers.option, "exact_match,custom-extract", regex(r"answer is \(?([ABCDEFGHIJ])\)?"), _LOOSE, ("B", "C", "J")),
    (answers.first_letter, "exact_match,default", regex("([ABCD])"), _LOOSE, ("A", "B", "F")),
    (answers.bracketed, "exact_match,strict-match", regex("(?<=The answer is )(.*)(?=.)"), _LOOSE, ("(C)", "(A)")),
    (
        answers.alias,
        "exact_match,remove_whitespace",
        [{"function": "remove_whitespace"}, {"function": "take_first"}],
        _LOOSE,
        ("Paris", "William Shakespeare"),
    ),
)


@pytest.mark.parametrize(("read", "metric", "filters", "ignored", "references"), CASES, ids=[c[1] for c in CASES])
def test_answers_score_as_in_lm_eval(
    read: Any, metric: str, filters: list[dict[str, Any]], ignored: dict[str, Any], references: Sequence[str]
) -> None:
    name = metric.partition(",")[2]
    yaml = {"filter_list": [{"name": name, "filter": filters}], "metric_list": [{"metric": "exact_match", **ignored}]}
    hits = 0
    for text in TEXTS:
        for reference in references:
            ours: Reading = read(text, (reference,))
            hits += ours[0][metric] == 1
            assert ours[0][metric] == lm_eval_score(yaml, name, text, reference), (text, reference)
    assert hits


def test_the_filters_here_are_those_of_lm_eval() -> None:
    """CASES repeats lm-eval's regular expressions; these are its files."""
    lm_eval = pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install -e '.[lm-eval]'")
    from pathlib import Path

    folder = Path(lm_eval.__file__).parent / "tasks"
    files = ("gsm8k/gsm8k.yaml", "bbh/cot_fewshot/_cot_fewshot_template_yaml", "mmlu_pro/_default_template_yaml")
    files += ("mmlu-redux/generative/_default_template_yaml", "gpqa/cot_zeroshot/_gpqa_cot_zeroshot_yaml")
    text = "".join((folder / file).read_text(encoding="utf-8") for file in files).replace("\\\\", "\\")
    patterns = [step["regex_pattern"] for case in CASES for step in case[2] if "regex_pattern" in step]
    assert [pattern for pattern in patterns if pattern not in text] == []


@pytest.mark.parametrize(
    ("answer", "golden", "right"),
    [
        ("一共有12个。", "12", True),
        ("12", "12", True),
        ("第一步24，最后是12个苹果", "12", True),
        ("12+12=24，再减去6得18，答案是18。", "12", False),
        ("\\frac{1}{2}", "0.5", True),
        ("三分之一即3分之1", "1/3", True),
        ("50%", "0.5", True),
        ("1,200米", "1200", True),
        ("3.141", "3.14", True),
        ("3.3", "3.14", False),
        ("13", "12", False),
        ("1/0", "1", False),
        ("", "12", False),
    ],
)
def test_cmath_takes_one_of_the_last_two_numbers(answer: str, golden: str, right: bool) -> None:
    assert answers.word_problem(answer, (golden,))[0]["exact_match"] == right


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("[ANSWER]\nassert f([1], 2) == {'a': [1, 2]}\n", True),
        ("f(1) == {'a': [1, 2]}", True),
        ("{'a': [1, 2]}", True),
        ("reasoning\n[/THOUGHT]\n[ANSWER]{'a': [1, 2]}[/ANSWER] and more", True),
        ("[ANSWER]assert f(1) == {'a': [1] + [2]}[/ANSWER]", False),
        ("[ANSWER]assert f(1) == dict(a=[1, 2])[/ANSWER]", False),
        ("__import__('os').system('false')", False),
        ("[" * 3000, False),
        ("", False),
        ("{'a': [1, 2]} == {'a': [1, 2]} == 1", False),
    ],
)
def test_cruxeval_compares_literals_and_runs_nothing(answer: str, right: bool) -> None:
    assert answers.literal(answer, ("{'a': [1, 2]}",))[0]["exact_match"] == right


def test_minerva_reads_the_sentence_and_otherwise_the_box() -> None:
    sentence = "So $\\boxed{2}$.\nFinal Answer: The final answer is $2$. I hope it is correct."
    assert answers.minerva(sentence, ("2",))[0] == {"exact_match": 1, "exact_match final answer": 1}
    assert answers.minerva("So $\\boxed{2}$.", ("2",))[0] == {"exact_match": 0, "exact_match final answer": 1}


@pytest.mark.parametrize(
    "piece", ["(", "1", ",", "分之1", "answer is ", "\\boxed{", "$", "\n", " ", "- ", "1+", "f()", "not "]
)
def test_long_answers_of_one_kind_are_read(piece: str) -> None:
    text = f"The answer is {piece * 3000}"
    readers = (
        answers.stories,
        answers.minerva,
        answers.solution,
        answers.reasoned,
        answers.word_problem,
        answers.literal,
    )
    for read in (*readers, answers.bracketed, answers.option, answers.alias):
        assert set(read(text, ("12",))[0].values()) <= {0.0, 1.0}
        assert set(read(text[:3900], ("12",))[0].values()) <= {0.0, 1.0}
