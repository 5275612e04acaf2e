"""RULER samples in the official order: one random state for the length search and all samples after it.

Source: NVIDIA/RULER @ c3f5e3b, `generate_samples` of the five scripts. The search for the size that fits draws whole
questions, so what sample 0 holds depends on tokenizer and length, and sample 7 needs samples 1 to 6. A sample that is
too long is drawn again, smaller by one step; where the official code would then draw for ever, `DoesNotFit` is raised
after ATTEMPTS draws at the smallest size.

FWE has no such search: its number of words grows until the text is too long, and shrinks sample by sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from kleval.tasks.draws import Draws
from kleval.tasks.ruler import fwe, vt
from kleval.tasks.ruler.cwe import CommonWords
from kleval.tasks.ruler.form import DoesNotFit, Fitted
from kleval.tasks.ruler.niah import Niah
from kleval.tasks.ruler.qa import DocumentQa
from kleval.tasks.ruler.spec import Draft
from kleval.types import UsageError

ATTEMPTS = 64

Measure = Callable[[Draft], int]  # tokens of rendered input + answer prefix


class Drafter(Protocol):
    def __call__(self, draws: Draws, size: int, index: int = 0) -> Draft: ...


def _drawn(draft: Drafter, draws: Draws, size: int) -> Draft:
    """A question of the search, where the official code does not try again."""
    try:
        return draft(draws, size)
    except (ValueError, IndexError) as error:
        raise UsageError(
            f"the official generator fails on the random draws of seed {draws.seed} at this length ({error}):"
            " use another --seed or --edition builtin"
        ) from error


def _search(
    draft: Drafter, tokens: Callable[[Draft], int], draws: Draws, limit: int, smallest: int, largest: int
) -> int:
    """The official binary search; every probe draws from `draws`."""
    low, high, best = smallest, largest, smallest
    while low <= high:
        middle = (low + high) // 2
        if tokens(_drawn(draft, draws, middle)) <= limit:
            best, low = middle, middle + 1
        else:
            high = middle - 1
    return best


def _settle(draft: Drafter, measure: Measure, draws: Draws, limit: int, size: int, step: int, index: int) -> Fitted:
    """One sample: drawn again, smaller by `step`, while it is too long or cannot be drawn at that size."""
    shortest: int | None = None
    left = ATTEMPTS
    while left:
        try:
            drawn = draft(draws, size, index)
        except (ValueError, IndexError):
            # Too few places for the needles, or an unlucky name: the official code takes it for "too long".
            pass
        else:
            tokens = measure(drawn)
            if tokens <= limit:
                return Fitted(drawn, tokens)
            shortest = tokens if shortest is None else min(shortest, tokens)
        if size > step:
            size -= step
        else:
            left -= 1
    raise DoesNotFit(shortest)


def _searched(
    draft: Drafter,
    search_draft: Drafter,
    measure: Measure,
    draws: Draws,
    limit: int,
    step: int,
    largest: int,
    extra: int,
) -> Iterator[Fitted]:
    size = _search(search_draft, lambda d: measure(d) + extra, draws, limit, step, largest)
    index = 0
    while True:
        yield _settle(draft, measure, draws, limit, size, step, index)
        index += 1


def _largest(tokens: int, size: int, ctx: int, step: int) -> int:
    """Three times as many units as the first draw promises room for."""
    return max(int((ctx / (tokens / size)) * 3), step * 2)


def searched_stream(
    generator: Niah | DocumentQa, measure: Measure, ctx: int, budget: int, seed: int
) -> Iterator[Fitted]:
    """niah and qa: endless samples (qa: until its questions end)."""
    draws, step = Draws(seed), generator.step(ctx)
    tokens = measure(_drawn(generator.draft, draws, step))
    largest = _largest(tokens, step, ctx, step)
    return _searched(generator.draft, generator.draft, measure, draws, ctx - budget, step, largest, 0)


def cwe_stream(generator: CommonWords, measure: Measure, ctx: int, budget: int, seed: int) -> Iterator[Fitted]:
    """cwe: the first draw has 4,096 words and the bound is twice what it promises."""
    draws, step = Draws(seed), generator.step(ctx)
    tokens = measure(_drawn(generator.draft, draws, 4096))
    largest = max(int(ctx // (tokens / 4096)) * 2, step * 2)
    return _searched(generator.draft, generator.draft, measure, draws, ctx - budget, step, largest, 0)


def vt_stream(measure: Measure, count: Callable[[str], int], ctx: int, budget: int, seed: int) -> Iterator[Fitted]:
    """vt: the demonstration is sized and drawn first, then the question; the search counts the two apart."""
    draws = Draws(seed)
    demo = _demonstration(draws, count)
    generator = vt.VariableTracking(vt.solved(demo))
    step = generator.step(ctx)
    tokens = measure(_drawn(generator.question, draws, step))
    largest = _largest(tokens, step, ctx, step)
    extra = count(generator.demo)
    return _searched(generator.draft, generator.question, measure, draws, ctx - budget, step, largest, extra)


def _demonstration(draws: Draws, count: Callable[[str], int]) -> Draft:
    def drafter(draws: Draws, size: int, index: int = 0) -> Draft:
        return vt.demonstration(draws, size)

    def tokens(d: Draft) -> int:
        return count(d.input + d.prefix)

    largest = _largest(tokens(_drawn(drafter, draws, vt.DEMO_STEP)), vt.DEMO_STEP, vt.DEMO_TOKENS, vt.DEMO_STEP)
    size = _search(drafter, tokens, draws, vt.DEMO_TOKENS, vt.DEMO_STEP, largest)
    try:
        return _settle(drafter, tokens, draws, vt.DEMO_TOKENS, size, vt.DEMO_STEP, 0).draft
    except DoesNotFit as error:
        raise UsageError(
            f"ruler/vt: the official demonstration may have {vt.DEMO_TOKENS} tokens, with this tokenizer its shortest"
            f" has {error.needed_tokens}; use --edition builtin"
        ) from error


def fwe_stream(measure: Measure, ctx: int, budget: int, seed: int) -> Iterator[Fitted]:
    """fwe: the vocabulary and the first number of words follow from the length without its budget."""
    limit = ctx - budget
    words, step = limit // fwe.TOKENS_PER_WORD, limit // 32
    if words < 4 or step < 1:
        raise DoesNotFit(None)
    draws = Draws(seed)
    _, size = _fwe_draft(measure, draws, limit, 0, words, step)
    while True:
        fitted, _ = _fwe_draft(measure, draws, limit, size, words, step)
        # The official code does not look: it can write a text that is too long or lacks a word that is asked for.
        if fitted.tokens > limit or not all(answer in fitted.draft.input for answer in fitted.draft.answers):
            raise DoesNotFit(None)
        yield fitted


def _fwe_draft(measure: Measure, draws: Draws, limit: int, size: int, words: int, step: int) -> tuple[Fitted, int]:
    vocab = fwe.vocabulary(draws, words)

    def at(n: int) -> Fitted:
        drawn = fwe.coded_text(vocab, n, draws)
        return Fitted(drawn, measure(drawn))

    if size > 0:
        found = at(size)
        while found.tokens > limit:
            if size <= 0:
                raise DoesNotFit(None)
            size -= step
            found = at(size)
        return found, size
    size = limit // fwe.WORD_LETTERS
    found = before = at(size)
    grown = False
    while found.tokens < limit:
        size += step
        before, found, grown = found, at(size), True
    size -= step
    return (before if grown else at(size)), size
