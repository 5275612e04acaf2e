"""The word lists of wonderwords 3.0.1, and the adjective-noun pairs that RULER's needles are keyed by.

The official script lists, deduplicates and sorts all 6,171,620 pairs. `Pairs` gives the same i-th pair without making
them: pairs that share an adjective are neighbours in the sorted list, except where one adjective plus hyphen begins
another ("left-" and "left-handed-"); adjectives with one beginning form a group that is listed.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import metadata, resources
from itertools import accumulate, groupby
from pathlib import Path

from kleval.tasks import datafile, tables
from kleval.types import UsageError

_VERSION = "3.0.1"


@cache
def word_list(name: str) -> tuple[str, ...]:
    """`noun`, `adjective` or `verb`: the lines of that list, in file order."""
    text = resources.files("wonderwords.assets").joinpath(f"{name}list.txt").read_text(encoding="utf-8")
    return tuple(line.rstrip() for line in text.splitlines())


@cache
def wonderwords() -> tuple[str, str]:
    """The installed version, and the sha256 over the three lists."""
    installed = metadata.version("wonderwords")
    note = "" if installed == _VERSION else " (unrecognised)"
    lists = "\0".join("\n".join(word_list(n)) for n in ("noun", "adjective", "verb"))
    return f"wonderwords-{installed}{note}", hashlib.sha256(lists.encode()).hexdigest()


def combined(parts: Mapping[str, str]) -> str:
    """sha256 over the digests of what a task's data are made of, by name."""
    lines = "".join(f"{name} {digest}\n" for name, digest in sorted(parts.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


@cache
def all_words() -> tuple[str, ...]:
    """Distinct nouns, adjectives and verbs, sorted: 8,166 words."""
    return tuple(sorted({w for n in ("noun", "adjective", "verb") for w in word_list(n)}))


@cache
def read_words(file: Path) -> list[str]:
    """The second vocabulary, english_words.json: {number: word}."""
    found = datafile.whole_json(file)
    if not isinstance(found, dict) or not found:
        raise UsageError(f"{file} does not have the shape of the official file, {{number: word}}")
    return [tables.text(str(file), found, number) for number in found]


class Pairs(Sequence[str]):
    """Sorted distinct `adjective-noun` strings; indexing, by one number, costs a bisection."""

    def __init__(self, adjectives: Sequence[str], nouns: Sequence[str]) -> None:
        def beginning(adjective: str) -> str:
            return adjective.partition("-")[0] + "-"

        self._nouns = sorted(set(nouns))
        groups = [list(group) for _, group in groupby(sorted(set(adjectives), key=beginning), key=beginning)]
        self._first = [group[0] for group in groups]
        self._listed = {
            at: sorted({f"{a}-{n}" for a in group for n in self._nouns})
            for at, group in enumerate(groups)
            if len(group) > 1
        }
        self._ends = list(accumulate(len(self._listed.get(at, self._nouns)) for at in range(len(groups))))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> str:  # type: ignore[override]
        index = range(len(self))[index]
        group = bisect_right(self._ends, index)
        within = index - (self._ends[group - 1] if group else 0)
        return self._listed[group][within] if group in self._listed else f"{self._first[group]}-{self._nouns[within]}"


@cache
def pairs() -> Pairs:
    """The 6,171,620 keys of the official needles."""
    return Pairs(word_list("adjective"), word_list("noun"))
