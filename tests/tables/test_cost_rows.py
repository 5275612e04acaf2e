"""The profile's CSV: a row per measurement, numbers as they are, nothing that a spreadsheet would run."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest

from kleval.store import Point, RunStore
from kleval.tables.cost_rows import COLUMNS, write_profile_csv

MakeProfile = Callable[..., RunStore]


def rows_of(store: RunStore) -> list[dict[str, str]]:
    text = write_profile_csv(store, store.path / "profile.csv").read_text("utf-8")
    return list(csv.DictReader(io.StringIO(text)))


def test_a_row_per_measurement_with_the_median_over_repeats(make_profile: MakeProfile) -> None:
    store = make_profile(kernels=True)
    points = list(store.points())
    rows = rows_of(store)
    groups = {(p.kind, p.protocol, p.model, p.ctx, p.settings.get("heads")) for p in points}
    assert len(rows) == len(groups)
    assert list(rows[0]) == list(COLUMNS)
    for row in rows:
        if row["kind"] != "prefill":
            continue
        mine = [
            p
            for p in points
            if (p.kind, p.protocol, p.model, str(p.ctx)) == tuple(row[n] for n in ("kind", "protocol", "model", "ctx"))
        ]
        assert float(row["value"]) == median(p.values["seconds"] or 0 for p in mine)
        assert int(row["repeats"]) == len(mine)
        assert row["estimate"] == ("yes" if row["protocol"] == "sampled" else "no")


def test_ratios_stand_beside_what_bytes_alone_allow(make_profile: MakeProfile) -> None:
    rows = {(r["kind"], r["protocol"], r["model"], r["ctx"]): r for r in rows_of(make_profile(size="48b-a3b"))}
    mine, theirs = (rows["decode", "largest-batch", f"{m}@48b-a3b", "16384"] for m in ("kimi-linear", "mla"))
    assert theirs["ratio"] == ""
    assert mine["baseline"] == "mla@48b-a3b"
    assert float(mine["ratio_low"]) < float(mine["ratio"]) < float(mine["ratio_high"])
    per_token = [float(r["closed_form.bytes_per_step"]) / int(r["batch"]) for r in (theirs, mine)]
    assert float(mine["ratio_ideal"]) == pytest.approx(per_token[0] / per_token[1])
    state = rows["memory", "state", "kimi-linear@48b-a3b", "16384"]
    assert float(state["ratio_ideal"]) == pytest.approx(27 / 7)
    assert state["state_bytes"] == state["closed_form.state_bytes"]


@pytest.mark.parametrize("start", ["=", "+", "-", "@"])
def test_text_is_kept_from_being_a_formula_and_numbers_stay(make_profile: MakeProfile, start: str) -> None:
    def change(point: Point) -> Point:
        values = {name: -1.5 if name == "warmup_seconds" else value for name, value in point.values.items()}
        if point.kind == "prefill":
            values["warmup_seconds"] = -1.5
        return dataclasses.replace(point, model=f"{start}{point.model}" if point.model else "", values=values)

    rows = rows_of(make_profile(change=change, ctxs=(4096,)))
    named = [row for row in rows if row["model"]]
    assert named
    assert all(row["model"].startswith(f"'{start}") for row in named)
    assert {row["warmup_seconds"] for row in named if row["kind"] == "prefill"} == {"-1.5"}


def test_what_failed_has_its_reason_and_no_number(make_profile: MakeProfile) -> None:
    def change(point: Point) -> Point:
        if point.kind == "decode" and point.model.startswith("mla"):
            return dataclasses.replace(point, values={}, failure={"kind": "internal", "message": "RuntimeError: no"})
        return point

    failed = [row for row in rows_of(make_profile(change=change)) if row["failure"]]
    assert {row["model"] for row in failed} == {"mla@nano"}
    assert all(row["value"] == row["low"] == row["ratio"] == "" for row in failed)


def test_kernels_say_their_shape_and_kda_over_dplr(make_profile: MakeProfile) -> None:
    rows = [r for r in rows_of(make_profile(architectures=(), kernels=True)) if r["kind"] == "kernel"]
    assert {(r["heads"], r["head_dim"]) for r in rows} == {("16", "128"), ("32", "128")}
    with_ratio = [r for r in rows if r["ratio"]]
    assert {r["model"] for r in with_ratio} == {"kda"}
    assert {r["baseline"] for r in with_ratio} == {"dplr"}


def test_the_place_is_the_one_given(make_profile: MakeProfile, tmp_path: Path) -> None:
    assert write_profile_csv(make_profile(), tmp_path / "new" / "x.csv") == tmp_path / "new" / "x.csv"
