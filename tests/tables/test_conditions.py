"""The grammar of a gate's conditions."""

from __future__ import annotations

import math

import pytest

from kleval.tables.conditions import conditions, defaults
from kleval.types import UsageError


@pytest.mark.parametrize(
    ("text", "metric", "ctx", "number", "against"),
    [
        ("ruler < -2", "ruler", None, -0.02, True),
        ("ruler@128k<60", "ruler", 131072, 0.6, False),
        ("ruler/vt < \u22120", "ruler/vt", None, 0.0, True),
        ("tpot@64k > +10%", "tpot", 65536, 0.1, True),
        ("tpot/concurrency-8 > 30.5", "tpot/concurrency-8", None, 30.5, False),
        ("failures > 1%", "failures", None, 0.01, False),
    ],
)
def test_a_condition_is_read(text: str, metric: str, ctx: int | None, number: float, against: bool) -> None:
    (one,) = conditions([text])
    assert (one.metric, one.ctx, one.number, one.against) == (metric, ctx, pytest.approx(number), against)


@pytest.mark.parametrize(
    "text",
    ["ruler", "ruler = 3", "ruler < -2%", "tpot > +10", "tpot > 10%", "failures > 3", "cut > +1%", "ruler@x < 3"],
)
def test_what_is_no_condition_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        conditions([text])


def test_failures_and_cut_answers_are_judged_unless_they_are_named() -> None:
    assert [one.text for one in defaults(conditions(["ruler < -2, cut > 5%"]))] == ["failures > 1%"]


@pytest.mark.parametrize(
    ("text", "limits", "verdict"),
    [
        ("ruler < -2", (-0.10, -0.03), "fail"),
        ("ruler < -2", (-0.02, 0.03), "pass"),
        ("ruler < -2", (-0.03, 0.03), "undecided"),
        ("tpot > +10%", (1.11, 1.3), "fail"),
        ("tpot > +10%", (1.0, 1.1), "pass"),
        ("tpot > +10%", (math.nan, math.nan), "undecided"),
    ],
)
def test_the_whole_interval_decides(text: str, limits: tuple[float, float], verdict: str) -> None:
    assert conditions([text])[0].verdict(*limits) == verdict
