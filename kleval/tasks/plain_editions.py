"""Editions of plain questions, each a prompt, its references and facts: rows of files, asked whole or not at all, and questions that
kleval makes, filled with pieces of text up to ctx. A family says how a row is read or a question is made; sizes and budgets are here.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from kleval.tasks.base import as_prompt
from kleval.tasks.data import Source
from kleval.tasks.fitting import Fill, budget_for, fill_by_characters
from kleval.tasks.sized import BuiltinData, OfficialData, Question, digest_of
from kleval.tokenization import count_given
from kleval.types import ContextTooSmall, Prompt, Tokenizer, Unfit

PROBES = 16
_FAR = 3  # times the room: what is farther beyond it is estimated
_CHARS = 16  # more characters than a token has
_LEAST_ROOM = 1024  # tokens of a text are estimated by: fewer say too little of the rest


@dataclass(frozen=True, slots=True)
class Asked:
    """A question before it is sized. build: pieces of filler -> prompt; a text becomes the user's message where there is a chat
    template. pieces: the filler, without end. meta: JSON values. told: number of pieces -> references and meta, where the answer
    depends on what there is; `references` are then as long as any."""

    build: Callable[[Sequence[str]], Prompt]
    references: tuple[str, ...]
    meta: Mapping[str, Any] = field(default_factory=dict)
    pieces: Iterator[str] = field(default_factory=lambda: iter(()))
    told: Callable[[int], tuple[tuple[str, ...], Mapping[str, Any]]] | None = None

    def prompt(self, tokenizer: Tokenizer, pieces: Sequence[str] = ()) -> Prompt:
        built = self.build(pieces)
        return as_prompt(tokenizer, built) if isinstance(built, str) else built


def as_it_is(prompt: Prompt) -> Callable[[Sequence[str]], Prompt]:
    """How a prompt is built that has no filler."""
    return lambda _: prompt


def contents(prompt: Prompt) -> tuple[str, ...]:
    return (prompt,) if isinstance(prompt, str) else tuple(message["content"] for message in prompt)


class Rows(OfficialData):
    """read: ctx -> the rows that are asked at that length, in the data's order, None for one that is left out. beside: tokens of a
    budget beside the right answer, 0 where it is the same for all."""

    def __init__(
        self, task_id: str, source: Source, read: Callable[[int], Iterable[Asked | None]], budget: int, beside: int = 0
    ) -> None:
        super().__init__(task_id, source.revision, source.sha256)
        self._read, self._budget, self._beside = read, budget, beside

    def questions(self, tokenizer: Tokenizer, ctx: int, seed: int) -> Iterator[Question | Unfit]:
        for index, asked in enumerate(self._read(ctx)):
            if asked is not None:
                yield self._question(index, asked, tokenizer, ctx)

    def _question(self, index: int, asked: Asked, tokenizer: Tokenizer, ctx: int) -> Question | Unfit:
        budget = max(self._budget, self._beside and _longest(tokenizer, asked) + self._beside)
        prompt, room = asked.prompt(tokenizer), ctx - budget
        text = "".join(contents(prompt))
        part = text[: _CHARS * max(_LEAST_ROOM, room)]
        # A document of a million tokens need not be counted to its end to see that it does not fit into 8k.
        if len(part) < len(text) and (counted := tokenizer.count(part)) > _FAR * max(0, room):
            return self._unfit(index, counted * len(text) // len(part), budget, ctx, "about ")
        tokens = count_given(tokenizer, prompt)
        if tokens > room:
            return self._unfit(index, tokens, budget, ctx)
        return Question(index, prompt, asked.references, tokens, budget, asked.meta)


class Filling(BuiltinData):
    """Questions that kleval makes one by one. parts: what they are made of, the version first."""

    def __init__(self, task_id: str, task_version: str, *parts: object) -> None:
        super().__init__(task_id, task_version, f"kleval {parts[0]}", digest_of(*parts))

    def _sized(
        self, index: int, asked: Asked, tokenizer: Tokenizer, ctx: int, budget: int, fill: Fill = fill_by_characters
    ) -> Question:
        """Filled with its pieces up to ctx. budget: at least. ContextTooSmall where it does not fit without any piece."""
        budget = max(budget, budget_for(_longest(tokenizer, asked)))
        filled = fill(partial(asked.prompt, tokenizer), asked.pieces, tokenizer, ctx - budget)
        if isinstance(filled, int):
            raise self._too_small(ctx, filled + budget)
        n = filled.n_pieces
        references, meta = asked.told(n) if asked.told else (asked.references, {**asked.meta, "pieces": n})
        return Question(index, filled.prompt, references, filled.tokens, budget, meta)


Make = Callable[[random.Random, int], Asked]


class Made(Filling):
    """make: a question out of random numbers of its own; the number is its index, -1 and below of those that only budgets are of."""

    def __init__(self, task_id: str, task_version: str, make: Make, *parts: object) -> None:
        super().__init__(task_id, task_version, *parts)
        self._make = make

    def _maker(self, tokenizer: Tokenizer, ctx: int, seed: int) -> Callable[[int], Question]:
        probes = [self._make(self._draws(ctx, seed, f"probe-{i}").rng, -i) for i in range(1, PROBES + 1)]
        budget = budget_for(max(_longest(tokenizer, probe) for probe in probes))

        def question(index: int) -> Question:
            return self._sized(index, self._make(self._draws(ctx, seed, index).rng, index), tokenizer, ctx, budget)

        return question


class MadeToSize(Filling):
    """make: a question out of random numbers of its own and a size. sizes: at a ctx, the wanted one first; the first is taken at which
    bare questions and their answers take at most that share of ctx, else the last."""

    def __init__(
        self,
        task_id: str,
        task_version: str,
        make: Make,
        *parts: object,
        sizes: Callable[[Tokenizer, int], Iterable[int]],
        n_probes: int,
        share: float,
        fill: Fill = fill_by_characters,
    ) -> None:
        super().__init__(task_id, task_version, *parts)
        self._make, self._sizes, self._n_probes, self._share, self._fill = make, sizes, n_probes, share, fill

    def _maker(self, tokenizer: Tokenizer, ctx: int, seed: int) -> Callable[[int], Question]:
        for size in self._sizes(tokenizer, ctx):
            probes = [self._make(self._draws(ctx, seed, f"probe-{i}").rng, size) for i in range(self._n_probes)]
            budget = budget_for(max(_longest(tokenizer, probe) for probe in probes))
            bare = max(tokenizer.count(tokenizer.render(probe.prompt(tokenizer))) for probe in probes)
            if bare + budget <= ctx * self._share:
                break

        def question(index: int) -> Question:
            asked = self._make(self._draws(ctx, seed, index).rng, size)
            return self._sized(index, asked, tokenizer, ctx, budget, self._fill)

        return question


def _longest(tokenizer: Tokenizer, asked: Asked) -> int:
    return max(tokenizer.count(reference) for reference in asked.references)


def spread(facts: Sequence[str], places: Sequence[float], pieces: Sequence[str]) -> Iterator[str]:
    """Facts among pieces, in order. places: where each stands, as a share of the pieces, rising."""
    at, taken = [int(place * (len(pieces) + 1)) for place in places], 0
    for fact, before in zip(facts, at, strict=True):
        yield from pieces[taken:before]
        yield fact
        taken = before
    yield from pieces[taken:]


def longest_within(lengths: Mapping[str, int], ctx: int, what: str) -> str:
    """The name of the longest length of at most ctx. ContextTooSmall saying what there is none of."""
    found = [name for name, tokens in lengths.items() if tokens <= ctx]
    if not found:
        name, least = min(lengths.items(), key=lambda one: one[1])
        raise ContextTooSmall(f"{what} below {name}", least)
    return max(found, key=lambda name: lengths[name])
