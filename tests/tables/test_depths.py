"""Scores by the depth of the answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from kleval.store import Row, RunStore
from kleval.tables.depths import Depths
from kleval.tables.scores import Entrant, collect

MakeRun = Callable[..., RunStore]


def read(run: RunStore, meta: Callable[[Row], dict[str, Any]]) -> tuple[Depths, Entrant]:
    """The depths of a run's rows as if they held meta, and its first model."""
    depths = Depths()

    def watch(of: Any) -> Callable[[Row], None]:
        see = depths.watch(of)
        return lambda row: see(replace(row, meta=meta(row)))

    return depths, collect([run], watch)[0]


def test_a_score_stands_at_the_depth_of_its_one_answer(make_run: MakeRun) -> None:
    run = make_run(models=("one",), tasks=("ruler/vt",), n=5, answer=lambda m, t, c, i: float(i >= 3))
    depths, one = read(run, lambda row: {"depth_percent": [25.0 * row.index]})
    cells = depths.cells(one)
    assert {name: cells[name, 1024].value for name in depths.names if (name, 1024) in cells} == {
        "0–20 %": 0.0,
        "20–40 %": 0.0,
        "40–60 %": 0.0,
        "60–80 %": 1.0,
        "80–100 %": 1.0,
    }
    assert list(depths.tasks) == ["ruler/vt"]


@pytest.mark.parametrize("found", [[10.0, 90.0], [], None, "10", True, 101.0, float("nan")])
def test_what_stands_at_several_places_or_none_has_no_depth(make_run: MakeRun, found: object) -> None:
    depths, one = read(make_run(models=("one",)), lambda row: {"depth_percent": found})
    assert depths.cells(one) == {}
    assert not depths.tasks


def test_repeats_are_one_sample_and_failures_are_counted_apart(make_run: MakeRun, failed: dict[str, str]) -> None:
    run = make_run(
        models=("one",),
        tasks=("ruler/vt",),
        ctxs=(1024,),
        n=2,
        repeats=3,
        answer=lambda m, t, c, i: failed if i else 1.0,
    )
    depths, one = read(run, lambda row: {"depth_percent": 50})
    cell = depths.cells(one)["40–60 %", 1024]
    assert (cell.value, cell.n_samples, cell.n_scored, cell.n_failed, cell.n_total) == (1.0, 1, 3, 3, 6)


def test_bins_are_fine_where_every_length_has_many_samples(make_run: MakeRun) -> None:
    few, _ = read(make_run(models=("one",), n=3), lambda row: {"depth_percent": 50})
    many, _ = read(make_run("many", models=("one",), tasks=("ruler/vt",), n=100), lambda row: {"depth_percent": 50})
    assert (len(few.names), len(many.names)) == (5, 10)
    assert many.names[5] == "50–60 %"


def test_several_needles_stand_each_at_its_own_depth_where_the_score_is_their_share(make_run: MakeRun) -> None:
    run = make_run(models=("one",), tasks=("ruler/vt",), ctxs=(1024,), n=1, answer=lambda m, t, c, i: 0.5)
    depths = Depths()

    def watch(of: Any) -> Callable[[Row], None]:
        see = depths.watch(of)
        meta = {"depth_percent": [10.0, 90.0]}
        return lambda row: see(replace(row, meta=meta, references=("12", "34"), extracted="it is 34"))

    one = collect([run], watch)[0]
    found = depths.cells(one, "ruler/vt")
    assert {place: cell.value for place, cell in found.items()} == {("0–20 %", 1024): 0.0, ("80–100 %", 1024): 1.0}
    assert depths.cells(one, "ruler/cwe") == {}
