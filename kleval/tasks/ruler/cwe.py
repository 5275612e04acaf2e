"""Common words extraction: the ten most frequent words of a numbered list, after one solved demonstration.

Source: NVIDIA/RULER @ c3f5e3b, scripts/data/synthetic/common_words_extraction.py. Lists of up to 8,166 distinct words
come from wonderwords, longer ones entirely from a second vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from kleval.tasks.draws import Draws
from kleval.tasks.ruler.spec import TEXTS, Draft
from kleval.tasks.ruler.words import all_words

TEMPLATE, PREFIX = TEXTS["cwe"]
COMMON = 10
STEP = 10


class Repeats(NamedTuple):
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

    def _list(self, draws: Draws, size: int, common: int, other: int) -> tuple[str, list[str]]:
        words = _shuffled_words(self.order_seed)
        chosen = draws.rng.sample(words if size <= len(words) else self.more()[1], size)
        listed = chosen[:COMMON] * common + chosen[COMMON:] * other
        draws.shuffle(listed)
        return TEMPLATE.format(context=numbered(listed)), chosen[:COMMON]

    def parts(self, draws: Draws, size: int) -> tuple[str, list[str], str, list[str]]:
        """Question and answers of the demonstration, and then those that are asked for."""
        r = self.repeats
        shown = self._list(draws, r.demo_words, r.demo_common, r.demo_other)
        return *shown, *self._list(draws, size, r.common, r.other)

    def draft(self, draws: Draws, size: int, index: int = 0) -> Draft:
        demo, shown, asked, answers = self.parts(draws, size)
        vocabulary = "wonderwords" if size <= len(all_words()) else self.more()[0]
        meta = {"size": size, "unit": "distinct words", "repeats": [*self.repeats[:2]], "vocabulary": vocabulary}
        return Draft(f"{demo}{PREFIX} {numbered(shown)}\n{asked}", PREFIX, tuple(answers), meta)
