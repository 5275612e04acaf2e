"""Prose that kleval writes itself, for a machine without essays: deterministic, varied, endless.

A sentence is a form of `lexicon` whose slots are filled; a paragraph keeps a person, a place and a thing that come back in its
sentences. Every draw is one step of splitmix64 (Steele et al. 2014) seeded by sha256, so that the text is the same on every Python
version and platform. There are no digits, no hyphens and no quotation marks: nothing that could be mistaken for a needle.

Splits: a sentence belongs to `train` when the first byte of its sha256 is odd, to `eval` when it is even, and the generator draws again
until it gets one of the split asked for. So no sentence is ever in both, whatever the seeds.

Splitter (`split_sentences`): a sentence ends at `.`, `!` or `?`, closing quotes and brackets included, where white space and then an
upper-case letter, a digit or an opening quote follow, or the text ends; not after an abbreviation (Mr. Mrs. Ms. Dr. Prof. St.) nor
after a single capital letter. It splits the prose made here exactly; it is not punkt.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from typing import Literal, TypeVar

from kleval.tasks import lexicon as lx

SENTENCES_VERSION = "prose-1"
Split = Literal["eval", "train"]
T = TypeVar("T")

_MADE = ("thing", "a_thing", "place", "did")
_MASK = (1 << 64) - 1
_END = re.compile(r"""[.!?]+["')\]]*(?=\s+["'(\[]?[A-Z0-9]|\s*$)""")
_ABBREVIATION = re.compile(r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|St)|(?<![A-Za-z])[A-Z])\.$")


class Draws:
    """A stream of choices from splitmix64, the same everywhere."""

    def __init__(self, *seed: object) -> None:
        digest = hashlib.sha256("\0".join(map(str, seed)).encode()).digest()
        self._state = int.from_bytes(digest[:8], "big")

    def below(self, n: int) -> int:
        """A number in [0, n); the bias of the reduction is below n / 2^64."""
        self._state = (self._state + 0x9E3779B97F4A7C15) & _MASK
        z = self._state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        return ((z ^ (z >> 31)) * n) >> 64

    def pick(self, items: Sequence[T]) -> T:
        return items[self.below(len(items))]

    def chance(self, percent: int) -> bool:
        return self.below(100) < percent


def belongs_to(sentence: str) -> Split:
    """The split of a sentence, by its text alone."""
    return "train" if hashlib.sha256(sentence.encode()).digest()[0] & 1 else "eval"


class _Writer:
    """Fills forms; a paragraph's own are a name, a role, a home and an object."""

    def __init__(self, draws: Draws) -> None:
        self.draws, self._own = draws, dict[str, str]()
        self.new_paragraph()

    def new_paragraph(self) -> None:
        kinds = {"name": "names", "role": "people", "home": "places", "object": "things"}
        self._own = {own: self.draws.pick(lx.words(words)) for own, words in kinds.items()}

    def sentence(self, split: Split) -> str:
        while True:
            text = self["sentence"]
            text = text[0].upper() + text[1:]
            if belongs_to(text) == split:
                return text

    def thing(self) -> str:
        noun = self["object" if self.draws.chance(40) else "things"]
        kind = self.draws.below(8)
        if kind < 3:
            return f"the {self['adjectives']} {noun}"
        if kind < 5:
            return f"the {noun}"
        if kind < 7:
            return indefinite(f"{self['adjectives']} {noun}")
        return f"{self['numbers']} {self['adjectives']} {_plural(noun)}"

    def a_thing(self) -> str:
        return indefinite(f"{self['adjectives']} {self['things']}")

    def place(self) -> str:
        noun = self["home" if self.draws.chance(40) else "places"]
        return f"the {self['adjectives']} {noun}" if self.draws.chance(45) else f"the {noun}"

    def did(self) -> str:
        adverb = f"{self['adverbs']} " if self.draws.chance(30) else ""
        if self.draws.chance(65):
            return f"{adverb}{self['transitive']} {self.thing()}"
        return f"{self['intransitive']} {self['where']}"

    def __getitem__(self, name: str) -> str:
        """What a form says: a paragraph's own, something that is made here, another form, or a word of that list."""
        if name in self._own:
            return self._own[name]
        if name in _MADE:
            made: str = getattr(self, name)()
            return made
        if name in lx.FORMS:
            form = lx.FORMS[name]
            return (form if isinstance(form, str) else self.draws.pick(form)).format_map(self)
        number, _, words = name.rpartition(" ")
        word = self.draws.pick(lx.words(words))
        return _plural(word) if number else word


def indefinite(phrase: str) -> str:
    """The phrase after `a` or `an`."""
    return f"{'an' if phrase[0] in 'aeiou' or phrase.startswith('honest') else 'a'} {phrase}"


def _plural(noun: str) -> str:
    if noun in lx.PLURALS:
        return lx.PLURALS[noun]
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")


def _paragraphs(seed: int | str, split: Split) -> Iterator[list[str]]:
    writer = _Writer(Draws(SENTENCES_VERSION, split, seed))
    while True:
        writer.new_paragraph()
        yield [writer.sentence(split) for _ in range(3 + writer.draws.below(6))]


def sentences(seed: int | str, split: Split = "eval") -> Iterator[str]:
    """Endless sentences, paragraph by paragraph. The same seed and split give the same ones for ever."""
    for paragraph in _paragraphs(seed, split):
        yield from paragraph


def essay(n_words: int, seed: int | str = 0, split: Split = "eval") -> str:
    """At least n_words blank-separated words; a longer essay begins with a shorter one. Paragraphs are separated by a blank line."""
    written: list[str] = []
    words = 0
    for paragraph in _paragraphs(seed, split):
        if words >= n_words:
            break
        written.append(" ".join(paragraph))
        words += written[-1].count(" ") + 1
    return "\n\n".join(written)


def split_sentences(text: str) -> list[str]:
    """The sentences of a text, without the white space between them; rules in the module's docstring."""
    found: list[str] = []
    begin = 0
    for match in _END.finditer(text):
        if match.end() < len(text.rstrip()) and _ABBREVIATION.search(text, begin, match.end()):
            continue
        found.append(text[begin : match.end()].strip())
        begin = match.end()
    if rest := text[begin:].strip():
        found.append(rest)
    return found
