"""Scores with what they cost, from profiles of the same model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from kleval.models.sizes import preset
from kleval.store import Point, RunStore
from kleval.tables.costs import read_profile
from kleval.tables.joined import Cost, columns, joined
from kleval.tables.leaderboard import COLUMNS, columns_of, to_csv, to_rows
from kleval.tables.scores import collect
from kleval.types import UsageError

Make = Callable[..., RunStore]
MODELS = ("kimi-linear@nano", "mla@nano")


def describe(**changes: Any) -> Callable[[str], dict[str, Any]]:
    """What the native backend says of a model on the machine of the profiles."""
    return lambda model: {
        "dtype": "bfloat16",
        "device": "cuda:0 Some GPU",
        "torch": "2.13.0",
        "config": preset(*model.split("@")).to_dict(),
        **changes,
    }


@pytest.fixture
def scored(make_run: Make) -> Callable[..., RunStore]:
    return lambda name="run", **options: make_run(
        name, **{"models": MODELS, "ctxs": (4096, 8192), "describe": describe(), **options}
    )


def costs(run: RunStore, *profiles: RunStore) -> dict[tuple[str, int], Cost]:
    return joined(collect([run]), [read_profile(store) for store in profiles])


def served(point: Point) -> Point | None:
    """The decode points at batch 1 as a server's, the others left out."""
    if point.protocol != "batch-1":
        return None
    return dataclasses.replace(
        point,
        id=f"served/concurrency-1/{point.model}/{point.ctx}/b1/r{point.repeat}",
        kind="served",
        protocol="concurrency-1",
        values={"tpot_ms": 7.0, "ttft_ms": 90.0},
        closed_form={},
        settings={"backend": "openai", "server": "http://gpu:8000/v1"},
        environment={"server_software": "vllm 0.10.1"},
    )


def said(point: Point) -> Point | None:
    """As `served`, of a server whose hardware was told."""
    found = served(point)
    return found and dataclasses.replace(found, settings={**found.settings, "hardware": "8x H200"})


ASKED = {
    "config": None,
    "dtype": None,
    "device": None,
    "torch": None,
    "server": "http://gpu:8000/v1",
    "software": "vllm",
    "version": "0.10.1",
}


def test_what_agrees_joins_and_says_only_that_weights_are_random(scored: Make, make_profile: Make) -> None:
    found = costs(scored(), make_profile())
    assert set(found) == {("m0", 4096), ("m0", 8192), ("m1", 4096), ("m1", 8192)}
    for cost in found.values():
        assert cost.agrees
        assert cost.of == "profile profile; random weights"
    state = preset("kimi-linear", "nano").state_bytes(4096, 1, "bfloat16").total
    assert found["m0", 4096].values["state_bytes"] == state


def test_columns_name_protocol_and_batch(scored: Make, make_profile: Make) -> None:
    found = costs(scored(), make_profile(full_up_to=4096))
    assert columns(found) == [
        "tpot_ms_batch1",
        "ms_per_token_largest_batch",
        "largest_batch",
        "prefill_seconds_full",
        "prefill_seconds_sampled",
        "state_bytes",
    ]
    assert "prefill_seconds_full" not in found["m0", 8192].values


def test_a_row_stays_one_row_and_costs_stand_at_its_end(scored: Make, make_profile: Make) -> None:
    run, profile = scored(), make_profile()
    plain, rows = to_rows([run]), to_rows([run], [profile])
    assert [{name: row[name] for name in COLUMNS} for row in rows] == plain
    assert columns_of(rows)[: len(COLUMNS) + 2] == [*COLUMNS, "cost_of", "tpot_ms_batch1"]
    assert to_csv(rows).splitlines()[0].endswith("state_bytes")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dtype": "float32"}, "dtype bfloat16, the run float32"),
        ({"torch": "2.12.0"}, "torch 2.13.0, the run 2.12.0"),
        ({"device": "cuda:0 Other GPU"}, "hardware Some GPU, the run Other GPU"),
        ({"device": "cpu"}, "hardware Some GPU, the run Some CPU"),
    ],
)
def test_a_cost_of_another_setting_says_whose_it_is(
    scored: Make, make_profile: Make, changes: dict[str, Any], words: str
) -> None:
    cost = costs(scored(describe=describe(**changes)), make_profile())["m0", 4096]
    assert not cost.agrees
    assert words in cost.of
    assert cost.values


