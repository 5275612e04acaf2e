"""Axes, ticks and the paper's curves."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kleval.report import paper_curves
from kleval.report.profile_figures import bound_figure, decode_figure, prefill_figure, ratio_figure
from kleval.report.profile_lines import ticks
from kleval.store import RunStore
from kleval.tables.costs import read_profile
from kleval.text import seconds_tick

MakeProfile = Callable[..., RunStore]


@pytest.mark.parametrize(
    ("figure", "places"),
    [
        (paper_curves.PREFILL, {1 << 19: 2.3, 1 << 20: 2.9}),
        (paper_curves.TPOT_BATCH_1, {1 << 19: 1.8, 1 << 20: 2.2}),
        (paper_curves.TPOT_LARGE_BATCH, {1 << 18: 4.8, 1 << 19: 5.7, 1 << 20: 6.3}),
    ],
)
def test_the_papers_curves_give_the_ratios_that_it_prints(
    figure: paper_curves.PaperFigure, places: dict[int, float]
) -> None:
    ratio = figure.ratio("kimi-linear")
    for ctx, printed in places.items():
        assert ratio[ctx] == pytest.approx(printed, rel=0.03)


def test_the_papers_kernels_are_about_twice_as_fast_as_dplr() -> None:
    ratio = paper_curves.KERNELS.ratio("kda", "dplr")
    assert set(ratio) == {2048 * 2**i for i in range(6)}
    assert [round(ratio[ctx], 2) for ctx in sorted(ratio)] == [1.19, 1.92, 1.95, 1.96, 2.0, 1.99]


def test_a_curve_of_the_paper_without_a_point_has_none() -> None:
    assert 8192 not in paper_curves.TPOT_LARGE_BATCH.curves["gdn-h"]
    assert 8192 not in paper_curves.TPOT_LARGE_BATCH.ratio("gdn-h")


@settings(max_examples=60, deadline=None)
@given(st.floats(1e-6, 1e4), st.floats(2.5, 1e6))
def test_an_axis_has_two_to_ten_ticks_inside_its_range(low: float, span: float) -> None:
    places, labels = ticks(low, low * span, seconds_tick)
    assert 2 <= len(places) <= 10
    assert all(low * 0.99 <= place <= low * span * 1.01 for place in places)
    assert len(set(labels)) == len(labels)


def test_lengths_are_human(make_profile: MakeProfile) -> None:
    profile = read_profile(make_profile(ctxs=(4096, 131072, 1 << 20)))
    axis = decode_figure(profile, "batch-1").data["layout"]["xaxis"]
    assert axis["ticktext"] == ["4k", "128k", "1M"]
    assert axis["type"] == "log"


def test_whiskers_reach_from_the_smallest_to_the_largest_repeat(make_profile: MakeProfile) -> None:
    store = make_profile(ctxs=(4096,), full_up_to=4096)
    profile = read_profile(store)
    traces = {t["legendgroup"]: t for t in prefill_figure(profile).data["data"] if "-open" not in t["marker"]["symbol"]}
    trace = traces["mla@nano"]
    times = sorted(
        p.values["seconds"] or 0
        for p in store.points()
        if (p.kind, p.protocol, p.model) == ("prefill", "full", "mla@nano")
    )
    assert trace["y"] == [times[1]]
    assert trace["y"][0] + trace["error_y"]["array"][0] == pytest.approx(times[2])
    assert trace["y"][0] - trace["error_y"]["arrayminus"][0] == pytest.approx(times[0])


def test_bounds_are_drawn_per_token_and_below_what_was_measured(make_profile: MakeProfile) -> None:
    profile = read_profile(make_profile(size="48b-a3b"))
    traces = bound_figure(profile, "decode", "largest-batch").data["data"]
    for model in profile.models:
        bound, measured = (
            next(t for t in traces if t["legendgroup"] == model and (t["mode"] == "lines") == is_bound)
            for is_bound in (True, False)
        )
        assert all(b < m for b, m in zip(bound["y"], measured["y"], strict=True))


def test_the_ratio_figure_has_what_bytes_allow_and_the_level_of_one(make_profile: MakeProfile) -> None:
    profile = read_profile(make_profile(size="48b-a3b"))
    figure = ratio_figure(profile, "decode", "largest-batch").data
    allowed = [t for t in figure["data"] if t["mode"] == "lines"]
    assert {t["legendgroup"] for t in allowed} == set(profile.models) - {"mla@48b-a3b"}
    levels = sorted(shape["y0"] for shape in figure["layout"]["shapes"])
    assert levels == pytest.approx([1.0, 27 / 7])


def test_a_single_repeat_has_no_interval_and_no_whisker(make_profile: MakeProfile) -> None:
    profile = read_profile(make_profile(repeats=1))
    traces = ratio_figure(profile, "decode", "batch-1").data["data"]
    assert not [t for t in traces if "error_y" in t]


def test_the_baseline_is_mla_and_its_ratio_to_itself_is_not_shown(make_profile: MakeProfile) -> None:
    profile = read_profile(make_profile())
    assert profile.baseline == "mla@nano"
    assert "mla@nano" not in {r.model for r in profile.ratios}
    first = read_profile(make_profile("other", architectures=("gdn-h", "kimi-linear")))
    assert first.baseline == "gdn-h@nano"
    groups = {t["legendgroup"] for t in ratio_figure(first, "decode", "batch-1").data["data"]}
    assert groups == {"kimi-linear@nano"}  # the paper's ratios are to MLA
