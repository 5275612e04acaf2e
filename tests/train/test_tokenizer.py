import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kleval.tokenization import HFTokenizer
from kleval.train.nano import nano_folder


@pytest.fixture(scope="module")
def tokenizer():
    return HFTokenizer.from_file(nano_folder() / "tokenizer.json", name="nano")


@given(text=st.text(max_size=200))
def test_any_text_survives(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_no_text_encodes_to_the_end_token(tokenizer):
    ids = tokenizer.encode("<|eos|> a <|eos|>")
    assert tokenizer.eos_id not in ids
    assert tokenizer.decode(ids) == "<|eos|> a <|eos|>"


def test_every_digit_is_a_token_of_its_own(tokenizer):
    pieces = [tokenizer.decode([i]) for i in range(tokenizer.vocab_size)]
    assert not [p for p in pieces if re.search(r"\d.|.\d", p)]
