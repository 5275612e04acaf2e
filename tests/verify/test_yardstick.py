"""Legal rounding: what is no fault, and what is left out of it."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from kleval.verify.engine import LIKELY, Reading, decimals_of, step_of
from kleval.verify.trial import Case, Deviation, Trial, compare, differ, worst
from kleval.verify.yardstick import FLOOR, Yardstick, yardstick


def trials(**sizes: list[float]) -> list[Trial]:
    return [
        Trial(Case("harmless", name, 100, lambda *_: Deviation(0.0), harmless=True), (), Deviation(size))
        for name, found in sizes.items()
        for size in found
    ]


def of(found: list[Trial], dtype: str = "bfloat16", n_checks: int = 200) -> Yardstick:
    return yardstick(found, 100, n_checks, 1e-3, dtype, numbers=True)


def drawn(scale: float, n: int, seed: int) -> list[float]:
    rng = random.Random(seed)
    return [scale * rng.lognormvariate(0, 0.3) for _ in range(n)]


def test_an_engine_that_repeats_itself_exactly_has_the_floor_of_its_dtype() -> None:
    assert of(trials(repeat=[0.0] * 9), "float32").limit == FLOOR["float32"]


def test_the_limit_is_beyond_all_that_is_harmless_and_below_five_times_that() -> None:
    found = trials(longer=drawn(0.08, 12, 0), copies=drawn(0.08, 12, 1), rescored=drawn(0.08, 12, 2))
    held = of(found)
    assert max(t.size for t in found) < held.limit < 5 * held.legal


def test_a_kind_far_above_the_others_is_left_out() -> None:
    right = trials(longer=drawn(0.08, 12, 0), copies=drawn(0.08, 12, 1))
    faulty = [*right, *trials(rescored=drawn(0.8, 12, 2))]
    assert of(faulty).left_out == ("rescored",)
    assert of(faulty).limit == of(right).limit


def test_a_kind_alone_above_what_the_dtype_explains_is_no_rounding() -> None:
    assert of(trials(rescored=[3.0, 4.0, 4.5, 5.0]), "bfloat16").left_out == ("rescored",)


def test_more_checks_and_fewer_false_alarms_need_a_higher_limit() -> None:
    found = trials(longer=drawn(0.08, 30, 0), copies=drawn(0.08, 30, 1))
    assert of(found, n_checks=2).limit <= of(found, n_checks=1000).limit
    assert (
        yardstick(found, 100, 50, 0.1, "bfloat16", True).limit
        <= yardstick(found, 100, 50, 1e-6, "bfloat16", True).limit
    )


def test_of_texts_the_share_that_parts_is_what_counts() -> None:
    found = trials(copies=[0.0] * 8 + [1.0] * 2)
    found = [replace(t, deviation=replace(t.deviation, texts=3, parted=2 * int(t.size))) for t in found]
    held = yardstick(found, 100, 10, 1e-3, "float32", numbers=False)
    assert held.flips == pytest.approx(5 / 32)


def test_written_tokens_are_compared_up_to_the_one_at_which_they_part() -> None:
    one = Reading((-1.0, -0.70, -3.0), (5, 6, 7))
    other = Reading((-1.0, -0.69, -9.0), (5, 8, 9))
    assert compare(one, other).size == pytest.approx(0.01)


@pytest.mark.parametrize("likely", [(), ({5: -0.02, 6: -5.0},)])
def test_two_different_tokens_that_are_both_sure_are_no_near_tie(likely: tuple[dict[int | str, float], ...]) -> None:
    one = Reading((-0.02,), (5,), likely)
    other = Reading((-0.02,), (8,), likely and ({8: -0.02, 9: -5.0},))
    assert compare(one, other).size > 3


def test_answers_without_ids_are_compared_up_to_where_their_likeliest_tokens_part() -> None:
    one = Reading((-0.70, -3.0), likely=({"a": -0.70, "b": -0.70}, {"c": -3.0}), text="ac")
    other = Reading((-0.70, -9.0), likely=({"b": -0.70, "a": -0.71}, {"d": -9.0}), text="bd")
    assert compare(one, other).size == pytest.approx(0.01)
    assert compare(replace(one, likely=()), replace(other, likely=())).size < 0.01


def test_an_answer_that_ends_where_another_goes_on_is_no_near_tie_if_that_was_sure() -> None:
    whole = Reading((-0.1, -0.02), (5, 6), text="ab")
    assert compare(whole, Reading((-0.1,), (5,), text="a", ended=True)).size > 0.6
    assert compare(whole, Reading((-0.1,), (5,), text="a")).size == 0  # it was asked for one
    likely = ({5: -0.1}, {6: -3.0, 7: -3.4})
    near = Reading((-0.1, -3.0), (5, 6), likely, "ab")
    assert compare(near, Reading((-0.1,), (5,), ({5: -0.1},), "a", ended=True)).size == pytest.approx(0.2)


def test_tokens_that_a_server_spells_alike_are_not_compared() -> None:
    one = Reading((-0.1,), likely=({"a": -0.1, "\ufffd": -3.0},), text="a")
    other = Reading((-0.1,), likely=({"a": -0.1, "\ufffd": -5.0},), text="a")
    assert compare(one, other).size == 0


def test_decimals_of_log_probabilities_are_counted_up_to_two() -> None:
    assert [decimals_of(numbers) for numbers in ((-1.5, -2.0), (-1.5, -0.25), (-1.5, -0.253), ())] == [1, 2, 3, 0]


def test_numbers_that_are_not_finite_on_one_side_are_the_largest_deviation() -> None:
    assert compare(Reading((-1.0,)), Reading(finite=False)).size == float("inf")
    assert differ([-1.0], [float("nan")]).size == float("inf")


def test_two_readings_without_numbers_say_nothing() -> None:
    nothing = compare(Reading(finite=False), Reading(finite=False))
    assert math.isnan(nothing.size)
    assert worst([nothing, Deviation(0.5)]).size == 0.5


def test_rounded_logits_are_told_by_their_steps() -> None:
    logits = [random.Random(n).uniform(4, 8) for n in range(LIKELY)]
    rounded = [round(x * 32) / 32 - 9.123456 for x in logits]
    assert step_of(rounded) in (1 / 32, 1 / 16, 1 / 8)
    assert step_of([x - 9.123456 for x in logits]) == 0.0


def test_a_step_of_the_logits_is_no_fault() -> None:
    found = trials(copies=[0.0] * 9)
    assert yardstick(found, 100, 50, 1e-3, "bfloat16", True, step=1 / 32).limit > 2 / 32


def test_of_rounded_logits_a_kind_that_stands_alone_is_rounding_up_to_some_steps() -> None:
    def limit(size: float) -> Yardstick:
        return yardstick(
            trials(copies=[0.0] * 9, rescored=drawn(size, 9, 0)), 100, 50, 1e-3, "bfloat16", True, step=1 / 64
        )

    assert limit(0.02).left_out == ()
    assert limit(0.3).left_out == ("rescored",)
