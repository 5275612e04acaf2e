from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kleval.tasks.ruler.haystack import Essays, Prose, punkt_splitter, read_essays

Split = Callable[[str], list[tuple[int, int]]]


@pytest.fixture(scope="module")
def punkt(fixtures_dir: Path) -> Split:
    return punkt_splitter(fixtures_dir / "ruler/assets/nltk_data/tokenizers/punkt_tab/english")


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
def test_sentences_do_not_depend_on_what_was_asked_before(essays: Essays, punkt: Split, sizes: list[int]) -> None:
    for size in sizes:
        text = essays.text(size)
        assert essays.sentences(size) == [text[a:b] for a, b in punkt(text)]


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
    assert Prose(3).sentences(4) == Prose(0).sentences(7)[3:]
