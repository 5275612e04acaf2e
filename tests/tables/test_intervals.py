import itertools
import math
import random
import statistics
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, bootstrap

from kleval.tables.cells import Cell, families, mover, summarise
from kleval.tables.intervals import BCA_MAXIMUM, BCA_MINIMUM, N_RESAMPLES, interval, wilson


@dataclass(frozen=True)
class FakeRow:
    id: str
    score: float | None = None
    model: str = "m"
    task: str = "fam/a"
    ctx: int = 1024
    repeat: int = 0
    edition: str = "builtin"
    protocol: str = "p-1"
    metric: str = "acc"
    metrics: dict[str, float | None] = field(default_factory=dict)
    failure: dict[str, str] | None = None
    outcomes: tuple[dict[str, object], ...] = ()
    references: tuple[str, ...] = ()
    prompt_hash: str = ""
    max_new_tokens: int = 32
    answer_prefix: str = ""


FAILED = {"kind": "timeout", "message": ""}


def rows(*scores, **more):
    return [
        FakeRow(f"s{i}", None if s == "x" else s, failure=FAILED if s == "x" else None, **more)
        for i, s in enumerate(scores)
    ]


# Newcombe 1998, Statistics in Medicine 17:857, table I, method 3.
@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_newcombes_published_limits(k, n, low, high):
    got = interval([1.0] * k + [0.0] * (n - k))
    assert got.method == "wilson"
    assert (got.low, got.high) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
@settings(max_examples=60, deadline=None)
def test_wilson_is_scipys(kn):
    expected = binomtest(*kn).proportion_ci(0.95, method="wilson")
    assert wilson(*kn) == pytest.approx((expected.low, expected.high), abs=1e-12)


def exact_bca(values, alpha):
    """BCa limit of the mean from all n^n resamples, by Efron's formulas: no random number in it."""
    n, mean = len(values), statistics.fmean(values)
    means = sorted(statistics.fmean(c) for c in itertools.product(values, repeat=n))
    normal = statistics.NormalDist()
    below = sum(m < mean - 1e-12 for m in means) + sum(abs(m - mean) <= 1e-12 for m in means) / 2
    z0 = normal.inv_cdf(below / len(means))
    jack = [(sum(values) - v) / (n - 1) for v in values]
    centre = statistics.fmean(jack)
    a = sum((centre - j) ** 3 for j in jack) / (6 * sum((centre - j) ** 2 for j in jack) ** 1.5)
    z = z0 + normal.inv_cdf(alpha)
    level = normal.cdf(z0 + z / (1 - a * z))
    return means[round(level * (len(means) - 1))]


def test_bca_agrees_with_the_bootstrap_over_all_resamples(monkeypatch):
    values = [0.05, 0.1, 0.2, 0.3, 0.35, 0.9]
    monkeypatch.setattr("kleval.tables.intervals.BCA_MINIMUM", 2)
    monkeypatch.setattr("kleval.tables.intervals.N_RESAMPLES", 100_000)
    got = interval(values)
    assert got.method == "bca"
    assert got.low == pytest.approx(exact_bca(values, 0.025), abs=0.01)
    assert got.high == pytest.approx(exact_bca(values, 0.975), abs=0.01)


def skewed(kind, n):
    """Fractional values in [0, 1], most of them near one end or at a few steps."""
    rng = random.Random(n)
    draw = {
        "mostly zero": lambda: rng.choice([0.0] * 9 + [0.1, 0.5, 1.0]),
        "mostly right": lambda: 1 - rng.random() ** 8,
        "long tail": lambda: rng.random() ** 12,
        "recall of four": lambda: rng.choice([0.0, 0.25, 0.5, 0.75, 1.0, 1.0, 1.0]),
    }[kind]
    return [draw() for _ in range(n)]


KINDS = ("mostly zero", "mostly right", "long tail", "recall of four")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [20, 33, 400])
def test_bca_is_scipys_resample_for_resample(kind, n):
    values = sorted(skewed(kind, n))
    theirs = bootstrap(
        (np.array(values),), np.mean, n_resamples=N_RESAMPLES, batch=1000, method="BCa", rng=np.random.default_rng(5)
    ).confidence_interval
    ours = interval(values, seed=5)
    assert ours.method == "bca"
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_many_values_have_the_limits_that_the_bootstrap_would_give(kind, monkeypatch):
    values = skewed(kind, BCA_MAXIMUM + 1)
    analytic = interval(values)
    monkeypatch.setattr("kleval.tables.intervals.BCA_MAXIMUM", BCA_MAXIMUM + 1)
    resampled = interval(values)
    assert (analytic.method, resampled.method) == ("abc", "bca")
    width = resampled.high - resampled.low
    # 9,999 resamples know a limit to about 1.4 % of half the width (one standard deviation).
    assert analytic.low == pytest.approx(resampled.low, abs=0.03 * width)
    assert analytic.high == pytest.approx(resampled.high, abs=0.03 * width)


def test_the_analytic_interval_keeps_the_skewness_that_a_symmetric_one_loses():
    found = interval([1.0] * 60 + [0.5] + [0.0] * (BCA_MAXIMUM + 500))
    assert found.method == "abc"
    assert found.high - found.mean > 1.1 * (found.mean - found.low)


