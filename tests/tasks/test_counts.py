"""What the cards count of the official editions, against the tasks' own budgets and editions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kleval import paper
from kleval.suites import SUITES
from kleval.tasks import packaged
from kleval.tasks.counts import Counts, named
from kleval.tasks.registry import expand, load_task, make_task
from kleval.types import Tokenizer

LONG = expand(SUITES["long-official"].tasks)
SHORT = sorted({task for table in "3489" for task in paper.tasks(table) if task != "ruler"})
OF_LM_EVAL = [task for task in SHORT if task.startswith("lm_eval/")]


@pytest.mark.parametrize("task_id", LONG)
def test_every_task_of_the_long_suite_is_counted_with_its_source_and_what_is_assumed(task_id: str) -> None:
    counts = make_task(task_id, "official").counts()  # type: ignore[attr-defined]
    assert counts.source
    assert counts.assumed
    assert sum(n for n, _ in counts.at(131072)) > 0


def test_a_budget_is_the_tasks_own() -> None:
    assert make_task("ruler/vt", "official").counts().written == (30,)  # type: ignore[attr-defined]
    from kleval.tasks.longbench2.task import COT, COT_BUDGET, OFFICIAL_BUDGET
    from kleval.tasks.mrcr.official import BUDGET as MRCR_BUDGET

    assert make_task("longbench2/mcq", "official").counts().written == (OFFICIAL_BUDGET,)  # type: ignore[attr-defined]
    cot = make_task("longbench2/mcq", "official", COT)
    assert cot.counts().written == (COT_BUDGET, OFFICIAL_BUDGET)  # type: ignore[attr-defined]
    assert make_task("mrcr/8needle", "official").counts().written == (MRCR_BUDGET,)  # type: ignore[attr-defined]


def test_the_builtin_edition_has_none() -> None:
    assert make_task("mrcr/2needle").counts() is None  # type: ignore[attr-defined]


def test_prompts_fill_are_cut_or_are_passed_over() -> None:
    assert Counts(rows=500, written=(28,)).at(1024, 7) == [(7, 996)]
    classes = ((100, 10), (5000, 30))
    assert Counts(classes=classes, written=(24,)).at(1024) == [(10, 100)]
    assert Counts(classes=classes, written=(24,), cut=True).at(1024) == [(10, 100), (30, 1000)]
    assert Counts(classes=classes, written=(24,), cut=True, most=500, most_until=2048).at(1024) == [
        (10, 100),
        (30, 500),
    ]


def test_a_limit_keeps_the_proportions_of_classes_and_loses_none() -> None:
    found = Counts(classes=((100, 10), (200, 30), (300, 60)), written=(1,)).at(4096, 10)
    assert found == [(1, 100), (3, 200), (6, 300)]


def test_lengths_that_are_not_asked_ask_nothing() -> None:
    assert Counts(rows=5, written=(1,), only=(1024,)).at(2048) == []


def test_the_short_benchmarks_of_the_paper_and_no_others_are_counted_by_name() -> None:
    assert set(packaged.load("counts.toml")["counts"]) == {*SHORT, "short/cruxeval_output_cot"}
    for task in SHORT:
        counts = named(task)
        assert counts is not None
        assert counts.source
        assert counts.assumed
    assert named("lm_eval/mmlu") is None


def test_a_group_is_asked_equally_many_of_each_of_its_tasks() -> None:
    assert Counts(classes=((100, 50),), written=(1,), tasks=3).at(1024, 4) == [(12, 100)]
    assert Counts(classes=((100, 50),), written=(1,), tasks=3).at(1024, 40) == [(50, 100)]


@pytest.mark.parametrize("task", OF_LM_EVAL)
def test_budgets_and_groups_are_those_of_lm_eval(task: str) -> None:
    pytest.importorskip("lm_eval")
    from kleval.tasks.lm_eval import asking, task_index

    counts = named(task)
    assert counts is not None
    leaves = task_index.expand(task)
    assert counts.tasks == len(leaves)
    config = task_index.config(task_index.parse(leaves[0])[0])
    if config["output_type"] == "generate_until":
        given = config["generation_kwargs"].get("max_gen_toks", asking.MAX_NEW_TOKENS)
        assert (counts.times, counts.written) == (1, (given,))
    else:
        assert config["output_type"] == "multiple_choice"
        assert counts.times > 1
        assert counts.written == (1,)


@pytest.mark.parametrize(
    "task_id",
    [
        "short/polymath_en",
        "short/cruxeval_output_cot",
        "code/cruxeval_input_cot",
        "code/cruxeval_output_cot",
        "code/humaneval_plus",
    ],
)
def test_questions_requests_and_budgets_are_those_of_the_published_data(
    task_id: str, real_rows: Path, words: Tokenizer
) -> None:
    counts, task = named(task_id), load_task(task_id, "official", data_dir=real_rows)
    assert counts is not None
    samples: list[Any] = list(task.samples(words, 65536, 10_000, 42))
    assert counts.classes[0][1] == len(samples)
    asked: Any = task.step(samples[0], ())
    assert [request.max_new_tokens for request in asked] == list(counts.written) * counts.times
