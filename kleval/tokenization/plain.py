"""Tokenizers that come without a model: words, and the encodings of the tiktoken package."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from kleval.tokenization.chat import join_prompt
from kleval.types import Prompt, UsageError

if TYPE_CHECKING:
    import tiktoken

_WORD = re.compile(r"\w+|[^\w\s]")


class WordTokenizer:
    r"""`re.findall(r"\w+|[^\w\s]", text)`; decode is lossy."""

    def __init__(self) -> None:
        self.name = "words"
        self.digest = hashlib.sha256(_WORD.pattern.encode()).hexdigest()
        self.chat_template_digest = ""
        self.eos_id: int | None = None
        self._ids: dict[str, int] = {}
        self._tokens: list[str] = []

    @property
    def vocab_size(self) -> int:
        """Distinct tokens seen so far."""
        return len(self._tokens)

    def encode(self, text: str) -> list[int]:
        ids = self._ids
        out = []
        for token in _WORD.findall(text):
            known = ids.get(token)
            if known is None:
                known = ids[token] = len(self._tokens)
                self._tokens.append(token)
            out.append(known)
        return out

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(self._tokens[i] for i in ids)

    def count(self, text: str) -> int:
        return len(_WORD.findall(text))

    def render(self, prompt: Prompt, answer_prefix: str = "") -> str:
        return join_prompt(prompt, answer_prefix)


class TiktokenTokenizer:
    """An encoding of the tiktoken package. Text that looks like a special token is encoded as plain text."""

    def __init__(self, encoding: str) -> None:
        self._encoding = _tiktoken_encoding(encoding)
        self.name = f"tiktoken:{encoding}"
        self.digest = tiktoken_digest(self._encoding)
        self.chat_template_digest = ""
        self.eos_id: int | None = self._encoding.eot_token
        self.vocab_size: int = self._encoding.n_vocab

    def encode(self, text: str) -> list[int]:
        return self._encoding.encode_ordinary(text)

    def decode(self, ids: Sequence[int]) -> str:
        return self._encoding.decode(list(ids))

    def count(self, text: str) -> int:
        return len(self._encoding.encode_ordinary(text))

    def render(self, prompt: Prompt, answer_prefix: str = "") -> str:
        return join_prompt(prompt, answer_prefix)


def _tiktoken_encoding(encoding: str) -> tiktoken.Encoding:
    import tiktoken

    names = tiktoken.list_encoding_names()
    if encoding not in names:
        near = difflib.get_close_matches(encoding, names, n=3, cutoff=0.4)
        raise UsageError(f"tiktoken has no encoding {encoding!r}; try {', '.join(near or names)}")
    try:
        return tiktoken.get_encoding(encoding)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"tiktoken:{encoding}: its vocabulary is not cached and could not be downloaded"
            f" ({type(error).__name__}); set TIKTOKEN_CACHE_DIR to a folder that holds it"
        ) from error


@lru_cache(maxsize=8)
def tiktoken_digest(encoding: tiktoken.Encoding) -> str:
    """sha256 (hex) over name, pattern, special tokens and ranks of an encoding."""
    h = hashlib.sha256(f"{encoding.name}\0{encoding._pat_str}\0{sorted(encoding._special_tokens.items())}".encode())
    for token, rank in encoding._mergeable_ranks.items():
        h.update(token + b"\0%d\0" % rank)
    return h.hexdigest()
