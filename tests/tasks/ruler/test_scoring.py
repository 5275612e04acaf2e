from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kleval.tasks.registry import load_task
from kleval.tasks.ruler.scoring import METRICS, postprocess, string_match_all, string_match_part
from kleval.types import Completion, Sample


@pytest.fixture(scope="module")
def golden(fixtures_dir: Path) -> dict[str, Any]:
    return json.loads((fixtures_dir / "golden/ruler_scoring.json").read_text(encoding="utf-8"))


def file_score(metric: str, predictions: list[str], references: list[list[str]]) -> float:
    scores = [METRICS[metric](p, r) for p, r in zip(predictions, references, strict=True)]
    return round(100 * sum(scores) / len(scores), 2)


def test_postprocessing_and_metrics_equal_the_official_ones(golden: dict[str, Any]) -> None:
    assert len(golden["string_match"]) > 5
    for case in golden["string_match"]:
        expected, refs = case["expected"], case["references"]
        shown = [postprocess(p) for p in case["predictions"]]
        assert shown == expected["postprocessed"], case["name"]
        for metric in METRICS:
            assert file_score(metric, shown, refs) == expected[metric], (case["name"], metric)
            raw = expected["without_postprocessing"][metric]
            assert file_score(metric, case["predictions"], refs) == raw, (case["name"], metric)


def test_scores_of_whole_files_equal_the_official_ones(golden: dict[str, Any]) -> None:
    for case in golden["task_files"]:
        shown = [postprocess(row["pred"]) for row in case["rows"]]
        assert shown == case["expected"]["predictions"]
        score = file_score(case["metric"], shown, [row["outputs"] for row in case["rows"]])
        assert score == case["expected"]["score"]


def test_the_figures_of_the_reference() -> None:
    assert string_match_all("1 2 3", ["1", "2", "9", "3"]) == 0.75
    assert string_match_part("France", ["in France", "France"]) == 1.0


@given(st.text(), st.lists(st.text(), min_size=1, max_size=4))
def test_scores_lie_between_nothing_and_all(prediction: str, references: list[str]) -> None:
    one, any_of = string_match_all(prediction, references), string_match_part(prediction, references)
    assert 0 <= one <= any_of <= 1
    assert string_match_all(" ".join(references), references) == 1.0


def test_a_task_reports_what_it_read_and_its_metric() -> None:
    task = load_task("ruler/niah_multivalue")
    sample = Sample("i", task.id, 1024, 0, "p", ("11", "22"), 8, 1)
    score = task.step(sample, [Completion(" 11\tand 33\n", 1, 1)])
    assert score.metrics == {"string_match_all": 0.5}  # type: ignore[union-attr]
    assert score.extracted == "11\nand 33"  # type: ignore[union-attr]
    assert not math.isnan(score.metrics[task.metric])  # type: ignore[union-attr]
