"""The figures' data."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from kleval.report.figures import average_figure, looks, task_figure
from kleval.store import RunStore
from kleval.tables.scores import collect

MakeRun = Callable[..., RunStore]


def lines(figure: dict[str, Any]) -> list[dict[str, Any]]:
    return [trace for trace in figure["data"] if trace["mode"] == "lines+markers"]


def bands(figure: dict[str, Any]) -> list[dict[str, Any]]:
    return [trace for trace in figure["data"] if trace.get("fill") == "toself"]


def test_a_line_goes_through_the_scores_and_a_band_through_the_limits(make_run: MakeRun) -> None:
    entrants = collect([make_run(answer=lambda m, t, c, i: float(i == 0), models=("one",))])
    figure = task_figure(entrants, "ruler/vt", (1024, 2048))
    (line,), (band,) = lines(figure), bands(figure)
    cell = entrants[0].cells["ruler/vt", 1024]
    assert line["y"] == pytest.approx([100 / 3, 100 / 3], abs=1e-3)
    assert min(band["y"]) == pytest.approx(cell.ci_low * 100)
    assert max(band["y"]) == pytest.approx(cell.ci_high * 100)


def test_a_length_without_a_score_breaks_the_line(make_run: MakeRun) -> None:
    run = make_run(answer=lambda m, t, c, i: None if c == 2048 else 1.0, ctxs=(1024, 2048, 4096), models=("one",))
    figure = task_figure(collect([run]), "ruler/vt", (1024, 2048, 4096))
    (line,) = lines(figure)
    assert line["y"] == [100.0, None, 100.0]
    assert not line["connectgaps"]
    assert not bands(figure)
    assert line["error_y"]["visible"]
    assert line["error_y"]["arrayminus"][0] > 0


def test_markers_of_partial_averages_are_hollow(make_run: MakeRun, ruler_tasks: tuple[str, ...]) -> None:
    run = make_run(
        tasks=ruler_tasks,
        n=1,
        models=("one",),
        answer=lambda m, t, c, i: None if (t, c) == ("ruler/cwe", 1024) else 1.0,
    )
    (line,) = lines(average_figure(collect([run]), "ruler", (1024, 2048)))
    assert line["marker"]["symbol"] == ["circle-open", "circle"]


def test_figures_are_strict_json_and_escape_names(make_run: MakeRun) -> None:
    entrants = collect([make_run(models=("<b>bold</b>",))])
    text = json.dumps(task_figure(entrants, "ruler/vt", (1024, 2048)), allow_nan=False)
    assert "&lt;b&gt;bold" in text
    assert "<b>bold" not in text


def test_no_two_models_look_the_same(make_run: MakeRun) -> None:
    entrants = collect([make_run(models=[f"m{i}" for i in range(12)], n=1, ctxs=(1024,), tasks=("ruler/vt",))])
    assert len(set(looks(entrants).values())) == 12
