"""Paired tests of two models: hand-computed values, scipy, and the rates that simulation gives."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from kleval.tables import paired
from kleval.tables.paired import MOST, Contrast, Pair, contrast, holm, permutation

BOTH, LOST, GAINED, NEITHER = (1.0, 1.0), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0)


def found(*strata: list[Pair]) -> Contrast:
    result = contrast(strata)
    assert result is not None
    return result


def test_right_and_wrong_take_mcnemars_exact_test() -> None:
    """2 gained, 9 lost of 50: twice P(X <= 2) of 11 fair coins, 2 (1 + 11 + 55) / 2048."""
    one = found([GAINED] * 2 + [LOST] * 9 + [BOTH] * 30 + [NEITHER] * 9)
    assert one.test == "McNemar, exact"
    assert (one.gained, one.lost, one.n) == (2, 9, 50)
    assert (one.a, one.b, one.difference.value) == pytest.approx((0.78, 0.64, -0.14))
    assert one.p == pytest.approx(134 / 2048) == pytest.approx(stats.binomtest(2, 11).pvalue)


def test_few_graded_pairs_are_permuted_in_all_ways() -> None:
    """Differences 0.5, 0.25, -0.25: of 8 sign patterns |sum| >= 0.5 in 6 of them."""
    sums = [abs(a * 0.5 + b * 0.25 + c * 0.25) for a in (1, -1) for b in (1, -1) for c in (1, -1)]
    assert permutation([[0.5, 0.25, -0.25]]) == pytest.approx(sum(s >= 0.5 for s in sums) / 8)


def test_many_graded_pairs_agree_with_scipys_permutation_test() -> None:
    rng = np.random.default_rng(5)
    x, y = rng.random(40), np.clip(rng.random(40) + 0.12, 0, 1)
    theirs = stats.permutation_test(
        (y, x), lambda a, b: np.mean(a - b), permutation_type="samples", n_resamples=9999, rng=rng
    )
    assert permutation([list(y - x)]) == pytest.approx(float(theirs.pvalue), abs=0.02)


def test_many_pairs_have_the_p_that_drawn_flips_come_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two strata of graded pairs, 6000 in all; of as many with one pair that outweighs them the flips are drawn."""
    rng = np.random.default_rng(3)
    strata = [list(rng.random(n) - 0.488) for n in (2500, 3500)]
    limit = permutation(strata)
    one_heavy = [*strata, [0.9]]
    heavy = permutation(one_heavy)
    monkeypatch.setattr(paired, "MANY_FLIPS", math.inf)
    assert limit == pytest.approx(permutation(strata), abs=0.01)
    assert heavy == permutation(one_heavy)


def test_strata_weigh_alike_whatever_their_size() -> None:
    one = found([LOST] * 2 + [BOTH] * 8, [BOTH] * 90)
    assert one.difference.value == pytest.approx(-0.1)
    assert one.test == "permutation"
    assert one.size == pytest.approx(4 / (1 / 10 + 1 / 90))


def test_strata_by_size_are_one_pool() -> None:
    one = contrast([[LOST] * 2 + [BOTH] * 8, [BOTH] * 90], by_size=True)
    assert one is not None
    assert (one.difference.value, one.test) == (pytest.approx(-0.02), "McNemar, exact")
    assert one.p == pytest.approx(2 * 0.5**2)
    assert one.size == pytest.approx(100)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=10), st.integers(2, 5))
def test_questions_that_come_again_at_every_length_say_no_more_than_once(pairs: list[Pair], lengths: int) -> None:
    once = permutation([[b - a for a, b in pairs]])
    alone = found(pairs)
    again = contrast([pairs] * lengths, marks=[range(len(pairs))] * lengths)
    assert again is not None
    assert again.p == pytest.approx(once)
    limits = [(one.difference.low, one.difference.high) for one in (again, alone)]
    assert limits[0] == pytest.approx(limits[1])
    assert again.size == pytest.approx(alone.size)


def test_only_the_strata_that_share_questions_are_dependent() -> None:
    """Two lengths of one set of questions, and a third stratum of others: as two strata of weights 2/3 and 1/3."""
    shared, other = [LOST] * 6 + [BOTH] * 14, [LOST] * 3 + [NEITHER] * 17
    three = contrast([shared, shared, other], marks=[range(20), range(20), []])
    apart = found(shared, shared, other)
    assert three is not None
    parts = [found(shared).difference, found(other).difference]
    down = math.hypot(2 / 3 * (parts[0].value - parts[0].low), 1 / 3 * (parts[1].value - parts[1].low))
    assert three.difference.low == pytest.approx(three.difference.value - down)
    assert three.difference.low < apart.difference.low
    assert three.size == pytest.approx(1 / ((2 / 3) ** 2 / 20 + (1 / 3) ** 2 / 20))


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_the_n_for_an_effect_is_miettinens() -> None:
    """Discordance (8 + 2) / (96 + 4) = 0.1, effect 0.05, and 1 / 0.05 for the exact test."""
    one = found([LOST] * 4 + [GAINED] * 4 + [BOTH] * 88)
    n = ((1.959964 * math.sqrt(0.1) + 0.841621 * math.sqrt(0.1 - 0.0025)) / 0.05) ** 2 + 20
    assert one.needed(0.05) == math.ceil(n)
    assert one.needed(one.detectable) == pytest.approx(96, abs=1)


def test_no_pair_that_differs_promises_nothing() -> None:
    one = found([BOTH] * 20)
    assert one.sign == 0
    assert one.detectable > 0.15
    few = contrast([[(0.5, 1.0), (1.0, 2.0), (0.0, 0.5)]], unit="nats per token")
    assert few is not None
    assert math.isnan(few.detectable)  # no difference is found by three pairs
    gains = contrast([[(2.5, 2.5)] * 20], unit="nats per token")
    assert gains is not None
    assert math.isnan(gains.detectable)
    assert gains.needed(0.1) == MOST


def right_wrong(rng: np.random.Generator, n: int, effect: float, discordance: float = 0.2) -> list[Pair]:
    """B - A is -effect on average."""
    u = rng.random(n)
    lost = (discordance + effect) / 2
    return [LOST if v < lost else GAINED if v < discordance else BOTH if v < 0.7 else NEITHER for v in u]


def graded(rng: np.random.Generator, n: int, effect: float) -> list[Pair]:
    level = rng.beta(3, 2, n)
    a, b = (np.clip(level + rng.normal(0, 0.15, n) - shift, 0, 1) for shift in (0.0, effect))
    return list(zip(a.tolist(), b.tolist(), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("make", [right_wrong, graded])
@pytest.mark.parametrize("n", [12, 24])
def test_of_1000_pairs_without_a_difference_few_are_found_different(make, n) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(7)
    signs = [found(make(rng, n, 0.0), make(rng, n, 0.0)).sign for _ in range(1000)]
    assert sum(sign != 0 for sign in signs) <= 64  # 50 expected at most; two standard errors of a simulation of 1 000
    assert sum(sign < 0 for sign in signs) <= 50


@pytest.mark.slow
@pytest.mark.parametrize(("make", "effect"), [(right_wrong, 0.08), (graded, 0.12)])
def test_the_n_that_it_names_finds_the_planted_effect(make, effect) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(11)
    n = found(make(rng, 200, effect)).needed(effect)
    signs = [found(make(rng, n, effect)).sign for _ in range(1000)]
    assert sum(sign < 0 for sign in signs) >= 760  # 800 expected, n itself is estimated
    assert sum(sign > 0 for sign in signs) == 0
