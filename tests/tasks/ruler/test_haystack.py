from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kleval.tasks.ruler.haystack import Essays, in_pieces, over_again, prose, punkt_splitter, read_essays

Split = Callable[[str], list[tuple[int, int]]]


@pytest.fixture(scope="module")
def punkt(fixtures_dir: Path) -> Split:
    return punkt_splitter(fixtures_dir / "ruler/assets/nltk_data/tokenizers/punkt_tab/english")


@pytest.fixture(scope="module")
def whole(fixtures_dir: Path) -> Split:
    """nltk's own, which splits a text in one."""
    from nltk.tokenize.punkt import PunktTokenizer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nltk.data.path", [str(fixtures_dir / "ruler/assets/nltk_data")])
        tokenizer = PunktTokenizer("english")
    return lambda text: list(tokenizer.span_tokenize(text))


@pytest.fixture(scope="module")
def essays(fixtures_dir: Path) -> Essays:
    folder = fixtures_dir / "ruler/assets"
    return read_essays(folder / "PaulGrahamEssays.json", folder / "nltk_data/tokenizers/punkt_tab/english")


def test_the_splitter_is_nltks_own(fixtures_dir: Path, punkt: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    import nltk

    monkeypatch.setattr(nltk.data, "path", [str(fixtures_dir / "ruler/assets/nltk_data")])
    text = 'Mr. Smith paid $3.50 e.g. for tea. "Really?" he asked... Then (at 5 p.m.) he left. U.S. firms vs. others!'
    assert [text[a:b] for a, b in punkt(text)] == nltk.tokenize.sent_tokenize(text)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 6000), min_size=1, max_size=4))
def test_sentences_do_not_depend_on_what_was_asked_before(essays: Essays, whole: Split, sizes: list[int]) -> None:
    for size in sizes:
        text = essays.text(size)
        assert essays.sentences(size) == [text[a:b] for a, b in whole(text)]


@pytest.mark.parametrize("piece_chars", [2600, 5000, 20_000, 10**6])
def test_a_text_split_in_pieces_has_the_sentences_of_the_whole(essays: Essays, whole: Split, piece_chars: int) -> None:
    text = essays.text(8000)
    assert in_pieces(whole, text, piece_chars) == whole(text)


def test_no_piece_is_as_long_as_what_nltk_gives_up_on(essays: Essays, whole: Split) -> None:
    asked: list[int] = []

    def split(text: str) -> list[tuple[int, int]]:
        asked.append(len(text))
        return whole(text)

    in_pieces(split, essays.text(20_000), 30_000)
    assert max(asked) == 30_000


@pytest.mark.parametrize("sentence", ["x" * 9000 + ". ", "Ab. "])
def test_where_pieces_do_not_agree_the_text_is_split_whole(sentence: str) -> None:
    text = sentence * 3000

    def split(piece: str) -> list[tuple[int, int]]:
        """Sentences that depend on how long the text is."""
        size = len(sentence) if len(piece) == len(text) else len(piece) // 5
        return [(i, min(i + size, len(piece))) for i in range(0, len(piece), size)]

    assert in_pieces(split, text, 7000) == split(text)


@given(st.integers(1, 40))
def test_text_beyond_the_end_starts_over(size: int) -> None:
    source = "Once  upon\na time. There was. "
    words = ["Once", "upon", "a", "time.", "There", "was.", ""]
    essays = Essays(source, lambda text: [(0, len(text))])
    assert essays.text(size) == " ".join((words * 10)[:size]).strip()


def test_a_changed_list_of_sentences_is_not_the_cached_one() -> None:
    essays = Essays("A b c.", lambda text: [(0, len(text))])
    essays.sentences(2).append("more")
    assert essays.sentences(2) == ["A b"]


def test_prose_starts_where_it_is_told() -> None:
    assert prose(3, 4) == prose(0, 7)[3:]


def test_the_users_sentences_begin_anew_where_they_end() -> None:
    assert over_again("abc", 2, 5) == ["c", "a", "b", "c", "a"]
