"""A profile's command: ladders, batches, and what is refused before anything is built."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from kleval.profiler.workload import ProfileSpec, ladder, parse_batches, protocol_of
from kleval.types import UsageError

GOOD = ProfileSpec(out=Path("x"))


def test_a_million_is_measured_at_its_quarters() -> None:
    assert ladder(1 << 20) == (4096, 16384, 65536, 262144, 1048576)


@pytest.mark.parametrize("longest", [1, 100, 4096, 5000, 100_000])
def test_a_ladder_ends_at_what_was_asked_and_starts_at_4k(longest: int) -> None:
    lengths = ladder(longest)
    assert lengths[-1] == longest
    assert all(length >= 4096 for length in lengths[:-1])


def test_batches_are_numbers_and_max() -> None:
    assert parse_batches(" 1, 8,MAX,1") == (1, 8, "max")


@pytest.mark.parametrize("text", ["0", "-1", "a", "1.5", "", ",", "²"])
def test_other_batches_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_batches(text)
    assert "\n" not in str(error.value)


def test_protocols_are_named_by_their_batch() -> None:
    assert [protocol_of(b) for b in (1, 8, "max")] == ["batch-1", "batch-8", "largest-batch"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"models": ()}, "no model"),
        ({"ctxs": (0,)}, "at least 1 token"),
        ({"ctxs": ()}, "no context length"),
        ({"batches": (0,)}, "batch is at least 1"),
        ({"memory_budget": 0}, "--memory-budget is at least 1"),
        ({"memory_budget": -5}, "--memory-budget is at least 1"),
        ({"time_budget": 0.0}, "--time-budget"),
        ({"time_budget": float("nan")}, "--time-budget"),
        ({"repeats": 0}, "--repeats"),
        ({"decode_tokens": 0}, "--decode-tokens"),
        ({"chunk_tokens": 0}, "--chunk-tokens"),
        ({"prefill": "half"}, "prefill mode"),
        ({"dtype": "int8"}, "dtype"),
        ({"out": None}, "--out"),
        ({"time_budget": "5s"}, "--time-budget is a positive time in seconds, not '5s'"),
        ({"memory_budget": "1GiB"}, "--memory-budget is at least 1, not '1GiB'"),
        ({"decode_tokens": 1.5}, "--decode-tokens is at least 1, not 1.5"),
        ({"batches": ("x",)}, "batch is at least 1, or max, not 'x'"),
        ({"seed": "x"}, "--seed is a whole number"),
    ],
)
def test_what_cannot_be_measured_is_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        dataclasses.replace(GOOD, **change).check()  # type: ignore[arg-type]


def test_a_spec_is_recorded_as_json() -> None:
    GOOD.check()
    assert json.loads(json.dumps(GOOD.record()))["batches"] == [1, "max"]