def test_one_value_among_thousands_stays_within_the_scale():
    found = interval([0.5] + [0.0] * 6000)
    assert 0 <= found.low < found.mean < found.high < 0.001


def test_bca_is_not_the_symmetric_interval_on_skewed_values():
    got = interval([0.0] * 18 + [0.1, 0.2, 0.9, 1.0])
    assert got.method == "bca"
    assert got.high - got.mean > got.mean - got.low


def test_bca_is_seeded_and_does_not_depend_on_the_order():
    values = [i / 23 for i in range(23)]
    assert interval(values, seed=3) == interval(values[::-1], seed=3)
    assert interval(values, seed=3) != interval(values, seed=4)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
@settings(max_examples=60, deadline=None)
def test_an_interval_is_finite_and_holds_its_mean(values):
    got = interval(values)
    assert 0 <= got.low <= got.mean <= got.high <= 1
    assert got.method in ("wilson", "bca", "wilson-fractional")


@pytest.mark.parametrize("values", [[0.4], [0.4, 0.8], [0.25] * 40])
def test_values_that_cannot_be_resampled_get_the_conservative_formula_and_say_so(values):
    got = interval(values)
    assert got.method == "wilson-fractional"
    assert (got.low, got.high) == wilson(sum(values), len(values))
    assert got.low < got.mean < got.high


def test_no_values_have_no_interval_and_say_so():
    for values in ([], [math.nan]):
        got = interval(values)
        assert got.method == "none"
        assert all(math.isnan(v) for v in (got.mean, got.low, got.high))


def test_values_outside_the_unit_interval_are_refused():
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        interval([0.5, 1.5])


def test_a_failure_is_not_a_wrong_answer_and_widens_the_bounds():
    [cell] = summarise(rows(1.0, 1.0, 0.0, "x", "x"))
    assert cell.value == pytest.approx(2 / 3)
    assert (cell.n_total, cell.n_scored, cell.n_failed, cell.n_samples) == (5, 3, 2, 3)
    assert (cell.bound_low, cell.bound_high) == pytest.approx((2 / 5, 4 / 5))


def test_a_cell_of_failures_has_no_value_and_knows_nothing():
    [cell] = summarise(rows("x", "x"))
    assert math.isnan(cell.value)
    assert (cell.ci_method, cell.n_failed, cell.bound_low, cell.bound_high) == ("none", 2, 0.0, 1.0)


def test_not_scored_is_neither_failed_nor_zero():
    [cell] = summarise(rows(1.0, None))
    assert (cell.value, cell.n_total, cell.n_scored, cell.n_failed) == (1.0, 2, 1, 0)
    assert (cell.bound_low, cell.bound_high) == (0.5, 1.0)


def test_repeats_are_averaged_within_their_sample_first():
    asked = [FakeRow("s0", 1.0, repeat=r) for r in range(4)] + [FakeRow("s1", 0.0)]
    [cell] = summarise(asked)
    assert cell.value == 0.5
    assert (cell.n_total, cell.n_samples) == (5, 2)
    assert (cell.ci_low, cell.ci_high) == wilson(1, 2)


answers = st.lists(
    st.tuples(st.integers(0, 5), st.one_of(st.just("x"), st.none(), st.floats(0, 1))), min_size=1, max_size=20
)


def as_rows(given_answers):
    return [
        FakeRow(f"s{sample}", None if v == "x" else v, repeat=i, failure=FAILED if v == "x" else None)
        for i, (sample, v) in enumerate(given_answers)
    ]


@given(answers)
@settings(max_examples=60, deadline=None)
def test_the_value_lies_between_its_bounds(given_answers):
    [cell] = summarise(as_rows(given_answers))
    assert 0 <= cell.bound_low <= cell.bound_high <= 1
    assert math.isnan(cell.value) or cell.bound_low - 1e-9 <= cell.value <= cell.bound_high + 1e-9
    assert cell.n_scored + cell.n_failed <= cell.n_total


