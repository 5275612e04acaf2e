"""Haystacks: prose in which needles are hidden, by size.

`Essays` is the official haystack: Paul Graham's essays, cut after `size` words (repeated beyond the end), split into
sentences by nltk's punkt. `prose` is kleval's own: `size` sentences of generated prose from a random place on; `over_again` the
same of the user's documents, which begin anew where they end.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from functools import cache, lru_cache
from itertools import islice
from typing import TYPE_CHECKING

from kleval.tasks import datafile, tables
from kleval.tasks.prose import sentences
from kleval.types import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    Split = Callable[[str], list[tuple[int, int]]]  # text -> spans of its sentences

_TAIL_CHARS = 2000
_TAIL_SENTENCES = 4
_PIECE_CHARS = 20_000
_PIECES_KEPT = 2048


class Essays:
    """Essays by number of words."""

    def __init__(self, text: str, split: Split) -> None:
        self._words, self._split = re.sub(r"\s+", " ", text).split(" "), split
        self._last: tuple[int, list[str]] = (-1, [])  # all samples of a length mostly have one size

    @property
    def n_words(self) -> int:
        return len(self._words)

    def text(self, size: int) -> str:
        """The first `size` words, over again from the first when there are no more."""
        rounds, rest = divmod(size, len(self._words))
        return " ".join(self._words * rounds + self._words[:rest]).strip()

    def sentences(self, size: int) -> list[str]:
        if self._last[0] != size:
            text = self.text(size)
            self._last = (size, [text[a:b] for a, b in self._split(text)])
        return list(self._last[1])


def punkt_splitter(folder: Path) -> Split:
    """nltk's English punkt model, read from `folder` (…/tokenizers/punkt_tab/english); same as its sent_tokenize. A cut text has
    the pieces of a longer one but for the last, so that pieces are kept."""
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
    split = lru_cache(_PIECES_KEPT)(lambda piece: list(splitter.span_tokenize(piece)))
    return lambda text: in_pieces(split, text)


def in_pieces(split: Split, text: str, piece_chars: int = _PIECE_CHARS) -> list[tuple[int, int]]:
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
    text = tables.text(str(file), datafile.whole_json(file), "text")
    if not text.strip():
        raise UsageError(f"{file} holds no text")
    return Essays(text, punkt_splitter(punkt))


@cache
def _generated() -> tuple[list[str], Iterator[str]]:
    """The sentences of one endless text as far as they were asked for, and those after them."""
    return [], sentences(seed="ruler", split="eval")


def prose(start: int, size: int) -> list[str]:
    """kleval's generated prose, from sentence `start` on."""
    made, more = _generated()
    made.extend(islice(more, max(0, start + size - len(made))))
    return made[start : start + size]


def over_again(lines: Sequence[str], start: int, size: int) -> list[str]:
    """Sentences of the user's documents (`--haystack`), from number `start` on, round and round."""
    return [lines[(start + i) % len(lines)] for i in range(size)]
