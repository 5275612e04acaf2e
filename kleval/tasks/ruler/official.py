"""RULER samples in the official order: one random state for the length search and all samples after it.

Source: NVIDIA/RULER @ c3f5e3b, `generate_samples` of the five scripts. The search for the size that fits draws whole
questions, so what sample 0 holds depends on tokenizer and length, and sample 7 needs samples 1 to 6. A sample that is
too long is drawn again, smaller by one step; where the official code would then draw for ever, `DoesNotFit` is raised
after ATTEMPTS draws at the smallest size.

FWE has no such search: its number of words grows until the text is too long, and shrinks sample by sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import count, repeat

from kleval.tasks.draws import Draws
from kleval.tasks.ruler import fwe, vt
from kleval.tasks.ruler.form import DoesNotFit, Drafter, Fitted, Measure
from kleval.tasks.ruler.spec import Draft
from kleval.types import UsageError

ATTEMPTS = 64


def settle(draft: Callable[[int], Draft], measure: Measure, limit: int, sizes: Iterable[int]) -> Fitted:
    """The first question of those sizes that can be drawn and takes no more than `limit` tokens."""
    shortest: int | None = None
    for size in sizes:
        try:
            drawn = draft(size)
        except (ValueError, IndexError):
            # Too few places for the needles, or an unlucky name: the official code takes it for "too long".
            continue
        tokens = measure(drawn)
        if tokens <= limit:
            return Fitted(drawn, tokens)
        shortest = min(tokens, shortest or tokens)
    raise DoesNotFit(shortest)


def falling(size: int, step: int) -> Iterator[int]:
    """Sizes at which a sample is drawn until it fits: smaller by `step`, and the last one ATTEMPTS times."""
    while size > step:
        yield size
        size -= step
    yield from repeat(size, ATTEMPTS)


def stream(
    draft: Drafter,
    measure: Measure,
    draws: Draws,
    ctx: int,
    limit: int,
    step: int,
    *,
    searched: Drafter | None = None,
    beside: int = 0,
    first: int = 0,
    most: Callable[[float], int] = lambda room: int(room * 3),
) -> Iterator[Fitted]:
    """Endless samples of at most `limit` tokens, of the size that the official binary search finds; every probe of it draws from
    `draws`.

    searched: what is drawn then, where it is not what is asked; it is taken to be longer by `beside` tokens. first: units of the first
    draw, else step. most: from how many units it promises room for, to the largest size that is tried.
    """
    first = first or step

    def probed(size: int) -> int:
        try:
            return measure((searched or draft)(draws, size, 0))
        except (ValueError, IndexError) as error:
            raise UsageError(
                f"the official generator fails on the random draws of seed {draws.seed} at this length ({error}):"
                " use another --seed or --edition builtin"
            ) from error

    low, best, high = step, step, max(most(ctx / (probed(first) / first)), step * 2)
    while low <= high:
        middle = (low + high) // 2
        if probed(middle) + beside <= limit:
            best, low = middle, middle + 1
        else:
            high = middle - 1
    for index in count():

        def at(size: int, index: int = index) -> Draft:
            return draft(draws, size, index)

        yield settle(at, measure, limit, falling(best, step))


def vt_stream(measure: Measure, count: Callable[[str], int], draws: Draws, ctx: int, limit: int) -> Iterator[Fitted]:
    """vt: the demonstration is sized and drawn first, then the question; the search counts the two apart."""
    most, step = vt.DEMO_TOKENS, 5 if ctx < 4096 else 10
    try:
        fitted = next(stream(vt.demonstration, lambda d: count(d.input + d.prefix), draws, most, most, vt.DEMO_STEP))
    except DoesNotFit as error:
        raise UsageError(
            f"ruler/vt: the official demonstration may have {most} tokens, with this tokenizer its shortest has"
            f" {error.needed_tokens}; use --edition builtin"
        ) from error
    demo = vt.solved(fitted.draft)
    draft = partial(vt.draft, demo)
    yield from stream(draft, measure, draws, ctx, limit, step, searched=vt.question, beside=count(demo))


def fwe_stream(measure: Measure, draws: Draws, limit: int) -> Iterator[Fitted]:
    """fwe: the vocabulary and the first number of words follow from the length."""
    words, step, size = limit // fwe.TOKENS_PER_WORD, limit // 32, limit // fwe.WORD_LETTERS
    if words < 4:
        raise DoesNotFit
    vocabulary = fwe.vocabulary(draws, words)
    while measure(fwe.coded_text(vocabulary, draws, size)) < limit:
        size += step
    while True:
        at = partial(fwe.coded_text, fwe.vocabulary(draws, words), draws)
        yield settle(at, measure, limit, range(size - step, 0, -step))
