"""Frequent words extraction: the three most frequent coded words of a text whose word counts follow a zeta law.

Source: NVIDIA/RULER @ c3f5e3b, scripts/data/synthetic/freq_words_extraction.py. Word k of the vocabulary appears
floor(N k^-2 / zeta(2)) times; the most frequent one is replaced by dots and not asked for.
"""

from __future__ import annotations

import math
import string

from kleval.tasks.draws import Draws
from kleval.tasks.ruler.spec import TEXTS, Draft

TEMPLATE, PREFIX = TEXTS["fwe"]
WORD_LETTERS = 6
ALPHA = 2.0
ZETA_ALPHA = math.pi**2 / 6
TOKENS_PER_WORD = 50


def vocabulary(draws: Draws, words: int) -> list[str]:
    """`words` distinct coded words in random order, the first replaced by dots."""

    def word() -> str:
        return "".join(draws.rng.choices(string.ascii_lowercase, k=WORD_LETTERS))

    found = [word() for _ in range(words)]
    while len(set(found)) < words:
        found.append(word())
    found = sorted(set(found))
    draws.shuffle(found)
    return ["...", *found[1:]]


def coded_text(vocab: list[str], draws: Draws, size: int) -> Draft:
    """A question over about `size` words, N of the zeta law."""
    import numpy as np

    counts = (size * (np.arange(1, len(vocab) + 1) ** -ALPHA) / ZETA_ALPHA).astype(int).tolist()
    listed = [word for word, n in zip(vocab, counts, strict=True) for _ in range(n)]
    draws.shuffle(listed)
    meta = {"size": len(listed), "unit": "words", "vocabulary": len(vocab)}
    return Draft(TEMPLATE.format(context=" ".join(listed)), PREFIX, tuple(vocab[1:4]), meta)


def draft(words: int, draws: Draws, size: int, index: int = 0) -> Draft:
    return coded_text(vocabulary(draws, words), draws, size)
