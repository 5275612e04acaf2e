"""Kimi's tokenizer, read without its code: words as its pattern cuts them, special tokens, long texts in pieces."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kleval.tokenization import KimiTokenizer, load_tokenizer, read_tokenizer
from kleval.tokenization.kimi import PATTERN, pieces
from kleval.types import Tokenizer, UsageError

MERGES = [b"he", b"ll", b"hell", b"hello", b" w", "中".encode()[:2], "中".encode(), "中文".encode()]
BASE = 256 + len(MERGES)
CHAT = (
    "{% for m in messages %}<|im_{{ m.role }}|>{{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_assistant|>{% endif %}"
)


def rank_lines() -> list[bytes]:
    tokens = [*(bytes([i]) for i in range(256)), *MERGES]
    return [base64.b64encode(token) + b" %d" % rank for rank, token in enumerate(tokens)]


def config() -> dict[str, object]:
    names = {0: "[BOS]", 1: "[EOS]", 2: "<|im_end|>", 3: "<|im_user|>", 4: "<|im_assistant|>", 255: "[PAD]"}
    return {
        "added_tokens_decoder": {str(BASE + i): {"content": name, "special": True} for i, name in names.items()},
        "bos_token": "[BOS]",
        "eos_token": {"content": "[EOS]"},
        "chat_template": CHAT,
        "auto_map": {"AutoTokenizer": ["tokenization_kimi.TikTokenTokenizer", None]},
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tiktoken.model").write_bytes(b"\n".join(rank_lines()) + b"\n")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config()))
    (tmp_path / "tokenization_kimi.py").write_text("raise SystemExit('remote code was run')")
    return tmp_path


@pytest.fixture
def tokenizer(folder: Path) -> KimiTokenizer:
    return KimiTokenizer.from_folder(folder, "kimi")


def test_a_folder_with_a_rank_file_is_a_tokenizer(folder: Path) -> None:
    by_folder, by_file = load_tokenizer(f"hf:{folder}"), load_tokenizer(f"hf:{folder}/tiktoken.model")
    assert isinstance(by_folder, KimiTokenizer)
    assert isinstance(by_folder, Tokenizer)
    assert by_folder.digest == by_file.digest


def test_vocabulary_and_ends_are_the_files(tokenizer: KimiTokenizer) -> None:
    assert tokenizer.vocab_size == BASE + 256
    assert tokenizer.eos_id == BASE + 1
    assert tokenizer.decode([BASE + 7]) == f"<|reserved_token_{BASE + 7}|>"


def test_words_are_merged_by_rank(tokenizer: KimiTokenizer) -> None:
    assert tokenizer.encode("hello") == [256 + 3]
    assert tokenizer.encode("hel") == [256, ord("l")]


def test_han_runs_are_words_of_their_own(tokenizer: KimiTokenizer) -> None:
    """Without the first part of the pattern a letter before Han characters would be in one word with them."""
    import tiktoken

    assert tokenizer.encode("hello中文") == [256 + 3, 256 + 7]
    letters = {bytes([i]): i for i in range(256)} | {
        "a中".encode()[:2]: 256,
        "a中".encode()[:3]: 257,
        "a中".encode(): 258,
    }
    encoding = tiktoken.Encoding("letters", pat_str=PATTERN, mergeable_ranks=letters, special_tokens={})
    assert 258 not in encoding.encode("a中")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1234567", ["123", "456", "7"]),
        ("don't STOP", ["don't", " STOP"]),
        ("a  b\n\n c", ["a", " ", " b", "\n\n", " c"]),
        ("x=1;  ", ["x", "=", "1", ";", "  "]),
        ("HelloWorld", ["Hello", "World"]),
        ("中文English混合", ["中文", "English", "混合"]),
    ],
)
def test_the_pattern_cuts_words_as_published(text: str, words: list[str]) -> None:
    """With a vocabulary in which every expected word is one token, and none spans two of them."""
    import tiktoken

    ranks = {bytes([i]): i for i in range(256)}
    for word in words:
        raw = word.encode()
        for n in range(2, len(raw) + 1):
            ranks.setdefault(raw[:n], len(ranks))
    encoding = tiktoken.Encoding("words", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={})
    assert [encoding.decode([i]) for i in encoding.encode(text)] == words


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=60))
def test_text_comes_back(text: str) -> None:
    import tiktoken

    encoding = tiktoken.Encoding(
        "bytes", pat_str=PATTERN, mergeable_ranks={bytes([i]): i for i in range(256)}, special_tokens={}
    )
    clean = text.encode("utf-8", "replace").decode()
    assert encoding.decode([i for p in pieces(clean, 7, 3) for i in encoding.encode_ordinary(p)]) == clean


@settings(max_examples=100, deadline=None)
@given(st.text("ab \n", max_size=60), st.integers(1, 20), st.integers(1, 6))
def test_pieces_join_to_the_text_and_cut_only_long_runs(text: str, piece: int, run: int) -> None:
    cut = list(pieces(text, piece, run))
    assert "".join(cut) == text
    assert all(len(part) <= piece for part in cut)
    position = 0
    for part in cut[:-1]:
        position += len(part)
        inside_run = text[max(0, position - run) : position + 1]
        assert position % piece == 0 or len({c.isspace() for c in inside_run}) == 1


def test_long_runs_of_blanks_do_not_crash_the_encoder(tokenizer: KimiTokenizer) -> None:
    text = "a" + " " * 1_000_000 + "b"
    with pytest.raises(ValueError, match="stack"):
        tokenizer._encoding.encode(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_chat_is_rendered_and_its_special_tokens_are_encoded_as_such(tokenizer: KimiTokenizer) -> None:
    text = tokenizer.render(({"role": "user", "content": "hello"},))
    assert text == "<|im_user|>hello<|im_end|><|im_assistant|>"
    assert tokenizer.encode(text) == [BASE + 3, 256 + 3, BASE + 2, BASE + 4]
    assert tokenizer.count(text) == 4


def test_a_saved_tokenizer_is_the_same(tokenizer: KimiTokenizer, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    tokenizer.save(copy)
    again = read_tokenizer(copy, "kimi")
    assert again.digest == tokenizer.digest
    assert again.chat_template_digest == tokenizer.chat_template_digest
    assert again.eos_id == tokenizer.eos_id


def test_the_digest_changes_with_a_special_token(tokenizer: KimiTokenizer, folder: Path) -> None:
    values = config()
    values["added_tokens_decoder"] = {}
    (folder / "tokenizer_config.json").write_text(json.dumps(values))
    assert read_tokenizer(folder, "kimi").digest != tokenizer.digest


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([b"not base64! 0"], "line 1: expected a token in base64"),
        ([b"YQ=="], "line 1"),
        ([*rank_lines()[:300], b"YWI= x"], "line"),
        (rank_lines()[1:], "are not 0, 1, 2"),
        ([], "is not whole"),
        ([base64.b64encode(b"a") + b" 0", base64.b64encode(b"b") + b" 1"], "no token for the single byte 0"),
    ],
)
def test_a_broken_rank_file_says_where(lines: list[bytes], said: str, folder: Path) -> None:
    (folder / "tiktoken.model").write_bytes(b"\n".join(lines))
    with pytest.raises(UsageError, match=said) as error:
        read_tokenizer(folder, "kimi")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("added", "said"),
    [
        ([], "not a table"),
        ({"x": {"content": "a"}}, "not a table"),
        ({"5": {"content": "[EOS]"}}, "added token 5 is none of the 256"),
        ({str(BASE + 256): {"content": "[EOS]"}}, "is none of the 256"),
    ],
)
def test_special_tokens_in_a_wrong_place_are_named(added: object, said: str, folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps(config() | {"added_tokens_decoder": added}))
    with pytest.raises(UsageError, match=said):
        read_tokenizer(folder, "kimi")


def test_a_rank_file_alone_is_not_enough(folder: Path) -> None:
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(UsageError, match=r"no tokenizer_config\.json"):
        read_tokenizer(folder, "kimi")


def test_a_folder_without_a_tokenizer_says_which_files_are_taken(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"put its tokenizer\.json there, or its tiktoken\.model"):
        read_tokenizer(tmp_path, "m")
