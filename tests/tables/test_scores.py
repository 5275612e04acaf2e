"""Entrants of several runs, and when they compare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from kleval.report.contrasts import diff_tables
from kleval.report.views import Shape, average_rows, table_rows
from kleval.store import RunStore
from kleval.tables.scores import collect, conflicts

MakeRun = Callable[..., RunStore]


def test_a_model_in_two_runs_is_two_entrants(make_run: MakeRun) -> None:
    entrants = collect([make_run("a", models=("one@nano",)), make_run("b", models=("one@nano",))])
    assert [e.label for e in entrants] == ["one@nano · a", "one@nano · b"]
    assert all(cell.n_total == 3 for e in entrants for cell in e.cells.values())


def test_models_keep_the_order_of_the_command(make_run: MakeRun) -> None:
    assert [e.model for e in collect([make_run(models=("zeta", "alpha"))])] == ["zeta", "alpha"]


@pytest.mark.parametrize(
    ("setting", "word"),
    [
        ({"protocol": "lm-eval-0.4.13"}, "protocol"),
        ({"edition": "official"}, "edition"),
        ({"data_digest": "e" * 64}, "data digest"),
        ({"seed": 7}, "seed 42 against 7"),
        ({"repeats": 2}, "repeats"),
    ],
)
def test_runs_that_asked_something_else_do_not_compare(make_run: MakeRun, setting: dict[str, Any], word: str) -> None:
    a, b = collect([make_run("a", models=("one",)), make_run("b", models=("two",), **setting)])
    (reason,) = conflicts(a, b)
    assert word in reason
    (table,) = diff_tables([a, b], Shape.of([a, b]))
    assert table.reasons
    assert not table.rows


def test_two_runs_of_the_same_settings_compare(make_run: MakeRun) -> None:
    entrants = collect([make_run("a", models=("one",)), make_run("b", models=("two",))])
    assert conflicts(*entrants) == []
    (table,) = diff_tables(entrants, Shape.of(entrants))
    assert {cell.text for row in table.rows for cell in row.cells} == {"0.0"}


def test_a_conflict_of_one_task_names_it(make_run: MakeRun) -> None:
    a = make_run("a", models=("one",))
    b = make_run("b", models=("two",), digests={"ruler/cwe": "e" * 64})
    assert conflicts(*collect([a, b])) == ["data digest dddddddddddd against eeeeeeeeeeee (ruler/cwe)"]


def test_the_difference_is_first_minus_second(make_run: MakeRun) -> None:
    entrants = collect([make_run(answer=lambda m, t, c, i: float(m == "one@nano"), n=10)])
    (table,) = diff_tables(entrants, Shape.of(entrants))
    assert table.first.model == "one@nano"
    assert {(cell.text, cell.tone) for row in table.rows for cell in row.cells} == {("+100.0", "up")}


def test_same_ids_with_other_prompts_are_not_compared(make_run: MakeRun) -> None:
    entrants = collect([make_run(prompt=lambda m, t, c, i: f"{m} {t} {c} {i}")])
    (table,) = diff_tables(entrants, Shape.of(entrants))
    assert {cell.text for row in table.rows for cell in row.cells} == {"–"}
    assert "not their text" in " ".join(table.remarks)


def test_failed_samples_are_not_paired(make_run: MakeRun, failed: dict[str, str]) -> None:
    entrants = collect([make_run(answer=lambda m, t, c, i: failed if m == "one@nano" and i == 0 else 1.0)])
    (table,) = diff_tables(entrants, Shape.of(entrants))
    assert {cell.note for row in table.rows if not row.average for cell in row.cells} == {"2 pairs"}


def test_a_side_metric_that_does_not_apply_is_bounded_by_nothing(make_run: MakeRun) -> None:
    (entrant,) = collect([make_run(models=("one",), tasks=("ruler/vt",), ctxs=(1024,))])
    headline = entrant.cells["ruler/vt", 1024]
    side = replace(headline, metric="accuracy hard", headline=False, n_scored=1, bound_low=0.2)
    for n_failed, bounds in ((0, ""), (1, "20.0 – 100.0")):
        with_side = replace(entrant, others=(replace(side, n_failed=n_failed),))
        assert table_rows([with_side], Shape.of([with_side]))[-1].bounds == bounds


def test_models_that_share_no_task_get_a_sentence_and_no_rows(make_run: MakeRun) -> None:
    a, b = make_run("a", models=("one",), tasks=("ruler/vt",)), make_run("b", models=("two",), tasks=("lca/lib",))
    entrants = collect([a, b])
    (table,) = diff_tables(entrants, Shape.of(entrants))
    assert table.reasons == ("no task was asked of both at the same length",)
    assert table.rows == ()


def test_an_average_lists_those_that_were_asked(make_run: MakeRun) -> None:
    a, b = make_run("a", models=("one",)), make_run("b", models=("two",), tasks=("lca/lib",))
    entrants = collect([a, b])
    assert [row.entrant.model for row in average_rows(entrants, "ruler", (1024, 2048))] == ["one"]
