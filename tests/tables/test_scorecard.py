"""A scorecard's lines: which record speaks to which claim, and what differs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kleval.store import Point, RunStore
from kleval.tables.claims import COLUMNS, load_claims
from kleval.tables.costs import read_profile
from kleval.tables.scorecard import scorecard, spelled
from kleval.tables.scores import collect

Make = Callable[..., RunStore]
M = 1 << 20
PAIR = ("kimi-linear", "mla")
EXAMPLE = Path(__file__).parents[2] / "docs" / "claims_model_card.toml"


def times(ratio: float) -> Callable[[Point], Point]:
    """MLA's times are `ratio` of Kimi Linear's, give or take a hundredth by repeat."""

    def change(point: Point) -> Point:
        if point.kind in ("prefill", "decode"):
            name = "seconds" if point.kind == "prefill" else "ms_per_token"
            factor = ratio * (1 + point.repeat / 100) if point.model.startswith("mla") else 1.0
            point.values[name] = factor  # type: ignore[index]
        return point

    return change


def costs(*stores: RunStore) -> dict[str, dict[str, Any]]:
    rows = scorecard(load_claims(), [], [read_profile(store) for store in stores])
    return {row["id"]: row for row in rows}


def test_the_published_shape_at_the_published_length_reproduces(make_profile: Make) -> None:
    rows = costs(make_profile(size="48b-a3b", architectures=PAIR, ctxs=(M,), full_up_to=M, change=times(2.9)))
    prefill, saving = rows["prefill-1m"], rows["kv-saving"]
    assert (prefill["verdict"], prefill["n"], prefill["differs"]) == ("reproduced", 3, "")
    assert prefill["protocol"] == "prefill full"
    assert prefill["of_published"] == pytest.approx(prefill["value"] / 2.9)
    assert (saving["verdict"], round(saving["value"], 1)) == ("in part", 74.1)
    assert rows["tpot-larger-batch-1m"]["verdict"] == "above a byte bound"
    assert "Some GPU" in prefill["setting"]
    assert tuple(prefill) == COLUMNS


def test_another_size_device_length_or_an_estimate_is_named(make_profile: Make) -> None:
    def on_cpu(point: Point) -> Point:
        point.settings["device"] = "cpu"  # type: ignore[index]
        return times(2.9)(point)

    row = costs(make_profile(architectures=PAIR, ctxs=(4096, 65536), full_up_to=4096, change=on_cpu))["prefill-1m"]
    assert row["verdict"] == "in part"
    assert row["differs"].split("; ") == [
        "at 64k, claimed at 1M",
        "size nano, claimed of 48b-a3b",
        "on cpu, claimed on cuda",
        "sampled: an estimate",
    ]


def test_a_claim_is_never_compared_beyond_its_length_where_a_shorter_one_is_there(make_profile: Make) -> None:
    rows = costs(make_profile(architectures=PAIR, ctxs=(1 << 18, M), repeats=2))
    assert (rows["prefill-512k"]["ctx"], rows["prefill-1m"]["ctx"]) == (1 << 18, M)


def test_a_claim_over_lengths_has_a_line_at_each_that_was_measured(make_profile: Make) -> None:
    store = make_profile(architectures=("kimi-linear", "gdn-h"), ctxs=(4096, 8192, 12288), repeats=2)
    rows = scorecard(load_claims(), [], [read_profile(store)])
    lines = [row for row in rows if row["id"] == "prefill-over-gdn-h"]
    assert [row["ctx"] for row in lines] == [4096, 8192]
    assert {row["model"] for row in lines} == {"gdn-h@nano, kimi-linear@nano"}


def test_kernels_of_the_paper_s_heads_are_compared(make_profile: Make) -> None:
    rows = costs(make_profile(architectures=(), kernels=True))
    assert rows["kda-over-dplr"]["model"] == "kda, dplr"
    assert rows["prefill-1m"]["verdict"] == "not measured"


def test_scores_stand_beside_claims_of_unreleased_models(make_run: Make) -> None:
    store = make_run(models=("kimi-linear@nano", "mla@nano"), tasks=("repoqa/snf",), ctxs=(1024,), n=4)
    rows = scorecard(load_claims(), collect([store]), [])
    shown = [row for row in rows if row["id"] in ("table-5", "order-mla")]
    assert [(row["value"], row["verdict"]) for row in shown] == [
        (value, "not testable: weights were never released") for value in (100.0, 100.0, 0.0)
    ]
    assert shown[0]["published"] == 63.0
    assert "builtin edition" in shown[0]["differs"]


def test_a_released_model_is_known_by_its_name_in_any_folder(make_run: Make) -> None:
    name = "models/Kimi-Linear-48B-A3B-Instruct"
    store = make_run(models=(name,), tasks=("ruler/vt", "ruler/cwe"), ctxs=(131072,), n=40, edition="official")
    (row, other) = [row for row in scorecard(load_claims(), collect([store]), []) if row["id"] == "release"]
    assert (row["claim"], row["published"], row["value"]) == ("RULER, 128k of the released Instruct model", 95.4, 100.0)
    assert row["differs"] == "2 of 13 tasks; temperature 0.0, claimed at 1"
    assert (other["published"], other["differs"].split("; ")[0]) == (94.8, "at 128k, claimed at 1M")


def test_the_model_card_s_claims_are_compared(make_run: Make) -> None:
    def answer(model: str, task: str, ctx: int, index: int) -> float:
        return float(model.startswith("kimi") or index % 2 > 0)

    store = make_run(
        models=("kimi-linear@nano", "mla@nano"),
        tasks=("ruler/niah_single_2", "ruler/niah_single_3"),
        ctxs=(1024,),
        n=100,
        answer=answer,
    )
    rows = scorecard(load_claims(EXAMPLE), collect([store]), [])
    assert [(row["verdict"], row["n"], round(row["value"], 6)) for row in rows] == [
        ("reproduced", 100, 100.0),
        ("reproduced", 100, 50.0),
    ]
    assert spelled(rows[1])[:4] == (
        "kimi-linear@nano is ahead of mla@nano on single needles of UUIDs at 1k",
        "≈ 50 points",
        "50.0 [39.7, 59.6], n 100",
        "1.00",
    )


def test_failures_keep_a_score_from_being_the_claim_s(make_run: Make, failed: dict[str, str]) -> None:
    store = make_run(
        models=("kimi-linear@nano",),
        tasks=("ruler/niah_single_2",),
        ctxs=(1024,),
        n=100,
        answer=lambda m, t, c, i: failed if i < 3 else 1.0,
    )
    row = scorecard(load_claims(EXAMPLE), collect([store]), [])[0]
    assert (row["verdict"], row["differs"]) == ("in part", "3 of 100 answers failed")


def test_what_was_not_measured_is_one_line_unless_all_are_asked_for() -> None:
    claims = load_claims()
    assert [row["id"] for row in scorecard(claims, [], [])] == [one.id for one in claims.claims]
    whole = [row for row in scorecard(claims, [], [], whole=True) if row["id"] == "table-5"]
    assert len(whole) == 32
    assert whole[3]["published"] == 84.3
