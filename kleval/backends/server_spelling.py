r"""Tokens as servers spell them in an echoed prompt, compared with the text that they should be.

Spellings seen: plain text; `bytes:\xe6\x9d` for bytes that are no character of their own (OpenAI, vLLM); `<0xE6>` (sentencepiece);
GPT-2's letters for bytes (`Ġ`, `Ċ`); `▁` for a blank; U+FFFD, or nothing, where a token is part of a character.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache

_ESCAPED = re.compile(r"\\x([0-9a-fA-F]{2})")
_HEX_TOKEN = re.compile(r"<0x([0-9a-fA-F]{2})>")


def spells(tokens: Sequence[str], text: str) -> bool:
    """Whether the tokens can be the text; blanks at both ends do not count."""
    wanted = text.strip()
    for read in (_plain, _bytes, _pieces, _gpt2):
        if _joined(tokens, read).strip() == wanted:
            return True
    return _with_holes([_joined([token], _bytes) for token in tokens], wanted)


def _joined(tokens: Sequence[str], read: Callable[[str], bytes]) -> str:
    return b"".join(map(read, tokens)).decode("utf-8", "replace")


def _plain(token: str) -> bytes:
    return token.encode("utf-8", "replace")


def _bytes(token: str) -> bytes:
    if token.startswith("bytes:"):
        return bytes(int(pair, 16) for pair in _ESCAPED.findall(token))
    hexadecimal = _HEX_TOKEN.fullmatch(token)
    return bytes([int(hexadecimal[1], 16)]) if hexadecimal else _plain(token)


def _pieces(token: str) -> bytes:
    return _bytes(token.replace("▁", " "))


def _gpt2(token: str) -> bytes:
    letters = _byte_letters()
    return bytes(letters[c] for c in token) if all(c in letters for c in token) else _plain(token)


@cache
def _byte_letters() -> dict[str, int]:
    """GPT-2's printable letter of every byte (openai/gpt-2, encoder.py: bytes_to_unicode)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + n): b for n, b in enumerate(others)}


def _with_holes(tokens: Sequence[str], wanted: str) -> bool:
    """Whether the tokens are the text where each empty or unreadable one may be anything; false where all are."""
    whole = [token for token in tokens if token and "\ufffd" not in token]
    if len(whole) == len(tokens) or not "".join(whole).strip():
        return False
    first, *rest = _merged(tokens)
    first = first.lstrip()
    if not wanted.startswith(first):
        return False
    at = len(first)
    *middle, last = rest
    for part in middle:
        found = wanted.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return len(wanted) - len(last.rstrip()) >= at and wanted.endswith(last.rstrip())


def _merged(tokens: Sequence[str]) -> list[str]:
    """Runs of readable tokens as one text each, holes between them left out."""
    parts = [""]
    for token in tokens:
        pieces = (token or "\ufffd").split("\ufffd")
        parts[-1] += pieces[0]
        parts += pieces[1:]
    return parts
