"""Entrants of several runs, and when they compare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from kleval.report.contrasts import difference_card
from kleval.report.figure import Cell, looks_of
from kleval.report.score_curves import Shape, average_grid
from kleval.report.score_grids import score_grid
from kleval.store import RunStore
from kleval.tables.scores import Entrant, collect, conflicts

MakeRun = Callable[..., RunStore]


def differing(entrants: list[Entrant]) -> list[Cell]:
    """The cells of the first two entrants' differences."""
    grid = difference_card(*entrants[:2], Shape.of(entrants)).grid
    assert grid is not None
    return [cell for row in grid.rows for cell in row.cells]


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
    card = difference_card(a, b, Shape.of([a, b]))
    assert card.text.startswith("Not comparable. They differ in what was asked: ")
    assert card.grid is None


def test_two_runs_of_the_same_settings_compare(make_run: MakeRun) -> None:
    entrants = collect([make_run("a", models=("one",)), make_run("b", models=("two",))])
    assert conflicts(*entrants) == []
    assert {cell.text for cell in differing(entrants)} == {"0.0"}


def test_a_conflict_of_one_task_names_it(make_run: MakeRun) -> None:
    a = make_run("a", models=("one",))
    b = make_run("b", models=("two",), digests={"ruler/cwe": "e" * 64})
    assert conflicts(*collect([a, b])) == ["data digest dddddddddddd against eeeeeeeeeeee (ruler/cwe)"]


def test_the_difference_is_first_minus_second(make_run: MakeRun) -> None:
    entrants = collect([make_run(answer=lambda m, t, c, i: float(m == "one@nano"), n=10)])
    assert difference_card(*entrants, Shape.of(entrants)).title == "one@nano minus two@nano"
    assert {(cell.text, cell.kind) for cell in differing(entrants)} == {("+100.0", "up")}


def test_same_ids_with_other_prompts_are_not_compared(make_run: MakeRun) -> None:
    entrants = collect([make_run(prompt=lambda m, t, c, i: f"{m} {t} {c} {i}")])
    assert {cell.text for cell in differing(entrants)} == {"–"}
    assert "not their text" in " ".join(difference_card(*entrants, Shape.of(entrants)).notes)


def test_failed_samples_are_not_paired(make_run: MakeRun, failed: dict[str, str]) -> None:
    entrants = collect([make_run(answer=lambda m, t, c, i: failed if m == "one@nano" and i == 0 else 1.0)])
    grid = difference_card(*entrants, Shape.of(entrants)).grid
    assert grid is not None
    assert {cell.subs[-1] for row in grid.rows if not row.kind for cell in row.cells} == {"2 pairs"}


def test_a_side_metric_that_does_not_apply_is_bounded_by_nothing(make_run: MakeRun) -> None:
    (entrant,) = collect([make_run(models=("one",), tasks=("ruler/vt",), ctxs=(1024,))])
    headline = entrant.cells["ruler/vt", 1024]
    side = replace(headline, metric="accuracy hard", headline=False, n_scored=1, bound_low=0.2)
    for n_failed, bounds in ((0, ""), (1, "20.0 – 100.0")):
        with_side = replace(entrant, others=(replace(side, n_failed=n_failed),))
        grid = score_grid([with_side], Shape.of([with_side]), looks_of([with_side.key]))
        found = dict(zip(grid.columns[1:], grid.rows[-1].cells, strict=True)).get("Bounds")
        assert (found.text if found else "") == bounds


def test_models_that_share_no_task_get_a_sentence_and_no_rows(make_run: MakeRun) -> None:
    a, b = make_run("a", models=("one",), tasks=("ruler/vt",)), make_run("b", models=("two",), tasks=("lca/lib",))
    entrants = collect([a, b])
    card = difference_card(*entrants, Shape.of(entrants))
    assert "no task was asked of both at the same length" in card.text
    assert card.grid is None


def test_an_average_lists_those_that_were_asked(make_run: MakeRun) -> None:
    a, b = make_run("a", models=("one",)), make_run("b", models=("two",), tasks=("lca/lib",))
    entrants = collect([a, b])
    grid = average_grid(entrants, "ruler", Shape.of(entrants), looks_of([e.key for e in entrants]))
    assert [row.label for row in grid.rows] == ["one"]


def test_runs_of_one_name_are_told_apart_by_when_they_began(make_run: MakeRun) -> None:
    given = (("a", "nightly", "02"), ("b", "nightly", "03"), ("c", "baseline", "02"), ("d", "", "02"))
    runs = [
        make_run(name, title=title, started=f"2026-03-{day}T01:30:00+00:00", models=("one",))
        for name, title, day in given
    ]
    assert [e.label for e in collect(runs)] == [
        "one · nightly 2026-03-02 01:30 UTC",
        "one · nightly 2026-03-03 01:30 UTC",
        "one · baseline",
        "one · d",
    ]
