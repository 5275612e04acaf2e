"""The number of examples at a length."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kleval.tasks.helmet_icl.official import LENGTHS, SPECS, shots_at


@pytest.mark.parametrize("name", SPECS)
def test_at_the_tables_lengths_it_is_the_tables(name: str) -> None:
    assert [shots_at(name, ctx) for ctx in LENGTHS] == [(n, "table") for n in SPECS[name].shots]


@pytest.mark.parametrize(
    ("name", "ctx", "expected"),
    [
        ("banking77", 6144, (270, "interpolated")),
        ("trec_coarse", 49152, (2450, "interpolated")),
        ("clinic150", 1024, (55, "extrapolated")),
        ("nlu", 1 << 20, (66368, "extrapolated")),
        ("trec_fine", 3, (1, "extrapolated")),
    ],
)
def test_elsewhere_it_is_in_proportion(name: str, ctx: int, expected: tuple[int, str]) -> None:
    assert shots_at(name, ctx) == expected


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(list(SPECS)), st.integers(1, 1 << 20), st.integers(1, 1 << 20))
def test_a_longer_context_never_has_fewer(name: str, one: int, other: int) -> None:
    low, high = sorted((one, other))
    assert shots_at(name, low)[0] <= shots_at(name, high)[0]
