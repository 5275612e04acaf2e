"""Normalised answers, as SQuAD's scoring compares them (the same in HELMET's `utils.py` @ 4526dfb), whether a text holds one, what an
assertion in Python says, and the n-grams that two texts share."""

from __future__ import annotations

import ast
import re
import string
import warnings
from collections import Counter
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


def asserted(text: str) -> ast.expr | None:
    """The one expression of Python that a text is, or asserts; None where it is something else."""
    try:
        with warnings.catch_warnings(action="ignore"):
            (node,) = ast.parse(text).body
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return node.test if isinstance(node, ast.Assert) else node.value if isinstance(node, ast.Expr) else None


def equates(node: ast.Compare) -> bool:
    """Whether it compares two sides by `==`, and nothing else."""
    return len(node.ops) == 1 and isinstance(node.ops[0], ast.Eq)


def overlap(said: Sequence[str], wanted: Sequence[str], n: int) -> tuple[int, int, int]:
    """How many n-grams both have, and how many each."""
    grams = [Counter(zip(*(words[start:] for start in range(n)), strict=False)) for words in (said, wanted)]
    return (grams[0] & grams[1]).total(), grams[0].total(), grams[1].total()
