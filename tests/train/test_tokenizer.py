import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kleval.models.registry import load_model_tokenizer
from kleval.tokenization import NANO, load_tokenizer
from kleval.train import recipe, templates


@pytest.fixture(scope="module", params=NANO)
def tokenizer(request):
    return load_tokenizer(request.param)


@given(text=st.text(max_size=200))
@example(text=" One of the special magic numbers for \u0664 is: 007 \r\n\x00")
def test_any_text_survives(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_no_text_encodes_to_the_end_token(tokenizer):
    ids = tokenizer.encode("<|eos|> a <|eos|>")
    assert tokenizer.eos_id not in ids
    assert tokenizer.decode(ids) == "<|eos|> a <|eos|>"


def test_no_token_knows_a_number_of_more_than_two_digits(tokenizer):
    pieces = [tokenizer.decode([i]) for i in range(tokenizer.vocab_size)]
    mixed = [p for p in pieces if re.search(r"\d.|.\d", p) and not re.fullmatch(r"\d\d", p)]
    assert [p for p in mixed if p not in {b + q for q in templates.phrases() for b in ("", " ")}] == []


def test_a_phrase_of_a_template_is_one_token():
    tokenizer = load_tokenizer("nano-2")
    assert [p for p in templates.phrases() if len(tokenizer.encode(f" {p}")) != 1] == []


def test_the_models_have_the_recipes_tokenizer_and_the_first_ones_keep_theirs():
    assert load_tokenizer(recipe.load().tokenizer).digest == load_model_tokenizer("kimi-linear").digest
    assert load_tokenizer("nano-1").digest == "3093ad411dca9af0f1c228b2f612b7b18ec1791e30b871ffe109c5b051d9b751"
