"""Training seeds: which runs belong together, the interval over them, and what page and verdict make of them."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from kleval.report.page import Watched, sections
from kleval.report.samples import Samples
from kleval.report.seed_sections import seed_section, seed_tables
from kleval.store import RunStore
from kleval.tables.headline import recipes_differ
from kleval.tables.scores import EVERYTHING, collect
from kleval.tables.training_seeds import by_recipe, over_seeds

Make = Callable[..., RunStore]
SCORES = {"kda-0": 0.75, "kda-1": 0.25, "mla-0": 0.5, "mla-1": 0.5}


def trained(model: str, **more: Any) -> Mapping[str, Any]:
    name, _, seed = model.partition("-")
    return {"training": {"architecture": name, "tokens": 8, "seed": int(seed), "loss": 1 / (1 + int(seed)), **more}}


@pytest.fixture
def four(make_run: Make) -> Any:
    return collect(
        [make_run(models=list(SCORES), n=4, answer=lambda m, t, c, i: float(i < 4 * SCORES[m]), describe=trained)]
    )


def test_the_interval_is_students_over_the_seeds_and_cut_to_scores(four: Any) -> None:
    kda, mla = by_recipe(four)
    assert (kda.name, mla.name) == ("kda", "mla")
    first = next(over_seeds(kda))
    assert (first.what, first.ctx, first.mean) == (EVERYTHING, 1024, 0.5)
    # 12.706 standard errors of 0.25 reach beyond both ends
    assert (first.low, first.high) == (0.0, 1.0)
    assert first.values[0][0] == 0.75
    same = next(over_seeds(mla))
    assert (same.low, same.high) == (0.5, 0.5)


@pytest.mark.parametrize(
    "more", [{"tokens": 9}, {"precision": "bf16"}, {"mixture": {"copy": 1.0}}], ids=["tokens", "precision", "data"]
)
def test_another_recipe_is_no_other_seed(make_run: Make, more: dict[str, Any]) -> None:
    def describe(model: str) -> Mapping[str, Any]:
        return trained(model, **(more if model == "kda-1" else {}))

    assert by_recipe(collect([make_run(models=["kda-0", "kda-1"], describe=describe)])) == []


def test_runs_that_asked_something_else_are_left_out(make_run: Make) -> None:
    runs = [make_run(name=f"of-{i}", models=[f"kda-{i}"], describe=trained, seed=42 + i) for i in (0, 1)]
    assert by_recipe(collect(runs)) == []
    again = [make_run(name=f"again-{i}", models=["kda-0"], describe=trained) for i in (0, 1)]
    assert by_recipe(collect(again)) == []  # one seed, run twice


def test_seeds_differ_between_recipes_only_where_an_architecture_lacks_one(four: Any) -> None:
    assert recipes_differ(four) == []
    assert recipes_differ([e for e in four if e.model != "mla-1"]) == ["seed"]
    assert recipes_differ([e for e in four if e.model in ("kda-0", "mla-1")]) == ["seed"]


def test_page_and_terminal_show_each_seed_and_both_intervals(four: Any) -> None:
    found = next(one for one in sections(four, [], Watched(Samples())) if one.id == "seeds")
    (figure,) = found.cards[0].figures
    assert [(one.name, one.y[0], one.low[0], one.high[0]) for one in figure.series] == [
        ("kda", 50.0, 25.0, 75.0),
        ("mla", 50.0, 50.0, 50.0),
    ]
    assert found.more[0].grid is not None
    assert found.more[0].grid.columns[3:5] == ("seed 0", "seed 1")
    (what, heads, rows), *_ = seed_tables(four)
    assert (what, heads[2:]) == (EVERYTHING, ["seed 0", "seed 1", "mean [over seeds]"])
    assert rows[0][:2] == ["kda", "1k"]
    assert rows[0][2].startswith("75.0 [")
    assert rows[0][4] == "50.0 [0.0 – 100.0]"


def test_a_page_without_seeds_has_no_such_section(make_run: Make) -> None:
    assert seed_section(collect([make_run()])) is None


def test_seeds_that_were_asked_other_tasks_or_numbers_have_no_mean_of_them(make_run: Make) -> None:
    runs = [
        make_run(name="a", models=["kda-0"], n=4, describe=trained),
        make_run(name="b", models=["kda-1"], n=6, describe=trained),
    ]
    (group,) = by_recipe(collect(runs))
    assert list(over_seeds(group)) == []


def test_recipes_of_one_architecture_are_named_by_what_differs(make_run: Make) -> None:
    def describe(model: str) -> Mapping[str, Any]:
        name, _, seed = model.partition("-")
        return trained(f"kda-{seed}", tokens=9 if name == "long" else 8)

    models = ["kda-0", "kda-1", "long-2", "long-3"]
    found = collect([make_run(models=models, describe=describe)])
    assert [group.name for group in by_recipe(found)] == ["kda (tokens 8)", "kda (tokens 9)"]
    (_, heads, rows), *_ = seed_tables(found)
    assert heads[2:6] == ["seed 0", "seed 1", "seed 2", "seed 3"]
    assert [cell != "–" for cell in rows[-1][2:6]] == [False, False, True, True]
