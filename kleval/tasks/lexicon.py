"""The words that kleval's own prose is made of (`lexicon.toml`)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from kleval.tasks import packaged

FILE = "lexicon.toml"
words = partial(packaged.words, FILE)

NAMES = words("names")
PEOPLE = words("people")
THINGS = words("things")
PLACES = words("places")
ADJECTIVES = words("adjectives")
ABSTRACTS = words("abstracts")
TRANSITIVE = words("transitive")
INTRANSITIVE = words("intransitive")
ADVERBS = words("adverbs")
PREPOSITIONS = words("prepositions")
TIMES = words("times")
NUMBERS = words("numbers")
TITLES = words("titles")
VERBS = words("verbs")
PARAMETERS = words("parameters")
PATTERNS = words("patterns")
IRREGULAR_PLURALS: Mapping[str, str] = packaged.load(FILE)["plurals"]


def syllables(of: str) -> tuple[tuple[str, ...], ...]:
    """What invented names are made of, in the order in which it follows: onsets, vowels and, where there are any, codas."""
    return tuple(words(of, part) for part in packaged.load(FILE)[of])
