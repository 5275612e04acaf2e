"""What the cards count of the official editions, against the tasks' own budgets and editions."""

from __future__ import annotations

import pytest

from kleval.suites import SUITES
from kleval.tasks.counts import Counts
from kleval.tasks.registry import expand, make_task

LONG = expand(SUITES["long-official"].tasks)


@pytest.mark.parametrize("task_id", LONG)
def test_every_task_of_the_long_suite_is_counted_with_its_source_and_what_is_assumed(task_id: str) -> None:
    counts = make_task(task_id, "official").counts()  # type: ignore[attr-defined]
    assert counts.source
    assert counts.assumed
    assert sum(n for n, _ in counts.at(131072)) > 0


def test_a_budget_is_the_tasks_own() -> None:
    assert make_task("ruler/vt", "official").counts().written == (30,)  # type: ignore[attr-defined]
    from kleval.tasks.longbench2.editions import COT_BUDGET, OFFICIAL_BUDGET
    from kleval.tasks.longbench2.task import COT
    from kleval.tasks.mrcr.editions import OFFICIAL_BUDGET as MRCR_BUDGET

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
