"""Normalised answers, as SQuAD's scoring compares them (the same in HELMET's `utils.py` @ 4526dfb), and whether a text holds one."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
    """Lower case without ASCII punctuation and articles, single blanks."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def contains(text: str, references: Sequence[str]) -> float:
    """1 when the words of a reference stand, one after another, anywhere in the text."""
    answer = f" {normalize_answer(text)} "
    wanted = [normalize_answer(reference) for reference in references]
    return float(any(bool(words) and f" {words} " in answer for words in wanted))
