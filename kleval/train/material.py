"""Material of training samples, by construction disjoint from the material of any evaluation sample.

| part | training | evaluation (official and builtin) |
| --- | --- | --- |
| sentences | the prose generator's `train` split | its `eval` split, published essays, RULER's fixed noise unit |
| numbers | 6, 8 or 9 digits | 7 digits (needles), 5 digits (variable values), at most 4 (articles) |
| UUIDs | version nibble other than 4 | version 4 |
| keys and list words | strings of random vocabulary pieces, none of them in the word lists | wonderwords' nouns, adjectives, verbs |
| variable names | 4 or 6 letters | 5 letters; 3 in RULER's demonstration |
| coded words | 5 or 7 letters | 6 letters |
| articles, their names and answers | the article generator's `train` split | its `eval` split, SQuAD, HotpotQA |

The instructions of the tasks (RULER's templates) are the one thing that both share: a model of a million parameters that has
never seen them cannot know what is asked. `is_training_*` say to which side a string belongs; the tests hold both sides to them.
"""

from __future__ import annotations

import random
import re
import string
from functools import cache

from kleval.tasks.ruler.words import all_words

NUMBER_DIGITS = (6, 8, 9)
VARIABLE_LETTERS = (4, 6)
CODED_LETTERS = (5, 7)
UUID_VERSIONS = "12356789"

_WORD_PIECE = re.compile(r"[a-z]{2,}")


def is_training_number(text: str) -> bool:
    return text.isdigit() and len(text) in NUMBER_DIGITS


def is_training_uuid(text: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-[12356789][0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", text) is not None


def is_training_variable(text: str) -> bool:
    return re.fullmatch(r"[A-Z]+", text) is not None and len(text) in VARIABLE_LETTERS


def is_training_coded_word(text: str) -> bool:
    return re.fullmatch(r"[a-z]+", text) is not None and len(text) in CODED_LETTERS


@cache
def listed_words() -> frozenset[str]:
    """Every word that an evaluation may use as a key or in a list: wonderwords' nouns, adjectives and verbs."""
    return frozenset(all_words())


def number(rng: random.Random) -> str:
    digits = rng.choice(NUMBER_DIGITS)
    return str(rng.randrange(10 ** (digits - 1), 10**digits))


def assigned(rng: random.Random) -> str:
    """A variable's value."""
    return str(rng.randrange(100_000, 1_000_000))


def uuid(rng: random.Random) -> str:
    h = "".join(rng.choice("0123456789abcdef") for _ in range(32))
    return f"{h[:8]}-{h[8:12]}-{rng.choice(UUID_VERSIONS)}{h[13:16]}-{h[16:20]}-{h[20:]}"


def variable(rng: random.Random) -> str:
    return "".join(rng.choices(string.ascii_uppercase, k=rng.choice(VARIABLE_LETTERS)))


def coded_word(rng: random.Random) -> str:
    return "".join(rng.choices(string.ascii_lowercase, k=rng.choice(CODED_LETTERS)))


class WordMaker:
    """Words no list holds, out of the tokenizer's own pieces, so that every piece is met in training.

    pieces: the vocabulary's strings; those of two or more lower-case letters are used.
    """

    def __init__(self, pieces: list[str]) -> None:
        self.pieces = sorted(p for p in (piece.strip() for piece in pieces) if _WORD_PIECE.fullmatch(p))
        self.letters = string.ascii_lowercase

    def word(self, rng: random.Random) -> str:
        """One lower-case word of one to three pieces, now and then with single letters between them."""
        while True:
            parts = rng.choices(self.pieces, k=rng.choice((1, 2, 2, 3)))
            if rng.random() < 0.3:
                parts.insert(rng.randrange(len(parts) + 1), rng.choice(self.letters))
            word = "".join(parts)
            if word not in listed_words():
                return word

    def key(self, rng: random.Random) -> str:
        """A key in the shape of RULER's `adjective-noun`."""
        return f"{self.word(rng)}-{self.word(rng)}"
