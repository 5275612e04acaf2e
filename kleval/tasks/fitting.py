"""Prompts filled with pieces of material up to a number of tokens, and generation budgets.

`fill` counts every piece and suits short ones; `fill_by_characters` counts the whole a few times and suits long conversations and
texts. Which of the two a family uses is part of its builtin samples: they choose differently near the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from kleval.types import Prompt, Tokenizer

_CLOSE = 0.005
_ROUNDS = 4
_CHARACTER_ROUNDS = 8
_CHARACTER_CLOSE = 0.006
_AIM = 0.997  # of a long context: one count too many costs more than a few tokens left over
_LONG_TOKENS = 32_768
_FIRST_PART = 12


def budget_for(reference_tokens: int) -> int:
    """Generation budget for a longest reference of that many tokens."""
    return math.ceil(reference_tokens * 1.5) + 16


def longest(count: Callable[[int], int], tokens: int, too_long: int) -> int:
    """The greatest length below too_long of which at most that many tokens are counted, found by halving; 0 where there is none."""
    good = 0
    while too_long - good > 1:
        middle = (good + too_long) // 2
        good, too_long = (middle, too_long) if count(middle) <= tokens else (good, middle)
    return good


@dataclass(frozen=True, slots=True)
class Filled:
    """tokens: of the rendered prompt. n_pieces: how many pieces are in it."""

    prompt: Prompt
    tokens: int
    n_pieces: int


# build, pieces, tokenizer, room -> the prompt, or what it takes without any piece.
Fill = Callable[[Callable[[Sequence[str]], Prompt], Iterator[str], Tokenizer, int], Filled | int]


def fill(
    build: Callable[[Sequence[str]], Prompt], pieces: Iterator[str], tokenizer: Tokenizer, room: int
) -> Filled | int:
    """The prompt of as many pieces as `room` tokens hold, or how many tokens it takes without any.

    build: pieces -> prompt; pieces: without end, or until there are no more. They are counted one by one as they are made, and the
    whole a few times at the end: what pieces add up to is close to what the whole takes, not equal.
    """

    def measured(taken: Sequence[str]) -> Filled:
        prompt = build(taken)
        return Filled(prompt, tokenizer.count(tokenizer.render(prompt)), len(taken))

    best = measured(())
    if best.tokens > room:
        return best.tokens
    bare = best.tokens
    taken: list[str] = []
    counts: list[int] = []
    estimate, target = 0, room - bare
    for _ in range(_ROUNDS):
        before = len(taken)
        for piece in pieces:
            taken.append(piece)
            counts.append(max(1, tokenizer.count(piece)))
            estimate += counts[-1]
            if estimate >= target:
                break
        if len(taken) == before:
            break
        whole = measured(taken)
        while whole.tokens > room:
            excess = whole.tokens - room
            while excess > 0 and counts:
                taken.pop()
                last = counts.pop()
                estimate -= last
                excess -= last
            whole = measured(taken)
        best = whole
        left = room - whole.tokens
        if left <= max(_CLOSE * room, max(counts, default=0)):
            break
        target = estimate + left
    return best


def fill_by_characters(
    build: Callable[[Sequence[str]], Prompt], pieces: Iterator[str], tokenizer: Tokenizer, room: int
) -> Filled | int:
    """The prompt of as many pieces as `room` tokens hold, or how many tokens it takes without any.

    build: pieces -> prompt. pieces: without end, or until there are no more; none of them empty. The whole is counted as seldom
    as can be, since counting is what a million tokens cost most: how many tokens a character takes is learned from a small part,
    then the whole is filled by it and counted; what is missing or too much is put right by the same rule.
    """

    def measured(n: int) -> Filled:
        prompt = build(pool[:n])
        return Filled(prompt, tokenizer.count(tokenizer.render(prompt)), n)

    pool: list[str] = []
    best = now = measured(0)
    if best.tokens > room:
        return best.tokens
    n, goal = 0, room
    bare = best.tokens
    per_char = bare / max(1, len(tokenizer.render(best.prompt)))
    if room > _LONG_TOKENS:
        goal = bare + (room - bare) // _FIRST_PART
    for _ in range(_CHARACTER_ROUNDS):
        before = n
        n = _taken(pool, pieces, n, (goal - now.tokens) / per_char)
        if n == before:
            break
        now = measured(n)
        if bare < now.tokens <= room and now.tokens > best.tokens:
            best = now
        if 0 <= room - now.tokens <= _CHARACTER_CLOSE * room:
            break
        # Of a piece's own characters, so that what stands between pieces counts with them.
        per_char = max(now.tokens - bare, 1) / sum(map(len, pool[:n])) if n else per_char
        goal = int(_AIM * room) if room > _LONG_TOKENS else room
        if now.tokens > room:
            goal = min(goal, room - 1)
    return best


def _taken(pool: list[str], pieces: Iterator[str], n: int, chars: float) -> int:
    """How many pieces there are when `chars` characters more are taken than n hold (fewer, when it is negative)."""
    if chars < 0:
        while n and chars < 0:
            n -= 1
            chars += len(pool[n])
        return n
    while True:
        if n == len(pool):
            pool.extend(islice(pieces, 1))
        if n == len(pool) or len(pool[n]) > chars:
            return n
        chars -= len(pool[n])
        n += 1
