"""The words that kleval's own prose is made of (`lexicon.toml`)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from kleval.tasks import packaged

FILE = "lexicon.toml"
_words = partial(packaged.words, FILE)

NAMES = _words("names")
PEOPLE = _words("people")
THINGS = _words("things")
PLACES = _words("places")
ADJECTIVES = _words("adjectives")
ABSTRACTS = _words("abstracts")
TRANSITIVE = _words("transitive")
INTRANSITIVE = _words("intransitive")
SAID = _words("said")
ADVERBS = _words("adverbs")
PREPOSITIONS = _words("prepositions")
TIMES = _words("times")
NUMBERS = _words("numbers")
WEATHER = _words("weather")
TITLES = _words("titles")
VERBS = _words("verbs")
PARAMETERS = _words("parameters")
IRREGULAR_PLURALS: Mapping[str, str] = packaged.load(FILE)["plurals"]


def syllables(of: str) -> tuple[tuple[str, ...], ...]:
    """What invented names are made of, in the order in which it follows: onsets, vowels and, where there are any, codas."""
    return tuple(_words(of, part) for part in packaged.load(FILE)[of])
