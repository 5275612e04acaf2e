import hashlib
from itertools import islice

from hypothesis import given, settings
from hypothesis import strategies as st

from kleval.tasks import prose

seeds = st.integers(0, 2**40)


def test_the_essay_is_the_same_on_every_machine():
    text = prose.essay(2000, seed=0)
    assert (
        hashlib.sha256(text.encode()).hexdigest() == "59d987827a001c25c58303c241529b6a3e6b6377d299581a5d4b55c4840eff15"
    )


@settings(max_examples=10, deadline=None)
@given(seeds, st.integers(1, 400))
def test_splitting_recovers_the_sentences(seed, words):
    found = prose.split_sentences(prose.essay(words, seed))
    assert found == list(islice(prose.sentences(seed), len(found)))


@settings(max_examples=10, deadline=None)
@given(seeds, st.integers(1, 300), st.integers(1, 300))
def test_a_longer_essay_begins_with_the_shorter_one(seed, a, b):
    assert prose.essay(max(a, b), seed).startswith(prose.essay(min(a, b), seed))


def test_essays_are_as_long_as_asked():
    for words in (1, 50, 3000):
        assert len(prose.essay(words).split()) >= words


def test_splits_share_no_sentence():
    train, evaluation = (set(islice(prose.sentences(7, split), 4000)) for split in ("train", "eval"))
    assert not train & evaluation
    assert {prose.belongs_to(s) for s in train} == {"train"}
    assert {prose.belongs_to(s) for s in evaluation} == {"eval"}


def test_nothing_in_it_looks_like_a_needle():
    text = prose.essay(20_000, seed=3)
    assert text.isascii()
    assert not [c for c in text if c.isdigit() or c in '-":;']
    assert "special magic" not in text


def test_sentences_seldom_repeat():
    found = list(islice(prose.sentences(1), 20_000))
    assert len(set(found)) > 0.98 * len(found)


def test_abbreviations_quotes_and_initials_do_not_end_a_sentence():
    text = 'Dr. Ada met Mr. J. Cole near St. Peter. "Why not?" she asked. He left! Was it 5 p.m. sharp?'
    assert prose.split_sentences(text) == [
        "Dr. Ada met Mr. J. Cole near St. Peter.",
        '"Why not?" she asked.',
        "He left!",
        "Was it 5 p.m. sharp?",
    ]