@given(answers, st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_the_order_of_rows_does_not_matter(given_answers, rng):
    one = as_rows(given_answers)
    two = rng.sample(one, len(one))
    [a], [b] = summarise(one), summarise(two)
    assert repr(a) == repr(b)


def test_every_metric_has_a_cell_and_the_headline_comes_first():
    asked = [FakeRow(f"s{i}", 1.0, metrics={"acc": 1.0, "aaa": 0.5}) for i in range(3)]
    asked.append(FakeRow("s3", None, failure=FAILED))
    first, second = summarise(asked)
    assert (first.metric, first.headline, second.metric, second.headline) == ("acc", True, "aaa", False)
    assert (second.value, second.n_failed) == (0.5, 1)


def test_cells_keep_protocols_editions_and_lengths_apart():
    one = rows(1.0)
    asked = [*one, replace(one[0], protocol="p-2"), replace(one[0], edition="official"), replace(one[0], ctx=2048)]
    assert len(summarise(asked)) == 4


def test_a_skipped_cell_is_shown_without_a_value():
    skip = {"model": "m", "task": "fam/b", "ctx": 8, "edition": "builtin", "protocol": "p-1", "metric": "acc", "n": 5}
    cells = summarise(rows(1.0), [skip])
    [empty] = [cell for cell in cells if cell.task == "fam/b"]
    assert (empty.n_skipped, empty.n_total, empty.ci_method) == (5, 0, "none")


def cell(task, value, low, high, **more):
    base = Cell("m", task, 1024, "acc", "builtin", "p-1", value, low, high, "wilson", 10, 10, 0, 0, value, value, 10)
    return replace(base, **more)


def test_a_familys_mean_combines_its_tasks_intervals_by_square_and_add():
    cells = [cell("fam/a", 0.5, 0.3, 0.7), cell("fam/b", 1.0, 0.7, 1.0)]
    [mean] = families(cells)
    assert (mean.task, mean.metric, mean.n_tasks, mean.ci_method) == ("fam", "average", 2, "mover")
    assert mean.value == 0.75
    assert mean.ci_low == pytest.approx(0.75 - math.hypot(0.2, 0.3) / 2)
    assert mean.ci_high == pytest.approx(0.75 + 0.2 / 2)


def test_the_mean_of_one_cell_has_that_cells_interval():
    got = mover([cell("fam/a", 0.5, 0.3, 0.7)])
    assert (got.mean, got.low, got.high) == pytest.approx((0.5, 0.3, 0.7))


def test_a_familys_mean_names_the_tasks_it_lacks():
    cells = [
        cell("fam/a", 0.5, 0.3, 0.7),
        cell("fam/b", 1.0, 0.7, 1.0),
        cell("fam/a", 0.2, 0.1, 0.4, ctx=2048),
        cell("fam/b", math.nan, math.nan, math.nan, ctx=2048, n_scored=0, n_failed=10, bound_low=0.0, bound_high=1.0),
    ]
    _, long = families(cells)
    assert (long.ctx, long.value, long.n_tasks, long.missing) == (2048, 0.2, 1, ("fam/b",))
    assert (long.bound_low, long.bound_high) == pytest.approx((0.1, 0.6))


def test_a_lone_task_is_no_family():
    assert families([cell("fam/a", 0.5, 0.3, 0.7)]) == []


def test_the_bootstrap_needs_a_minimum_of_values():
    assert interval([0.1 + i / 100 for i in range(BCA_MINIMUM)]).method == "bca"
    assert interval([0.1 + i / 100 for i in range(BCA_MINIMUM - 1)]).method == "wilson-fractional"


def test_a_groups_mean_weighs_its_tasks_by_their_samples_and_a_family_without_a_mean_has_none() -> None:
    cells = list(summarise([*rows(1.0, 1.0, 1.0, task="lm_eval/a"), *rows(0.0, task="lm_eval/b")]))
    assert families(cells) == []
    (mean,) = families(cells, {"lm_eval/ab:5shot": ("lm_eval/a", "lm_eval/b")})
    assert (mean.task, mean.value, mean.n_tasks, mean.n_samples) == ("lm_eval/ab:5shot", 0.75, 2, 4)
    assert mean.ci_low < 0.75 < mean.ci_high


def text(score, answer, finish="eos", **more):
    return FakeRow(
        more.pop("id", answer or "nothing"),
        score,
        outcomes=({"kind": "generate", "text": answer, "finish_reason": finish},),
        **more,
    )


def test_broken_answers_are_counted_and_leave_the_mean_of_the_completed():
    given_rows = [
        text(1.0, "Paris"),
        text(0.0, "Rome"),
        text(1.0, "It is Paris, and", "length"),
        text(0.0, ""),
        text(0.0, "!" * 40, "length"),
        text(None, " ", failure=FAILED),
    ]
    (cell,) = summarise(given_rows)
    assert (cell.n_texts, cell.n_cut, cell.n_empty, cell.n_looped) == (6, 2, 2, 1)
    assert (cell.value, cell.n_scored) == (pytest.approx(0.4), 5)
    assert (cell.value_completed, cell.n_completed) == (0.5, 2)


def test_likelihoods_are_no_texts_and_count_as_completed():
    (cell,) = summarise(FakeRow(f"s{i}", 1.0, outcomes=({"kind": "loglikelihood", "text": ""},)) for i in range(3))
    assert (cell.n_texts, cell.n_empty, cell.n_completed, cell.value_completed) == (0, 0, 3, 1.0)


def test_without_a_completed_answer_there_is_no_value_of_them():
    (cell,) = summarise([text(1.0, "right, but", "length")])
    assert math.isnan(cell.value_completed)
    assert cell.n_completed == 0


def test_a_familys_completed_mean_is_over_the_tasks_that_have_one():
    cells = summarise(
        [text(1.0, "a", task="fam/a"), text(0.0, "b", task="fam/b"), text(0.5, "c", "length", task="fam/c")]
    )
    (mean,) = families(cells)
    assert (mean.n_texts, mean.n_cut, mean.n_completed, mean.value_completed) == (3, 1, 2, 0.5)
