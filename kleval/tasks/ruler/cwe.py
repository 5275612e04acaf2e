"""Common words extraction: the ten most frequent words of a numbered list, after one solved demonstration.

Source: NVIDIA/RULER @ c3f5e3b, scripts/data/synthetic/common_words_extraction.py. Lists of up to 8,166 distinct words
come from wonderwords, longer ones entirely from a second vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from kleval.tasks.draws import Draws
from kleval.tasks.ruler.spec import TEXTS, Draft
from kleval.tasks.ruler.words import all_words

TEMPLATE, PREFIX = TEXTS["cwe"]
COMMON = 10


@dataclass(frozen=True, slots=True)
class Repeats:
    """How often common and other words appear, in the question and in its demonstration of `demo_words` words."""

    common: int
    other: int
    demo_words: int
    demo_common: int
    demo_other: int


SHORT = Repeats(6, 1, 20, 3, 1)
LONG = Repeats(30, 3, 40, 10, 3)


def numbered(words: Sequence[str]) -> str:
    return " ".join(f"{i}. {word}" for i, word in enumerate(words, 1))


@lru_cache(maxsize=4)
def _shuffled_words(seed: int) -> tuple[str, ...]:
    words = list(all_words())
    Draws(seed).shuffle(words)
    return tuple(words)


@dataclass(frozen=True, slots=True)
class CommonWords:
    """size: distinct words. order_seed: of the shuffle of the vocabulary. more: name and words of the second
    vocabulary, called where it is needed."""

    repeats: Repeats
    order_seed: int
    more: Callable[[], tuple[str, Sequence[str]]]

    def step(self, ctx: int) -> int:
        return 10

    def _list(self, draws: Draws, size: int, common: int, other: int) -> tuple[str, list[str]]:
        words = _shuffled_words(self.order_seed)
        chosen = draws.rng.sample(words if size <= len(words) else self.more()[1], size)
        listed = chosen[:COMMON] * common + chosen[COMMON:] * other
        draws.shuffle(listed)
        return numbered(listed), chosen[:COMMON]

    def draft(self, draws: Draws, size: int, index: int = 0) -> Draft:
        r = self.repeats
        demo, demo_answers = self._list(draws, r.demo_words, r.demo_common, r.demo_other)
        context, answers = self._list(draws, size, r.common, r.other)
        shown = f"{TEMPLATE.format(context=demo)}{PREFIX} {numbered(demo_answers)}"
        vocabulary = "wonderwords" if size <= len(all_words()) else self.more()[0]
        meta = {"size": size, "unit": "distinct words", "repeats": [r.common, r.other], "vocabulary": vocabulary}
        return Draft(f"{shown}\n{TEMPLATE.format(context=context)}", PREFIX, tuple(answers), meta)
