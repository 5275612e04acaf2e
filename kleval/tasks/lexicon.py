"""The words that kleval's own prose is made of (`lexicon.toml`)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from kleval.tasks import packaged

Syllables = tuple[tuple[str, ...], ...]  # the choices for each part of a syllable
FILE = "lexicon.toml"
words = partial(packaged.words, FILE)

NAMES = words("names")
PEOPLE = words("people")
THINGS = words("things")
PLACES = words("places")
ADJECTIVES = words("adjectives")
ABSTRACTS = words("abstracts")
TIMES = words("times")
NUMBERS = words("numbers")
VERBS = words("verbs")
PARAMETERS = words("parameters")
PLURALS: Mapping[str, str] = packaged.load(FILE)["plurals"]  # of nouns that have no regular one
FORMS: Mapping[str, str | list[str]] = packaged.load(FILE)["forms"]


def syllables(of: str) -> Syllables:
    """What invented names are made of, in the order in which it follows: onsets, vowels and, where there are any, codas."""
    return tuple(words(of, part) for part in packaged.load(FILE)[of])
