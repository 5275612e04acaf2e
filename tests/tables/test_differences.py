"""Paired differences and their intervals."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_rel

from kleval.tables.differences import Difference, correlation, mcnemar, mean, paired

bits = st.sampled_from([0.0, 1.0])
pairs_of_bits = st.lists(st.tuples(bits, bits), min_size=1, max_size=20)


def scores(values: list[float]) -> dict[str, float]:
    return {f"s{i}": v for i, v in enumerate(values)}


@given(pairs_of_bits)
@settings(max_examples=50, deadline=None)
def test_swapping_the_models_mirrors_the_difference(pairs: list[tuple[float, float]]) -> None:
    a, b = scores([p[0] for p in pairs]), scores([p[1] for p in pairs])
    there, back = paired(a, b), paired(b, a)
    assert there is not None
    assert back is not None
    assert (there.value, there.low, there.high) == pytest.approx((-back.value, -back.high, -back.low))
    assert -1 <= there.low <= there.value <= there.high <= 1


def test_paired_proportions_follow_newcombes_formula() -> None:
    """36 both right, 12 only the first, 2 only the second of 50; the limits written out with phi from the counts."""
    both, first, second, neither = 36, 12, 2, 0
    n, z2 = 50, 1.959963984540054**2

    def wilson(k: int) -> tuple[float, float, float]:
        p = k / n
        half = math.sqrt(z2 * (p * (1 - p) / n + z2 / (4 * n * n)))
        return p, (p + z2 / (2 * n) - half) / (1 + z2 / n), (p + z2 / (2 * n) + half) / (1 + z2 / n)

    p1, l1, u1 = wilson(both + first)
    p2, l2, u2 = wilson(both + second)
    margins = (both + first) * (second + neither) * (both + second) * (first + neither)
    phi = (both * neither - first * second) / math.sqrt(margins)
    low = p1 - p2 - math.sqrt((p1 - l1) ** 2 + (u2 - p2) ** 2 - 2 * phi * (p1 - l1) * (u2 - p2))
    high = p1 - p2 + math.sqrt((u1 - p1) ** 2 + (p2 - l2) ** 2 - 2 * phi * (u1 - p1) * (p2 - l2))

    found = paired(scores([1.0] * 48 + [0.0] * 2), scores([1.0] * 36 + [0.0] * 12 + [1.0] * 2))
    assert found is not None
    assert (found.value, found.low, found.high, found.n) == pytest.approx((p1 - p2, low, high, 50))
    assert found.clear


@pytest.mark.parametrize(("n", "clear"), [(2, False), (5, False), (6, True)])
def test_discordant_pairs_all_in_one_direction_are_clear_from_six(n: int, clear: bool) -> None:
    """2 x 0.5^5 = 0.0625, 2 x 0.5^6 = 0.03125."""
    found = paired(scores([1.0] * n + [0.0] * 2), scores([0.0] * (n + 2)))
    assert found is not None
    assert found.p == pytest.approx(2 * 0.5**n)
    assert found.clear == clear


@given(st.integers(0, 12), st.integers(0, 12))
@settings(max_examples=30, deadline=None)
def test_mcnemar_is_the_two_sided_binomial_test(b: int, c: int) -> None:
    from scipy.stats import binomtest

    expected = binomtest(b, b + c, 0.5).pvalue if b + c else 1.0
    assert mcnemar(b, c) == pytest.approx(expected)


def test_mcnemar_of_a_million_pairs_is_exact_too() -> None:
    """Not by the sum over all of them, whose terms have as many digits."""
    from scipy.stats import binomtest

    assert mcnemar(499_000, 501_000) == pytest.approx(binomtest(499_000, 1_000_000, 0.5).pvalue, rel=1e-6)


def test_fractional_scores_have_no_exact_test() -> None:
    found = paired(scores([0.5, 1.0]), scores([0.0, 0.25]))
    assert found is not None
    assert found.p is None


def test_two_models_that_are_always_right_still_have_an_interval() -> None:
    found = paired(scores([1.0] * 10), scores([1.0] * 10))
    assert found is not None
    assert found.low < 0 == found.value < found.high


def test_only_shared_samples_count() -> None:
    found = paired({"a": 1.0, "b": 0.0, "c": 0.0}, {"a": 0.0, "b": 0.0, "d": 1.0})
    assert found is not None
    assert (found.value, found.n) == (0.5, 2)
    assert paired({"a": 1.0}, {"b": 1.0}) is None


def test_the_mean_of_k_equal_differences_narrows_by_root_k() -> None:
    found = mean([Difference(0.5, 0.4, 0.7, 10)] * 4)
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.45, 0.6))
    assert found.n == 40
    assert mean([]) is None


def test_correlation_of_a_constant_is_zero() -> None:
    assert correlation([1, 1, 1], [0, 1, 0]) == 0


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="pairs"):
        correlation([1.0], [1.0, 0.0])


def test_a_few_graded_pairs_take_students_interval() -> None:
    xs, ys = [0.9, 0.8, 0.75, 0.6, 0.5, 0.95], [0.7, 0.7, 0.5, 0.55, 0.3, 0.7]
    found, theirs = paired(scores(xs), scores(ys)), ttest_rel(xs, ys).confidence_interval()
    assert found is not None
    assert (found.low, found.high) == pytest.approx((float(theirs.low), float(theirs.high)))
