"""Cut, empty and looping answers."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kleval.tables.answer_lengths import Answered
from kleval.tables.answers import MAX_PERIOD, MIN_LOOP, MIN_REPEATS, condition, looped

WORDS = (
    "amber",
    "river",
    "stone",
    "cloud",
    "maple",
    "north",
    "lantern",
    "orchid",
    "pepper",
    "quartz",
    "velvet",
    "walnut",
)


@pytest.mark.parametrize(
    "text",
    [
        "!" * 16,
        "The answer is" + "!" * 60,
        "the the the the the the the the the the",
        "0 0 0 0 0 0 0 0 0 0 0 0",
        "\ufffd" * 20,
        "I do not know. " * 9,
        "42\n" * 12,
        "1234567 " * 16,
    ],
)
def test_what_repeats_to_its_end_is_a_loop(text: str) -> None:
    assert looped(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1111",
        "11111111",
        "ha ha",
        "ha ha ha ha",
        "42" + "\n" * 50,
        "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20",
        "9375710, 2746839, 1183749, 5527384",
        " 1. amber 2. river 3. stone 4. cloud 5. maple 6. north 7. lantern 8. orchid 9. pepper 10. quartz",
        "kxqvmd, zzpwlf, aoiuyb",
        "VAR ABCDE VAR FGHIJ VAR KLMNO VAR PQRST VAR UVWXY",
        "def f(x):\n    return x\n\n\n# ---------------------------------\n\ndef g(x):\n    return f(x) + f(x + 1) + 1\n",
        "00000000-0000-0000-0000-000000000001",
    ],
)
def test_right_answers_are_no_loops(text: str) -> None:
    assert not looped(text)


@given(
    unit=st.text(min_size=1, max_size=MAX_PERIOD).filter(lambda u: u.strip() == u),
    times=st.integers(MIN_REPEATS, 40),
    rest=st.integers(0, MAX_PERIOD - 1),
)
def test_any_short_unit_repeated_often_enough_is_a_loop_wherever_the_budget_ends_it(
    unit: str, times: int, rest: int
) -> None:
    text = unit * times + unit[:rest]
    # What is stripped of a last, cut unit may leave one less.
    assert looped(text) or len(text.strip()) < max(MIN_LOOP, MIN_REPEATS * len(unit))


@given(before=st.text(alphabet="abcdefgh ", max_size=30), n=st.integers(40, 200))
def test_a_loop_may_have_a_beginning_as_long_as_it_is_most_of_the_answer(before: str, n: int) -> None:
    assert looped(before + "!" * n)
    assert not looped(
        "!" * n + before.strip() + " and that was the end of it, said " + " ".join(WORDS) * (n // 20 + 1) + "."
    )


@given(seed=st.integers(0, 10_000), n=st.integers(1, 60))
def test_lists_of_drawn_words_and_numbers_are_no_loops(seed: int, n: int) -> None:
    rng = random.Random(seed)
    numbers = [str(rng.randrange(10**6, 10**7)) for _ in range(n)]
    assert not looped(", ".join(numbers))
    assert not looped(" ".join(f"{i}. {rng.choice(WORDS)}" for i in range(1, n + 1)))


def test_a_text_that_a_reference_holds_is_right_whatever_it_repeats() -> None:
    answer = ({"kind": "generate", "text": "0" * 20, "finish_reason": "eos"},)
    assert "looped" in condition(answer)
    assert "looped" not in condition(answer, ("0" * 20,))


def test_several_texts_are_broken_when_one_is_and_a_judges_words_do_not_count() -> None:
    whole = {"kind": "generate", "text": "Paris", "finish_reason": "eos"}
    cut = {"kind": "generate", "text": "Par", "finish_reason": "length"}
    judge = {"kind": "judge", "text": "", "finish_reason": "length"}
    assert condition((whole, cut)) == {"texts", "cut"}
    assert condition((whole, judge)) == {"texts"}
    assert not condition((judge,))
    assert not condition(({"kind": "generate", "failure": {"kind": "timeout"}},))


def test_the_text_of_a_likelihood_is_read_and_not_written() -> None:
    scored = {"kind": "loglikelihood", "prompt_tokens": 100, "output_tokens": 28}
    written = {"kind": "generate", "prompt_tokens": 50, "output_tokens": 7}
    found = Answered()
    for outcomes in ((scored, scored), (written,)):
        found.add(SimpleNamespace(failed=False, outcomes=outcomes, seconds=1.0))  # type: ignore[arg-type]
    assert (list(found.tokens), found.prompt_tokens) == ([0, 7], 306)
