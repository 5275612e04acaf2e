"""Area under a score–length curve: a constant is its own area, lengths weigh by the logarithm, every length is of the same tasks."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kleval.tables.area import area, area_of_all, come_again
from kleval.tables.cells import Cell

scores = st.floats(0, 1)


def cell(task: str, ctx: int, value: float, half: float = 0.0) -> Cell:
    low, high = max(value - half, 0.0), min(value + half, 1.0)
    return Cell("m", task, ctx, "recall", "builtin", "p", value, low, high, "wilson", 10, 10, 0, 0, value, value, 10)


@given(scores, st.lists(st.integers(8, 20), min_size=2, max_size=6, unique=True))
def test_a_constant_score_is_its_own_area(value: float, powers: list[int]) -> None:
    found = area(cell("t", 2**power, value) for power in powers)
    assert found is not None
    assert found.value == pytest.approx(value)
    assert (found.first, found.last, found.lengths) == (2 ** min(powers), 2 ** max(powers), len(powers))


@given(scores, scores, scores)
def test_doublings_weigh_alike_and_ends_half(a: float, b: float, c: float) -> None:
    found = area([cell("t", 4096, c), cell("t", 1024, a), cell("t", 2048, b)])
    assert found is not None
    assert found.value == pytest.approx(a / 4 + b / 2 + c / 4)


def test_its_interval_is_square_and_add_with_these_weights() -> None:
    found = area([cell("t", 1024, 0.5, 0.1), cell("t", 2048, 0.5, 0.2), cell("t", 4096, 0.5, 0.3)])
    assert found is not None
    half = math.hypot(0.1 / 4, 0.2 / 2, 0.3 / 4)
    assert (found.low, found.high) == (pytest.approx(0.5 - half), pytest.approx(0.5 + half))


def test_one_length_has_no_area() -> None:
    assert area([cell("t", 1024, 0.5), cell("t", 2048, math.nan)]) is None
    assert area_of_all([cell("t", 1024, 0.5), cell("u", 2048, 0.5)]) is None


def test_every_length_is_of_the_same_tasks() -> None:
    cells = [cell("long", 2048, 1.0), cell("t", 1024, 0.2), cell("t", 2048, 0.4), cell("long", 1024, math.nan)]
    found = area_of_all(cells)
    assert found is not None
    assert (found[0].value, found[1]) == (pytest.approx(0.3), ("t",))


def test_prompts_that_come_again_make_the_interval_no_narrower_than_one_length_s() -> None:
    cells = [cell("t", 1024, 0.5, 0.2), cell("t", 2048, 0.5, 0.2)]
    alone, again = area(cells), area(cells, again=True)
    assert alone is not None
    assert again is not None
    assert (again.low, again.high) == (pytest.approx(0.3), pytest.approx(0.7))
    assert alone.low > again.low
    assert come_again([("t", "ab"), ("u", "ab"), ("t", "bc"), ("u", "cd")]) == {"t"}
