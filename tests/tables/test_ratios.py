"""Ratios between models: paired by repeat, with an interval that covers."""

from __future__ import annotations

import math
import random

import pytest

from kleval.quantiles import spread
from kleval.store import Point
from kleval.tables.ratios import choose_baseline, interval, ratios


def prefill(model: str, repeat: int, seconds: float, flops: int = 1, **changes: object) -> Point:
    values = {"seconds": seconds}
    arguments: dict[str, object] = {
        "id": f"{model}{repeat}",
        "kind": "prefill",
        "model": model,
        "ctx": 8,
        "batch": 1,
        "protocol": "full",
        "repeat": repeat,
        "values": values,
        "closed_form": {"flops": flops},
    }
    return Point(**{**arguments, **changes})  # type: ignore[arg-type]


def test_drift_that_meets_both_models_cancels() -> None:
    points = [prefill(m, r, s * drift) for r, drift in enumerate((1, 5, 25)) for m, s in (("mla", 6.0), ("kl", 2.0))]
    (ratio,) = ratios(points, "mla")
    assert ratio.value == pytest.approx(3)
    assert (ratio.low, ratio.high) == (pytest.approx(3), pytest.approx(3))
    assert ratio.n == 3


def test_only_repeats_that_both_have_count() -> None:
    points = [prefill("mla", 0, 4.0), prefill("mla", 1, 100.0), prefill("kl", 0, 2.0)]
    (ratio,) = ratios(points, "mla")
    assert (ratio.value, ratio.n) == (pytest.approx(2), 1)
    assert math.isnan(ratio.low)


def test_the_interval_covers_the_true_ratio_about_95_times_in_100() -> None:
    drawn = random.Random(0)
    covered = 0
    for _ in range(400):
        _, low, high = interval([2.0 * math.exp(drawn.gauss(0, 0.1)) for _ in range(4)])
        covered += low <= 2.0 <= high
    assert 0.92 < covered / 400 < 0.98


def test_failed_points_are_left_out() -> None:
    failed = prefill("kl", 0, 1.0, values={}, failure={"kind": "internal", "message": "x"})
    assert ratios([prefill("mla", 0, 1.0), failed], "mla") == []


def test_bytes_are_compared_per_token() -> None:
    def decode(model: str, batch: int, nbytes: int) -> Point:
        return Point(
            id=model,
            kind="decode",
            model=model,
            ctx=8,
            batch=batch,
            protocol="largest-batch",
            repeat=0,
            values={"ms_per_token": 1.0},
            closed_form={"bytes_per_step": nbytes},
        )

    (ratio,) = ratios([decode("mla", 1, 100), decode("kl", 4, 100)], "mla")
    assert ratio.ideal == pytest.approx(4)
    assert (ratio.batch, ratio.baseline_batch) == (4, 1)


def test_mla_is_the_baseline_where_there_is_one() -> None:
    assert choose_baseline(["kimi-linear@nano", "mla@nano"]) == "mla@nano"
    assert choose_baseline(["kimi-linear@nano", "gdn-h@nano"]) == "kimi-linear@nano"


def test_spread_is_relative_to_the_median() -> None:
    assert spread([1.0, 2.0, 4.0]) == pytest.approx(1.5)
    assert spread([3.0]) == 0
