"""Lengths read as documented, and spell back to themselves."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kleval.lengths import MAX_LENGTHS, parse_length, parse_lengths
from kleval.text import format_length, format_lengths
from kleval.types import UsageError

lengths = st.integers(min_value=1, max_value=1 << 24)
few = settings(max_examples=50, deadline=None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4k", (4096,)),
        ("4K", (4096,)),
        ("1m", (1048576,)),
        ("1048576", (1048576,)),
        ("128k", (131072,)),
        ("1k,2k,4k", (1024, 2048, 4096)),
        (" 1k , 2k ,", (1024, 2048)),
        ("4k,4096", (4096,)),
        ("4k-1m*2", tuple(1 << bits for bits in range(12, 21))),
        ("1k-4k+1k", (1024, 2048, 3072, 4096)),
        ("1k-4k+2k", (1024, 3072)),
        ("4k-32k*2,100k", (4096, 8192, 16384, 32768, 102400)),
        ("4k-4k*2", (4096,)),
    ],
)
def test_spellings(text: str, expected: tuple[int, ...]) -> None:
    assert parse_lengths(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", ",", "0", "0k", "-4k", "4x", "k", "4 k", "1.5k", "4k-", "4k-1m", "8k-4k*2", "1k-4k*1", "1k-4k*k", "1k-4k+0",
     "1k-2k-4k*2", "1-1m+1", "四k", "9" * 5000, "17m", "4k-99m*2", "999999999999999"],
)  # fmt: skip
def test_what_is_no_length_is_one_line(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_lengths(text)
    assert str(caught.value)
    assert "\n" not in str(caught.value)


@few
@given(lengths)
def test_format_is_read_back(tokens: int) -> None:
    assert parse_length(format_length(tokens)) == tokens


@few
@given(st.lists(lengths, min_size=1, max_size=20))
def test_a_list_keeps_order_and_drops_repeats(values: list[int]) -> None:
    assert parse_lengths(format_lengths(tuple(values))) == tuple(dict.fromkeys(values))


@few
@given(st.integers(1, 4096), st.integers(0, 100_000), st.integers(2, 9))
def test_a_doubling_range_is_geometric_and_stays_within(start: int, more: int, factor: int) -> None:
    found = parse_lengths(f"{start}-{start + more}*{factor}")
    assert found[0] == start
    assert found[-1] <= start + more < found[-1] * factor
    assert all(b == a * factor for a, b in pairwise(found))


@few
@given(st.integers(1, 4096), st.integers(0, 50), st.integers(1, 4096))
def test_an_adding_range_is_arithmetic(start: int, steps: int, step: int) -> None:
    assert steps < MAX_LENGTHS
    assert parse_lengths(f"{start}-{start + steps * step}+{step}") == tuple(start + i * step for i in range(steps + 1))


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="0123456789km,-*+ .", max_size=20))
def test_any_text_gives_lengths_or_a_usage_error(text: str) -> None:
    try:
        found = parse_lengths(text)
    except UsageError:
        return
    assert found
    assert all(length > 0 for length in found)
