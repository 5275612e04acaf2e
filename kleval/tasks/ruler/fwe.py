"""Frequent words extraction: the three most frequent coded words of a text whose word counts follow a zeta law.

Source: NVIDIA/RULER @ c3f5e3b, scripts/data/synthetic/freq_words_extraction.py. Word k of the vocabulary appears
floor(N k^-2 / zeta(2)) times; the most frequent one is replaced by dots and not asked for.
"""

from __future__ import annotations

import math
import string
from dataclasses import dataclass
from itertools import chain, repeat

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
    found[0] = "..."
    return found


def counts(size: int, words: int) -> list[int]:
    """How often each of `words` words appears in a text of about `size` words."""
    import numpy as np

    return (size * (np.arange(1, words + 1) ** -ALPHA) / ZETA_ALPHA).astype(int).tolist()


def coded_text(vocab: list[str], size: int, draws: Draws) -> Draft:
    """A question over about `size` words. Negative counts (the official search can ask for them) give no words."""
    listed = list(chain.from_iterable(repeat(w, c) for w, c in zip(vocab, counts(size, len(vocab)), strict=True)))
    draws.shuffle(listed)
    meta = {"size": len(listed), "unit": "words", "vocabulary": len(vocab)}
    return Draft(TEMPLATE.format(context=" ".join(listed)), PREFIX, tuple(vocab[1:4]), meta)


@dataclass(frozen=True, slots=True)
class FrequentWords:
    """size: N of the zeta law. words: of the vocabulary."""

    words: int

    def draft(self, draws: Draws, size: int, index: int = 0) -> Draft:
        return coded_text(vocabulary(draws, self.words), size, draws)
