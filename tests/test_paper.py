"""The paper's table names tasks that exist, with the shots and metrics that they have."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kleval import paper
from kleval.tasks.registry import all_tasks, families, load_task
from kleval.tasks.short import builtin
from kleval.types import UsageError

N_BENCHMARKS = {"3": 14, "4": 12, "5": 8, "8": 16, "9": 13}
NAMED = sorted({task for row in paper.ROWS for task in row.tasks})


def test_every_benchmark_of_every_table_has_a_row() -> None:
    assert {table: len(paper.rows(table)) for table in paper.TABLES} == N_BENCHMARKS
    for table in paper.TABLES:
        benchmarks = [row.benchmark for row in paper.rows(table)]
        assert len(set(benchmarks)) == len(benchmarks)


def test_a_row_has_tasks_or_says_why_not() -> None:
    for row in paper.ROWS:
        assert row.tasks or row.note
        assert bool(row.metric) == bool(row.tasks)
    absent = {row.benchmark for row in paper.ROWS if not row.tasks}
    assert absent == {"LiveBench", "SimpleQA", "CSimpleQA", "FaithJudge", "OJBench"}


@pytest.mark.parametrize("task", [name for name in NAMED if not name.startswith("lm_eval/")])
def test_a_task_is_in_the_registry(task: str) -> None:
    assert task in all_tasks() or task in families()


@pytest.mark.parametrize("task", [name for name in NAMED if name.startswith("lm_eval/")])
def test_a_task_of_lm_eval_has_a_builtin_edition_and_is_one_of_its_names(task: str) -> None:
    assert builtin.has(task)
    pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install -e '.[lm-eval]'")
    from kleval.tasks.lm_eval.task_index import index

    assert task.partition(":")[0].removeprefix("lm_eval/") in index()


@pytest.mark.parametrize(
    "row", [row for row in paper.ROWS if row.tasks and row.table != "5"], ids=lambda row: f"{row.table} {row.benchmark}"
)
def test_shots_and_metric_are_the_task_s(row: paper.Row) -> None:
    for task in row.tasks:
        if task not in families():
            loaded = load_task(task)
            assert loaded.metric == row.metric
            assert getattr(loaded, "shots", row.shots) == row.shots


@pytest.mark.parametrize("row", [row for row in paper.ROWS if row.table == "5"], ids=lambda row: row.benchmark)
def test_metrics_of_the_long_columns_are_their_tasks(row: paper.Row) -> None:
    for name in row.tasks:
        for task in families().get(name, [name]):
            protocol = "judge" if task == "frames/oracle" else None
            assert load_task(task, protocol=protocol).metric in row.metric.split(" / ")


@pytest.mark.parametrize(
    ("task", "file"),
    [
        ("lm_eval/bbh", "bbh/cot_fewshot/_cot_fewshot_template_yaml"),
        ("lm_eval/mmlu_pro", "mmlu_pro/_default_template_yaml"),
        ("lm_eval/minerva_math", "minerva_math/minerva_math_algebra.yaml"),
        ("lm_eval/aime25", "aime/aime25.yaml"),
        ("lm_eval/gpqa_diamond_cot_zeroshot", "gpqa/cot_zeroshot/_gpqa_cot_zeroshot_yaml"),
        ("lm_eval/hellaswag", "hellaswag/hellaswag.yaml"),
        ("lm_eval/arc_challenge", "arc/arc_easy.yaml"),
        ("lm_eval/mmlu_redux_generative", "mmlu-redux/generative/_default_template_yaml"),
    ],
)
def test_a_task_without_a_number_of_shots_has_lm_eval_s(task: str, file: str) -> None:
    lm_eval = pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install -e '.[lm-eval]'")
    text = (Path(lm_eval.__file__).parent / "tasks" / file).read_text(encoding="utf-8")
    match = re.search(r"^num_fewshot: (\d+)", text, re.MULTILINE)
    assert {row.shots for row in paper.ROWS if task in row.tasks} == {int(match[1]) if match else 0}


def test_what_the_paper_averages_over_is_recorded() -> None:
    repeats = {row.benchmark: row.repeats for row in paper.rows("4") if row.repeats > 1}
    assert repeats == {"GPQA-Diamond": 8, "AIME 2025": 64, "HMMT 2025": 32, "PolyMath-en": 4}


def test_shots_are_the_paper_s_where_it_states_them() -> None:
    others = {
        (row.table, row.benchmark) for row in paper.ROWS if row.tasks and row.paper_shots not in (None, row.shots)
    }
    assert others <= {("8", "LiveCodeBench v6")}


def test_every_score_is_a_percentage_of_a_column() -> None:
    for row in paper.ROWS:
        assert row.scores
        assert all(score is None or 0 < score < 100 for score in row.scores.values())


def test_kimi_linear_s_average_of_the_long_columns_is_the_paper_s() -> None:
    scores = [row.scores["Kimi Linear"] for row in paper.rows("5")]
    assert round(sum(score for score in scores if score is not None) / len(scores), 1) == 54.5


def test_a_table_that_the_paper_does_not_have_is_refused() -> None:
    with pytest.raises(UsageError, match="3, 4, 5, 8, 9"):
        paper.rows("7")
