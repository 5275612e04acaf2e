"""Truncation as in HELMET: a context that is too long loses tokens from its end (HELMET @ 4526dfb, `model_utils.py:tokenize`).

The official code takes the character where the k-th last token of the context begins. So does this, by decoding the tokens
before it; where a tokenizer cannot give a text back as it was, by the longest beginning that has so many tokens. Two
differences: the blank before a token belongs to it (some tokenizers' offsets leave it standing), and what is too long
still is cut again.
"""

from __future__ import annotations

from kleval.tasks.fitting import longest
from kleval.types import Tokenizer


def head(tokenizer: Tokenizer, text: str, n_removed: int) -> str:
    """text without its last n_removed tokens."""
    ids = tokenizer.encode(text)
    kept = len(ids) - n_removed
    if kept <= 0:
        return ""
    # The first half of a character that two tokens share decodes to U+FFFD.
    decoded = tokenizer.decode(ids[:kept]).rstrip("\ufffd")
    if text.startswith(decoded):
        return decoded
    return text[: longest(lambda n: tokenizer.count(text[:n]), kept, len(text))]
