"""Figure data of scores, and how plotly is told to draw any figure."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from kleval.report.figure import Axis, Figure, Look, Series, lengths, looks_of, scores
from kleval.report.plotly_drawer import plotly
from kleval.report.score_curves import Shape, score_figure
from kleval.store import RunStore
from kleval.tables.scores import Entrant, collect

MakeRun = Callable[..., RunStore]
LOOK = Look("#0072B2", "circle", "solid")


def task(entrants: list[Entrant], name: str = "ruler/vt") -> Figure:
    return score_figure(entrants, name, Shape.of(entrants), looks_of([e.key for e in entrants]))


def lines(figure: dict[str, Any]) -> list[dict[str, Any]]:
    return [trace for trace in figure["data"] if trace["mode"].startswith("lines+markers")]


def bands(figure: dict[str, Any]) -> list[dict[str, Any]]:
    return [trace for trace in figure["data"] if trace.get("fill") == "toself"]


def test_a_line_goes_through_the_scores_and_a_band_through_the_limits(make_run: MakeRun) -> None:
    entrants = collect([make_run(answer=lambda m, t, c, i: float(i == 0), models=("one",))])
    drawn = plotly(task(entrants))
    (line,), (band,) = lines(drawn), bands(drawn)
    cell = entrants[0].cells["ruler/vt", 1024]
    assert line["y"] == pytest.approx([100 / 3, 100 / 3], abs=1e-3)
    assert min(band["y"]) == pytest.approx(cell.ci_low * 100)
    assert max(band["y"]) == pytest.approx(cell.ci_high * 100)


def test_a_length_without_a_score_breaks_the_line(make_run: MakeRun) -> None:
    run = make_run(answer=lambda m, t, c, i: None if c == 2048 else 1.0, ctxs=(1024, 2048, 4096), models=("one",))
    entrants = collect([run])
    shape = Shape(("ruler/vt",), (1024, 2048, 4096), ())
    figure = score_figure(entrants, "ruler/vt", shape, looks_of([e.key for e in entrants]))
    drawn = plotly(figure)
    (line,) = lines(drawn)
    assert line["y"] == [100.0, None, 100.0]
    assert not line["connectgaps"]
    assert not bands(drawn)
    assert figure.whiskers
    assert line["error_y"]["arrayminus"][0] > 0


def test_markers_of_partial_averages_are_hollow(make_run: MakeRun, ruler_tasks: tuple[str, ...]) -> None:
    run = make_run(
        tasks=ruler_tasks,
        n=1,
        models=("one",),
        answer=lambda m, t, c, i: None if (t, c) == ("ruler/cwe", 1024) else 1.0,
    )
    entrants = collect([run])
    figure = score_figure(entrants, "ruler", Shape.of(entrants), looks_of([e.key for e in entrants]))
    (line,) = lines(plotly(figure))
    assert line["marker"]["symbol"] == ["circle-open", "circle"]


def test_figures_are_strict_json_and_escape_names(make_run: MakeRun) -> None:
    entrants = collect([make_run(models=("<b>bold</b>",))])
    text = json.dumps(plotly(task(entrants)), allow_nan=False)
    assert "&lt;b&gt;bold" in text
    assert "<b>bold" not in text


def test_a_curve_of_many_points_has_no_markers_unless_some_are_hollow() -> None:
    many = range(1, 100)
    one = Series("k", "one", LOOK, [float(x) for x in many], [float(x) for x in many], [(str(x),) for x in many])
    axis = Axis("step", 0.0, 100.0, (), log=False)
    modes = [
        plotly(Figure(axis, scores(), (series,)))["data"][-1]["mode"]
        for series in (one, replace(one, hollow=[x == 3 for x in many]))
    ]
    assert modes == ["lines", "lines+markers"]


def test_no_two_models_look_the_same() -> None:
    assert len(set(looks_of(range(24)).values())) == 24


@pytest.mark.parametrize("style", ["measured", "estimate", "allowed", "paper"])
def test_a_drawer_takes_any_words_and_numbers(style: str) -> None:
    series = Series("k", "one", LOOK, [2.0, 4.0], [1.0, None], [("one at 2", "1"), ()], style=style, labels=["a", "b"])
    axis = Axis("apples", 1.0, 8.0, ((2.0, "two"), (4.0, "four")))
    drawn = plotly(Figure(axis, scores(), (series,), levels=((50.0, "half"),)))
    (trace,) = drawn["data"]
    assert (trace["x"], trace["y"], trace["legendgroup"]) == ([2.0, 4.0], [1.0, None], "k")
    assert drawn["layout"]["xaxis"]["ticktext"] == ["two", "four"]
    assert [note["text"] for note in drawn["layout"]["annotations"]] == ["half"]


def test_curves_that_would_lie_on_each_other_are_set_apart_in_their_order() -> None:
    both = [Series(key, key, LOOK, [1024.0], [50.0], [(key,)]) for key in ("first", "second")]
    drawn = plotly(Figure(lengths([1024], ""), scores(), tuple(both), apart=0.02))
    xs = {trace["name"]: trace["x"][0] for trace in drawn["data"]}
    assert xs["first"] < 1024 < xs["second"]
