"""What is cut off the end is counted in the model's tokens."""

from __future__ import annotations

import pytest

from kleval.tasks.helmet_icl.official import head
from kleval.types import Tokenizer

TEXT = "where is the blue kettle\nlabel: 12\n\nwhére ist das Fäßchen, 東京?\nlabel: 7\n\n" * 9


@pytest.fixture(params=["words", "tiny_bpe"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("n_removed", [1, 2, 13, 40, 111])
def test_a_beginning_is_left_with_so_many_tokens_fewer(tokenizer: Tokenizer, n_removed: int) -> None:
    left = head(tokenizer, TEXT, n_removed)
    assert TEXT.startswith(left)
    wanted = tokenizer.count(TEXT) - n_removed
    # A character of several tokens goes as a whole.
    assert wanted - 3 <= tokenizer.count(left) <= wanted


def test_nothing_is_left_of_what_has_too_few(tokenizer: Tokenizer) -> None:
    assert head(tokenizer, TEXT, tokenizer.count(TEXT)) == ""
    assert head(tokenizer, TEXT, 10**6) == ""


def test_a_word_goes_with_all_behind_it(words: Tokenizer) -> None:
    assert head(words, "one, two three four", 2).rstrip() == "one, two"
