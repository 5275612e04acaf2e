"""Units in words: one spelling each, and lengths that read back."""

from __future__ import annotations

import math

import pytest

from kleval import text as words
from kleval.text import duration, number, size


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (4.2e-5, "42.0 µs"),
        (0.0123, "12.3 ms"),
        (1.0, "1.00 s"),
        (65.46, "65.5 s"),
        (200.0, "3.33 min"),
        (math.nan, "–"),
    ],
)
def test_times_are_written_in_the_unit_that_suits_them(value: float, text: str) -> None:
    assert words.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(512, "512 B"), (8456011776, "7.88 GiB"), (44040192, "42.0 MiB"), (None, "–")]
)
def test_bytes_are_written_in_the_unit_that_suits_them(value: float | None, text: str) -> None:
    assert size(value, precise=True) == text


@pytest.mark.parametrize(("seconds", "text"), [(0, "0s"), (59.6, "1m00s"), (245, "4m05s"), (7620, "2h07m")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(512, "512 B"), (3.4 * 2**20, "3.4 MiB"), (2**50, "1024.0 TiB")])
def test_sizes(count: float, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(12345.6, "12,346"), (123.4, "123"), (12.34, "12.3"), (1.234, "1.23"), (0.01234, "0.0123"), (0, "0")],
)
def test_numbers_have_three_figures(value: float, text: str) -> None:
    assert float(number(value).replace(",", "")) == float(text.replace(",", ""))


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (words.format_length(131072), "128k"),
        (words.format_length(1 << 20), "1M"),
        (words.format_length(6000), "6000"),
        (words.format_lengths((1024, 2048)), "1k,2k"),
        (words.rate(1.234e12, "FLOP/s"), "1.23 TFLOP/s"),
        (words.rate(123_000, "tok/s"), "123 ktok/s"),
        (words.percent(0.095), "9.5 %"),
        (words.percent(0.12), "12 %"),
        (words.times(2.876), "2.88×"),
        (words.count(49_122_681_728), "49.12 B"),
        (words.count(917_000), "917 k"),
        (words.plural(1, "answer"), "1 answer"),
        (words.plural(1200, "answer"), "1,200 answers"),
        (words.score(0.5), "50.0"),
        (words.limits(0.25, 0.75), "25.0 – 75.0"),
        (words.signed(-0.031), "\u22123.1"),
        (words.signed(0.0001), "0.0"),
        (words.digest("sha256:" + "a" * 64), "a" * 12),
        (words.moment("2026-03-01T10:07:30+00:00"), "2026-03-01 10:07 UTC"),
    ],
)
def test_spellings(shown: str, text: str) -> None:
    assert shown == text


@pytest.mark.parametrize("spell", [words.seconds, words.size, words.percent, words.times, words.number, words.score])
def test_what_is_not_a_number_is_a_dash(spell: object) -> None:
    assert spell(math.nan) == words.DASH  # type: ignore[operator]
