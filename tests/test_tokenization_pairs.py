"""A prompt and what follows it."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from sentencepiece_like import write_sentencepiece_like
from tokenizers import decoders, models, pre_tokenizers

from kleval.tokenization import HFTokenizer, decode_behind, encode_pair, load_tokenizer
from kleval.types import UsageError

END, BEGIN = 256, 257


def byte_level(folder: Path, **named: str) -> HFTokenizer:
    """A token per byte, and <e> and <b>; named: of tokenizer_config.json."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: i for i, letter in enumerate(letters)}
    core = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(["<e>", "<b>"])
    core.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    return HFTokenizer.from_file(folder, "bytes")


def test_blanks_at_the_end_of_a_prompt_belong_to_what_follows(tmp_path: Path) -> None:
    tokenizer = byte_level(tmp_path)
    head, tail = encode_pair(tokenizer, "ab  ", "c")
    assert (tokenizer.decode(head), tokenizer.decode(tail)) == ("ab", "  c")


@pytest.mark.parametrize(
    ("named", "first"),
    [({"bos_token": "<b>", "eos_token": "<e>"}, BEGIN), ({"eos_token": "<e>"}, END)],
)
def test_what_follows_nothing_follows_the_beginning(tmp_path: Path, named: dict[str, str], first: int) -> None:
    tokenizer = byte_level(tmp_path, **named)
    head, tail = encode_pair(tokenizer, "", "abc")
    assert head == (first,)
    assert tokenizer.decode(tail) == "abc"


def test_a_beginning_that_is_there_is_not_doubled(tmp_path: Path) -> None:
    head, tail = encode_pair(byte_level(tmp_path, bos_token="<b>"), "", "<b>ab")
    assert head == (BEGIN,)
    assert len(tail) == 2


def test_a_tokenizer_without_a_beginning_says_so() -> None:
    with pytest.raises(UsageError, match="no token that begins or ends a text"):
        encode_pair(load_tokenizer("words"), "", "a")


@pytest.fixture(scope="module")
def llama_like(tmp_path_factory: pytest.TempPathFactory) -> HFTokenizer:
    return HFTokenizer.from_file(write_sentencepiece_like(tmp_path_factory.mktemp("llama")), "llama-like")


@given(st.text("ax= \n(é東🦊"), st.text("ax= \n(é東🦊"))
def test_an_answer_behind_a_prompt_is_what_the_text_goes_on_with(
    llama_like: HFTokenizer, begun: str, more: str
) -> None:
    head, whole = (llama_like.encode("d" + text) for text in (begun, begun + more))
    if whole[: len(head)] == head:
        assert decode_behind(llama_like, head[-1], whole[len(head) :]) == more


def test_a_tokenizer_that_takes_no_blank_away_decodes_as_before(tmp_path: Path) -> None:
    draws = random.Random(0)
    for tokenizer in (byte_level(tmp_path), load_tokenizer("nano-2")):
        for n in range(200):
            last, *ids = (draws.randrange(256) for _ in range(n % 9 + 1))
            assert decode_behind(tokenizer, last, ids) == tokenizer.decode(ids)


def test_a_blank_that_the_tokenizer_puts_behind_a_special_token_is_none_of_the_text(llama_like: HFTokenizer) -> None:
    end, *ids = llama_like.encode("</s>a x")
    assert (decode_behind(llama_like, end, ids), decode_behind(llama_like, None, ids)) == ("a x", " a x")
