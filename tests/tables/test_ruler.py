from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from kleval.tables.cells import Cell, families, summarise
from kleval.tables.ruler import effective_length, in_words, weighted_averages


def test_lengths_and_averages_equal_those_of_the_readme_rule(fixtures_dir: Path) -> None:
    golden = json.loads((fixtures_dir / "golden/ruler_scoring.json").read_text(encoding="utf-8"))["aggregation"]
    for row in golden["rows"]:
        scores = dict(zip(row["lengths"], row["scores"], strict=True))
        expected = row["expected"]
        assert effective_length(scores, golden["threshold"]) == expected["effective_length"], row["name"]
        rising, falling = weighted_averages(scores)
        assert rising == pytest.approx(expected["wavg_inc"], abs=1e-9)
        assert falling == pytest.approx(expected["wavg_dec"], abs=1e-9)


def test_the_first_failure_ends_the_effective_length() -> None:
    assert effective_length({4096: 90.0, 8192: 80.0, 16384: 99.0}) == 4096
    assert effective_length({8192: 85.6, 4096: 85.6}) == 8192
    assert effective_length({4096: 85.59}) is None
    assert effective_length({4096: float("nan")}) is None


def test_llama_3_1_8b_of_the_readme() -> None:
    lengths = [4096 * 2**i for i in range(6)]
    scores = dict(zip(lengths, [95.5, 93.8, 91.6, 87.4, 84.7, 77.0], strict=True))
    rising, falling = weighted_averages(scores)
    assert (round(rising, 1), round(falling, 1)) == (85.4, 91.3)


def test_no_scores_have_no_average() -> None:
    with pytest.raises(ValueError, match="no scores"):
        weighted_averages({})


def averages(values: dict[int, float], tasks: int = 13) -> list[Cell]:
    """A family of that many tasks with the same score everywhere at a length."""
    rows = [
        SimpleNamespace(
            model="m", task=f"ruler/t{t}", ctx=ctx, edition="builtin", protocol="p", metric="x", id=f"{t}/{ctx}/{i}"
        )
        for ctx in values
        for t in range(tasks)
        for i in range(2)
    ]
    for row in rows:
        row.score, row.metrics, row.failure = values[row.ctx], {"x": values[row.ctx]}, None
        row.outcomes, row.references, row.prompt_hash = (), (), ""
        row.max_new_tokens, row.answer_prefix = 32, ""
    return families(summarise(rows))


def test_a_sentence_says_effective_length_and_weighted_averages() -> None:
    text = in_words(averages({4096: 0.9, 8192: 0.6}))
    assert "every shorter length): 4k;" in text
    assert "over 4k to 8k: 70.0 weighing long lengths more, 80.0 short ones" in text
    assert "): below 4k;" in in_words(averages({4096: 0.5, 8192: 0.6}))


def test_averages_that_lack_a_task_or_stand_alone_say_nothing() -> None:
    assert in_words(averages({4096: 0.9, 8192: 0.6}, tasks=12)) == ""
    assert in_words(averages({4096: 0.9})) == ""


def test_a_length_that_lacks_a_task_ends_both_and_is_named() -> None:
    whole, lacking = averages({4096: 0.9, 8192: 0.9, 32768: 0.9}), averages({16384: 0.9}, tasks=12)
    text = in_words([*whole, *lacking])
    assert "every shorter length): 8k;" in text
    assert "over 4k to 8k:" in text
    assert text.endswith("at 16k tasks lack a score, which ends both")
