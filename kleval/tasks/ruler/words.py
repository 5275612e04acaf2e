"""The word lists of wonderwords 3.0.1, and the adjective-noun pairs that RULER's needles are keyed by.

The official script lists, deduplicates and sorts all 6,171,620 pairs. `Pairs` gives the same i-th pair without making
them: pairs that share an adjective are neighbours in the sorted list, except where one adjective plus hyphen begins
another ("left-" and "left-handed-"); such adjectives form one group that is listed when it is first needed.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import metadata, resources
from itertools import accumulate
from typing import overload

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


class Pairs(Sequence[str]):
    """Sorted distinct `adjective-noun` strings; indexing costs a bisection."""

    def __init__(self, adjectives: Sequence[str], nouns: Sequence[str]) -> None:
        self._nouns = sorted(set(nouns))
        self._groups: list[list[str]] = []
        for adjective in sorted(set(adjectives), key=lambda a: a + "-"):
            if self._groups and f"{adjective}-".startswith(f"{self._groups[-1][0]}-"):
                self._groups[-1].append(adjective)
            else:
                self._groups.append([adjective])
        self._listed: dict[int, list[str]] = {}
        self._ends = list(accumulate(self._group_size(g) for g in range(len(self._groups))))

    def _group_size(self, group: int) -> int:
        return len(self._nouns) if len(self._groups[group]) == 1 else len(self._list(group))

    def _list(self, group: int) -> list[str]:
        if group not in self._listed:
            self._listed[group] = sorted({f"{a}-{n}" for a in self._groups[group] for n in self._nouns})
        return self._listed[group]

    def __len__(self) -> int:
        return self._ends[-1]

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(index)
        group = bisect_right(self._ends, index)
        within = index - (self._ends[group - 1] if group else 0)
        if len(self._groups[group]) > 1:
            return self._list(group)[within]
        return f"{self._groups[group][0]}-{self._nouns[within]}"


@cache
def pairs() -> Pairs:
    """The 6,171,620 keys of the official needles."""
    return Pairs(word_list("adjective"), word_list("noun"))
