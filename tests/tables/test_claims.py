"""Verdicts on claims: an interval decides, and what differs from the claim's setting limits what can be said."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from kleval.models.sizes import preset
from kleval.tables.claims import (
    ABOVE_BOUND,
    IN_PART,
    NOT_MEASURED,
    NOT_REPRODUCED,
    REPRODUCED,
    UNDECIDED,
    UNRELEASED,
    Claim,
    Measured,
    load_claims,
    verdict,
)
from kleval.types import UsageError

NAN = math.nan
GOOD = """
title = "Some paper"
[[claims]]
id = "fast"
claim = "Fast"
where = "Fig. 1"
measure = "ratio"
published = 2.0
model = "a"
baseline = "b"
kind = "decode"
protocols = ["batch-1"]
ctx = "1m"
"""


def claim(**given: Any) -> Claim:
    fields = {"id": "c", "claim": "Fast", "where": "Fig. 1", "measure": "ratio", "published": 2.9, "ctx": "1m"}
    sides = {"model": "a", "baseline": "b", "protocols": ("batch-1",), "task": "ruler"}
    sides["kind"] = {"ratio": "decode", "saving": "memory"}.get(given.get("measure", "ratio"), "")
    return Claim.model_validate({**fields, **sides, **given})


def found(value: float, low: float, high: float, n: int = 5, differs: tuple[str, ...] = ()) -> Measured:
    return Measured(value, low, high, n, "a, b", 1 << 20, "batch-1", "Some GPU", differs, "profile")


@pytest.mark.parametrize(
    ("given", "values", "word"),
    [
        ({}, (2.88, 2.80, 2.96), REPRODUCED),  # includes it
        ({}, (2.87, 2.86, 2.88), REPRODUCED),  # 2.86 is a printed 2.9
        ({}, (3.6, 3.1, 4.0), REPRODUCED),  # on the claimed side
        ({}, (2.5, 2.4, 2.6), IN_PART),  # faster, less than claimed
        ({}, (1.0, 0.9, 1.1), NOT_REPRODUCED),
        ({}, (0.8, 0.7, 0.9), NOT_REPRODUCED),
        ({}, (2.9, 0.9, 9.0), UNDECIDED),  # includes no speedup at all
        ({}, (2.9, 1.1, 7.0), UNDECIDED),  # wider than the effect
        ({}, (2.9, NAN, NAN), UNDECIDED),  # a single repeat
        ({"side": "about"}, (3.6, 3.1, 4.0), NOT_REPRODUCED),
        ({"side": "at most", "published": 1.04}, (1.02, 1.01, 1.04), REPRODUCED),
        ({"side": "at most", "published": 1.04}, (1.02, 0.9, 1.14), UNDECIDED),
        ({"side": "at most", "published": 1.04}, (1.2, 1.1, 1.3), NOT_REPRODUCED),
        ({"measure": "saving", "published": 75}, (74.1, 74.1, 74.1), IN_PART),
        ({"measure": "score", "side": "about", "published": 95.4}, (95.0, 94.0, 96.0), REPRODUCED),
        ({"measure": "score", "side": "about", "published": 95.4}, (90.0, 40.0, 99.0), UNDECIDED),
        ({"measure": "score", "side": "about", "published": 95.4}, (60.0, 55.0, 65.0), NOT_REPRODUCED),
        ({"measure": "difference", "side": "about", "published": -1.1}, (-1.0, -1.5, -0.5), REPRODUCED),
        ({"measure": "difference", "side": "about", "published": -1.1}, (2.0, 1.0, 3.0), NOT_REPRODUCED),
    ],
)
def test_an_interval_decides(given: dict[str, Any], values: tuple[float, float, float], word: str) -> None:
    assert verdict(claim(**given), found(*values))[0] == word


def test_another_setting_supports_a_claim_in_part_at_most() -> None:
    word, why = verdict(claim(), found(3.6, 3.1, 4.0, differs=("on cpu, claimed on cuda",)))
    assert (word, why) == (IN_PART, "holds in another setting: on cpu, claimed on cuda")


def test_a_wide_interval_names_the_n_that_would_do() -> None:
    score = claim(measure="score", side="about", published=50)
    assert "about 80 would do" in verdict(score, found(50.0, 40.0, 60.0, n=20))[1]


def test_a_value_above_the_bound_of_bytes_is_called_that() -> None:
    high = claim(published=6.3, bound=4.52)
    assert verdict(high, None)[0] == ABOVE_BOUND
    assert verdict(high, found(4.0, 3.9, 4.1))[0] == ABOVE_BOUND
    assert verdict(high, found(6.3, 6.2, 6.4)) == (
        REPRODUCED,
        "the interval includes the published value; bytes allow at most 4.52",
    )
    assert verdict(claim(bound=4.52), None)[0] == NOT_MEASURED


def test_without_released_weights_nothing_is_tested() -> None:
    closed = claim(measure="score", released=False)
    assert verdict(closed, None)[0] == verdict(closed, found(2.9, 2.9, 2.9))[0] == UNRELEASED


@pytest.mark.parametrize(("ctx", "name"), [(1 << 20, "1m"), (1 << 19, "512k"), (1 << 18, "256k")])
def test_bounds_of_bytes_are_the_closed_form_of_the_published_shape(ctx: int, name: str) -> None:
    kimi, mla = preset("kimi-linear", "48b-a3b"), preset("mla", "48b-a3b")
    moved = mla.decode_bytes(ctx, 1, "bfloat16")
    alone, many = (
        moved / b for b in (kimi.decode_bytes(ctx, 1, "bfloat16"), kimi.state_bytes(ctx, 1, "bfloat16").total)
    )
    bounds = {claim.id: claim.bound for claim in load_claims().claims}
    assert bounds[f"tpot-larger-batch-{name}"] == round(many, 2)
    assert bounds.get(f"tpot-batch-1-{name}", round(alone, 2)) == round(alone, 2)


def test_table_5_has_three_exceptions_to_kimi_linear_s_lead() -> None:
    claims = load_claims()
    parts = [part for one in claims.claims for part in claims.by_benchmark(one)]
    order = {part.claim: part.published for part in parts if part.id == "order-mla"}
    assert order["RULER: Kimi Linear over MLA"] == 3.0
    behind = sorted(name.removesuffix(": Kimi Linear over MLA") for name, ahead in order.items() if ahead and ahead < 0)
    assert behind == ["FRAMES", "Long Code Arena: Commit", "LongBench v2"]
    assert {part.published for part in parts if part.id == "release" and part.task == "ruler"} == {95.4, 94.8}


def test_another_paper_s_claims_are_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(GOOD, "utf-8")
    assert [one.id for one in load_claims(tmp_path / "a.toml").claims] == ["fast"]
    example = load_claims(Path(__file__).parents[2] / "docs" / "claims_model_card.toml")
    assert [one.measure for one in example.claims] == ["score", "difference"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("title = ", "is not TOML"),
        ('title = "x"', "claims: Field required"),
        (GOOD.replace("2.0", '"two"'), "claims 1 published"),
        (GOOD.replace("2.0", "nan"), "finite"),
        (GOOD.replace('"1m"', '"soon"'), "'soon' is not a length"),
        (GOOD.replace('model = "a"', ""), "ratio needs model"),
        (GOOD.replace('"decode"', '"memory"'), "ratio is not of points of the kind memory"),
        (GOOD + 'colour = "red"', "claims 1 colour"),
        (GOOD + 'columns = {A = "a"}', "columns are of a table"),
        (GOOD + 'note = "x"', "names the note x, which is not there"),
        (GOOD.replace("where", 'table = "5"\nwhere'), "names the table 5, which is not there"),
        (GOOD + GOOD.split("\n", 2)[2], "two claims are called fast"),
    ],
)
def test_a_wrong_file_is_one_line_that_says_where(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.toml").write_text(text, "utf-8")
    with pytest.raises(UsageError) as error:
        load_claims(tmp_path / "a.toml")
    assert said in str(error.value)
    assert "\n" not in str(error.value)
