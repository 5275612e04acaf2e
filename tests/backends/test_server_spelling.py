from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kleval.backends.server_spelling import spells


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        ([" To", "kyo"], " Tokyo"),
        ([r"bytes: \xe6\x9d".replace(": ", ":"), r"bytes:\xb1", "京"], "東京".replace("東", b"\xe6\x9d\xb1".decode())),
        (["<0xE6>", "<0x9D>", "<0xB1>"], b"\xe6\x9d\xb1".decode()),
        (["ĠMÃ¼n", "chen"], " München"),
        (["▁Mün", "chen"], " München"),
        (["a", "\ufffd", "\ufffd", "b"], "a東b"),
        (["a", "", "b"], "a東b"),
    ],
)
def test_every_spelling_of_a_text_is_known(tokens: list[str], text: str) -> None:
    assert spells(tokens, text)


@pytest.mark.parametrize(
    ("tokens", "text"), [(["Tok"], "Tokyo"), (["", ""], "東京"), (["\ufffd"], "東"), (["a", "", "c"], "a東b")]
)
def test_another_text_or_nothing_readable_is_not_taken_for_it(tokens: list[str], text: str) -> None:
    assert not spells(tokens, text)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1))
def test_a_text_cut_anywhere_is_itself(tokens: list[str]) -> None:
    assert spells(tokens, "".join(tokens))
