from __future__ import annotations

import hashlib

from hypothesis import given, settings
from hypothesis import strategies as st

from kleval.tasks.ruler.words import Pairs, all_words, pairs, word_list


def test_the_lists_are_those_of_wonderwords_3_0_1() -> None:
    assert len(word_list("noun")) == 6782
    assert len(word_list("adjective")) == 912
    assert len(all_words()) == 8166
    assert len(pairs()) == 6_171_620


def test_pairs_equal_the_sorted_list_of_them_all() -> None:
    # Over every 997th of sorted({f"{a}-{n}" ...}), made once in full.
    shown = "\n".join(pairs()[i] for i in range(0, len(pairs()), 997))
    assert hashlib.sha256(shown.encode()).hexdigest() == (
        "da7a3cee7e6698f93390199aa38abab723020c583c858615fda540d2fba4784d"
    )


words_with_hyphens = st.lists(st.text("ab-", min_size=1, max_size=4), min_size=1, max_size=8)


@settings(max_examples=200, deadline=None)
@given(words_with_hyphens, words_with_hyphens)
def test_any_lists_give_the_sorted_distinct_pairs(adjectives: list[str], nouns: list[str]) -> None:
    assert list(Pairs(adjectives, nouns)) == sorted({f"{a}-{n}" for a in adjectives for n in nouns})
