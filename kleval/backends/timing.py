"""Prompts for timing that no cache has seen: random tokens, or random words where only text can be sent, each another one.

What seeds them holds a word of the session's own besides the user's seed: a server that keeps prefixes would know the prompts of an
earlier session again. The word is recorded, so the same prompts can be made again.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

LOWEST_ID, HIGHEST_ID = 256, 32768  # where vocabularies have ordinary tokens: special ones stand first or last
_CONSONANTS, _VOWELS = "bcdfghjklmnprstvwz", "aeiou"


def generator(*parts: object) -> random.Random:
    """Random numbers of their own for whatever the parts name."""
    return random.Random("/".join(map(str, parts)))


def random_tokens(pool: Sequence[int], n: int, rng: random.Random) -> list[int]:
    """n ids out of a pool of them."""
    return rng.choices(pool, k=n)


def ordinary_ids(size: int) -> range:
    """Ids of a vocabulary of that size that are unlikely to be special tokens."""
    return range(LOWEST_ID if size > 2 * LOWEST_ID else 0, min(size, HIGHEST_ID))


def random_words(n: int, rng: random.Random) -> str:
    """n made-up printable words of two to three syllables, a blank between."""
    return " ".join(_word(rng) for _ in range(n))


def _word(rng: random.Random) -> str:
    return "".join(rng.choice(_CONSONANTS) + rng.choice(_VOWELS) for _ in range(rng.choice((2, 2, 3))))
