"""Pieces fill a prompt up to its room, never beyond."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count, repeat

from hypothesis import given, settings
from hypothesis import strategies as st

from kleval.tasks.fitting import Filled, fill, longest
from kleval.tokenization import load_tokenizer

WORDS = load_tokenizer("words")


def build(pieces: Sequence[str]) -> str:
    return "ask this: " + " ".join(pieces)


@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=5), room=st.integers(3, 3000))
@settings(deadline=None, max_examples=60)
def test_the_room_is_kept_and_used(sizes: list[int], room: int) -> None:
    pieces: Iterator[str] = (" ".join(repeat("word", sizes[i % len(sizes)])) for i in count())
    filled = fill(build, pieces, WORDS, room)
    assert isinstance(filled, Filled)
    assert filled.tokens == WORDS.count(str(filled.prompt)) <= room
    assert room - filled.tokens <= max(max(sizes), 0.005 * room)


def test_what_does_not_fit_bare_says_how_much_it_takes() -> None:
    assert fill(build, repeat("x"), WORDS, 2) == 3


def test_material_may_end() -> None:
    filled = fill(build, iter(["a", "b"]), WORDS, 1000)
    assert isinstance(filled, Filled)
    assert filled.n_pieces == 2


def test_pieces_that_count_for_nothing_end_too() -> None:
    filled = fill(build, repeat(" "), WORDS, 50)
    assert isinstance(filled, Filled)
    assert filled.n_pieces <= 200


@given(tokens=st.integers(0, 90), too_long=st.integers(1, 60))
def test_the_longest_that_counts_as_so_many_tokens_is_found(tokens: int, too_long: int) -> None:
    found = longest(lambda n: 3 * n // 2, tokens, too_long)
    assert found == max(n for n in range(too_long) if n == 0 or 3 * n // 2 <= tokens)
