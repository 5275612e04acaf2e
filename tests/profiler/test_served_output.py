"""Drawn lengths of answers, and servers side by side."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kleval.backends.spec import BackendSpec
from kleval.profiler.served import ServedSpec
from kleval.profiler.served.job import profile_served
from kleval.profiler.served.output import parse_output
from kleval.store import RunStore
from kleval.tables.cost_rows import served_rows
from kleval.tables.costs import read_profile
from kleval.types import UsageError


def test_lengths_are_fixed_or_drawn() -> None:
    rng = random.Random(5)
    assert {parse_output(32).draw(rng) for _ in range(50)} == {32}
    assert {parse_output("3-6").draw(rng) for _ in range(200)} == {3, 4, 5, 6}
    drawn = [parse_output("exp:40").draw(rng) for _ in range(4000)]
    assert sum(drawn) / len(drawn) == pytest.approx(40, rel=0.1)
    assert (min(drawn), max(drawn) <= 320) == (2, True)


@pytest.mark.parametrize("text", ["1", "0-4", "9-3", "exp:", "exp:0", "x", "3-", "-3", ""])
def test_what_is_no_length_is_refused_with_the_grammar(text: str) -> None:
    with pytest.raises(UsageError, match="write --decode-tokens 32, 16-256"):
        parse_output(text)


def test_the_same_seed_asks_for_the_same_lengths(served_server: Any, manner: Any, tmp_path: Path) -> None:
    with served_server.serving(manner) as url:
        engine = BackendSpec(model="tiny", backend="openai", base_url=url, request_timeout=10)
        spec = ServedSpec(engine=engine, ctxs=(64,), concurrencies=(6,), decode_tokens="3-15", repeats=1)
        asked = []
        for name in "ab":
            profile_served(replace(spec, out=tmp_path / name))
            asked.append(sorted(served_server.limit(body) for body in manner.measured[6:]))  # behind those that warm up
            manner.bodies.clear()
    assert asked[0] == asked[1]
    assert len(set(asked[0])) > 1


def test_several_servers_are_measured_in_turn_into_one_table(served_server: Any, manner: Any, tmp_path: Path) -> None:
    slow = served_server.Manner(first_seconds=0.3)
    with served_server.serving(manner) as one, served_server.serving(slow) as other:
        engines = [
            BackendSpec(model="tiny", backend="openai", base_url=url, request_timeout=10) for url in (one, other)
        ]
        spec = ServedSpec(
            engine=engines[0], more=(engines[1],), ctxs=(64,), decode_tokens=4, repeats=2, out=tmp_path / "run"
        )
        result = profile_served(spec)
    store = RunStore.open(tmp_path / "run")
    rows = served_rows(read_profile(store))
    assert result.exit_code == 0
    assert [row["model"] for row in rows] == [f"tiny ({url.removeprefix('http://')[:-3]})" for url in (one, other)]
    assert rows[1]["ttft_ms"] > rows[0]["ttft_ms"]
    assert {point.settings["server"] for point in store.points()} == {one, other}


def test_a_server_that_dies_takes_nothing_from_the_other(served_server: Any, manner: Any, tmp_path: Path) -> None:
    dead = served_server.Manner(faulty=frozenset(range(99)), fault=500)
    with served_server.serving(manner) as one, served_server.serving(dead) as other:
        engines = [
            BackendSpec(model="tiny", backend="openai", base_url=url, request_timeout=10) for url in (one, other)
        ]
        spec = ServedSpec(
            engine=engines[0], more=(engines[1],), ctxs=(64,), decode_tokens=4, repeats=5, out=tmp_path / "run"
        )
        result = profile_served(spec)
    points = list(RunStore.open(tmp_path / "run").points())
    assert result.exit_code == 3
    assert sum(not point.failed for point in points) == 5
    assert sum(point.failed for point in points) == 3  # then it is left alone


def test_a_server_that_is_named_twice_is_refused(served_server: Any, manner: Any, tmp_path: Path) -> None:
    with served_server.serving(manner) as url:
        engine = BackendSpec(model="tiny", backend="openai", base_url=url, request_timeout=10)
        with pytest.raises(UsageError, match="named twice"):
            profile_served(ServedSpec(engine=engine, more=(engine,), ctxs=(64,), out=tmp_path / "run"))
