"""Axes, ticks and the paper's curves."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kleval.report.cost_sections import bound_figure, decode_figure, prefill_figure, ratio_figure
from kleval.report.figure import Figure, Look, Series, ticks
from kleval.report.header import looks
from kleval.report.paper_curves import paper_figures
from kleval.report.plotly_drawer import plotly
from kleval.store import RunStore
from kleval.tables.costs import Profile, read_profile
from kleval.text import seconds_tick

MakeProfile = Callable[..., RunStore]


@pytest.mark.parametrize(
    ("figure", "places"),
    [
        ("prefill", {1 << 19: 2.3, 1 << 20: 2.9}),
        ("batch-1", {1 << 19: 1.8, 1 << 20: 2.2}),
        ("largest-batch", {1 << 18: 4.8, 1 << 19: 5.7, 1 << 20: 6.3}),
    ],
)
def test_the_papers_curves_give_the_ratios_that_it_prints(figure: str, places: dict[int, float]) -> None:
    ratio = paper_figures()[figure].ratio("kimi-linear")
    for ctx, printed in places.items():
        assert ratio[ctx] == pytest.approx(printed, rel=0.03)


def test_the_papers_kernels_are_about_twice_as_fast_as_dplr() -> None:
    ratio = paper_figures()["kernels"].ratio("kda", "dplr")
    assert set(ratio) == {2048 * 2**i for i in range(6)}
    assert [round(ratio[ctx], 2) for ctx in sorted(ratio)] == [1.19, 1.92, 1.95, 1.96, 2.0, 1.99]


def test_a_curve_of_the_paper_without_a_point_has_none() -> None:
    assert 8192 not in paper_figures()["largest-batch"].curves["gdn-h"]
    assert 8192 not in paper_figures()["largest-batch"].ratio("gdn-h")


def look(profile: Profile) -> dict[str, Look]:
    return dict(looks([], [profile])[1])


def named(figure: Figure, key: str, style: str = "measured") -> Series:
    return next(one for one in figure.series if (one.key, one.style) == (key, style))


@settings(max_examples=60, deadline=None)
@given(st.floats(1e-6, 1e4), st.floats(2.5, 1e6))
def test_an_axis_has_two_to_ten_ticks_inside_its_range(low: float, span: float) -> None:
    places = ticks(low, low * span)
    assert 2 <= len(places) <= 10
    assert all(low * 0.99 <= place <= low * span * 1.01 for place in places)
    assert len({seconds_tick(place) for place in places}) == len(places)


def test_lengths_are_human(make_profile: MakeProfile) -> None:
    profile = read_profile(make_profile(ctxs=(4096, 131072, 1 << 20)))
    axis = decode_figure(profile, "batch-1", look(profile)).x
    assert [label for _, label in axis.ticks] == ["4k", "128k", "1M"]
    assert axis.log


def test_whiskers_reach_from_the_smallest_to_the_largest_repeat(make_profile: MakeProfile) -> None:
    store = make_profile(ctxs=(4096,), full_up_to=4096)
    profile = read_profile(store)
    mla = named(prefill_figure(profile, look(profile)), "mla@nano")
    times = sorted(
        p.values["seconds"] or 0
        for p in store.points()
        if (p.kind, p.protocol, p.model) == ("prefill", "full", "mla@nano")
    )
    assert (mla.low[0], mla.y[0], mla.high[0]) == tuple(times)


def test_bounds_are_drawn_per_token_and_below_what_was_measured(make_profile: MakeProfile) -> None:
    profile = read_profile(make_profile(size="48b-a3b"))
    figure = bound_figure(profile, "decode", "largest-batch", look(profile))
    for model in profile.models:
        bound, measured = named(figure, model, "allowed"), named(figure, model)
        assert all((b or 0) < (m or 0) for b, m in zip(bound.y, measured.y, strict=True))


def test_the_ratio_figure_has_what_bytes_allow_and_the_level_of_one(make_profile: MakeProfile) -> None:
    profile = read_profile(make_profile(size="48b-a3b"))
    figure = ratio_figure(profile, "decode", "largest-batch", look(profile))
    allowed = {one.key for one in figure.series if one.style == "allowed"}
    assert allowed == set(profile.models) - {"mla@48b-a3b"}
    assert sorted(value for value, _ in figure.levels) == pytest.approx([1.0, 27 / 7])


def test_a_single_repeat_has_no_interval_and_no_whisker(make_profile: MakeProfile) -> None:
    profile = read_profile(make_profile(repeats=1))
    drawn = plotly(ratio_figure(profile, "decode", "batch-1", look(profile)))
    assert not [trace for trace in drawn["data"] if "error_y" in trace]


def test_the_baseline_is_mla_and_its_ratio_to_itself_is_not_shown(make_profile: MakeProfile) -> None:
    profile = read_profile(make_profile())
    assert profile.baseline == "mla@nano"
    assert "mla@nano" not in {r.model for r in profile.ratios}
    first = read_profile(make_profile("other", architectures=("gdn-h", "kimi-linear")))
    assert first.baseline == "gdn-h@nano"
    keys = {one.key for one in ratio_figure(first, "decode", "batch-1", look(first)).series}
    assert keys == {"kimi-linear@nano"}  # the paper's ratios are to MLA
