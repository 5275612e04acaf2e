"""Placement of a needle in a book, and the character that it is about: facts of adobe-research/NoLiMa @ 7532e4e.

data/book_haystack.py: the needle stands behind the first line's end at or behind a share of the length, and the book's part begins so
many tokens before it. evaluation/async_evaluate.py: the character is drawn anew for every depth from one state per test and book.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kleval.tasks.draws import Draws
from kleval.types import TextTooShort, Tokenizer, UsageError

DEPTHS = 26
CHARACTER = "{CHAR}"


@dataclass(frozen=True, slots=True)
class Book:
    """ids: of all its tokens. ends: tokens that hold a line's end, and the first one."""

    name: str
    ids: tuple[int, ...]
    ends: tuple[int, ...]

    @classmethod
    def of(cls, name: str, text: str, tokenizer: Tokenizer) -> Book:
        """UsageError for a tokenizer that does not give texts back."""
        ids = tuple(tokenizer.encode(text))
        if tokenizer.decode(ids[:64]) not in text:
            raise UsageError(
                f"nolima cuts books at tokens, and {tokenizer.name} does not give texts back: use tiktoken:NAME or hf:PATH"
            )
        broken = {one: "\n" in tokenizer.decode([one]) for one in set(ids)}
        return cls(name, ids, (0, *(at for at, one in enumerate(ids) if broken[one])))

    def with_needle(self, needle: str, length: int, depth: float, tokenizer: Tokenizer) -> str:
        """The part of the book that is so many tokens long, with the needle at that share of it. TextTooShort where the book is."""
        at = next((end for end in self.ends if end / (length + 1) >= depth), None)
        start = None if at is None else at - round(length * depth)
        if at is None or start is None or start + length > len(self.ids):
            raise TextTooShort(
                f"{self.name} has {len(self.ids)} tokens, too few for a context of {length}", len(self.ids)
            )
        before = tokenizer.decode(self.ids[start : at + 1])
        behind = tokenizer.decode(self.ids[at + 1 : start + length])
        return f"{before[: max(before.rfind(chr(10)), 0)]} {needle}\n{behind}"


def characters(names: Sequence[str], seed: int) -> list[str]:
    """One for each depth."""
    state = Draws(seed).numbers
    return [str(state.choice(list(names))) for _ in range(DEPTHS)]


@dataclass(frozen=True, slots=True)
class Case:
    """number: what its random state is seeded by, beside the run's seed. needle, question: with CHARACTER in place of a name, where
    there is one. golds: the right answers where there is none."""

    name: str
    number: int
    kind: str
    needle: str
    question: str
    golds: tuple[str, ...]
    names: tuple[str, ...]
    template: str


def cases(where: str, groups: Any, template: str) -> list[Case]:
    """All that a needle set asks, questions that name the needle's own words (`direct`) left out, as the official table does."""
    try:
        return [made for group in groups for made in _cases(group, template)]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{where} is no needle set of NoLiMa: {type(error).__name__} {error}") from error


def _cases(group: dict[str, Any], template: str) -> list[Case]:
    found = []
    for kind, question in group["questions"].items():
        for name, test in group["tests"].items():
            needle, asked = group["needle"], question
            for n, value in enumerate(test["input_args"], 1):
                needle, asked = (text.replace(f"{{{n}}}", value) for text in (needle, asked))
            golds = test.get("gold_answers", "")
            golds = tuple(golds) if isinstance(golds, list) else (golds,)
            names = tuple(group.get("character_set", ()))
            if (CHARACTER in needle and not names) or (CHARACTER not in needle and not any(golds)):
                raise ValueError(f"{group['id']}_{name} has no answer")
            number, own = int(group["id"][:4]), group.get("task_template", template)
            if "direct" not in kind:
                found.append(Case(f"{group['id']}_{name}_{kind}", number, kind, needle, asked, golds, names, own))
    return found
