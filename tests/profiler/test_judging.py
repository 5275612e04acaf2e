"""Noise, checks and the summary: what a reader is told about the points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from kleval.models.sizes import preset
from kleval.profiler.judge import caveats, checks, noise
from kleval.store import Point
from kleval.tables.cost_rows import MODEL_COLUMNS, model_rows
from kleval.tables.costs import make_profile


def prefill(model: str, repeat: int, seconds: float, protocol: str = "full", **changes: Any) -> Point:
    arguments: dict[str, Any] = {
        "id": f"{protocol}/{model}/{repeat}",
        "kind": "prefill",
        "model": model,
        "ctx": 4096,
        "batch": 1,
        "protocol": protocol,
        "repeat": repeat,
        "values": {"seconds": seconds, "tokens_per_second": 4096 / seconds, "mfu": 0.5},
        "closed_form": {"flops": 100, "bound_seconds": 0.1},
        "estimate": protocol == "sampled",
    }
    return Point(**{**arguments, **changes})


def test_a_quiet_machine_needs_no_warning() -> None:
    assert noise([prefill("m", r, s) for r, s in enumerate((1.0, 1.05, 1.1))])[1] == []


def test_a_noisy_machine_is_told_with_its_worst_measurement() -> None:
    points = [prefill("m", r, s) for r, s in enumerate((1.0, 1.3, 1.1))] + [prefill("q", r, 1.0) for r in range(3)]
    record, (text,) = noise(points)
    assert "1 of 2" in text
    assert "15%" in text
    assert "27%" in text
    assert "m at 4096" in text
    assert record["details"][0]["model"] == "m"


def test_one_repeat_says_nothing_about_noise() -> None:
    assert noise([prefill("m", 0, 1.0)]) == ({"limit": 0.15, "details": []}, [])


def test_the_estimates_error_is_told_where_it_is_known() -> None:
    good = prefill("m", 0, 1.0, "sampled", values={"seconds": 1.0, "sampled_over_full": 0.96})
    bad = prefill("q", 0, 1.0, "sampled", values={"seconds": 1.0, "sampled_over_full": 1.3})
    unknown = prefill("r", 0, 1.0, "sampled", values={"seconds": 1.0, "sampled_over_full": None})
    assert "at most 4%" in checks([good, unknown])[1][0]
    assert "more than 15%" not in checks([good])[1][0]
    _, (text,) = checks([good, bad, unknown])
    assert "at most 30% (q at 4096)" in text
    assert "1 of 2 checks" in text
    assert checks([unknown])[1] == []


def test_different_positions_are_told() -> None:
    both = {"kimi-linear": preset("kimi-linear", "nano"), "mla": preset("mla", "nano")}
    assert any("NoPE" in text and "does not state" in text for text in caveats(both))
    assert not any("NoPE" in text for text in caveats({"mla": both["mla"]}))


def rows_of(points: Sequence[Point], *models: str) -> list[dict[str, Any]]:
    return model_rows(make_profile(points, {"models": dict.fromkeys(models)}))


def test_a_row_has_medians_ratio_and_bound() -> None:
    points = [prefill("mla", r, s) for r, s in enumerate((6.0, 6.0, 9.0))]
    points += [prefill("kl", r, s) for r, s in enumerate((2.0, 2.0, 3.0))]
    mla, kl = rows_of(points, "mla", "kl")
    assert (mla["model"], mla["ratio"]) == ("mla", None)
    assert (kl["value"], kl["repeats"], kl["unit"]) == (2.0, 3, "s")
    assert kl["ratio"] == pytest.approx(3)
    assert kl["spread"] == pytest.approx(0.5)
    assert (kl["closed_form"], kl["utilisation"]) == (0.1, 0.5)


def test_an_estimate_stays_one_in_every_row() -> None:
    (row,) = rows_of([prefill("m", 0, 1.0, "sampled")], "m")
    assert row["estimate"] is True


def test_a_failed_point_is_a_row_without_a_value() -> None:
    failed = prefill("m", 0, 1.0, values={}, failure={"kind": "out_of_memory", "message": "too large"})
    (row,) = rows_of([failed], "m")
    assert (row["value"], row["failure"], row["repeats"], row["batch"]) == (None, "too large", 0, 1)


def test_every_row_has_the_same_columns() -> None:
    machine = Point(
        id="machine/copy", kind="machine", model="", ctx=0, batch=0, protocol="copy", repeat=0,
        values={"bytes_per_second": 1e10},
    )  # fmt: skip
    rows = rows_of([prefill("m", 0, 1.0), machine], "m")
    assert [row["unit"] for row in rows] == ["s", "bytes/s"]
    assert all(tuple(row) == MODEL_COLUMNS for row in rows)


def test_rows_are_in_the_order_the_models_were_given() -> None:
    points = [prefill("a", 0, 1.0), prefill("b", 0, 1.0)]
    assert [row["model"] for row in rows_of(points, "b", "a")] == ["b", "a"]
