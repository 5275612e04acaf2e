"""Haystacks: prose in which needles are hidden, by size.

`Essays` is the official haystack: Paul Graham's essays, cut after `size` words (repeated beyond the end), split into
sentences by nltk's punkt. A cut text has the same sentences as a longer one except near the cut, so only the tail is
split again; `Prose` is kleval's own: `size` sentences of generated prose from a random place on; `OwnText` the same of the user's
documents, over again from the first where there are no more.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right
from functools import cache
from itertools import accumulate, islice
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from kleval.tasks import datafile
from kleval.tasks.tables import is_unicode
from kleval.types import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_TAIL_CHARS = 2000
_TAIL_SENTENCES = 4
_PIECE_CHARS = 200_000


class SentenceSource(Protocol):
    """What a haystack of prose is made of."""

    unit: str

    def sentences(self, size: int) -> list[str]: ...


class Essays:
    """Essays by number of words. `split`: text -> spans of its sentences."""

    unit = "words"

    def __init__(self, text: str, split: Callable[[str], list[tuple[int, int]]]) -> None:
        self._words = re.sub(r"\s+", " ", text).split(" ")
        self._once = " ".join(self._words) + " "
        self._ends = array("q", accumulate(len(w) + 1 for w in self._words))
        self._split = split
        self._known: list[tuple[int, int]] = []
        self._known_chars = 0
        self._last: tuple[int, list[str]] = (-1, [])

    @property
    def n_words(self) -> int:
        return len(self._words)

    def text(self, size: int) -> str:
        """The first `size` words, over again from the first when there are no more."""
        rounds, rest = divmod(size, len(self._words))
        text = self._once * rounds + (self._once[: self._ends[rest - 1]] if rest else "")
        return text[:-1].strip()

    def sentences(self, size: int) -> list[str]:
        if self._last[0] == size:
            return list(self._last[1])
        text = self.text(size)
        spans = self._spans(text)
        if len(text) > self._known_chars:
            self._known, self._known_chars = spans, len(text)
        found = [text[a:b] for a, b in spans]
        self._last = (size, found)
        return list(found)

    def _spans(self, text: str) -> list[tuple[int, int]]:
        kept = bisect_right(self._known, min(len(text), self._known_chars) - _TAIL_CHARS, key=lambda span: span[1])
        start = kept - _TAIL_SENTENCES
        if start > 0:
            offset = self._known[start][0]
            tail = [(a + offset, b + offset) for a, b in self._split(text[offset:])]
            # Sentences split twice must agree, or the splitter looked further back than it is expected to.
            if tail[:_TAIL_SENTENCES] == self._known[start:kept]:
                return self._known[:start] + tail
        return self._split(text)


def punkt_splitter(folder: Path) -> Callable[[str], list[tuple[int, int]]]:
    """nltk's English punkt model, read from `folder` (…/tokenizers/punkt_tab/english); same as its sent_tokenize."""
    from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer

    def rows(name: str) -> list[list[str]]:
        with datafile.opened(datafile.packed_or_not(folder / name) or folder / name) as file:
            return [line.split("\t") for line in file.read().splitlines()]

    model = PunktParameters()
    model.collocations = {tuple(row) for row in rows("collocations.tab")}
    model.sent_starters = {row[0] for row in rows("sent_starters.txt")}
    model.abbrev_types = {row[0] for row in rows("abbrev_types.txt")}
    model.ortho_context.update((word, int(flags)) for word, flags in rows("ortho_context.tab"))
    splitter = PunktSentenceTokenizer()
    splitter._params = model
    return lambda text: in_pieces(lambda piece: list(splitter.span_tokenize(piece)), text)


def in_pieces(
    split: Callable[[str], list[tuple[int, int]]], text: str, piece_chars: int = _PIECE_CHARS
) -> list[tuple[int, int]]:
    """What `split` gives for the whole text, made piece by piece: nltk gives a text up after five seconds, and the essays of a million
    tokens take longer. A piece begins with sentences that the one before it has too; where they disagree, the text is split whole."""
    found: list[tuple[int, int]] = []
    start = 0
    while True:
        piece = [(a + start, b + start) for a, b in split(text[start : start + piece_chars])]
        if found and piece[:_TAIL_SENTENCES] != found[-_TAIL_SENTENCES:]:
            return split(text)
        found += piece[_TAIL_SENTENCES:] if found else piece
        end = start + piece_chars
        if end >= len(text):
            return found
        del found[bisect_right(found, end - _TAIL_CHARS, key=lambda span: span[1]) :]
        if len(found) < _TAIL_SENTENCES or found[-_TAIL_SENTENCES][0] <= start:
            return split(text)  # sentences as long as a piece
        start = found[-_TAIL_SENTENCES][0]


@cache
def read_essays(file: Path, punkt: Path) -> Essays:
    """The official haystack from PaulGrahamEssays.json ({"text": …})."""
    try:
        text = datafile.whole_json(file)["text"]
        if not isinstance(text, str) or not is_unicode(text) or not text.strip():
            raise ValueError("text must be a text")
    except (UsageError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(f'{file} does not have the shape of the official file, {{"text": …}} ({error!r})') from error
    return Essays(text, punkt_splitter(punkt))


@cache
def _generated() -> tuple[list[str], Iterator[str]]:
    """The sentences of one endless text as far as they were asked for, and those after them."""
    from kleval.tasks import prose

    return [], prose.sentences(seed="ruler", split="eval")


class Prose:
    """kleval's generated prose, from sentence `start` on."""

    unit = "sentences"

    def __init__(self, start: int = 0) -> None:
        self.start = start

    def sentences(self, size: int) -> list[str]:
        made, more = _generated()
        made.extend(islice(more, max(0, self.start + size - len(made))))
        found = made[self.start : self.start + size]
        if len(found) < size:
            raise RuntimeError("the generated prose ended")  # else a search for a size would never end
        return found


class OwnText:
    """Sentences of the user's documents (`--haystack`), from sentence `start` on, round and round."""

    unit = "sentences"

    def __init__(self, sentences: Sequence[str], start: int = 0) -> None:
        self._sentences, self.start = sentences, start % len(sentences)

    def sentences(self, size: int) -> list[str]:
        n = len(self._sentences)
        return [self._sentences[(self.start + i) % n] for i in range(size)]
