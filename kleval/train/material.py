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
| invented names (documents, functions, libraries) | every syllable begins with one of `ONSETS` | none does |
| subjects of small texts | `the ADJECTIVE NOUN` | a noun alone, a published data set |
| random strings before an answer | 8 or 12 characters | 10 characters (12 of MRCR v2) |
| what is said to be labelled | the actions of `material.toml` | those of the tasks, published data sets |
| words of strange sentences, copies and functions | vocabulary pieces, singly or as made-up words | – |
| functions to be found | `VERB_ABSTRACT` or made-up names, invented code | Python's standard library, published repositories |
| commits | change functions about abstracts in modules called like people | about things, in places |

Both share what a model of a million parameters cannot know without having seen it: tokens and digits, the words of `lexicon.toml`
(in other sentences), the instructions and templates of the tasks (RULER's, MRCR's kinds of small texts, HELMET's, LongBench v2's
kinds of records, FRAMES' and RepoQA's, the frames of libraries, scripts and commits in Long Code Arena's shape), and label numbers.
`is_training_*` say to which side a string belongs; the tests hold both sides to them.
"""

from __future__ import annotations

import random
import re
import string
from collections.abc import Mapping
from functools import cache

from kleval import files
from kleval.tasks import lexicon as lx
from kleval.tasks.ruler.words import all_words

NUMBER_DIGITS = (6, 8, 9)
VARIABLE_LETTERS = (4, 6)
CODED_LETTERS = (5, 7)
UUID_VERSIONS = "12356789"

_SHORT_PIECE = 4
_WORD_PIECE = re.compile(r"[a-z]{2,}")

# Parts of invented names. No name of an evaluation has a syllable that begins like these.
ONSETS = ("c", "ch", "cl", "cr", "h", "j", "ph", "qu", "sh", "y")
_VOWELS = ("a", "e", "i", "o", "u")
_CODAS = ("b", "d", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "nd", "rk", "st", "lm")
OPEN_SYLLABLES = (ONSETS, (*_VOWELS, "ai", "ea", "oa"))
CLOSED_SYLLABLES = (ONSETS, _VOWELS, _CODAS)

TOPICS = tuple(
    f"the {adjective} {noun}" for adjective in lx.ADJECTIVES for noun in (*lx.THINGS, *lx.PLACES, *lx.PEOPLE)
)
PREFIX_CHARS = (8, 12)
ACTIONS: Mapping[str, tuple[str, ...]] = {
    k: tuple(v) for k, v in files.packaged("train/material.toml")["actions"].items()
}


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


def is_training_name(text: str) -> bool:
    """Of an invented name of documents, functions or libraries."""
    return text.lower().startswith(ONSETS)


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
        self.short = [p for p in self.pieces if len(p) <= _SHORT_PIECE]
        self.letters = string.ascii_lowercase

    def word(self, rng: random.Random) -> str:
        """One lower-case word of one to four pieces, most of them short, now and then with single letters between them."""
        while True:
            parts = [
                rng.choice(self.short if rng.random() < 0.85 else self.pieces)
                for _ in range(rng.choice((1, 2, 2, 3, 3, 4)))
            ]
            if rng.random() < 0.3:
                parts.insert(rng.randrange(len(parts) + 1), rng.choice(self.letters))
            word = "".join(parts)
            if word not in listed_words():
                return word

    def key(self, rng: random.Random) -> str:
        """A key in the shape of RULER's `adjective-noun`."""
        return f"{self.word(rng)}-{self.word(rng)}"
