"""Material in pieces until a prompt is as long as it may be.

Pieces are counted one by one as they are made, and the whole a few times at the end: what pieces add up to is close to
what the whole takes, not equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from kleval.types import Prompt, Tokenizer

_CLOSE = 0.005
_ROUNDS = 4


@dataclass(frozen=True, slots=True)
class Filled:
    """tokens: of the rendered prompt. n_pieces: how many pieces are in it."""

    prompt: Prompt
    tokens: int
    n_pieces: int


def fill(
    build: Callable[[Sequence[str]], Prompt], pieces: Iterator[str], tokenizer: Tokenizer, room: int
) -> Filled | int:
    """The prompt of as many pieces as `room` tokens hold, or how many tokens it takes without any.

    build: pieces -> prompt; pieces: without end, or until there are no more.
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