def test_another_backends_cost_says_so(scored: Make, make_profile: Make) -> None:
    assert "backend native, the run hf" in costs(scored(backend="hf"), make_profile())["m0", 4096].of


def test_another_shape_never_joins(scored: Make, make_profile: Make) -> None:
    def wider(model: str) -> dict[str, Any]:
        config = preset(*model.split("@")).to_dict()
        return describe()(model) | {"config": {**config, "hidden_size": 256}}

    cost = costs(scored(describe=wider), make_profile())["m0", 4096]
    assert not cost.values
    assert "another shape (hidden_size 128, the run 256)" in cost.of


def test_what_changes_no_cost_is_no_shape(scored: Make, make_profile: Make) -> None:
    def renamed(model: str) -> dict[str, Any]:
        config = preset(*model.split("@")).to_dict()
        return describe()(model) | {"config": {**config, "eos_token_id": 7, "rope_theta": 5e5}}

    assert costs(scored(describe=renamed), make_profile())["m0", 4096].agrees


def test_a_model_or_length_that_was_not_measured_says_so(scored: Make, make_profile: Make) -> None:
    found = costs(scored(ctxs=(4096, 1024)), make_profile(architectures=("kimi-linear",)))
    assert found["m0", 1024].of == "not joined: profile has no cost of kimi-linear@nano at 1k"
    assert found["m1", 4096].of == "not joined: no profile of mla@nano"


def test_a_profile_that_agrees_goes_before_one_that_does_not(scored: Make, make_profile: Make) -> None:
    def other(point: Point) -> Point:
        return dataclasses.replace(point, environment={**point.environment, "gpu": "Other GPU"})

    found = costs(scored(), make_profile("other", change=other), make_profile("same"))
    assert {cost.of.split(";")[0] for cost in found.values()} == {"profile same"}


def test_two_profiles_that_fit_are_refused_by_name(scored: Make, make_profile: Make) -> None:
    with pytest.raises(UsageError, match=r"first and .*second both hold the cost of kimi-linear@nano at 4k"):
        costs(scored(), make_profile("first"), make_profile("second"))


def test_profiles_of_other_lengths_complete_each_other(scored: Make, make_profile: Make) -> None:
    found = costs(scored(), make_profile("short", ctxs=(4096,)), make_profile("long", ctxs=(8192,)))
    assert [found["m0", ctx].of.split(";")[0] for ctx in (4096, 8192)] == ["profile short", "profile long"]


def test_a_server_joins_by_address_and_model_until_its_hardware_is_said(scored: Make, make_profile: Make) -> None:
    run = scored(backend="openai", describe=describe(**ASKED))
    cost = costs(run, make_profile(change=served))["m0", 4096]
    assert not cost.agrees
    assert "hardware is not known (--hardware): joined by address and model" in cost.of
    assert cost.values == {"tpot_ms_concurrency1": 7.0, "ttft_ms_concurrency1": 90.0}


def test_a_server_whose_hardware_both_say_agrees(scored: Make, make_profile: Make) -> None:
    run = scored(backend="openai", describe=describe(**ASKED, hardware="8x H200"))
    assert costs(run, make_profile("same", change=said))["m0", 4096].agrees
    run = scored("two", backend="openai", describe=describe(**ASKED, hardware="1x L4"))
    assert "hardware 8x H200, the run 1x L4" in costs(run, make_profile("other", change=said))["m0", 4096].of


def test_another_address_joins_only_where_the_hardware_is_said(scored: Make, make_profile: Make) -> None:
    there = describe(**ASKED | {"server": "http://other:8000/v1"}, hardware="8x H200")
    run = scored(backend="openai", describe=there)
    cost = costs(run, make_profile("unsaid", change=served))["m0", 4096]
    assert not cost.values
    assert "unsaid is of the server at http://gpu:8000/v1, and its hardware is not known" in cost.of
    assert costs(run, make_profile("same", change=said))["m0", 4096].agrees
