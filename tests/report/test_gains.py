"""Gains, which are in nats per token: on the page, over many runs and in exports they are never taken for scores of 100."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kleval.report import trends
from kleval.report.export import FORMATS, export
from kleval.report.export.shared import Dataset
from kleval.report.page import page_of
from kleval.report.samples import Samples
from kleval.report.sections import Section
from kleval.store import RunStore
from kleval.tables import compare
from kleval.tables.compare import read_sides
from kleval.tables.gate import known
from kleval.types import UsageError

Make = Callable[..., RunStore]
LIKELY = {"protocol": "likelihood-1:nvidia-c3f5e3b", "ctxs": (1024,), "n": 4}


def gain(model: str, task: str, ctx: int, index: int) -> float:
    """Of `one` 2 more than of `two`, on each sample."""
    return 0.25 * index + (2.0 if model.startswith("one") else 0.0)


def named(found: list[Section], name: str) -> Section:
    return next(one for one in found if one.id == name)


def test_two_models_have_paired_differences_of_gains_in_nats(make_run: Make) -> None:
    text, found = page_of([make_run(answer=gain, **LIKELY)], Samples())
    grid = named(found, "gain-differences").cards[0].grid
    assert grid is not None
    assert [(row.label, row.cells[0].text, row.cells[0].subs[0]) for row in grid.rows[1:]] == [
        ("vt", "+2.000", "+2.000 … +2.000"),
        ("cwe", "+2.000", "+2.000 … +2.000"),
    ]
    (tests,) = named(found, "gain-tests").cards
    assert "effect 0.02 nats per token" in tests.text
    assert {"differences", "tests"}.isdisjoint(one.id for one in found)
    assert "are shown as they are and averaged with no score" in text


def test_scores_and_gains_of_one_page_have_differences_apart(make_run: Make) -> None:
    runs = [make_run("scores", ctxs=(1024,), n=4), make_run("gains", answer=gain, **LIKELY)]
    _, found = page_of(runs, Samples())
    names = [one.id for one in found]
    assert names.index("differences") < names.index("gains") < names.index("gain-differences")
    for name, count in (("differences", 1), ("gain-differences", 1)):
        assert len(named(found, name).cards) == count


def test_a_single_sample_has_a_difference_without_an_interval(make_run: Make) -> None:
    _, found = page_of([make_run(answer=gain, **{**LIKELY, "n": 1})], Samples())
    grid = named(found, "gain-differences").cards[0].grid
    assert grid is not None
    assert (grid.rows[-1].cells[0].text, grid.rows[-1].cells[0].subs) == ("+2.000", ())


def test_the_sentence_says_which_gains_are_missing(make_run: Make, failed: dict[str, str]) -> None:
    def partly(model: str, task: str, ctx: int, index: int) -> float | dict[str, str]:
        return failed if model.startswith("two") or task == "ruler/cwe" else 1.0

    text, _ = page_of([make_run(answer=partly, **LIKELY)], Samples())
    assert "With the context of 1k, averaged over 1 of the 2 tasks asked (builtin data), one@nano gains 1.000" in text
    assert "two@nano has no gain at that length." in text


def test_many_runs_of_gains_are_shown_as_how_they_went(make_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trends, "MANY", 3)
    runs = [
        make_run(
            f"night-{day}",
            answer=lambda m, t, c, i, day=day: float(day),
            started=f"2026-03-0{day}T01:30:00+00:00",
            models=("one",),
            **LIKELY,
        )
        for day in (1, 2, 3)
    ]
    _, found = page_of(runs, Samples())
    assert [one.id for one in found][:2] == ["gain-trend", "gain-trend-tasks"]
    figure = found[0].cards[0].figures[0]
    assert list(figure.series[0].y) == [1.0, 2.0, 3.0]
    assert figure.y.title == "gain, nats per token"


@pytest.mark.parametrize("kind", FORMATS)
def test_no_format_of_others_takes_gains(kind: str, make_run: Make, tmp_path: Path) -> None:
    gains = make_run("gains", answer=gain, models=("one@nano",), edition="official", **LIKELY)
    with pytest.raises(UsageError, match=r"nothing to export: one@nano in .*gains has gains, which are no scores"):
        export([gains], kind, tmp_path / "alone")
    scores = make_run("scores", models=("one@nano",), edition="official", ctxs=(1024,))
    found = export([scores, gains], kind, tmp_path / "out", {"ruler": Dataset("some/data")})
    assert found.paths
    assert any("has gains, which are no scores" in text for text in found.left_out)


def test_what_few_pairs_do_not_tell_is_no_number(make_run: Make) -> None:
    one, other = read_sides([make_run(answer=gain, **{**LIKELY, "n": 1})])
    rows = compare.rows(compare.compared(one, other), 0.02)
    single = next(row for row in rows if row["task"] == "ruler/vt")
    assert single["difference"] == -2.0
    assert [single[name] for name in ("difference_low", "difference_high", "detectable")] == [None] * 3
    assert compare.spelled(single)[5] == "−2.000 [–, –]"


def test_a_gate_says_who_compares_gains(make_run: Make) -> None:
    (told,) = known(read_sides([make_run(answer=gain, models=("one@nano",), **LIKELY)]), [])
    assert told == "failures and cut (gains, in nats per token, are for kleval compare)"
