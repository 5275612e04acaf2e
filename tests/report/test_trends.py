"""Many runs of one model: the latest, and how it went over the date or a tag."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from kleval.report import trends
from kleval.report.figure import dates
from kleval.report.page import page_of
from kleval.report.samples import Samples
from kleval.report.trends import trend_sections
from kleval.store import Point, RunStore
from kleval.tables.scores import collect
from kleval.types import UsageError

Make = Callable[..., RunStore]


@pytest.fixture
def nights(make_run: Make, monkeypatch: pytest.MonkeyPatch) -> list[RunStore]:
    """Four of one model, not in the order of their dates; the third asked other questions, the fourth has no tag."""
    monkeypatch.setattr(trends, "MANY", 4)
    given = ((4, "0.33", 1), (1, "0.9", 1), (3, "0.33", 2), (2, None, 1))
    return [
        make_run(
            f"night-{day}",
            answer=lambda m, t, c, i, day=day: float(i < day),
            models=("one",),
            tasks=("ruler/vt", "ruler/cwe"),
            ctxs=(1024,),
            n=4,
            seed=seed,
            title="nightly",
            tags={} if tag is None else {"engine": tag},
            started=f"2026-03-{day:02d}T01:30:00+00:00",
        )
        for day, tag, seed in given
    ]


def test_a_page_of_many_runs_is_of_the_latest_and_of_how_it_went(nights: list[RunStore]) -> None:
    text, found = page_of(nights, Samples())
    assert [one.id for one in found][:2] == ["trend", "trend-tasks"]
    scores = next(one for one in found if one.id == "table").cards[0].grid
    assert scores is not None
    assert {row.cells[1].text for row in scores.rows} == {"one · nightly 2026-03-04 01:30 UTC"}
    assert text.count("nightly 2026-03-0") > 4
    fewer, _ = page_of(nights[:3], Samples())
    assert "How it went over" not in fewer


def test_points_are_in_the_order_of_the_dates_and_of_all_runs(nights: list[RunStore]) -> None:
    first, tasks = trend_sections(collect(nights), "date")
    (curve,) = first.cards[0].figures[0].series
    assert list(curve.y) == [25.0, 50.0, 75.0, 100.0]
    assert [round(b - a, 6) for a, b in zip(curve.x, curve.x[1:], strict=False)] == [1.0] * 3
    assert list(curve.hollow) == [False, False, True, False]
    grid = first.cards[-1].grid
    assert grid is not None
    assert [row.cells[0].text[:10] for row in grid.rows] == [f"2026-03-0{day}" for day in (4, 3, 2, 1)]
    assert "1 run asked or sampled otherwise" in first.cards[-1].notes[0]
    assert "seed 2 against 1 (1 run)" in first.cards[-1].notes[0]
    assert len(tasks.cards) == 2


def test_a_mean_over_other_tasks_than_the_latest_is_hollow_and_said(make_run: Make) -> None:
    nights = [
        make_run(f"night-{day}", models=("one",), tasks=tasks, ctxs=(1024,), started=f"2026-03-0{day}T01:30:00+00:00")
        for day, tasks in ((1, ("ruler/vt",)), (2, ("ruler/vt", "ruler/cwe")))
    ]
    first, of_tasks = trend_sections(collect(nights), "date")
    assert list(first.cards[0].figures[0].series[0].hollow) == [True, False]
    assert first.cards[-1].notes == (
        "1 run asked other tasks than the latest, or lost some: the means do not compare.",
    )
    assert not any(any(one.hollow) for card in of_tasks.cards for one in card.figures[0].series)


def test_versions_are_in_their_order_and_runs_without_the_tag_are_said(nights: list[RunStore]) -> None:
    card = trend_sections(collect(nights), "engine")[0].cards[0]
    (figure,) = card.figures
    assert figure.x.ticks == ((0.0, "0.9"), (1.0, "0.33"))
    (curve,) = figure.series
    assert list(curve.y) == [25.0, 75.0, 100.0]
    assert [round(x) for x in curve.x] == [0, 1, 1]
    assert card.notes == ("1 run without the tag engine is left out.",)


def test_a_trend_can_be_asked_for_and_left_out(nights: list[RunStore], tmp_path: Path) -> None:
    assert trends.latest(nights, "off") == nights
    assert trends.latest(nights[:2], "auto") == nights[:2]
    assert trends.latest(nights[:2], "date") == nights[:1]
    with pytest.raises(UsageError, match="no run has the tag 'cuda': choose date or one of engine"):
        trends.check(nights, "cuda")


def test_costs_of_many_profiles_are_the_latest_and_how_they_went(
    nights: list[RunStore], make_profile: Make, tmp_path: Path
) -> None:
    def night(day: int) -> RunStore:
        def slower(point: Point) -> Point:
            return dataclasses.replace(point, values={name: day * (value or 0) for name, value in point.values.items()})

        started, tags = f"2026-03-{day:02d}T02:00:00+00:00", {"engine": "0.33" if day > 2 else "0.9"}
        given = {"architectures": ("kimi-linear",), "ctxs": (1024,), "repeats": 2, "change": slower}
        return make_profile(f"costs-{day}", started=started, tags=tags, **given)

    stores = [night(day) for day in (2, 4, 1, 3)]
    text, found = page_of([*nights, *stores], Samples())
    trend = next(one for one in found if one.id == "cost-trend")
    (curve,) = next(one for one in trend.cards if one.title == "Time per token, batch 1, at 1k").figures[0].series
    assert [round(y / curve.y[0], 6) for y in curve.y] == [1.0, 2.0, 3.0, 4.0]
    assert [round(b - a, 6) for a, b in zip(curve.x, curve.x[1:], strict=False)] == [1.0] * 3
    grid = trend.cards[-1].grid
    assert grid is not None
    assert [row.label for row in grid.rows] == ["costs-4", "costs-3", "costs-2", "costs-1"]
    assert 'download="costs-4.csv"' in text
    assert 'download="costs-3.csv"' not in text
    tagged = page_of(stores[:2], Samples(), trend="engine")[1][0].cards[0].figures[0]
    assert tagged.x.ticks == ((0.0, "0.9"), (1.0, "0.33"))


@pytest.mark.parametrize("days", [[0.0], [0.1, 0.2], [1.0, 2.9], [1.0, 40.0], [1.0, 400.0], [1.0, 4000.0]])
def test_an_axis_of_dates_has_a_few_ticks_within_it(days: list[float]) -> None:
    axis = dates(days, "")
    assert 1 <= len(axis.ticks) <= 9
    assert all(axis.low <= at <= axis.high for at, _ in axis.ticks)
    assert len({label for _, label in axis.ticks}) == len(axis.ticks)
