"""Filling a prompt with few counts of the whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from kleval.tasks.fitting import Filled, fill_by_characters
from kleval.tokenization import WordTokenizer

FRAME = "a question of some eight words comes here"


def build(pieces: Sequence[str]) -> str:
    return "\n".join([FRAME, *pieces])


def pieces(sizes: Sequence[int]) -> Iterator[str]:
    while True:
        for size in sizes:
            yield " ".join(["word"] * size)


@settings(deadline=None, max_examples=60)
@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=8), room=st.integers(8, 3000))
def test_what_is_made_fits_and_leaves_little_room(sizes: list[int], room: int) -> None:
    made = fill_by_characters(build, pieces(sizes), WordTokenizer(), room)
    assert isinstance(made, Filled)
    assert made.tokens == WordTokenizer().count(str(made.prompt)) <= room
    assert room - made.tokens <= max(2 * max(sizes), 0.02 * room)
    assert made.prompt == build([piece for piece, _ in zip(pieces(sizes), range(made.n_pieces), strict=False)])


def test_a_frame_that_does_not_fit_says_what_it_takes() -> None:
    assert fill_by_characters(build, pieces([1]), WordTokenizer(), 7) == 8


def test_pieces_may_end() -> None:
    made = fill_by_characters(build, iter(["one", "two"]), WordTokenizer(), 1000)
    assert isinstance(made, Filled)
    assert (made.n_pieces, made.tokens) == (2, 10)


def test_a_long_prompt_is_counted_as_a_whole_a_few_times_only() -> None:
    class Counting(WordTokenizer):
        counted = 0

        def count(self, text: str) -> int:
            self.counted += len(text)
            return super().count(text)

    tokenizer = Counting()
    made = fill_by_characters(build, pieces([50, 3, 17]), tokenizer, 200_000)
    assert isinstance(made, Filled)
    assert made.tokens > 0.99 * 200_000
    assert tokenizer.counted < 2.5 * len(str(made.prompt))
